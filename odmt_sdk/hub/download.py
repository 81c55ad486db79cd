"""Finding an adapter: one of the package, a folder, or a repository of the Hub, downloaded.

Of a repository only `config.json` and the files that it names are asked for, each by its own name.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.adapter_folder import read_config
from odmt_sdk.hub.hub_errors import hub_errors
from odmt_sdk.hub.layout import CONFIG
from odmt_sdk.hub.shipped import is_shipped, shipped_folder


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How to ask the Hub; the names are those of huggingface_hub.

    Args:
        revision: branch, tag or commit; None = the main branch.
        token: of an account; None = the one that is logged in, False = none.
        cache_dir: where downloads are kept; None = as usual.
        local_files_only: use what was downloaded before, without a connection.
        force_download: download again what was downloaded before.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def locate(name: str | Path, subfolder: str, options: HubOptions, *, item_embeddings: bool) -> Path:
    """The folder of an adapter, downloaded if it is not on this machine.

    Args:
        name: "shipped:..." for one that comes with the package, whatever folders there are; else a
            folder, which comes first if there is one, or a repository such as "me/adapter".
        subfolder: where in it the adapter lies; "" = at its top.
        options: for a repository.
        item_embeddings: whether the ready item embeddings are wanted.

    Returns:
        The folder.

    Raises:
        AdapterError: if there is neither, or downloading fails.
    """
    inside = PurePosixPath(subfolder)
    if inside.is_absolute() or ".." in inside.parts:
        raise AdapterError(f"subfolder={subfolder!r} must lead into the adapter's folder")
    shipped = is_shipped(name)
    path = shipped_folder(str(name)) if shipped else Path(name).expanduser()
    if path.is_dir():
        if options.revision is not None:
            where = "comes with the package" if shipped else "is a folder on this machine"
            raise AdapterError(
                f"{str(name)!r} {where}, which has no revision="
                f"{options.revision!r}: leave it out, or run where no folder has this name"
            )
        return path / inside
    if isinstance(name, Path) or not _may_be_repository(name):
        raise AdapterError(
            f"{str(name)!r} is no saved adapter: it has no {CONFIG}. An adapter is a folder "
            "written by model.save_pretrained, or a repository such as 'me/my-adapter'"
        )
    return _download(name, inside, options, item_embeddings)


def _may_be_repository(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _download(
    repo_id: str, inside: PurePosixPath, options: HubOptions, item_embeddings: bool
) -> Path:
    from huggingface_hub import hf_hub_download

    def get(name: str, revision: str | None) -> Path:
        return Path(
            hf_hub_download(
                repo_id,
                (inside / name).as_posix(),
                revision=revision,
                token=options.token,
                cache_dir=options.cache_dir,
                local_files_only=options.local_files_only,
                force_download=options.force_download,
            )
        )

    with hub_errors(f"cannot load {repo_id!r}, of which there is no folder here either"):
        config = get(CONFIG, options.revision)
    # All files of one commit: .../snapshots/<commit>/<subfolder>/config.json
    commit = config.parents[len(inside.parts)].name
    described = read_config(config.parent)
    for role in ("items", "model", *(["item_embeddings"] if item_embeddings else [])):
        for name in described.files[role]:
            with hub_errors(f"cannot load {repo_id!r}"):
                get(name, commit)
    return config.parent
