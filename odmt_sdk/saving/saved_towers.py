"""Saving and loading: how a model becomes an adapter folder, and a folder a model."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import nn

from odmt_sdk.backbones.registry import AdapterBuilder
from odmt_sdk.backbones.template import BackboneTemplate
from odmt_sdk.config import ODMTConfig
from odmt_sdk.errors import AdapterError
from odmt_sdk.hub.adapter_folder import AdapterContent, OpenAdapter, open_adapter, write_adapter
from odmt_sdk.hub.card_details import CardDetails
from odmt_sdk.hub.download import HubOptions, locate
from odmt_sdk.hub.push import make_repository, push_folder
from odmt_sdk.hub.sharing import share_again
from odmt_sdk.hub.transfer import TransferReport, plan_transfer
from odmt_sdk.hub.weights import check_finite, put_weights
from odmt_sdk.items.feature_set import FeatureSet
from odmt_sdk.items.fusion import StartingItemEmbedder
from odmt_sdk.saving.describing import describe, whole_weights, write_card
from odmt_sdk.saving.fitting import (
    catalogue_weights,
    fitting_model,
    shapes,
    weights_of_backbones,
)
from odmt_sdk.towers import SourceTowers
from odmt_sdk.vocabulary import ItemVocabulary

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

# What wrong data can make of right code.
DATA_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class SavedTowers(SourceTowers):
    """Towers that are saved to a folder and loaded from one.

    `ODMTWrapper` adds the training loss and recommending.

    Args:
        template: makes the backbones.
        config: settings.

    Attributes:
        card: what the model card tells beside what can be read from the model; fill it in before
            saving.
        transfer_report: what was taken of an adapter that was made for another catalogue.
    """

    def __init__(self, template: BackboneTemplate, config: ODMTConfig) -> None:
        super().__init__(template, config)
        self.card = CardDetails()
        self.transfer_report: TransferReport | None = None
        self._provenance: Mapping[str, Mapping[str, Any]] = {}
        self._own_call = template.own_call

    def save_pretrained(
        self,
        path: str | Path,
        *,
        content_only: bool = False,
        item_embeddings: bool = True,
        backbone_weights: bool = True,
        max_shard_size: int | str = "5GB",
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        repo_id: str | None = None,
    ) -> Path:
        """Save the adapter: configuration, weights, item ids, item embeddings and a model card.

        An adapter that is there already is replaced, other files stay. Killed at any moment, this
        leaves the old adapter or the new one, complete.

        Args:
            path: the folder to make.
            content_only: leave out all that belongs to single items, their ids too; what is saved
                is for `from_pretrained(..., transfer=True)` into another catalogue.
            item_embeddings: whether to save every item's embeddings, from which a model without
                features recommends. They are saved neither with `content_only` or `state_dict`,
                nor of a model whose weights are spread over processes.
            backbone_weights: whether to save the weights of the user's own modules; without them
                a backbone with its trained weights has to be passed when loading.
            max_shard_size: a file of weights that would be larger is split.
            is_main_process: whether this process writes. A model whose weights are spread over
                processes (FSDP) has to be saved by all of them, of which one writes.
            state_dict: weights collected by other means, such as `accelerator.get_state_dict`.
            repo_id: repository from which the model card says to load; None = the folder.

        Returns:
            The folder.

        Raises:
            AdapterError: if the model has no items, an item id is neither a string nor an
                integer, `path` holds something else than an adapter, or writing fails.
        """
        folder = Path(path)
        if self.vocabulary is None or self.backbones is None:
            raise AdapterError("a model without items cannot be saved: call set_items first")
        weights, spread = whole_weights(self.state_dict() if state_dict is None else state_dict)
        if not is_main_process:
            return folder
        leave_out: set[str] = set()
        if content_only:
            leave_out |= catalogue_weights(self.config, self.hidden_size, self._widths)
        if not backbone_weights:
            leave_out |= weights_of_backbones(dict(self.backbones.by_source.items()))
        embeddings = None
        if item_embeddings and not content_only and state_dict is None and not spread:
            try:
                embeddings = self.encode_catalogue()
            except ValueError as error:
                raise AdapterError(
                    f"cannot save the item embeddings: {error}. Or pass item_embeddings=False"
                ) from error
        description = describe(self, backbone_weights=backbone_weights)
        weights = {name: value for name, value in weights.items() if name not in leave_out}
        content = AdapterContent(
            description=description,
            weights=weights,
            vocabulary=None if content_only else self.vocabulary,
            item_embeddings=embeddings,
            card=write_card(
                self,
                description,
                weights,
                name=repo_id or str(path),
                catalogue=not content_only,
                ready=embeddings is not None,
            ),
        )
        write_adapter(folder, content, max_shard_size=max_shard_size)
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload adapter",
        commit_description: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        subfolder: str = "",
        **saving: Any,
    ) -> "CommitInfo":
        """Save the adapter and push it to the Hugging Face Hub, as one commit.

        Files of an adapter that was there before are removed; all others stay, also a model card
        that somebody wrote by hand.

        Args:
            repo_id: such as "me/my-adapter", or "my-adapter" for the account's own; it is made if
                it is not there.
            private: whether only the account sees a repository that is made.
            token: of the account; None = the one that is logged in.
            commit_message: first line of the commit, and title of a pull request.
            commit_description: what else to say.
            revision: branch, made if it is not there; None = the main branch.
            create_pr: open a pull request in place of committing.
            subfolder: where in the repository to put it; "" = at its top.
            **saving: as for `save_pretrained`.

        Returns:
            The commit, with `commit_url`, and `pr_url` for a pull request.

        Raises:
            AdapterError: if the model cannot be saved, or the Hub refuses or cannot be reached.
        """
        with TemporaryDirectory() as folder:
            # saved before anything is made on the Hub, and once more under the full name
            self.save_pretrained(folder, repo_id=repo_id, **saving)
            full_name = make_repository(repo_id, private=private, token=token)
            if full_name != repo_id:
                self.save_pretrained(folder, repo_id=full_name, **saving)
            return push_folder(
                Path(folder),
                full_name,
                token=token,
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                subfolder=subfolder,
            )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        backbone: Any = None,
        item_features: FeatureSet | None = None,
        *,
        adapter: str | AdapterBuilder | None = None,
        forward_fn: Callable[..., Any] | None = None,
        transfer: bool = False,
        freeze: bool = False,
        training_settings: Mapping[str, Any] | None = None,
        map_location: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        allow_non_finite: bool = False,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load an adapter. Nothing in it is executed, whoever made it.

        Args:
            path: a folder written by `save_pretrained`, a repository on the Hugging Face Hub, or
                "shipped:..." for an adapter that comes with the package (`shipped_adapters`).
            backbone: like the one that was wrapped; its weights are taken from the adapter. None =
                make it again, if it was a built-in one.
            item_features: content tokens, joined to the saved items by id; without them the model
                recommends from its saved item embeddings, but cannot be trained.
            adapter: as when it was wrapped.
            forward_fn: as when it was wrapped.
            transfer: take what does not belong to single items, for the catalogue of
                `item_features`. IDs start anew, from the learned vector of unknown ones where there
                is one, and so does what reads modalities or widths of features that the adapter
                does not know; `transfer_report` says what was taken.
            freeze: with `transfer`, do not train what was taken.
            training_settings: settings of `ODMTConfig` to train on with, in place of the saved
                ones, such as `{"id_dropout": 0.0}`; those that weights do not depend on.
            map_location: device for the model; None = that of the backbone.
            dtype: type of the floating-point weights; None = as saved.
            allow_non_finite: accept weights that are NaN or infinite.
            subfolder: where in the folder or repository the adapter lies.
            revision: branch, tag or commit of the repository.
            token: for a private repository; None = of the account that is logged in.
            cache_dir: where downloads are kept.
            local_files_only: use what was downloaded before, without a connection.
            force_download: download again what was downloaded before.

        Returns:
            The model, in eval mode.

        Raises:
            AdapterError: if there is no adapter, it is damaged, or it does not fit the backbone or
                the features; the Hub's refusals too.
            ValueError: if `transfer` lacks features, `freeze` lacks `transfer`, or a training
                setting is none or breaks its rule.
        """
        if freeze and not transfer:
            raise ValueError("freeze=True goes with transfer=True: it keeps what was taken")
        if transfer and item_features is None:
            raise ValueError("transfer=True needs item_features= of the other catalogue")
        training_settings = training_settings or {}
        ODMTConfig().trained_with(training_settings)  # refused before anything is downloaded
        options = HubOptions(
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        ready = item_features is None
        folder = locate(path, subfolder, options, item_embeddings=ready)
        with _loading(path), open_adapter(folder, item_embeddings=ready) as opened:
            saved = opened.trained_with(training_settings)
            features = item_features if transfer else _join_features(saved, item_features)
            model = fitting_model(
                cls, saved, backbone, {"adapter": adapter, "forward_fn": forward_fn}
            )
            names = model._take_items(saved, features, transfer=transfer)
            put_weights(
                model,
                {name: saved.weights[name] for name in names},
                dtype=dtype,
                allow_non_finite=allow_non_finite,
            )
            share_again(model, saved.description.shared_weights)
            if transfer and isinstance(model.item_encoder, StartingItemEmbedder):
                model.item_encoder.start_ids()
            model.to(device=map_location, dtype=dtype)
            model._take_embeddings(saved, dtype=dtype, allow_non_finite=allow_non_finite)
        if freeze:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name not in names)
        if not transfer:  # else they tell of other items
            model.card, model._provenance = saved.description.card, saved.description.features
        return model.eval()

    def _take_items(
        self, saved: OpenAdapter, features: FeatureSet | None, *, transfer: bool
    ) -> tuple[str, ...]:
        """Build the model for its items, and choose the weights that it is given."""
        widths = saved.description.widths
        if not transfer:
            self._build(cast(ItemVocabulary, saved.vocabulary), widths)
            self.item_features = features
            return tuple(saved.weights)
        features = cast(FeatureSet, features)
        if not widths:
            raise AdapterError(
                "it knows items by their IDs alone, which mean nothing in another catalogue: "
                "transfer one that was trained with item_features="
            )
        self._build(features.vocabulary, features.widths)
        self.item_features = features
        self._set_unseen(torch.ones(self.num_items + 1, dtype=torch.bool))
        report = plan_transfer(
            {name: entry.shape for name, entry in saved.weights.items()},
            shapes(self),
            catalogue_weights(self.config, self.hidden_size, widths),
        )
        self.transfer_report = report
        return report.loaded

    def _take_embeddings(
        self, saved: OpenAdapter, *, dtype: torch.dtype | None, allow_non_finite: bool
    ) -> None:
        """Keep the saved item embeddings, if there are any, in place of encoding the items."""
        if not saved.item_embeddings:
            return
        expected = (self.num_items + 1, self.hidden_size)
        like = next(self.parameters())
        embeddings = {}
        for source in self.sources:
            entry = saved.item_embeddings.get(source)
            if entry is None or entry.shape != expected or not entry.dtype.is_floating_point:
                raise AdapterError(f"it has no item embeddings {expected} of {source!r}")
            value = entry.read()
            if not allow_non_finite:
                check_finite(f"the item embeddings of {source!r}", value)
            embeddings[source] = value.to(like.device, dtype)
        self._catalogue.keep(cast(nn.Module, self.item_encoder), embeddings)


def _join_features(saved: OpenAdapter, item_features: FeatureSet | None) -> FeatureSet | None:
    """The user's features in the rows of the adapter."""
    if saved.vocabulary is None:
        raise AdapterError(
            "it holds no items, only what serves other catalogues: pass item_features= of yours "
            "and transfer=True"
        )
    if item_features is None:
        return None
    widths = dict(saved.description.widths)
    if item_features.widths != widths:
        raise AdapterError(
            f"it reads features {widths} (values per token), got {item_features.widths}: extract "
            "them with the encoders it was trained with"
        )
    try:
        return item_features.select(saved.vocabulary)
    except ValueError as error:
        raise AdapterError(f"the features lack an item of the adapter: {error}") from error


@contextlib.contextmanager
def _loading(path: str | Path) -> Iterator[None]:
    """Whatever an adapter makes go wrong is an `AdapterError` that names it."""
    try:
        yield
    except DATA_ERRORS as error:
        raise AdapterError(f"cannot load the adapter in {str(path)!r}: {error}") from error
