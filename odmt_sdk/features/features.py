"""Item features: frozen content tokens per modality, aligned to items by id.

Letters: N items, T tokens of one item, d feature width, U items asked for.
"""

import os
import warnings
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch

from odmt_sdk.features.catalogue_tokens import CatalogueTokens, TokensInMemory
from odmt_sdk.features.extraction.image_tokens import ImagePooling
from odmt_sdk.features.extraction.pretrained_encoders import Encoder, Precision
from odmt_sdk.features.extraction.text_tokens import TextPooling
from odmt_sdk.features.extraction.token_reduction import Reduction
from odmt_sdk.features.modality import ModalityTokens, check_name, check_tokens
from odmt_sdk.features.preparation import moments_of, same_moments
from odmt_sdk.features.raw_items import (
    Extracted,
    encoded_columns,
    extract_in_memory,
    extract_on_disk,
    read_items,
    read_store,
)
from odmt_sdk.features.report import ExtractionReport
from odmt_sdk.features.store.engine import ExtractionEngine
from odmt_sdk.features.store.remembered import read_moments, write_moments
from odmt_sdk.paths import user_path
from odmt_sdk.processes import join_launched_processes
from odmt_sdk.tables import Table
from odmt_sdk.vocabulary import ItemVocabulary


class ItemFeatures:
    """Frozen content tokens of a catalogue, one matrix per modality, in memory or on disk.

    Row 0 is padding and row r belongs to `vocabulary.item_ids[r - 1]`. Create features from
    tensors with `from_tensors`, or from raw titles and images with `from_items`. `open` opens a
    folder written by `from_items`; each batch then reads only its own rows from disk.

    Args:
        vocabulary: the N item ids in row order.
        modalities: modality -> tokens (N + 1, T, d) and lengths (N + 1,).

    Attributes:
        provenance: modality -> how its tokens were made: encoder, revision, tokens, width, pooling
            and so on.
        report: the items whose text or image could not be read; None for tensors.
        moments: modality -> mean and standard deviation (2, d) used to standardize its tokens;
            empty for raw tokens.

    Raises:
        ValueError: if a modality name is not allowed, shapes disagree with the vocabulary, lengths
            are out of range, or a valid token is NaN or infinite. The message names the item.
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
        self._folder: Path | None = None  # the store they were opened from
        self._part = False  # whether they are only part of that store
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
        """Create features from existing tensors.

        Args:
            item_ids: the N item ids in row order; None = the row numbers 1..N.
            lengths: modality -> (N + 1,) number of valid tokens of each item; valid tokens come
                first. For a modality that is not listed, all tokens are valid.
            **modalities: modality -> (N + 1, T, d), row 0 padding. Names are free, for example
                `text`, `image` or `audio`. The first token represents the whole item in that
                modality.

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
        encoders: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None,
        path: str | os.PathLike[str] | None = None,
        item_id: str = "item_id",
        text: str = "text",
        image: str = "image",
        image_folder: str | os.PathLike[str] | None = None,
        columns: Mapping[str, str] | None = None,
        encoder_options: Mapping[str, Mapping[str, Any]] | None = None,
        encoding: str = "utf-8",
        csv_options: Mapping[str, Any] | None = None,
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
        engine: ExtractionEngine | None = None,
        progress: bool = True,
    ) -> Self:
        """Extract features from raw titles and images.

        An item with an empty cell lacks that modality. So does an item whose image cannot be read;
        a warning and `report` list such images.

        With `path`, features are written to a folder during extraction. An interrupted run resumes
        where it stopped and produces the same bytes. If the folder already has features, only new
        items are encoded and added. Under `accelerate launch`, the processes share the work.

        Args:
            items: one row per item: a pandas, Polars or PyArrow table, a Hugging Face dataset, a
                mapping of columns, a list of dicts, or the path of a CSV, TSV, JSON lines or
                Parquet file.
            text_encoder: folder or Hub name of a text model, a pair (model, tokenizer), or a
                `SentenceTransformer`; None = no text.
            image_encoder: folder or Hub name of a vision model, a pair (model, image processor),
                "torchvision:NAME", or a pair (torchvision model, its weights or transforms); None =
                no pictures.
            encoders: modality -> encoder, for modalities registered with `register_modality`;
                "text" and "image" mean the same as `text_encoder` and `image_encoder`.
            arrays: modality -> precomputed features of any modality, such as audio: the name of a
                column of arrays, or an array (N, d) or (N, T, d), or N arrays (d,), (T, d) or None.
            path: folder to write to; None = keep the features in memory.
            item_id: name of the column of item ids.
            text: name of the column of texts.
            image: name of the column of pictures: paths, bytes or PIL images.
            image_folder: folder of pictures instead of a column; the picture of an item is
                `<item_id>.jpg`, `.jpeg`, `.png` or `.webp`, in any case, also in a subfolder. Items
                without one lack a picture.
            columns: modality of `encoders` -> name of its column; default: the modality's name.
            encoder_options: modality -> additional arguments of its registered extractor.
            encoding: encoding of the text file `items`, for example "latin-1".
            csv_options: format of the .csv or .tsv file `items`, see `Interactions.from_table`.
            max_text_tokens: maximum number of tokens per text; fewer tokens make training faster.
            max_image_tokens: maximum number of tokens per picture, None = all; 1 keeps only the
                token that represents the whole picture.
            image_reduction: how to reduce the tokens of a picture: "cut" keeps the first ones,
                "average" averages neighbours, so that the tokens still cover the whole picture.
            text_pooling: the first token of a text: "first" = the encoder's own first token (BERT,
                RoBERTa), "mean" = the mean of all tokens, "sentence" = the sentence embedding of a
                sentence-transformers model.
            text_pooled_only: whether to keep only the first token of each text.
            image_pooling: the first token of a picture: "first", "mean", or "auto" to choose by the
                encoder.
            text_batch_size: texts per batch.
            image_batch_size: images per batch; None = 4 on a CPU, else 32.
            num_workers: number of processes that load images; None = chosen from the number of CPU
                cores and images.
            device: where to run the encoders; None = an accelerator if available.
            dtype: storage dtype of the tokens: float16, bfloat16 or float32.
            precision: dtype to compute in: "float32", "bfloat16", or "auto" for bfloat16 if the
                device supports it natively.
            shard_items: items per file in the folder; None = chosen for about 64 files.
            engine: writes the files of the folder on a cluster, such as
                `odmt_sdk.batch.RayExtraction(concurrency=8)`; None = this process.
            progress: whether to show progress bars.

        Returns:
            The features, in the order of `items`.

        Raises:
            ValueError: if no encoder is given, a modality is not registered, a column is missing,
                an id is repeated, no item has a text or picture, an item has two pictures in
                `image_folder`, or the folder was made with another encoder or other settings; the
                message names the difference.
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
        elif engine is not None:
            raise ValueError("engine= writes files to a folder: pass path= too")
        shared = {"device": device, "precision": precision}
        for_text = {
            "max_tokens": max_text_tokens,
            "pooling": text_pooling,
            "pooled_only": text_pooled_only,
            "batch_size": text_batch_size,
            **shared,
        }
        for_image = {
            "max_tokens": max_image_tokens,
            "reduction": image_reduction,
            "pooling": image_pooling,
            "batch_size": image_batch_size,
            "num_workers": num_workers,
            **shared,
        }
        encoded = encoded_columns(
            {"text": text_encoder, "image": image_encoder},
            encoders or {},
            columns={"text": text, "image": image, **(columns or {})},
            settings={"text": for_text, "image": for_image},
            options=encoder_options or {},
        )
        vocabulary, modalities = read_items(
            items,
            item_id=item_id,
            encoded=encoded,
            arrays=arrays or {},
            image_folder=image_folder,
            encoding=encoding,
            csv_options=csv_options,
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
                engine=engine,
            )
        return cls._from_extracted(extracted)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open features written by `from_items(..., path=...)`.

        Opening takes milliseconds. Tokens are read from disk on demand and are not kept in memory.

        Args:
            path: the folder.

        Returns:
            The features of all items in the folder.

        Raises:
            FileNotFoundError: if the folder has no features.
            ValueError: if extraction is incomplete, or a file is damaged.
        """
        return cls._from_extracted(read_store(user_path(path).absolute()))

    @classmethod
    def _from_extracted(cls, extracted: Extracted) -> Self:
        features = cls(extracted.vocabulary, {})
        features._modalities = extracted.modalities
        features.provenance, features.report = extracted.provenance, extracted.report
        features._folder, features._part = extracted.folder, extracted.part
        return features

    def _with(
        self, modalities: dict[str, CatalogueTokens], vocabulary: ItemVocabulary | None = None
    ) -> Self:
        """Return a copy with other tokens, and the same provenance and report."""
        changed = type(self)(vocabulary or self.vocabulary, {})
        changed._modalities = modalities
        changed.provenance, changed.report = self.provenance, self.report
        return changed

    @property
    def num_items(self) -> int:
        """Number of items N, without padding."""
        return len(self.vocabulary)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self._modalities)

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width d."""
        return {name: tokens.width for name, tokens in self._modalities.items()}

    @property
    def versions(self) -> tuple[int, ...]:
        """Counters that increase when tokens in memory are changed in place."""
        return tuple(count for tokens in self._modalities.values() for count in tokens.versions)

    @property
    def moments(self) -> dict[str, torch.Tensor]:
        """Modality -> mean and standard deviation (2, d) used to standardize its tokens."""
        return {
            name: tokens.moments
            for name, tokens in self._modalities.items()
            if tokens.moments is not None
        }

    def __getitem__(self, modality: str) -> ModalityTokens:
        """Return tokens (N + 1, T, d) and lengths (N + 1,) of a modality, loaded into memory."""
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
        """Add a modality from a tensor, for example audio.

        Args:
            name: name of the new modality.
            tokens: (N + 1, T, d), rows in the order of `vocabulary`, row 0 padding.
            lengths: (N + 1,) number of valid tokens of each item; None = all.

        Returns:
            New features, which share the existing tokens with these.

        Raises:
            ValueError: if the name is already used, or see the class.
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
        """Select items by id.

        Args:
            item_ids: ids of the items to keep; all of them must have features.

        Returns:
            Features whose rows are in the order of `item_ids`.

        Raises:
            ValueError: if an id has no features, or is repeated.
        """
        vocabulary = ItemVocabulary(item_ids)
        rows = torch.tensor([0, *self.vocabulary.rows(vocabulary)])
        return self._with(
            {name: tokens.select(rows) for name, tokens in self._modalities.items()}, vocabulary
        )

    def standardize(self, *, like: object = None, anew: bool = False) -> Self:
        """Standardize every feature, by default to mean 0 and standard deviation 1 over all tokens.

        Tokens of one encoder have a large common component that carries no information about an
        item. Removing it makes items easier to distinguish early in training.

        The moments (mean and standard deviation) are stored with the features and with a model
        trained on them, and `save_pretrained` saves them. Items added later need the same moments:
        `from_pretrained` and `add_items` standardize raw features with the moments of the model.

        Features on disk are not rewritten. They are standardized in float32 when they are read. The
        folder stores the moments of the first call, so existing items keep their tokens when the
        folder grows.

        Args:
            like: a model or features whose moments to use; None = the moments of these features.
            anew: for features on disk, compute the moments of all current items instead of using
                the ones stored in the folder, and store the new ones. Use it to train a model from
                scratch.

        Returns:
            New features of the same type; tokens past an item's length are 0.

        Raises:
            ValueError: if `like` has no moments for a modality or has moments of another width, the
                features were standardized with other moments, or there is only one item and `like`
                is None.
            TypeError: if `like` is neither a model nor features.

        Examples:
            >>> old = ItemFeatures.from_tensors(text=torch.randn(4, 7, 16)).standardize()
            >>> new = ItemFeatures.from_tensors(item_ids=["new"], text=torch.randn(2, 7, 16))
            >>> bool((new.standardize(like=old).moments["text"] == old.moments["text"]).all())
            True
        """
        moments: Mapping[str, torch.Tensor] = {}
        if like is not None:
            moments = moments_of(like)
            if lacking := [name for name in self._modalities if name not in moments]:
                raise ValueError(
                    f"like={type(like).__name__} has moments of {list(moments)}, but none of "
                    f"{lacking}: its features were not standardized, or lack that modality"
                )
        elif self._folder is not None and not anew:
            moments = self._remembered(self._folder)
        done = {name: self._standard(name, moments.get(name)) for name in self._modalities}
        standard = self._with(done)
        standard.provenance = {
            name: {**made, "standardized": True} for name, made in self.provenance.items()
        }
        if like is None and not moments and self._folder is not None and not self._part:
            write_moments(self._folder, standard.moments, self.num_items)
        return standard

    def _remembered(self, folder: Path) -> dict[str, torch.Tensor]:
        """Read the moments stored in the folder."""
        moments, count = read_moments(folder, self.widths)
        if moments and self.num_items > 2 * count:
            warnings.warn(
                f"these features of {self.num_items:,} items are standardized with the moments of "
                f"the {count:,} items that the folder had when it was first standardized. To train "
                "from scratch, use standardize(anew=True), which uses the moments of all items",
                UserWarning,
                stacklevel=3,
            )
        return moments

    def _standard(self, name: str, moments: torch.Tensor | None) -> CatalogueTokens:
        tokens = self._modalities[name]
        if moments is None:
            if self.num_items == 1:
                raise ValueError(
                    f"a single item cannot be standardized by itself, because its {name} would "
                    "lose all information: pass like=, the model or the features that it joins"
                )
            return tokens.standardize()
        if moments.shape != (2, tokens.width):
            raise ValueError(
                f"the moments are for {name} features of width {moments.shape[-1]}, but these have "
                f"width {tokens.width}: use features of the same encoder"
            )
        if tokens.moments is None:
            return tokens.standardize(moments)
        if same_moments(tokens.moments, moments):
            return tokens
        raise ValueError(
            f"the {name} features are already standardized with other moments: standardize the "
            "features that the encoder returned"
        )

    def gather(self, rows: torch.Tensor) -> dict[str, ModalityTokens]:
        """Read the tokens of some rows, padded to the longest of them.

        Args:
            rows: (U,) rows in 0..N, on any device.

        Returns:
            Modality -> tokens (U, T', d) and lengths (U,), T' <= T, on the device of `rows`.
        """
        return {name: tokens.gather(rows) for name, tokens in self._modalities.items()}

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the tokens to another device or convert them to another dtype.

        Args:
            device: target device; None = unchanged. On a GPU, batches are gathered without a copy
                from the host. Features on disk are loaded completely.
            dtype: floating-point dtype, for example `torch.float16`; None = unchanged.

        Returns:
            New features; tensors that need no change are shared.
        """
        return self._with({name: t.to(device, dtype) for name, t in self._modalities.items()})


def _lengths(tokens: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    if lengths is None:
        lengths = torch.full((tokens.shape[0],), tokens.shape[1] if tokens.ndim == 3 else 0)
        lengths[:1] = 0
    return lengths
