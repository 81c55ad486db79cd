"""Text tokens from any transformers text encoder or sentence-transformers model.

Letters: N texts, b texts of one batch, T tokens, d width of a token.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from odmt_sdk.features.extraction.pretrained_encoders import (
    Encoder,
    LoadedEncoder,
    Precision,
    autocast_type,
    computing_in,
    device_of,
    fingerprint,
    last_hidden_state,
    load_encoder,
)
from odmt_sdk.features.extraction.sentence_models import is_sentence_model, load_sentence_model
from odmt_sdk.features.extractor import (
    EncodedBatch,
    check_batch_size,
    described,
    encode_together,
    is_missing,
    shortened,
)
from odmt_sdk.features.modalities import register_modality
from odmt_sdk.modes import evaluating

TextPooling = Literal["first", "mean", "sentence"]

_TEXTS_PER_CALL = 8192  # bounds the memory of the tokenizer


def present_texts(
    texts: Sequence[str | None], item_ids: Sequence[Hashable] | None = None
) -> dict[int, str]:
    """Drop empty cells.

    Args:
        texts: N cells.
        item_ids: item ids to use in messages; None = positions.

    Returns:
        Position -> text.

    Raises:
        TypeError: if a cell is neither a string nor empty.
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts is the single text {shortened(repr(texts))}, but it must be a list of texts"
        )
    named = range(len(texts)) if item_ids is None else item_ids
    present: dict[int, str] = {}
    for row, text in enumerate(texts):
        if is_missing(text):
            continue
        if not isinstance(text, str):
            raise TypeError(
                f"text of item {named[row]!r} is {shortened(repr(text))} ({type(text).__name__}), "
                "but a text must be a str, or None where an item has none"
            )
        present[row] = text
    return present


# Tokenizer output for one text: token ids, and token type ids if the tokenizer returns them.
TextInput = tuple[list[int], list[int] | None]


@register_modality("text", present=present_texts)
class TextExtractor:
    """Encodes texts as tokens; the first token represents the whole text.

    Texts of similar length share a batch, which reduces padding. The tokens of a text do not depend
    on the batch or on the order of the texts.

    Args:
        encoder: a folder or Hub name with a model and a tokenizer, a pair (model, tokenizer), or a
            `SentenceTransformer`. Of encoder-decoder models, only the encoder is used; of
            multi-modal models such as CLIP, only the text tower.
        max_tokens: maximum number of tokens per text, including the pooled one; longer texts are
            truncated.
        pooling: where the first token comes from. "first": it is the encoder's own first token, as
            in BERT and RoBERTa. "mean": the mean of all tokens is prepended; T5 and decoder-only
            models need this. "sentence": the sentence embedding of a sentence-transformers model is
            prepended (always the case for a `SentenceTransformer`).
        pooled_only: whether to keep only the first token.
        batch_size: texts per batch.
        device: where to run; None = an accelerator if available.
        precision: dtype to compute in; "auto" = bfloat16 if the device supports it natively.

    Raises:
        ValueError: if a setting is out of range.
        OSError: if the encoder cannot be loaded.
        ImportError: if sentence-transformers is needed and missing.

    Examples:
        >>> extractor = TextExtractor("bert-base-uncased", max_tokens=20)    # doctest: +SKIP
    """

    unit = "text"

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_tokens: int = 30,
        pooling: TextPooling = "first",
        pooled_only: bool = False,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
    ) -> None:
        check_batch_size(batch_size)
        if pooling not in get_args(TextPooling):
            raise ValueError(
                f"pooling is {pooling!r}, but it must be 'first', 'mean' or 'sentence'"
            )
        if is_sentence_model(encoder) or pooling == "sentence":
            loaded, self.pooling = load_sentence_model(encoder, device), "sentence"
        else:
            loaded, self.pooling = load_encoder(encoder, "text", device), str(pooling)
        self.encoder: LoadedEncoder = loaded
        self.max_tokens, self.pooled_only, self.batch_size = max_tokens, pooled_only, batch_size
        self.dtype = autocast_type(loaded.model, precision)
        self._limit = self._tokens_to_read()

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that determines the tokens: encoder, revision, preprocessing and so on."""
        tokenizer = self.encoder.processor
        vocabulary = sorted(getattr(tokenizer, "get_vocab", dict)().items())
        return {
            "encoder": self.encoder.name,
            "revision": self.encoder.revision,
            "weights": fingerprint(self.encoder.model),
            "pooling": self.pooling + (" only" if self.pooled_only else ""),
            "preprocessing": {
                "max_tokens": self.max_tokens,
                "tokenizer": type(tokenizer).__name__,
                "vocabulary": hashlib.blake2b(
                    repr(vocabulary).encode(), digest_size=12
                ).hexdigest(),
            },
            "computed_in": str(self.dtype).removeprefix("torch."),
        }

    def encode(
        self, values: Mapping[int, str], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Encode texts in batches, the longest texts of each group first.

        Args:
            values: position -> text, for the items that have a text.
            groups: lists of positions; a batch never spans two groups.

        Yields:
            Group index, ascending, and a batch. Each text is in exactly one batch, as tokens or as
            a problem.

        Raises:
            ValueError: if `pooling="first"` and the first token does not attend to the rest of the
                text.
        """
        checked = False
        with evaluating(self.encoder.model):
            for group, rows in enumerate(groups):
                inputs, empty = self.prepare({row: values[row] for row in rows})
                if empty:
                    yield group, EncodedBatch([], torch.empty(0), torch.empty(0), empty)
                order = sorted(inputs, key=lambda row: (-len(inputs[row][0]), row))
                if order and not checked:
                    self.check_first_token(inputs[order[0]])
                    checked = True
                for start in range(0, len(order), self.batch_size):
                    batch = order[start : start + self.batch_size]
                    yield (
                        group,
                        encode_together(
                            batch,
                            lambda some: self._without_gradients([inputs[r] for r in some]),  # noqa: B023
                        ),
                    )

    @torch.inference_mode()
    def _without_gradients(self, inputs: Sequence[TextInput]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tokens(inputs)

    def tokens(self, inputs: Sequence[TextInput]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode some texts together, with gradients.

        Args:
            inputs: b texts from `prepare`.

        Returns:
            Tokens (b, T, d), with the pooled token first, and lengths (b,).
        """
        output, mask = self._forward(inputs)
        tokens = last_hidden_state(output).masked_fill(~mask[:, :, None], 0)
        lengths = mask.sum(1)  # (b, T) -> (b,)
        pooled = None
        if self.pooling == "mean":
            # Sum in float32, because half precision would lose digits.
            pooled = tokens.float().sum(1) / lengths[:, None]  # (b, T, d) -> (b, d)
        elif self.pooling == "sentence":
            pooled = output.sentence_embedding
        if self.pooled_only:
            tokens = tokens[:, :1] if pooled is None else pooled[:, None]
            return tokens, torch.ones_like(lengths)
        if pooled is None:
            return tokens, lengths
        if pooled.shape[1] != tokens.shape[2]:
            raise ValueError(
                f"sentence embeddings have {pooled.shape[1]} values, but tokens have "
                f"{tokens.shape[2]}, so they do not fit into one matrix: keep only the sentence "
                "embeddings with pooled_only=True (text_pooled_only=True in from_items)"
            )
        tokens = torch.cat([pooled.to(tokens.dtype)[:, None], tokens], 1)  # -> (b, 1 + T, d)
        return tokens, lengths + 1

    def _tokens_to_read(self) -> int:
        tokenizer = self.encoder.processor
        pooled = 1 if self.pooling != "first" and not self.pooled_only else 0
        count_special = getattr(tokenizer, "num_special_tokens_to_add", lambda: 0)
        needed = pooled + count_special() + 1
        if self.max_tokens < needed:
            raise ValueError(
                f"max_tokens is {self.max_tokens}, but with this tokenizer's special tokens and "
                f"pooling={self.pooling!r} it must be at least {needed} to leave room for a word; "
                "to keep a single token, use pooled_only=True"
            )
        return min(
            self.max_tokens - pooled, getattr(tokenizer, "model_max_length", self.max_tokens)
        )

    def prepare(self, texts: Mapping[int, str]) -> tuple[dict[int, TextInput], dict[int, str]]:
        """Tokenize texts.

        Args:
            texts: row -> text.

        Returns:
            Row -> token ids, and row -> reason for the texts that have none.
        """
        rows = list(texts)
        inputs: dict[int, TextInput] = {}
        refused: dict[int, str] = {}
        for start in range(0, len(rows), _TEXTS_PER_CALL):
            chunk = rows[start : start + _TEXTS_PER_CALL]
            try:
                inputs.update(zip(chunk, self._inputs([texts[r] for r in chunk]), strict=True))
            except Exception as error:  # tokenizers raise any type of exception
                for row in chunk:
                    try:
                        inputs[row] = self._inputs([texts[row]])[0]
                    except Exception as alone:
                        refused[row] = f"the tokenizer refuses it: {described(alone)}"
                if not refused or (len(chunk) > 1 and not inputs.keys() & set(chunk)):
                    raise error
        for row in [row for row, (ids, _) in inputs.items() if not ids]:
            refused[row] = "the tokenizer finds no token in it"
            del inputs[row]
        return inputs, refused

    def _inputs(self, texts: list[str]) -> list[TextInput]:
        tokenizer: Callable[..., Any] = self.encoder.processor
        encoded = tokenizer(texts, truncation=True, max_length=self._limit)
        types = encoded.get("token_type_ids") or [None] * len(texts)
        return list(zip(encoded["input_ids"], types, strict=True))

    def _forward(self, inputs: Sequence[TextInput]) -> tuple[Any, torch.Tensor]:
        # Padding is always on the right, whatever side the tokenizer uses. It is masked, so a
        # tokenizer without a padding token can use any id.
        model = self.encoder.model
        device = device_of(model)
        padding_id = getattr(self.encoder.processor, "pad_token_id", None) or 0
        lengths = torch.tensor([len(ids) for ids, _ in inputs])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (b,) -> (b, T)
        batch = {
            "input_ids": _pad([ids for ids, _ in inputs], padding_id),
            "attention_mask": mask.long(),
        }
        if inputs[0][1] is not None:
            batch["token_type_ids"] = _pad([types or [] for _, types in inputs], 0)
        with computing_in(model, self.dtype):
            output = model(**{name: value.to(device) for name, value in batch.items()})
        return output, mask.to(device)

    @torch.inference_mode()
    def check_first_token(self, example: TextInput) -> None:
        """Raise if the first token stands for the text but does not attend to the rest of it.

        Args:
            example: a text from `prepare`.

        Raises:
            ValueError: if it does not, as in causal models.
        """
        if self.pooling != "first":
            return
        ids, types = example
        other = next((token for token in ids if token != ids[-1]), None)
        if other is None:
            return  # no token to swap: there is only one token, or all are equal
        output, _ = self._forward([(ids, types), ([*ids[:-1], other], types)])
        tokens = last_hidden_state(output)
        if torch.allclose(tokens[0, 0], tokens[1, 0], rtol=1e-5, atol=1e-6):
            name = type(self.encoder.model).__name__
            raise ValueError(
                f"pooling is 'first', but the first token of {name} does not read the rest of the "
                "text (a causal model), so it cannot stand for the text; use pooling='mean'"
            )


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )
