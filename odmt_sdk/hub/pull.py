"""`pull_folder`: copies an adapter from the Hub to a folder."""

import shutil
from pathlib import Path

from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.download import HubOptions, locate
from odmt_sdk.paths import user_path
from odmt_sdk.saving.folder import read_config
from odmt_sdk.saving.layout import CONFIG


def pull_folder(
    repo_id: str | Path,
    folder: str | Path,
    *,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
) -> Path:
    """Copy an adapter into a folder. Only its own files are copied, and nothing is executed.

    Args:
        repo_id: a repository on the Hugging Face Hub, "shipped:..." or another folder.
        folder: the folder to create; if it exists, it must be empty.
        subfolder: path of the adapter in the repository.
        revision: branch, tag or commit of the repository.
        token: access token for a private repository; None = the token of the account that is
            logged in.
        cache_dir: folder for downloads; None = the default cache of huggingface_hub.
        force_download: whether to download files again that were downloaded before.

    Returns:
        The folder.

    Raises:
        AdapterError: if there is no adapter, `folder` is not empty, or copying fails.

    Examples:
        >>> pull_folder("me/my-adapter", "my-adapter")                          # doctest: +SKIP
    """
    target = user_path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AdapterError(f"{str(target)!r} exists and is not empty: name another folder")
    options = HubOptions(
        revision=revision, token=token, cache_dir=cache_dir, force_download=force_download
    )
    source = locate(repo_id, subfolder, options, item_embeddings=True)
    names = [name for role in read_config(source).files.values() for name in role]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in (*names, CONFIG):  # CONFIG is last: without it the folder is not an adapter
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise AdapterError(f"cannot copy the adapter to {str(target)!r}: {error}") from error
    return target
