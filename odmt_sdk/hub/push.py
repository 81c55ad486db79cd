"""Pushes an adapter folder to a repository on the Hugging Face Hub, as one commit."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from odmt_sdk.hub.hub_errors import hub_errors
from odmt_sdk.saving.folder import has_own_card
from odmt_sdk.saving.layout import CARD, CONFIG, parse_name

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi


def make_repository(repo_id: str, *, private: bool | None, token: str | bool | None) -> str:
    """Create a repository if it does not exist.

    Args:
        repo_id: name such as "me/my-adapter", or "my-adapter" for the account's namespace.
        private: whether a new repository is private; None = the default of the account.
        token: access token; None = the token of the account that is logged in.

    Returns:
        The full name of the repository.

    Raises:
        AdapterError: if the Hub rejects the request.
    """
    from huggingface_hub import HfApi

    with hub_errors(f"cannot create the repository {repo_id!r}"):
        return str(HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id)


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    commit_message: str = "Upload adapter",
    commit_description: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    subfolder: str = "",
) -> "CommitInfo":
    """Push the adapter in a folder; other files in the folder are not pushed.

    Files of the previous adapter in the repository are removed in the same commit. A model card
    that was written by hand is kept.

    Args:
        folder: a folder with an adapter.
        repo_id: an existing repository.
        token: access token; None = the token of the account that is logged in.
        commit_message: first line of the commit message, or title of the pull request.
        commit_description: rest of the commit message.
        revision: branch, which is created if it does not exist; None = the main branch.
        create_pr: whether to open a pull request instead of committing to the branch.
        subfolder: path of the adapter in the repository; "" = its top level.

    Returns:
        The commit, with `commit_url`, and `pr_url` for a pull request.

    Raises:
        AdapterError: if the Hub rejects the push or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    inside = PurePosixPath(subfolder)
    with hub_errors(f"cannot push to {repo_id!r}"):
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = set(api.list_repo_files(repo_id, revision=revision))
        names = [
            file.name
            for file in sorted(folder.iterdir())
            if file.name == CONFIG or (parse_name(file.name) and file.is_file())
        ]
        card = (inside / CARD).as_posix()
        if (folder / CARD).exists() and not (
            card in there and _is_own_text(api, repo_id, card, revision)
        ):
            names.append(CARD)
        added = {(inside / name).as_posix(): folder / name for name in names}
        stale = [
            path
            for path in there
            if PurePosixPath(path).parent == inside
            and parse_name(PurePosixPath(path).name)
            and path not in added
        ]
        return api.create_commit(
            repo_id,
            operations=[
                *(CommitOperationAdd(path, file) for path, file in added.items()),
                *(CommitOperationDelete(path) for path in sorted(stale)),
            ],
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )


def _is_own_text(api: "HfApi", repo_id: str, path: str, revision: str | None) -> bool:
    """Whether the model card in the repository was written by hand."""
    with TemporaryDirectory() as cache:
        found = api.hf_hub_download(repo_id, path, revision=revision, cache_dir=cache)
        return has_own_card(Path(found).parent)
