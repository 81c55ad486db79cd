"""Item features: a frozen matrix of tokens per modality, joined to items by id.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch

from odmt_sdk.items.catalogue_tokens import CatalogueTokens, TokensInMemory
from odmt_sdk.items.encoders import Encoder, Precision
from odmt_sdk.items.image_tokens import ImagePooling
from odmt_sdk.items.modality import ModalityTokens, check_name, check_tokens
from odmt_sdk.items.raw_items import (
    Extracted,
    extract_in_memory,
    extract_on_disk,
    read_items,
    read_store,
)
from odmt_sdk.items.report import ExtractionReport
from odmt_sdk.items.text_tokens import TextPooling
from odmt_sdk.items.token_reduction import Reduction
from odmt_sdk.processes import join_launched_processes
from odmt_sdk.tables import Table
from odmt_sdk.vocabulary import ItemVocabulary


class ItemFeatures:
    """Frozen token matrices of a catalogue, one per modality, in memory or on disk.

    Row 0 is padding and row r belongs to `vocabulary.item_ids[r - 1]`. Build it with
    `from_tensors` or, from raw titles and pictures, with `from_items`; `open` reads what
    `from_items` has written to a folder, of which a batch reads its own rows only.

    Args:
        vocabulary: the N item ids in row order.
        modalities: modality -> tokens (N + 1, T, d) and lengths (N + 1,).

    Attributes:
        provenance: modality -> encoder, revision, tokens, width, pooling and all else that is known
            of how its tokens were made.
        report: what could not be read when they were; None for tensors.

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
        self.provenance: dict[str, dict[str, Any]] = {}
        self.report: ExtractionReport | None = None
        self._modalities: dict[str, CatalogueTokens] = {}
        for name, (tokens, lengths) in modalities.items():
            check_name(name)
            check_tokens(name, tokens, lengths, vocabulary)
            self._modalities[name] = TokensInMemory(tokens, lengths)

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
        arrays: Mapping[str, Any] | None = None,
        path: str | os.PathLike[str] | None = None,
        item_id: str = "item_id",
        text: str = "text",
        image: str = "image",
        max_text_tokens: int = 30,
        max_image_tokens: int | None = None,
        image_reduction: Reduction = "cut",
        text_pooling: TextPooling = "first",
        text_pooled_only: bool = False,
        image_pooling: ImagePooling = "auto",
        text_batch_size: int = 64,
        image_batch_size: int | None = None,
        num_workers: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float16,
        precision: Precision = "auto",
        shard_items: int | None = None,
        progress: bool = True,
    ) -> Self:
        """Extract features from raw titles and pictures.

        An item whose cell is empty lacks that modality, and so does one whose picture cannot be
        read; such pictures are listed in a warning and in `report`.

        With `path`, features are written to a folder as they are made. A run that is killed goes on
        where it stopped when it is started again, and ends with the same bytes; items that the
        folder does not have are added to it, the others are not encoded again. Under `accelerate
        launch` the processes share the work.

        Args:
            items: one row per item: a pandas, Polars or PyArrow table, a Hugging Face dataset, a
                mapping of columns, a list of dicts, or the path of a CSV or Parquet file.
            text_encoder: folder or Hub name of a text model, a pair (model, tokenizer), or a
                `SentenceTransformer`; None = no text.
            image_encoder: folder or Hub name of a vision model, a pair (model, image processor),
                "torchvision:NAME", or a pair (torchvision model, its weights or transforms); None =
                no pictures.
            arrays: modality -> features the user has already, for any modality such as audio: the
                name of a column of arrays, or (N, d), (N, T, d), or N arrays (d,), (T, d) or None.
            path: folder to write to; None = keep the features in memory.
            item_id: name of the column of item ids.
            text: name of the column of texts.
            image: name of the column of pictures: paths, bytes or PIL images.
            max_text_tokens: tokens per text at most; fewer make training faster.
            max_image_tokens: tokens per picture at most, None = all; 1 keeps the token that stands
                for the whole picture.
            image_reduction: how to get there: "cut" keeps the first, "average" averages neighbours
                and so still sees the whole picture.
            text_pooling: "first" where the encoder's first token stands for the text (BERT,
                RoBERTa), "mean" of all tokens, or "sentence" for the sentence embedding of a model
                of sentence-transformers.
            text_pooled_only: keep one token per text, that which stands for the whole.
            image_pooling: "first", "mean", or "auto" to go by the encoder.
            text_batch_size: texts per batch.
            image_batch_size: pictures per batch; None = 4 on a CPU, else 32.
            num_workers: processes that read pictures; None = by CPU cores and number of pictures.
            device: where to run the encoders; None = an accelerator if there is one.
            dtype: type in which the tokens are kept: float16, bfloat16 or float32.
            precision: type to compute in: "float32", "bfloat16", or "auto" for bfloat16 where the
                device, accelerator or CPU, has instructions for it.
            shard_items: items per file of the folder; None = by their number, about 64 files.
            progress: whether to show progress bars.

        Returns:
            The features, in the order of `items`.

        Raises:
            ValueError: if no encoder is given, a column is missing, an id stands twice, no item
                has a text or picture, or the folder was made with another encoder or in another
                way, which is named.
            ImportError: if pictures are to be read and torchvision is missing or broken.
            OSError: if an encoder cannot be loaded or the folder cannot be written.

        Examples:
            >>> items = {"item_id": ["a"], "text": ["Red mug"], "image": ["a.jpg"]}
            >>> ItemFeatures.from_items(                                     # doctest: +SKIP
            ...     items, text_encoder="bert-base-uncased",
            ...     image_encoder="openai/clip-vit-base-patch32")
            ItemFeatures(1 items; text: 1 items, 4 x 768; image: 1 items, 50 x 768)
        """
        if path is not None:
            join_launched_processes()
        shared = {"device": device, "precision": precision}
        for_text = {
            "encoder": text_encoder,
            "max_tokens": max_text_tokens,
            "pooling": text_pooling,
            "pooled_only": text_pooled_only,
            "batch_size": text_batch_size,
            **shared,
        }
        for_image = {
            "encoder": image_encoder,
            "max_tokens": max_image_tokens,
            "reduction": image_reduction,
            "pooling": image_pooling,
            "batch_size": image_batch_size,
            "num_workers": num_workers,
            **shared,
        }
        vocabulary, modalities = read_items(
            items,
            item_id=item_id,
            text=None if text_encoder is None else (text, for_text),
            image=None if image_encoder is None else (image, for_image),
            arrays=arrays or {},
        )
        if path is None:
            extracted = extract_in_memory(vocabulary, modalities, dtype=dtype, progress=progress)
        else:
            extracted = extract_on_disk(
                path,
                vocabulary,
                modalities,
                dtype=dtype,
                shard_items=shard_items,
                progress=progress,
            )
        return cls._from_extracted(extracted)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open features that `from_items(..., path=...)` has written.

        Opening takes milliseconds; tokens are read from the files when they are asked for, and
        memory does not grow with the catalogue.

        Args:
            path: the folder.

        Returns:
            The features of all items in it.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if their extraction is not complete, or they are damaged.
        """
        return cls._from_extracted(read_store(Path(path)))

    @classmethod
    def _from_extracted(cls, extracted: Extracted) -> Self:
        features = cls(extracted.vocabulary, {})
        features._modalities = extracted.modalities
        features.provenance, features.report = extracted.provenance, extracted.report
        return features

    def _with(
        self, modalities: dict[str, CatalogueTokens], vocabulary: ItemVocabulary | None = None
    ) -> Self:
        """The same features, kept in another way."""
        changed = type(self)(vocabulary or self.vocabulary, {})
        changed._modalities = modalities
        changed.provenance, changed.report = self.provenance, self.report
        return changed

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
        return {name: tokens.width for name, tokens in self._modalities.items()}

    def __getitem__(self, modality: str) -> ModalityTokens:
        """Tokens (N + 1, T, d) and lengths (N + 1,) of one modality; reads those on disk."""
        return self._modalities[modality].whole()

    def __repr__(self) -> str:
        parts = []
        for name, tokens in self._modalities.items():
            present = int((tokens.lengths > 0).sum())
            parts.append(f"{name}: {present} items, {tokens.max_tokens} x {tokens.width}")
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
            New features that share the tokens of these.

        Raises:
            ValueError: if the name is taken, or see the class.
        """
        if name in self._modalities:
            raise ValueError(
                f"modality {name!r} is there already ({list(self._modalities)}): "
                "choose another name"
            )
        lengths = _lengths(tokens, lengths)
        added = type(self)(self.vocabulary, {name: ModalityTokens(tokens, lengths)})
        return self._with({**self._modalities, **added._modalities})

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
        return self._with(
            {name: tokens.select(rows) for name, tokens in self._modalities.items()}, vocabulary
        )

    def standardize(self) -> Self:
        """Shift and scale every feature to mean 0 and deviation 1 over the catalogue's tokens.

        Tokens of one encoder share a large part that says nothing about an item; without it items
        are told apart sooner. Features of items added later need the same shift and scale. Features
        on disk stay as they are and are shifted and scaled as they are read, in float32.

        Returns:
            New features of the same type; tokens past an item's length are 0.
        """
        standard = self._with({name: t.standardize() for name, t in self._modalities.items()})
        standard.provenance = {
            name: {**made, "standardized": True} for name, made in self.provenance.items()
        }
        return standard

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Read some rows, cut to the longest of them.

        Args:
            rows: (U,) rows in 0..N, on any device.

        Returns:
            Modality -> tokens (U, T', d) and lengths (U,) on the device of `rows`, T' <= T.
        """
        return {name: tokens.gather(rows) for name, tokens in self._modalities.items()}

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move or convert the token matrices.

        Args:
            device: where to keep them; on a GPU, batches are read there without any copy. Features
                on disk are read into it as a whole.
            dtype: floating-point type to keep them in, for example `torch.float16`.

        Returns:
            New features; tensors that need no change are shared.
        """
        return self._with({name: t.to(device, dtype) for name, t in self._modalities.items()})


def _lengths(tokens: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    if lengths is None:
        lengths = torch.full((tokens.shape[0],), tokens.shape[1] if tokens.ndim == 3 else 0)
        lengths[:1] = 0
    return lengths
