"""sentence-transformers models as text encoders."""

import sys

import pytest
import torch
from extraction import extract_text_tokens
from tiny_encoders import TEXTS, bert

from odmt_sdk.features.extraction.text_tokens import TextExtractor


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    message = r"pooling='sentence' needs .* pip install odmt-sdk\[sentence-transformers\]"
    with pytest.raises(ImportError, match=message):
        extract_text_tokens(TEXTS, "all-MiniLM-L6-v2", pooling="sentence")


def test_models_of_other_kinds():
    with pytest.raises(TypeError, match="pooling is 'sentence', but the encoder is tuple: give a"):
        extract_text_tokens(TEXTS, bert(), pooling="sentence")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved sentence-transformers model with mean pooling."""
    library = pytest.importorskip("sentence_transformers")
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model, tokenizer = bert()
    model.save_pretrained(path / "bert")
    tokenizer.save_pretrained(path / "bert")
    sentence = library.SentenceTransformer(str(path / "bert"), device="cpu")
    sentence.max_seq_length = 9
    sentence.save(str(path / "sentence"))
    return path / "sentence"


def test_the_sentence_embedding_comes_first_and_the_tokens_follow(folder):
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(folder), device="cpu")
    texts = [text for text in TEXTS if text]
    expected = library.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    words = library.encode(texts, output_value="token_embeddings", show_progress_bar=False)
    settings = {"batch_size": 2, "progress": False, "max_tokens": 10}
    for encoder, how in ((folder, {"pooling": "sentence"}), (library, {})):
        extracted = extract_text_tokens(TEXTS, encoder, **how, **settings)
        present = extracted.lengths > 0
        assert present.tolist() == [text is not None for text in TEXTS]
        torch.testing.assert_close(extracted.tokens[present, 0], expected, rtol=1e-4, atol=1e-5)
        for row, own in zip(present.nonzero().flatten().tolist(), words, strict=True):
            found = extracted.tokens[row, 1 : extracted.lengths[row]]
            torch.testing.assert_close(found, own[: len(found)], rtol=1e-4, atol=1e-5)
            assert len(found) == min(9, len(own))
    alone = extract_text_tokens(TEXTS, library, pooled_only=True, **settings)
    assert alone.tokens.shape == (len(TEXTS), 1, 16)
    torch.testing.assert_close(alone.tokens[present, 0], expected, rtol=1e-4, atol=1e-5)


def test_half_precision_is_not_for_the_cpu(folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(folder), device="cpu").half().save(str(tmp_path / "half"))
    extractor = TextExtractor(str(tmp_path / "half"), pooling="sentence", device="cpu")
    assert extractor.dtype == torch.float32


def test_prompts_are_read_and_decide_what_the_features_are(folder):
    from sentence_transformers import SentenceTransformer

    prompts = {"prompts": {"query": "red wool "}, "default_prompt_name": "query"}
    prompted = SentenceTransformer(str(folder), device="cpu", **prompts)
    plain = SentenceTransformer(str(folder), device="cpu")
    settings = {"pooled_only": True, "progress": False}
    ours = extract_text_tokens(["hat"], prompted, **settings)
    expected = prompted.encode(["hat"], convert_to_tensor=True, show_progress_bar=False)
    torch.testing.assert_close(ours.tokens[:, 0], expected, rtol=1e-4, atol=1e-5)
    made = [TextExtractor(model).provenance["preprocessing"] for model in (plain, prompted)]
    assert made[0] != made[1]


def test_a_name_that_leads_nowhere(folder):
    with pytest.raises(OSError, match="cannot be loaded as a sentence-transformers model"):
        extract_text_tokens(TEXTS, str(folder / "absent"), pooling="sentence")
