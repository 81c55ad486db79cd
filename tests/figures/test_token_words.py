"""Mapping tokens to words."""

import pytest

from odmt_sdk.figures.token_words import TokenWord, given_words, numbered_words, words_of_text
from odmt_sdk.toy_shop.tiny_encoders import tiny_text_encoder

TEXT = "Red mug, gift-boxed"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_text_encoder([TEXT])[1]


@pytest.fixture(scope="module")
def pieces():
    """A tokenizer that splits words into pieces, like BERT's."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", "tea", "##pot", "##s", "red"])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


def test_words_are_those_of_the_text_and_special_tokens_keep_their_names(tokenizer):
    words = words_of_text(TEXT, tokenizer, 8, mean_first=False)
    assert [w.label for w in words] == [
        *("[CLS]", "Red", "mug", ",", "gift", "-", "boxed", "[SEP]")
    ]
    assert [w.tokens for w in words] == [(i,) for i in range(8)]
    assert [w.label for w in words if w.special] == ["[CLS]", "[SEP]"]


def test_a_leading_mean_moves_the_words_by_one(tokenizer):
    words = words_of_text(TEXT, tokenizer, 9, mean_first=True)
    assert words[0] == TokenWord("mean", (0,), special=True)
    assert words[2] == TokenWord("Red", (2,))


def test_a_text_that_was_cut_ends_where_the_features_end(tokenizer):
    labels = [w.label for w in words_of_text(TEXT, tokenizer, 4, mean_first=False)]
    assert labels == ["[CLS]", "Red", "mug", "[SEP]"]


def test_pieces_of_a_word_are_one_word(pieces):
    words = words_of_text("red teapots red", pieces, 5, mean_first=False)
    assert words == [
        TokenWord("red", (0,)),
        TokenWord("teapots", (1, 2, 3)),
        TokenWord("red", (4,)),
    ]
    words = words_of_text("red teapots red", pieces, 6, mean_first=True)
    assert words[2] == TokenWord("teapots", (2, 3, 4))


def test_one_token_stands_for_the_whole_text(tokenizer):
    assert words_of_text(TEXT, tokenizer, 1, mean_first=True) == [
        TokenWord("whole text", (0,), special=True)
    ]


def test_tokens_of_another_text_are_refused(tokenizer):
    message = r"the tokenizer makes 3 tokens of 'mug', .*hold 8 .*text_pooling='mean'"
    with pytest.raises(ValueError, match=message):
        words_of_text("mug", tokenizer, 8, mean_first=False)
    with pytest.raises(ValueError, match="text_pooling='first'"):
        words_of_text("mug", tokenizer, 8, mean_first=True)


def test_a_tokenizer_that_does_not_know_words_is_refused():
    with pytest.raises(ValueError, match=r"is not a fast tokenizer .*give words="):
        words_of_text("mug", lambda text: text.split(), 3, mean_first=False)


def test_words_of_the_users_own():
    assert given_words(["a", "b"], 2) == [TokenWord("a", (0,)), TokenWord("b", (1,))]
    with pytest.raises(
        ValueError, match="words has 1 entries, but the features hold 2 text tokens"
    ):
        given_words(["a"], 2)


def test_unknown_tokens_are_numbered():
    assert numbered_words(2) == [TokenWord("1", (0,)), TokenWord("2", (1,))]
