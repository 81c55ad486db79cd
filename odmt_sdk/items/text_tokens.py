"""Tokens of texts from any transformers text encoder.

Letters: N texts, b texts of one batch, T tokens, d width of a token.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from odmt_sdk.items.extraction import (
    EncodedBatch,
    Encoder,
    ExtractedTokens,
    check_settings,
    collect,
    device_of,
    eval_mode,
    is_missing,
    last_hidden_state,
    load_encoder,
)

TextPooling = Literal["first", "mean"]

_TEXTS_PER_CALL = 8192  # bounds what the tokenizer holds at once


def extract_text_tokens(
    texts: Sequence[str | None],
    encoder: Encoder,
    *,
    max_tokens: int = 30,
    pooling: TextPooling = "first",
    batch_size: int = 64,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> ExtractedTokens:
    """Encode texts into token matrices whose first token stands for the whole text.

    Texts of similar length share a batch, so that little padding is computed. Neither the batch a
    text is in nor the order of the texts changes its tokens.

    Args:
        texts: N texts; None, NaN and blank text mean that the item has none.
        encoder: a folder or Hub name with a model and a tokenizer, or a pair (model, tokenizer).
            Encoder-decoder models contribute their encoder, CLIP and its like their text part.
        max_tokens: tokens per text at most, the pooled one included; longer texts are cut.
        pooling: where the first token comes from. "first": it is the encoder's own first token,
            as BERT and RoBERTa mean it. "mean": the mean of all tokens is put in front of them, as
            sentence-transformers models such as all-MiniLM, T5 and decoder-only models need it.
        batch_size: texts per batch.
        device: where to run; default as in `load_encoder`.
        dtype: of the returned tokens; torch.float16 takes half the memory.
        progress: whether to show a progress bar.

    Returns:
        Tokens (N, T, d) with T the longest text's number of tokens, lengths (N,), and problems.

    Raises:
        TypeError: if a text is no text.
        ValueError: if no text has content, a setting is out of range, or `pooling="first"` is used
            with an encoder whose first token does not read the rest of the text.
        OSError: if the encoder cannot be loaded.

    Examples:
        >>> titles = ["Red wool scarf", None]
        >>> extracted = extract_text_tokens(titles, "bert-base-uncased")     # doctest: +SKIP
        >>> extracted.lengths                                                # doctest: +SKIP
        tensor([5, 0])
    """
    check_settings(batch_size, dtype)
    if pooling not in get_args(TextPooling):
        raise ValueError(f"pooling is {pooling!r}, but it must be 'first' or 'mean'")
    present = _present_texts(texts)
    model, tokenizer = load_encoder(encoder, "text", device)
    with eval_mode(model):
        return collect(
            encode_texts(present, model, tokenizer, max_tokens, pooling, batch_size),
            num_items=len(texts),
            num_present=len(present),
            kind="text",
            dtype=dtype,
            progress=progress,
        )


def _present_texts(texts: Sequence[str | None]) -> dict[int, str]:
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


def encode_texts(
    texts: dict[int, str],
    model: nn.Module,
    tokenizer: Callable[..., Any],
    max_tokens: int,
    pooling: TextPooling,
    batch_size: int,
) -> Iterator[EncodedBatch]:
    """Encode texts in batches, the longest texts first.

    Args:
        texts: position of each text with the text.
        model: a text encoder in evaluation mode.
        tokenizer: its tokenizer.
        max_tokens: tokens per text at most, the pooled one included.
        pooling: "first" or "mean", as in `extract_text_tokens`.
        batch_size: texts per batch.

    Yields:
        Batches that together hold every text once.

    Raises:
        ValueError: if `max_tokens` leaves no room for the text, or if `pooling="first"` and the
            first token does not read the rest of the text.
    """
    limit = _tokens_to_read(tokenizer, max_tokens, pooling)
    inputs = _tokenize(texts, tokenizer, limit)
    empty = {row: "the tokenizer finds no token in it" for row in texts if not inputs[row][0]}
    yield EncodedBatch([], torch.empty(0), torch.empty(0), empty)
    order = sorted(inputs.keys() - empty.keys(), key=lambda row: (-len(inputs[row][0]), row))
    padding_id = getattr(tokenizer, "pad_token_id", None) or 0
    if order and pooling == "first":
        _check_first_token(inputs[order[0]], model)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens, mask = _forward([inputs[row] for row in rows], model, padding_id)
        tokens = tokens.masked_fill(~mask[:, :, None], 0)
        lengths = mask.sum(1)  # (b, T) -> (b,)
        if pooling == "mean":
            # Summed in single precision: half precision would lose digits.
            mean = tokens.float().sum(1) / lengths[:, None]  # (b, T, d) -> (b, d)
            tokens = torch.cat([mean.to(tokens.dtype)[:, None], tokens], 1)  # -> (b, 1 + T, d)
            lengths = lengths + 1
        yield EncodedBatch(rows, tokens, lengths, {})


def _tokens_to_read(tokenizer: Callable[..., Any], max_tokens: int, pooling: TextPooling) -> int:
    pooled = 1 if pooling == "mean" else 0
    count_special = getattr(tokenizer, "num_special_tokens_to_add", lambda: 0)
    needed = pooled + count_special() + 1
    if max_tokens < needed:
        raise ValueError(
            f"max_tokens is {max_tokens}, but with this tokenizer's special tokens and "
            f"pooling={pooling!r} it must be at least {needed} to leave room for a word"
        )
    return min(max_tokens - pooled, getattr(tokenizer, "model_max_length", max_tokens))


# What a tokenizer says of one text: token ids, and token type ids where it gives them.
_TextInput = tuple[list[int], list[int] | None]


def _tokenize(
    texts: dict[int, str], tokenizer: Callable[..., Any], limit: int
) -> dict[int, _TextInput]:
    rows = list(texts)
    inputs: dict[int, _TextInput] = {}
    for start in range(0, len(rows), _TEXTS_PER_CALL):
        chunk = rows[start : start + _TEXTS_PER_CALL]
        encoded = tokenizer([texts[row] for row in chunk], truncation=True, max_length=limit)
        types = encoded.get("token_type_ids") or [None] * len(chunk)
        inputs.update(zip(chunk, zip(encoded["input_ids"], types, strict=True), strict=True))
    return inputs


def _forward(
    inputs: Sequence[_TextInput], model: nn.Module, padding_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    # Padding stands on the right whatever the tokenizer prefers, and is masked, so that a
    # tokenizer without a padding token needs none: any id will do.
    device = device_of(model)
    lengths = torch.tensor([len(ids) for ids, _ in inputs])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (b,) -> (b, T)
    batch = {
        "input_ids": _pad([ids for ids, _ in inputs], padding_id),
        "attention_mask": mask.long(),
    }
    if inputs[0][1] is not None:
        batch["token_type_ids"] = _pad([types or [] for _, types in inputs], 0)
    with torch.inference_mode():
        output = model(**{name: value.to(device) for name, value in batch.items()})
    return last_hidden_state(output), mask.to(device)


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def _check_first_token(example: _TextInput, model: nn.Module) -> None:
    """Refuse a model whose first token is blind to the rest of the text, as causal ones are."""
    ids, types = example
    other = next((token for token in ids if token != ids[-1]), None)
    if other is None:
        return  # nothing to exchange: one token, or all alike
    tokens, _ = _forward([(ids, types), ([*ids[:-1], other], types)], model, padding_id=0)
    if torch.allclose(tokens[0, 0], tokens[1, 0], rtol=1e-5, atol=1e-6):
        raise ValueError(
            f"pooling is 'first', but the first token of {type(model).__name__} does not read the "
            "rest of the text (a causal model), so it cannot stand for the text; use "
            "pooling='mean'"
        )
