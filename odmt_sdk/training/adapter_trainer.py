"""A `transformers.Trainer` that saves and pushes adapters, with their model card."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress
from typing_extensions import override

from odmt_sdk.hub.push import push_folder
from odmt_sdk.processes import end_group_with_process
from odmt_sdk.saving.card_details import CardDetails

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

ON_THE_CARD = ("language", "license", "dataset")
# The Trainer finds the weights of a checkpoint only if they are in a single file.
UNSPLIT = "1000TB"


class SavesItself(Protocol):
    """A model that can save itself to a folder."""

    card: CardDetails

    def save_pretrained(
        self,
        path: str,
        *,
        max_shard_size: int | str,
        state_dict: Mapping[str, Any] | None,
        repo_id: str | None,
    ) -> object:
        """Save the model to the folder `path`."""


class AdapterTrainer(Trainer):
    """A `Trainer` whose checkpoints are adapters, and that pushes only adapters.

    The plain `Trainer` pushes a folder in several commits, including its pickled arguments.
    """

    hub_model_id: Any = None
    push_in_progress: Any  # a PushInProgress or None; the Trainer declares None alone

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._measured: dict[int, Mapping[str, float]] = {}  # step -> validation metrics
        super().__init__(*args, **kwargs)
        end_group_with_process()

    def record(self, split: str, metrics: Mapping[str, float]) -> None:
        """Record metrics for the model card.

        Args:
            split: "eval" for the validation set, else the name of a split.
            metrics: the metrics, as returned by `evaluate`.
        """
        name = "validation" if split == "eval" else split
        self._adapter.card.results[name] = dict(metrics)
        if name == "validation":
            self._measured[self.state.global_step] = metrics

    @property
    def _adapter(self) -> SavesItself:
        model: SavesItself = self.accelerator.unwrap_model(self.model)
        return model

    @override
    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Save the adapter; the Trainer adds optimizer, scheduler and its own state."""
        if self.args.should_save:
            self._adapter.save_pretrained(
                output_dir or str(self.args.output_dir),
                max_shard_size=UNSPLIT,
                state_dict=state_dict,
                repo_id=self.hub_model_id,
            )

    @override
    def _load_best_model(self) -> None:
        super()._load_best_model()
        measured = self._measured.get(self.state.best_global_step or 0)
        results = self._adapter.card.results
        results.pop("validation", None)  # measured with the latest weights
        if measured is not None:
            results["validation"] = dict(measured)

    @override
    # takes the arguments of the Trainer by name only
    def create_model_card(self, **about: Any) -> None:  # type: ignore[override]
        """Update the model card, which is saved with the adapter.

        Args:
            **about: `language`, `license` and `dataset`. Set further details on `model.card`.

        Raises:
            ValueError: if the card has no field for an argument.
        """
        about = {name: value for name, value in about.items() if value is not None}
        about.pop("model_name", None)
        for name in about:
            if name not in ON_THE_CARD:
                raise ValueError(
                    f"the model card has no place for {name}: it takes {', '.join(ON_THE_CARD)}, "
                    "and what model.card holds"
                )
        card = self._adapter.card
        before = copy.copy(card)
        for name, value in about.items():
            setattr(card, name, value)
        if card != before:
            self._save()

    @override
    # adds `private` and returns the commit
    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> "CommitInfo | None":
        """Save the adapter and push it as one commit; see `transformers.Trainer`.

        Args:
            commit_message: first line of the commit message.
            blocking: must be True.
            token: access token; None = `hub_token` of the training arguments, or the token of the
                account that is logged in.
            revision: branch to push to; None = `hub_revision` of the training arguments, or main.
            private: whether to make the repository private if it is created; None = the Hub's
                default.
            **kwargs: fields of the model card: `language`, `license` and `dataset`.

        Returns:
            The commit on the main process, None on the others.

        Raises:
            AdapterError: if the Hub rejects the push or cannot be reached.
            ValueError: if `blocking` is False, or the card has no field for an argument.
        """
        if not blocking:
            raise ValueError("blocking=False would push while training changes the adapter")
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        return push_folder(
            Path(str(self.args.output_dir)),
            str(self.hub_model_id),
            token=token,
            commit_message=commit_message or "End of training",
            revision=revision or self.args.hub_revision,
        )

    @override
    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the adapter of a checkpoint in the background; see `transformers.Trainer`."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress
        if running is not None and not running.is_done() and not self.args.hub_always_push:
            return
        from huggingface_hub import HfApi

        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        folders = {"": checkpoint_folder}
        if self.args.hub_strategy == HubStrategy.CHECKPOINT:
            folders["last-checkpoint"] = checkpoint_folder
        elif self.args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
            folders[Path(checkpoint_folder).name] = checkpoint_folder

        def push() -> None:
            for subfolder, folder in folders.items():
                push_folder(
                    Path(folder),
                    str(self.hub_model_id),
                    token=self.args.hub_token,
                    commit_message=message,
                    revision=self.args.hub_revision,
                    subfolder=subfolder,
                )

        jobs: Any = [
            HfApi().run_as_future(push)
        ]  # a list, whatever the hints of PushInProgress say
        if running is None or running.is_done():
            self.push_in_progress = PushInProgress(jobs)
        else:
            running.jobs.extend(jobs)
