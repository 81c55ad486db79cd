"""Tokens of texts from any transformers text encoder, or a model of sentence-transformers.

Letters: N texts, b texts of one batch, T tokens, d width of a token.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from odmt_sdk.items.encoders import (
    Encoder,
    LoadedEncoder,
    Precision,
    autocast_type,
    device_of,
    eval_mode,
    fingerprint,
    inference,
    last_hidden_state,
    load_encoder,
)
from odmt_sdk.items.extraction import (
    EncodedBatch,
    ExtractedTokens,
    check_batch_size,
    check_dtype,
    collect,
    is_missing,
    warn_of_problems,
)
from odmt_sdk.items.sentence_models import is_sentence_model, load_sentence_model

TextPooling = Literal["first", "mean", "sentence"]

_TEXTS_PER_CALL = 8192  # bounds what the tokenizer holds at once


def extract_text_tokens(
    texts: Sequence[str | None],
    encoder: Encoder,
    *,
    max_tokens: int = 30,
    pooling: TextPooling = "first",
    pooled_only: bool = False,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    precision: Precision = "auto",
    progress: bool = True,
) -> ExtractedTokens:
    """Encode texts into token matrices whose first token stands for the whole text.

    Texts of similar length share a batch, so that little padding is computed. Neither the batch a
    text is in nor the order of the texts changes its tokens.

    Args:
        texts: N texts; None, NaN and blank text mean that the item has none.
        encoder: a folder or Hub name with a model and a tokenizer, a pair (model, tokenizer), or a
            `SentenceTransformer`. Encoder-decoder models contribute their encoder, CLIP and its
            like their text part.
        max_tokens: tokens per text at most, the pooled one included; longer texts are cut.
        pooling: where the first token comes from. "first": it is the encoder's own first token,
            as BERT and RoBERTa mean it. "mean": the mean of all tokens is put in front of them, as
            T5 and decoder-only models need it. "sentence": the sentence embedding of a model of
            sentence-transformers is put there (a `SentenceTransformer` always does that).
        pooled_only: whether to keep nothing but the first token.
        batch_size: texts per batch.
        device: where to run; default as in `load_encoder`.
        dtype: of the returned tokens; torch.float16 takes half the memory.
        precision: type to compute in; "auto" = bfloat16 where the device computes in it.
        progress: whether to show a progress bar.

    Returns:
        Tokens (N, T, d) with T the longest text's number of tokens, lengths (N,), and problems.

    Raises:
        TypeError: if a text is no text.
        ValueError: if no text has content, a setting is out of range, or `pooling="first"` is used
            with an encoder whose first token does not read the rest of the text.
        OSError: if the encoder cannot be loaded.
        ImportError: if sentence-transformers is needed and missing.

    Examples:
        >>> titles = ["Red wool scarf", None]
        >>> extracted = extract_text_tokens(titles, "bert-base-uncased")     # doctest: +SKIP
        >>> extracted.lengths                                                # doctest: +SKIP
        tensor([5, 0])
    """
    check_dtype(dtype)
    present = present_texts(texts)
    extractor = TextExtractor(
        encoder,
        max_tokens=max_tokens,
        pooling=pooling,
        pooled_only=pooled_only,
        batch_size=batch_size,
        device=device,
        precision=precision,
    )
    extracted = collect(extractor, present, num_items=len(texts), dtype=dtype, progress=progress)
    warn_of_problems(extracted.problems, len(present), extractor.unit)
    return extracted


def present_texts(texts: Sequence[str | None]) -> dict[int, str]:
    """Leave out empty cells.

    Args:
        texts: N cells.

    Returns:
        Position -> text.

    Raises:
        TypeError: if a cell is neither a text nor empty.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts is the single text {texts!r}, but it must be a list of texts")
    present: dict[int, str] = {}
    for row, text in enumerate(texts):
        if is_missing(text):
            continue
        if not isinstance(text, str):
            raise TypeError(
                f"text {row} is {text!r} ({type(text).__name__}), but a text must be a str, or "
                "None where an item has none"
            )
        present[row] = text
    return present


# What a tokenizer says of one text: token ids, and token type ids where it gives them.
_TextInput = tuple[list[int], list[int] | None]


class TextExtractor:
    """Makes tokens of texts; the arguments are those of `extract_text_tokens`.

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
        """Encoder, revision, preprocessing: everything that decides what the tokens are."""
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
            values: position of each text with the text.
            groups: positions that may share a batch.

        Yields:
            Index of the group, in order, and batches that together hold every text once.

        Raises:
            ValueError: if `pooling="first"` and the first token does not read the rest of the text.
        """
        model, checked = self.encoder.model, self.pooling != "first"
        padding_id = getattr(self.encoder.processor, "pad_token_id", None) or 0
        with eval_mode(model):
            for group, rows in enumerate(groups):
                inputs = self._tokenize({row: values[row] for row in rows})
                empty = {r: "the tokenizer finds no token in it" for r in rows if not inputs[r][0]}
                if empty:
                    yield group, EncodedBatch([], torch.empty(0), torch.empty(0), empty)
                order = sorted(inputs.keys() - empty, key=lambda row: (-len(inputs[row][0]), row))
                if order and not checked:
                    self._check_first_token(inputs[order[0]])
                    checked = True
                for start in range(0, len(order), self.batch_size):
                    batch = order[start : start + self.batch_size]
                    tokens, lengths = self._tokens([inputs[row] for row in batch], padding_id)
                    yield group, EncodedBatch(batch, tokens, lengths, {})

    def _tokens(
        self, inputs: Sequence[_TextInput], padding_id: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (b, T, d) with the one that stands for the text in front, and lengths (b,)."""
        output, mask = self._forward(inputs, padding_id)
        tokens = last_hidden_state(output).masked_fill(~mask[:, :, None], 0)
        lengths = mask.sum(1)  # (b, T) -> (b,)
        pooled = None
        if self.pooling == "mean":
            # Summed in single precision: half precision would lose digits.
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
                f"sentence embeddings have {pooled.shape[1]} values, tokens {tokens.shape[2]}: "
                "they cannot stand in one matrix; keep the former alone with pooled_only=True "
                "(text_pooled_only=True of from_items)"
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
                "pooled_only=True keeps one token of however many are read"
            )
        return min(
            self.max_tokens - pooled, getattr(tokenizer, "model_max_length", self.max_tokens)
        )

    def _tokenize(self, texts: Mapping[int, str]) -> dict[int, _TextInput]:
        tokenizer: Callable[..., Any] = self.encoder.processor
        rows = list(texts)
        inputs: dict[int, _TextInput] = {}
        for start in range(0, len(rows), _TEXTS_PER_CALL):
            chunk = rows[start : start + _TEXTS_PER_CALL]
            encoded = tokenizer([texts[r] for r in chunk], truncation=True, max_length=self._limit)
            types = encoded.get("token_type_ids") or [None] * len(chunk)
            inputs.update(zip(chunk, zip(encoded["input_ids"], types, strict=True), strict=True))
        return inputs

    def _forward(self, inputs: Sequence[_TextInput], padding_id: int) -> tuple[Any, torch.Tensor]:
        # Padding stands on the right whatever the tokenizer prefers, and is masked, so that a
        # tokenizer without a padding token needs none: any id will do.
        model = self.encoder.model
        device = device_of(model)
        lengths = torch.tensor([len(ids) for ids, _ in inputs])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (b,) -> (b, T)
        batch = {
            "input_ids": _pad([ids for ids, _ in inputs], padding_id),
            "attention_mask": mask.long(),
        }
        if inputs[0][1] is not None:
            batch["token_type_ids"] = _pad([types or [] for _, types in inputs], 0)
        with inference(model, self.dtype):
            output = model(**{name: value.to(device) for name, value in batch.items()})
        return output, mask.to(device)

    def _check_first_token(self, example: _TextInput) -> None:
        """Refuse a model whose first token is blind to the rest of the text, as causal ones are."""
        ids, types = example
        other = next((token for token in ids if token != ids[-1]), None)
        if other is None:
            return  # nothing to exchange: one token, or all alike
        output, _ = self._forward([(ids, types), ([*ids[:-1], other], types)], padding_id=0)
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
