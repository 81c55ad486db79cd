"""Item features: a frozen matrix of tokens per modality, joined to items by id.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Self

import torch

from odmt_sdk.items.extraction import Encoder, ExtractedTokens
from odmt_sdk.items.image_tokens import ImagePooling, extract_image_tokens
from odmt_sdk.items.modality import ModalityTokens, blocks, check_name, check_tokens
from odmt_sdk.items.text_tokens import TextPooling, extract_text_tokens
from odmt_sdk.tables import Table, read_columns
from odmt_sdk.vocabulary import ItemVocabulary

STANDARD_EPS = 1e-6  # keeps features that never vary at 0


class ItemFeatures:
    """Frozen token matrices of a catalogue, one per modality.

    Row 0 is padding and row r belongs to `vocabulary.item_ids[r - 1]`. Build it with
    `from_tensors` or, from raw titles and pictures, with `from_items`.

    Args:
        vocabulary: the N item ids in row order.
        modalities: modality -> tokens (N + 1, T, d) and lengths (N + 1,).

    Raises:
        ValueError: if a name is not allowed, shapes disagree with the vocabulary, lengths are out
            of range, or a valid token is NaN or infinite; the item is named.
        TypeError: if tokens are not floating point.

    Examples:
        >>> features = ItemFeatures.from_tensors(text=torch.randn(4, 7, 16))
        >>> features.num_items, features.widths
        (3, {'text': 16})
    """

    def __init__(
        self, vocabulary: ItemVocabulary, modalities: Mapping[str, ModalityTokens]
    ) -> None:
        self.vocabulary = vocabulary
        self._modalities: dict[str, ModalityTokens] = {}
        for name, (tokens, lengths) in modalities.items():
            check_name(name)
            check_tokens(name, tokens, lengths, vocabulary)
            self._modalities[name] = ModalityTokens(tokens, lengths)

    @classmethod
    def from_tensors(
        cls,
        *,
        item_ids: Iterable[Hashable] | None = None,
        lengths: Mapping[str, torch.Tensor] | None = None,
        **modalities: torch.Tensor,
    ) -> Self:
        """Use tensors the user already has.

        Args:
            item_ids: the N item ids in row order; without them the ids are the rows, 1..N.
            lengths: modality -> (N + 1,) valid tokens of each item, the first ones; a modality
                left out has all of its tokens for every item.
            **modalities: modality -> (N + 1, T, d), row 0 padding; any names, for example `text`,
                `image`, `audio`. The first token stands for the whole in its modality.

        Returns:
            The features.

        Raises:
            ValueError: see the class.
            TypeError: see the class.
        """
        if not modalities:
            raise ValueError(
                "no modality given: pass for example text=, image=, each (N + 1, T, d)"
            )
        lengths = dict(lengths or {})
        unknown = sorted(set(lengths) - set(modalities))
        if unknown:
            raise ValueError(f"lengths name {unknown}, which are not among {sorted(modalities)}")
        for name, tokens in modalities.items():
            if not isinstance(tokens, torch.Tensor):
                raise TypeError(f"{name} features must be a tensor, got {type(tokens).__name__}")
        rows = next(iter(modalities.values())).shape[0]
        vocabulary = ItemVocabulary(range(1, rows) if item_ids is None else item_ids)
        return cls(
            vocabulary,
            {
                name: ModalityTokens(tokens, _lengths(tokens, lengths.get(name)))
                for name, tokens in modalities.items()
            },
        )

    @classmethod
    def from_items(
        cls,
        items: Table,
        *,
        text_encoder: "Encoder | None" = None,
        image_encoder: "Encoder | None" = None,
        item_id: str = "item_id",
        text: str = "text",
        image: str = "image",
        max_text_tokens: int = 30,
        max_image_tokens: int | None = None,
        text_pooling: TextPooling = "first",
        image_pooling: ImagePooling = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float16,
        progress: bool = True,
    ) -> Self:
        """Extract features from raw titles and pictures.

        An item whose cell is empty lacks that modality, and so does one whose picture cannot be
        read; such pictures are listed in a warning.

        Args:
            items: one row per item: a pandas, Polars or PyArrow table, a Hugging Face dataset, a
                mapping of columns, a list of dicts, or the path of a CSV or Parquet file.
            text_encoder: folder or Hub name of a text model, or a pair (model, tokenizer); None =
                no text.
            image_encoder: folder or Hub name of a vision model, or a pair (model, image processor);
                None = no pictures.
            item_id: name of the column of item ids.
            text: name of the column of texts.
            image: name of the column of pictures: paths, bytes or PIL images.
            max_text_tokens: tokens per text at most; fewer make training faster.
            max_image_tokens: tokens per picture at most, None = all; 1 keeps the token that stands
                for the whole picture.
            text_pooling: "first" where the encoder's first token stands for the text (BERT,
                RoBERTa), "mean" for sentence-transformers models (all-MiniLM).
            image_pooling: "first", "mean", or "auto" to go by the encoder.
            device: where to run the encoders; None = an accelerator if there is one.
            dtype: type in which the tokens are kept.
            progress: whether to show progress bars.

        Returns:
            The features, in the order of `items`.

        Raises:
            ValueError: if no encoder is given, a column is missing, an id stands twice, or no item
                has a text or picture.
            ImportError: if pictures are to be read and torchvision is missing or broken.

        Examples:
            >>> items = {"item_id": ["a"], "text": ["Red mug"], "image": ["a.jpg"]}
            >>> ItemFeatures.from_items(                                     # doctest: +SKIP
            ...     items, text_encoder="bert-base-uncased",
            ...     image_encoder="openai/clip-vit-base-patch32")
            ItemFeatures(1 items; text: 1 items, 4 x 768; image: 1 items, 50 x 768)
        """
        if max_image_tokens is not None and max_image_tokens < 1:
            raise ValueError(f"max_image_tokens={max_image_tokens} must be at least 1, or None")
        if text_encoder is None and image_encoder is None:
            raise ValueError("no encoder given: pass text_encoder=, image_encoder=, or both")
        columns = [item_id]
        columns += [text] if text_encoder is not None else []
        columns += [image] if image_encoder is not None else []
        table = read_columns(items, columns)
        vocabulary = ItemVocabulary(table[item_id].tolist())
        extracted: dict[str, ExtractedTokens] = {}
        shared: dict[str, Any] = {"device": device, "dtype": dtype, "progress": progress}
        if text_encoder is not None:
            extracted["text"] = extract_text_tokens(
                table[text].tolist(),
                text_encoder,
                max_tokens=max_text_tokens,
                pooling=text_pooling,
                **shared,
            )
        if image_encoder is not None:
            pictures = extract_image_tokens(
                table[image].tolist(), image_encoder, pooling=image_pooling, **shared
            )
            if max_image_tokens is not None:
                pictures = dataclasses.replace(
                    pictures,
                    tokens=pictures.tokens[:, :max_image_tokens].clone(),
                    lengths=pictures.lengths.clamp(max=max_image_tokens),
                )
            extracted["image"] = pictures
        return cls(vocabulary, {name: _with_padding_row(e) for name, e in extracted.items()})

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.vocabulary)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self._modalities)

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width d."""
        return {name: m.tokens.shape[-1] for name, m in self._modalities.items()}

    def __getitem__(self, modality: str) -> ModalityTokens:
        """Tokens (N + 1, T, d) and lengths (N + 1,) of one modality."""
        return self._modalities[modality]

    def __repr__(self) -> str:
        parts = []
        for name, (tokens, lengths) in self._modalities.items():
            present = int((lengths > 0).sum())
            parts.append(f"{name}: {present} items, {tokens.shape[1]} x {tokens.shape[2]}")
        return f"ItemFeatures({self.num_items} items; {'; '.join(parts)})"

    def add_modality(
        self, name: str, tokens: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> Self:
        """Add a modality the user has as a tensor, such as audio.

        Args:
            name: its name, not yet taken.
            tokens: (N + 1, T, d), rows in the order of `vocabulary`, row 0 padding.
            lengths: (N + 1,) valid tokens; None = all of them, for every item.

        Returns:
            New features that share the tensors of these.

        Raises:
            ValueError: if the name is taken, or see the class.
        """
        if name in self._modalities:
            raise ValueError(
                f"modality {name!r} is there already ({list(self._modalities)}): "
                "choose another name"
            )
        added = ModalityTokens(tokens, _lengths(tokens, lengths))
        return type(self)(self.vocabulary, {**self._modalities, name: added})

    def select(self, item_ids: Iterable[Hashable]) -> Self:
        """Join to another list of items by id.

        Args:
            item_ids: the ids wanted, each among the features' own.

        Returns:
            Features whose rows follow `item_ids`.

        Raises:
            ValueError: if an id has no features, or stands twice.
        """
        vocabulary = ItemVocabulary(item_ids)
        rows = torch.tensor([0, *self.vocabulary.rows(vocabulary)])
        return type(self)(
            vocabulary,
            {name: ModalityTokens(m.tokens[rows], m.lengths[rows]) for name, m in self._items()},
        )

    def standardize(self) -> Self:
        """Shift and scale every feature to mean 0 and deviation 1 over the catalogue's tokens.

        Tokens of one encoder share a large part that says nothing about an item; without it items
        are told apart sooner. Features of items added later need the same shift and scale.

        Returns:
            New features of the same type; tokens past an item's length are 0.
        """
        standard = {}
        for name, (tokens, lengths) in self._items():
            valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            mean, deviation = _moments(tokens, valid)
            scaled = torch.zeros_like(tokens)
            for block in blocks(len(tokens)):
                centred = (tokens[block].float() - mean) / deviation
                scaled[block] = (centred * valid[block, :, None]).to(tokens.dtype)
            standard[name] = ModalityTokens(scaled, lengths)
        return type(self)(self.vocabulary, standard)

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Read some rows, cut to the longest of them.

        Args:
            rows: (U,) rows in 0..N, on any device.

        Returns:
            Modality -> tokens (U, T', d) and lengths (U,) on the device of `rows`, T' <= T.
        """
        gathered = {}
        for name, (tokens, lengths) in self._items():
            here = rows.to(tokens.device)
            taken = lengths[here]
            longest = tokens.shape[1]
            if tokens.device.type == "cpu" and len(here):  # elsewhere the maximum would wait
                longest = max(1, int(taken.max()))
            gathered[name] = ModalityTokens(
                tokens[:, :longest].index_select(0, here).to(rows.device, non_blocking=True),
                taken.to(rows.device, non_blocking=True),
            )
        return gathered

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move or convert the token matrices.

        Args:
            device: where to keep them; on a GPU, batches are read there without any copy.
            dtype: floating-point type to keep them in, for example `torch.float16`.

        Returns:
            New features; tensors that need no change are shared.
        """
        moved = type(self).__new__(type(self))
        moved.vocabulary = self.vocabulary
        moved._modalities = {
            name: ModalityTokens(m.tokens.to(device=device, dtype=dtype), m.lengths.to(device))
            for name, m in self._items()
        }
        return moved

    def _items(self) -> Iterable[tuple[str, ModalityTokens]]:
        return self._modalities.items()


def _moments(tokens: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each feature over the valid tokens, both (d,)."""
    total, squares = torch.zeros(2, tokens.shape[-1], dtype=torch.float64)
    for block in blocks(len(tokens)):
        chosen = tokens[block][valid[block]].double()  # (rows, T, d) -> (valid tokens, d)
        total += chosen.sum(0)
        squares += chosen.square().sum(0)
    count = valid.sum().clamp(min=1)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    return mean.float(), (variance.sqrt() + STANDARD_EPS).float()


def _with_padding_row(extracted: ExtractedTokens) -> ModalityTokens:
    tokens, lengths = extracted.tokens, extracted.lengths
    return ModalityTokens(
        torch.cat([torch.zeros_like(tokens[:1]), tokens]),  # (N, T, d) -> (N + 1, T, d)
        torch.cat([torch.zeros_like(lengths[:1]), lengths]),
    )


def _lengths(tokens: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    if lengths is None:
        lengths = torch.full((tokens.shape[0],), tokens.shape[1] if tokens.ndim == 3 else 0)
        lengths[:1] = 0
    return lengths
