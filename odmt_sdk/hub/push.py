"""Putting an adapter folder into a repository on the Hugging Face Hub, as one commit."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from odmt_sdk.hub.adapter_folder import has_own_card
from odmt_sdk.hub.hub_errors import hub_errors
from odmt_sdk.hub.layout import CARD, CONFIG, parse_name

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi


def make_repository(repo_id: str, *, private: bool | None, token: str | bool | None) -> str:
    """Make a repository, if it is not there.

    Args:
        repo_id: such as "me/my-adapter", or "my-adapter" for the account's own.
        private: whether only the account sees it; None = as the account prefers.
        token: of the account; None = the one that is logged in.

    Returns:
        Its full name.

    Raises:
        AdapterError: if the Hub refuses.
    """
    from huggingface_hub import HfApi

    with hub_errors(f"cannot make the repository {repo_id!r}"):
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
    """Push the adapter in a folder, and nothing else of that folder.

    Files of an adapter that was there before are removed in the same commit. A model card that
    somebody wrote by hand stays.

    Args:
        folder: holds an adapter.
        repo_id: an existing repository.
        token: of the account; None = the one that is logged in.
        commit_message: first line of the commit, and title of a pull request.
        commit_description: what else to say.
        revision: branch, made if it is not there; None = the main branch.
        create_pr: open a pull request in place of committing.
        subfolder: where in the repository to put it; "" = at its top.

    Returns:
        The commit, with `commit_url`, and `pr_url` for a pull request.

    Raises:
        AdapterError: if the Hub refuses or cannot be reached.
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
    """Whether the model card there was written by hand."""
    with TemporaryDirectory() as cache:
        found = api.hf_hub_download(repo_id, path, revision=revision, cache_dir=cache)
        return has_own_card(Path(found).parent)
