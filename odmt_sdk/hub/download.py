"""Finds an adapter: in the package, in a folder, or in a repository on the Hub.

Only `config.json` and the files that it names are downloaded from a repository.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.hub_errors import hub_errors
from odmt_sdk.paths import user_path
from odmt_sdk.saving.folder import read_config
from odmt_sdk.saving.layout import CONFIG
from odmt_sdk.saving.shipped import is_shipped, shipped_folder


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Download options, with the names that huggingface_hub uses.

    Args:
        revision: branch, tag or commit; None = the main branch.
        token: access token; None = the token of the account that is logged in, False = none.
        cache_dir: folder for downloads; None = the default cache of huggingface_hub.
        local_files_only: whether to use only files that were downloaded before.
        force_download: whether to download files again that were downloaded before.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def locate(
    name: str | os.PathLike[str], subfolder: str, options: HubOptions, *, item_embeddings: bool
) -> Path:
    """Find the folder of an adapter, and download it if needed.

    Args:
        name: "shipped:..." for an adapter of the package, even if there is a folder of this name;
            else a folder; else, if there is no such folder, a repository such as "me/adapter".
        subfolder: path of the adapter in the folder or repository; "" = its top level.
        options: download options for a repository.
        item_embeddings: whether to download the saved item embeddings too.

    Returns:
        The folder.

    Raises:
        AdapterError: if there is no such adapter, or the download fails.
    """
    inside = PurePosixPath(subfolder)
    if inside.is_absolute() or ".." in inside.parts:
        raise AdapterError(f"subfolder={subfolder!r} must be a relative path without '..'")
    if not isinstance(name, str | os.PathLike) or not isinstance(os.fspath(name), str):
        raise AdapterError(
            f"path= must be a folder or the name of a repository, got a {type(name).__name__}"
        )
    shipped = is_shipped(name)
    try:
        path = shipped_folder(str(name)) if shipped else user_path(name)
        found = path.is_dir()
    except AdapterError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # unknown user, or invalid file name
        why = getattr(error, "strerror", None) or error
        raise AdapterError(f"{str(name)[:200]!r} is not a saved adapter: {why}") from error
    if found:
        if options.revision is not None:
            where = "comes with the package" if shipped else "is a folder on this machine"
            raise AdapterError(
                f"{str(name)!r} {where}, but revision={options.revision!r} is only for a "
                "repository: leave out revision=, or rename the folder"
            )
        _check_kind(path / inside)
        return path / inside
    if path.is_file():
        inside_one = path.parent if (path.parent / CONFIG).is_file() else None
        raise AdapterError(
            f"{str(name)!r} is a file; an adapter is a folder: pass "
            + (repr(str(inside_one)) if inside_one else "the folder of model.save_pretrained")
        )
    if not isinstance(name, str) or not _may_be_repository(name):
        raise AdapterError(
            f"{str(name)!r} is not a saved adapter: it has no {CONFIG}. An adapter is a folder "
            "written by model.save_pretrained, or a repository such as 'me/my-adapter'"
        )
    return _download(name, inside, options, item_embeddings)


def _check_kind(folder: Path) -> None:
    """Raise if a folder is not an adapter and its contents show what it is instead."""
    if not folder.is_dir() or os.path.lexists(folder / CONFIG):
        return
    is_none = f"{str(folder)!r} is not a saved adapter: it has no {CONFIG}"
    names = sorted(os.listdir(folder))
    if "features.json" in names:
        raise AdapterError(
            f"{is_none}. It contains item features: pass "
            f"item_features=ItemFeatures.open({str(folder)!r}) together with an adapter"
        )
    adapters = [name for name in names if (folder / name / CONFIG).is_file()]
    if adapters:
        raise AdapterError(
            f"{is_none}. Its subfolders {adapters[:5]} are adapters: pass "
            f"{str(folder / adapters[0])!r}, or subfolder={adapters[0]!r}"
        )
    if not names:
        raise AdapterError(f"{is_none}; it is empty. model.save_pretrained writes adapters")


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

    with hub_errors(f"cannot load {repo_id!r}, and there is no folder of this name"):
        config = get(CONFIG, options.revision)
    # All files of one commit: .../snapshots/<commit>/<subfolder>/config.json
    commit = config.parents[len(inside.parts)].name
    described = read_config(config.parent)
    for role in (
        "items",
        "model",
        "feature_moments",
        "item_to_item",
        *(["item_embeddings"] if item_embeddings else []),
    ):
        for name in described.files[role]:
            with hub_errors(f"cannot load {repo_id!r}"):
                get(name, commit)
    return config.parent
