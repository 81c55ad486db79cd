import random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from extraction import extract_text_tokens
from tiny_encoders import BERT, TEXTS, WORDS, bert, causal, make_tokenizer
from torch import nn
from transformers import BertModel, T5Config, T5Model


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_text_has_the_same_tokens_alone_and_in_any_batch(pooling):
    encoder = bert()
    together = extract_text_tokens(TEXTS, encoder, pooling=pooling, batch_size=3, progress=False)
    for row, text in enumerate(TEXTS):
        length = int(together.lengths[row])
        if text is None:
            assert length == 0
            continue
        alone = extract_text_tokens([text], encoder, pooling=pooling, progress=False)
        assert alone.lengths.tolist() == [length]
        torch.testing.assert_close(
            together.tokens[row, :length], alone.tokens[0], rtol=1e-5, atol=1e-5
        )
    beyond = torch.arange(together.tokens.shape[1]) >= together.lengths[:, None]
    assert together.tokens[beyond].abs().max() == 0


def test_the_order_of_texts_only_reorders_rows():
    texts = [" ".join(random.choices(WORDS, k=random.randint(1, 12))) for _ in range(40)]
    order = random.sample(range(40), 40)
    encoder = bert()
    straight = extract_text_tokens(texts, encoder, batch_size=7, progress=False)
    shuffled = extract_text_tokens(
        [texts[row] for row in order], encoder, batch_size=7, progress=False
    )
    torch.testing.assert_close(shuffled.tokens, straight.tokens[order], rtol=1e-5, atol=1e-5)
    assert shuffled.lengths.tolist() == straight.lengths[order].tolist()


def test_first_pooling_keeps_the_tokens_of_the_encoder():
    model, tokenizer = bert()
    extracted = extract_text_tokens(["red scarf"], (model, tokenizer), progress=False)
    with torch.no_grad():
        expected = model(**tokenizer("red scarf", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(extracted.tokens, expected)


def test_mean_pooling_puts_the_mean_of_the_texts_own_tokens_in_front():
    extracted = extract_text_tokens(TEXTS, bert(), pooling="mean", progress=False)
    for row in (0, 1, 2, 4):
        length = int(extracted.lengths[row])
        tokens = extracted.tokens[row, 1:length]
        torch.testing.assert_close(extracted.tokens[row, 0], tokens.mean(0))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_max_tokens_counts_the_pooled_token(pooling):
    extracted = extract_text_tokens(TEXTS, bert(), max_tokens=6, pooling=pooling, progress=False)
    extra = 1 if pooling == "mean" else 0
    assert extracted.tokens.shape == (5, 6, 16)
    assert extracted.lengths.tolist() == [4 + extra, 6, 3 + extra, 0, 6]


def test_the_width_is_that_of_the_longest_text():
    extracted = extract_text_tokens(["hat", "red hat"], bert(), progress=False)
    assert extracted.tokens.shape == (2, 4, 16)


@pytest.mark.parametrize(
    "missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", " \n"], ids=repr
)
def test_missing_texts_have_no_tokens(missing):
    extracted = extract_text_tokens([missing, "red hat"], bert(), progress=False)
    assert extracted.lengths.tolist() == [0, 4]
    assert extracted.tokens[0].abs().max() == 0
    assert extracted.problems == {}


def test_a_pandas_column_is_a_sequence_of_texts():
    column = pd.Series(["hat", None, "red hat"], index=[7, 8, 9])
    extracted = extract_text_tokens(column, bert(), progress=False)
    assert extracted.lengths.tolist() == [3, 0, 4]


def test_a_text_without_tokens_is_reported():
    encoder = BertModel(BERT), make_tokenizer(special=False)
    with pytest.warns(UserWarning, match="1 of 2 texts could not be read.*item 0: the tokenizer"):
        extracted = extract_text_tokens(["?!", "red hat"], encoder, progress=False)
    assert extracted.lengths.tolist() == [0, 2]
    assert list(extracted.problems) == [0]


def test_encoder_decoder_models_contribute_their_encoder():
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    model, tokenizer = T5Model(config).eval(), make_tokenizer()
    extracted = extract_text_tokens(
        ["red hat", "hat"], (model, tokenizer), pooling="mean", progress=False
    )
    with torch.no_grad():
        ids = tokenizer("red hat", return_tensors="pt").input_ids
        expected = model.encoder(ids).last_hidden_state
    torch.testing.assert_close(extracted.tokens[0, 1:], expected[0], rtol=1e-4, atol=1e-5)


def test_decoder_only_models_need_no_padding_token():
    encoder = causal()
    extracted = extract_text_tokens(TEXTS, encoder, pooling="mean", progress=False)
    alone = extract_text_tokens(["hat"], encoder, pooling="mean", progress=False)
    torch.testing.assert_close(extracted.tokens[2, :2], alone.tokens[0], rtol=1e-5, atol=1e-5)


def test_a_first_token_that_reads_nothing_is_refused():
    with pytest.raises(ValueError, match="GPT2Model does not read the rest.*pooling='mean'"):
        extract_text_tokens(TEXTS, causal(), progress=False)


class Recorder(nn.Module):
    """Records the shapes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor, **inputs: torch.Tensor) -> SimpleNamespace:
        self.shapes.append(tuple(input_ids.shape))
        return SimpleNamespace(last_hidden_state=input_ids[:, :, None].float())


def test_texts_of_similar_length_share_a_batch():
    model = Recorder()
    texts = ["hat", " ".join(WORDS[:10]), "red hat", " ".join(WORDS[:9])]
    extract_text_tokens(
        texts, (model, make_tokenizer()), pooling="mean", batch_size=2, progress=False
    )
    assert model.shapes == [(2, 12), (2, 4)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "hat"}, TypeError, "single text 'hat'"),
        ({"texts": ["hat", 5]}, TypeError, r"text of item 1 is 5 \(int\)"),
        ({"texts": [None, " "]}, ValueError, "none of 2 items has a text.*every text is missing"),
        ({"texts": []}, ValueError, "none of 0 items"),
        ({"max_tokens": 2}, ValueError, "max_tokens is 2.*at least 3"),
        ({"max_tokens": 3, "pooling": "mean"}, ValueError, "max_tokens is 3.*at least 4"),
        ({"pooling": "last"}, ValueError, "pooling is 'last'"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"dtype": torch.int64}, ValueError, r"dtype is torch\.int64"),
        ({"encoder": 3}, TypeError, "text encoder is int.*pair"),
        ({"encoder": (nn.Linear(1, 1), None)}, TypeError, "text encoder is tuple"),
    ],
)
def test_bad_arguments_for_texts(arguments, error, message):
    arguments = {"texts": TEXTS, "encoder": bert(), "progress": False, **arguments}
    with pytest.raises(error, match=message):
        extract_text_tokens(arguments.pop("texts"), arguments.pop("encoder"), **arguments)
