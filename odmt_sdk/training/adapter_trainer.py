"""What a `transformers.Trainer` has to do with adapters: checkpoints, model card, pushing."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress
from typing_extensions import override

from odmt_sdk.hub.card_details import CardDetails
from odmt_sdk.hub.push import push_folder
from odmt_sdk.processes import end_group_with_process

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

ON_THE_CARD = ("language", "license", "dataset")
# The Trainer finds the weights of a checkpoint only where they are one file.
UNSPLIT = "1000TB"


class SavesItself(Protocol):
    """A model that writes its own folder."""

    card: CardDetails

    def save_pretrained(
        self,
        path: str,
        *,
        max_shard_size: int | str,
        state_dict: Mapping[str, Any] | None,
        repo_id: str | None,
    ) -> object:
        """Write the folder `path`."""


class AdapterTrainer(Trainer):
    """A `Trainer` whose checkpoints are adapters, and which pushes nothing but those.

    The usual one pushes a folder in several commits, file by file as it knows them, with a pickled
    file of its arguments.
    """

    hub_model_id: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._measured: dict[int, Mapping[str, float]] = {}  # step -> on the validation targets
        super().__init__(*args, **kwargs)
        end_group_with_process()

    def record(self, split: str, metrics: Mapping[str, float]) -> None:
        """Let the model card tell what was measured.

        Args:
            split: "eval" for the validation targets, else the name of a split.
            metrics: of `evaluate`.
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
        """Write the adapter; the Trainer adds optimizer, scheduler and its own state."""
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
        results.pop("validation", None)  # that of the latest weights
        if measured is not None:
            results["validation"] = dict(measured)

    @override
    def create_model_card(self, **about: Any) -> None:  # type: ignore[override]
        """Put what is given on the model card, which is written with the adapter.

        Args:
            **about: `language`, `license` and `dataset`; the model's `card` has more.

        Raises:
            ValueError: if the card has no place for something.
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
            commit_message: first line of the commit.
            blocking: must be True.
            token: of the account; None = that of the arguments, or the one that is logged in.
            revision: branch; None = that of the arguments, or the main one.
            private: whether only the account sees a repository that is made.
            **kwargs: for the model card: `language`, `license` and `dataset`.

        Returns:
            The commit, on the main process.

        Raises:
            AdapterError: if the Hub refuses or cannot be reached.
            ValueError: if `blocking` is False, or the card has no place for something.
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
        """Push the adapter of a checkpoint while training goes on; see `transformers.Trainer`."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = cast(PushInProgress | None, self.push_in_progress)
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

        job = HfApi().run_as_future(push)
        if running is None or running.is_done():
            self.push_in_progress = cast(None, PushInProgress(cast(Any, [job])))
        else:
            cast(Any, running.jobs).append(job)
