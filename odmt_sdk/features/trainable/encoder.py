"""The base class of content encoders that are trained with the model.

Letters: N items of the model, U items asked for, b items of one batch, T tokens, d token width.
"""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import nn
from torch.nn import functional as F

from odmt_sdk.features.catalogue_tokens import standardized
from odmt_sdk.features.extraction.pretrained_encoders import (
    Encoder,
    LoadedEncoder,
    Precision,
    autocast_type,
    fingerprint,
)
from odmt_sdk.features.feature_set import FeatureSet
from odmt_sdk.features.modalities import MODALITIES
from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.features.preparation import Preparation, prepare_like
from odmt_sdk.features.trainable.lora import with_lora
from odmt_sdk.processes import is_distributed
from odmt_sdk.tables import Table, read_columns
from odmt_sdk.vocabulary import ItemVocabulary

if TYPE_CHECKING:
    from peft import LoraConfig

_SHOWN = 3
_ROWS_AT_ONCE = 512


class DifferentiableExtractor(Protocol):
    """An extractor whose encoder can be trained."""

    unit: str
    encoder: LoadedEncoder
    dtype: torch.dtype
    batch_size: int

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that determines the tokens."""

    def prepare(self, values: Mapping[int, Any], /) -> tuple[dict[int, Any], dict[int, str]]:
        """Convert row -> value to row -> encoder input, and row -> reason if there is none."""

    def tokens(self, inputs: Sequence[Any], /) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode the inputs of b items as tokens (b, T, d) and lengths (b,), with gradients."""


class TrainableEncoder(nn.Module):
    """Base class of `TrainableText` and `TrainableImages`.

    The encoder is copied. The copy stays frozen in eval mode, and LoRA layers in it are trained.
    Only the weights of the LoRA layers are in `state_dict` and are saved.

    Args:
        modality: name of the modality, such as "text".
        encoder: as for the extractor of the modality.
        items: table of the items.
        column: name of the column to encode.
        item_id: name of the column of item ids.
        lora: as for `with_lora`.
        precision: dtype to compute in, see `ItemFeatures.from_items`.
        options: additional arguments of the extractor.
        encoding: encoding of the text file `items`.
        csv_options: format of the .csv or .tsv file `items`.

    Attributes:
        vocabulary: ids of the items that it can encode.
        provenance: how the encoder makes tokens before it is trained.
        lora_settings: settings that, besides the weights, determine what the LoRA layers compute.
        model: the encoder with its LoRA layers.
    """

    def __init__(
        self,
        modality: str,
        encoder: Encoder,
        items: Table,
        *,
        column: str,
        item_id: str,
        lora: "LoraConfig | None",
        precision: Precision,
        options: Mapping[str, Any],
        encoding: str,
        csv_options: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        # an encoder given by name is loaded on the CPU; the wrapper moves it to its own device
        device = "cpu" if isinstance(encoder, str | os.PathLike) else None
        options = {**options, "device": device, "precision": precision}
        self.modality, self._column, self._item_id = modality, column, item_id
        self._text_file: dict[str, Any] = {"encoding": encoding, "csv_options": csv_options}
        self._precision = precision
        build: Callable[..., Any] = MODALITIES.get(modality).build
        self._extractor: DifferentiableExtractor = build(encoder, **options)
        self.vocabulary, self._inputs = self._read(items)
        if not self._inputs:
            raise ValueError(f"none of {len(self.vocabulary)} items has a {self._extractor.unit}")
        self.provenance: dict[str, Any] = self._extractor.provenance
        self.model, self.lora_settings = with_lora(self._extractor.encoder.model, lora)
        self._extractor.encoder = self._extractor.encoder._replace(model=self.model)
        self._moments: torch.Tensor | None = None  # (2, d)
        self._positions: torch.Tensor | None = None  # (N + 1,) position of each row of the model
        self.width = self._try()
        self._frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        self._frozen |= {name for name, _ in self.named_buffers()}

    def attach(self, features: FeatureSet, moments: torch.Tensor | None) -> None:
        """Replace the frozen tokens of a model; the model calls this.

        Args:
            features: frozen features of the model's N items.
            moments: moments (2, d) with which the model's features of this modality are
                standardized.

        Raises:
            ValueError: if an item is not in the table of this encoder, an item has frozen tokens
                but no value to encode, or the features were made with another encoder or other
                settings.
        """
        name, vocabulary = self.modality, features.vocabulary
        if self.width != features.widths[name]:
            raise ValueError(
                f"the encoder of {name} makes tokens of width {self.width}, but the features have "
                f"{features.widths[name]}: extract them with this encoder"
            )
        given = Preparation.of(features)
        made = {
            **self.provenance,
            "standardized": given.provenance.get(name, {}).get("standardized"),
        }
        expected = Preparation({name: made}, given.moments, {name: self.width}, False)
        prepare_like(features, expected, reader="the encoder to be trained", stacklevel=6)
        self._check_known(vocabulary)
        positions = torch.tensor([0, *(row - 1 for row in self.vocabulary.rows(vocabulary))])
        without = [
            row for row in range(1, len(positions)) if int(positions[row]) not in self._inputs
        ]
        for rows in torch.tensor(without, dtype=torch.long).split(512) if without else ():
            lengths = features.gather(rows)[name].lengths
            if bool(lengths.any()):
                item = vocabulary.ids(rows[lengths > 0][:1].tolist())[0]
                raise ValueError(
                    f"item {item!r} has {name} features but no {self._extractor.unit} to encode: "
                    f"fill in its {self._column!r}, or extract the features from the same table"
                )
        self._positions, self._moments = positions, moments

    def add_items(self, items: Table) -> None:
        """Add the values of new items; call it before `model.add_items`.

        Args:
            items: table with the same columns as the first one.

        Raises:
            ValueError: if an id was added before, or a column is missing.
        """
        vocabulary, inputs = self._read(items)
        old = len(self.vocabulary)
        self.vocabulary = ItemVocabulary([*self.vocabulary, *vocabulary])
        self._inputs |= {old + position: value for position, value in inputs.items()}

    def forward(self, rows: torch.Tensor, lengths: torch.Tensor) -> ModalityTokens:
        """Encode items in batches of similar size, with gradients if they are enabled.

        Args:
            rows: (U,) rows of the model.
            lengths: (U,) lengths of their frozen tokens; an item of length 0 gets no tokens.

        Returns:
            Tokens (U, T, d), standardized like the frozen ones, and lengths (U,).

        Raises:
            ValueError: if the encoder does not belong to a model, or an item cannot be encoded.
        """
        if self._positions is None:
            raise ValueError(
                "this encoder does not belong to a model: pass it to ODMTWrapper(encoders=)"
            )
        positions = self._positions[rows.cpu()].tolist()
        present = [place for place, length in enumerate(lengths.tolist()) if length]
        places, parts = [], []
        for batch in self._batches(present, positions):
            places += batch
            parts.append(self._tokens([positions[place] for place in batch]))
        longest = max((part.tokens.shape[1] for part in parts), default=1)
        absent = torch.zeros(1, longest, self.width, device=rows.device)
        if not parts and torch.is_grad_enabled() and is_distributed():
            # every rank needs gradients of every weight, here zeros
            absent = absent + 0 * self._tokens([next(iter(self._inputs))]).tokens.sum()
        tokens = [F.pad(part.tokens, (0, 0, 0, longest - part.tokens.shape[1])) for part in parts]
        order = torch.zeros(len(rows), dtype=torch.long)  # 0 = the item that is absent
        order[places] = torch.arange(1, len(places) + 1)
        order = order.to(rows.device)
        # parts (b, T, d) in the order of `places` -> (U, T, d)
        return ModalityTokens(
            torch.cat([absent, *tokens])[order],
            torch.cat([lengths.new_zeros(1), *(part.lengths.to(lengths) for part in parts)])[order],
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the LoRA layers' dropout; the frozen encoder stays in eval mode.

        Args:
            mode: True = training mode, False = eval mode.

        Returns:
            The module itself.
        """
        super().train(False)
        self.training = mode
        for name, part in self.model.named_modules():
            if "lora_dropout" in name:
                part.training = mode
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the LoRA weights only; see `nn.Module.state_dict`.

        Args:
            *args: as for `nn.Module.state_dict`.
            **kwargs: as for `nn.Module.state_dict`.

        Returns:
            Name -> weight.
        """
        prefix = kwargs.get("prefix", "")
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        for name in self._frozen:
            state.pop(prefix + name, None)
        return state

    @property
    def trained(self) -> dict[str, Any]:
        """Description of the training: the LoRA settings, and a fingerprint of the weights."""
        weights = nn.ParameterDict(
            {
                name.replace(".", "/"): parameter
                for name, parameter in self.named_parameters()
                if name not in self._frozen
            }
        )
        return {**self.lora_settings, "weights": fingerprint(weights)}

    def _try(self) -> int:
        """Encode one item; return the token width, and freeze LoRA weights that have no effect.

        Layers after the tokens, such as the pooler of BERT, have no effect.

        Raises:
            ValueError: if no LoRA weight has an effect.
        """
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        with torch.enable_grad():
            tokens = self._tokens([next(iter(self._inputs))]).tokens
        found: Sequence[Any] = [None]
        if tokens.requires_grad:
            found = torch.autograd.grad(tokens.sum(), weights, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise ValueError(
                f"no LoRA layer has an effect on the tokens of {type(self.model).__name__}: choose "
                "other layers with LoraConfig(target_modules=[...])"
            )
        for weight, gradient in zip(weights, found, strict=True):
            weight.requires_grad_(gradient is not None)
        return tokens.shape[2]

    def _read(self, items: Table) -> tuple[ItemVocabulary, dict[int, Any]]:
        """Read item ids, and position -> encoder input for the items that have a value."""
        table = read_columns(items, [self._item_id, self._column], **self._text_file)
        vocabulary = ItemVocabulary(table[self._item_id])
        read = MODALITIES.get(self.modality).present
        values = read(table[self._column].tolist(), vocabulary.item_ids)
        return vocabulary, self._extractor.prepare(values)[0]

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Add the current frozen weights to the state, because they are never saved."""
        for name, value in super().state_dict(prefix=prefix).items():
            if name.removeprefix(prefix) in self._frozen:
                state.setdefault(name, value)
        super()._load_from_state_dict(state, prefix, *rest)

    def _batches(self, present: list[int], positions: list[int]) -> Iterator[list[int]]:
        """Split indices of items into batches, largest items first."""
        order = sorted(present, key=lambda place: -self._size(self._inputs[positions[place]]))
        size = self._extractor.batch_size
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _size(self, value: Any) -> int:
        """Size of an encoder input; batches hold items of similar size."""
        return 1

    def _tokens(self, positions: Sequence[int]) -> ModalityTokens:
        """Tokens (b, T, d), standardized, and lengths (b,) of the items at some positions."""
        self._extractor.dtype = autocast_type(self.model, self._precision)
        tokens, lengths = self._encode(positions)
        if self._moments is not None:
            tokens = standardized(tokens, lengths.to(tokens.device), self._moments)
        return ModalityTokens(tokens.float(), lengths)

    def _encode(self, positions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (b, T, d) and lengths (b,) of the items at some positions."""
        return self._extractor.tokens([self._inputs[place] for place in positions])

    def _check_known(self, vocabulary: ItemVocabulary) -> None:
        unknown: list[Hashable] = [item for item in vocabulary if item not in self.vocabulary]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of the {len(vocabulary)} items are not in the table of the "
                f"encoder of {self.modality}: {', '.join(map(repr, unknown[:_SHOWN]))}"
                f"{', ...' if len(unknown) > _SHOWN else ''}; add them with add_items(table)"
            )
