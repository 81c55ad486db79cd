"""Maps the tokens of a text to words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

WHOLE = "whole text"


class TokenWord(NamedTuple):
    """A word and its tokens.

    Args:
        label: the word as written in the text, or the name of a special token.
        tokens: indices of its tokens among the item's tokens.
        special: whether it is a special token and not a word of the text.
    """

    label: str
    tokens: tuple[int, ...]
    special: bool = False


def numbered_words(num_tokens: int) -> list[TokenWord]:
    """Label tokens by number if their words are unknown.

    Args:
        num_tokens: number of tokens.

    Returns:
        One word per token.
    """
    return [TokenWord(str(place + 1), (place,)) for place in range(num_tokens)]


def given_words(words: Sequence[str], num_tokens: int) -> list[TokenWord]:
    """Use labels given by the user.

    Args:
        words: one label per token.
        num_tokens: number of tokens of the item's text.

    Returns:
        One word per token.

    Raises:
        ValueError: if the numbers of labels and tokens differ.
    """
    if len(words) != num_tokens:
        raise ValueError(
            f"words has {len(words)} entries, but the features hold {num_tokens} text tokens of "
            "this item: give one label per token, the leading token that stands for the whole "
            "text included"
        )
    return [TokenWord(str(word), (place,)) for place, word in enumerate(words)]


def words_of_text(
    text: str, tokenizer: Any, num_tokens: int, *, mean_first: bool
) -> list[TokenWord]:
    """Find the words of a text that an item's tokens belong to.

    Args:
        text: the text.
        tokenizer: the text encoder's tokenizer, a fast tokenizer of transformers.
        num_tokens: number of tokens of the item's text, after truncation.
        mean_first: whether the first token is the mean of the others.

    Returns:
        The words in order; the pieces of a word are merged.

    Raises:
        ValueError: if the tokenizer is not a fast tokenizer, or gives another number of tokens.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} is not a fast tokenizer of transformers, so it cannot say "
            "which tokens make a word: give words=, one label per token"
        )
    leading = 1 if mean_first else 0
    if num_tokens == 1:
        return [TokenWord(WHOLE, (0,), special=True)]
    encoded = tokenizer(
        text, truncation=True, max_length=num_tokens - leading, return_offsets_mapping=True
    )
    made = leading + len(encoded["input_ids"])
    if made != num_tokens:
        other = "first" if mean_first else "mean"
        raise ValueError(
            f"the tokenizer makes {made - leading} tokens of {text!r}, but the features hold "
            f"{num_tokens} of this item's text: give the tokenizer and the text of the extraction, "
            f"and text_pooling={other!r} if the features were extracted with it"
        )
    names = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    words = [TokenWord("mean", (0,), special=True)] if mean_first else []
    numbers: list[int | None] = encoded.word_ids(0)
    for place, (number, (start, end)) in enumerate(
        zip(numbers, encoded["offset_mapping"], strict=True)
    ):
        if number is not None and place and numbers[place - 1] == number:
            before = words.pop()
            # the pieces of a word are adjacent, so append this one
            label, tokens = before.label + text[start:end], (*before.tokens, place + leading)
            words.append(TokenWord(label, tokens))
        else:
            label = names[place] if number is None else text[start:end].strip()
            words.append(TokenWord(label, (place + leading,), special=number is None))
    return words
