"""The tiny encoders: reproducible, without effect on global random state, and informative."""

import pytest
import torch
from extraction import extract_image_tokens, extract_text_tokens
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from odmt_sdk.toy_shop.shop import make_shop
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder

TEXTS = ["A red mug", "Blue teapot, in stoneware", None]


@pytest.fixture(scope="module")
def shop():
    return make_shop(num_items=900, num_users=1)


@pytest.fixture(scope="module")
def text_tokens(shop):
    model, tokenizer = tiny_text_encoder(shop.items["title"])
    batch = tokenizer(shop.items["title"], return_tensors="pt", padding=True)
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    valid = batch["attention_mask"][..., None]
    return (tokens * valid).sum(1) / valid.sum(1)  # (N, T, d) -> (N, d)


@pytest.fixture(scope="module")
def image_tokens(shop):
    model, processor = tiny_image_encoder()
    pixels = processor(images=shop.items["image"], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model(pixel_values=pixels).last_hidden_state.mean((2, 3))  # (N, d, H, W) -> (N, d)


def accuracy(inputs, values):
    """Accuracy of a linear classifier, fitted to two thirds of the items, on the others."""
    names = sorted(set(values))
    labels = torch.tensor([names.index(value) for value in values])
    inputs = inputs.double()
    inputs = torch.cat([(inputs - inputs.mean(0)) / inputs.std(0), inputs.new_ones(900, 1)], 1)
    x, y = inputs[:600], F.one_hot(labels[:600], len(names)).double()
    weights = torch.linalg.solve(x.T @ x + 30 * torch.eye(x.shape[1]), x.T @ y)
    return float(((inputs[600:] @ weights).argmax(1) == labels[600:]).double().mean())


@pytest.mark.parametrize(
    ("attribute", "least"), [("category", 0.85), ("colour", 0.7), ("pattern", 0.7)]
)
def test_what_a_picture_shows_can_be_read_off_its_tokens(shop, image_tokens, attribute, least):
    assert accuracy(image_tokens, shop.attributes[attribute]) > least


@pytest.mark.parametrize(
    ("attribute", "least"), [("category", 0.9), ("style", 0.85), ("finish", 0.7), ("brand", 0.9)]
)
def test_what_a_title_says_can_be_read_off_its_tokens(shop, text_tokens, attribute, least):
    assert accuracy(text_tokens, shop.attributes[attribute]) > least


def test_neither_tells_what_only_the_other_knows(shop, text_tokens, image_tokens):
    assert accuracy(text_tokens, shop.attributes["colour"]) < 0.2  # 1 of 8 by chance
    assert accuracy(image_tokens, shop.attributes["brand"]) < 0.2


def builders():
    return [
        pytest.param(lambda **settings: tiny_text_encoder(TEXTS, **settings), id="text"),
        pytest.param(tiny_image_encoder, id="image"),
    ]


@pytest.mark.parametrize("build", builders())
def test_a_seed_gives_the_same_weights(build):
    weights = [build(seed=seed)[0].state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("build", builders())
def test_the_global_random_state_is_neither_read_nor_changed(build):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = build()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, _ = build()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("build", builders())
def test_models_come_in_eval_mode_and_in_the_width_asked_for(build):
    model, _ = build(width=48)
    assert not model.training
    assert [p for p in model.parameters() if p.ndim == 1][-1].shape == (48,)


@pytest.mark.parametrize("build", builders())
@pytest.mark.parametrize("width", [0, 12, -8])
def test_a_width_that_is_no_multiple_of_8_is_refused(build, width):
    with pytest.raises(ValueError, match=f"width={width} must be a multiple of 8"):
        build(width=width)


def test_the_tokenizer_reads_words_in_lower_case():
    _, tokenizer = tiny_text_encoder(TEXTS)
    ids = tokenizer("a RED teapot, unheard-of")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "[CLS]", "a", "red", "teapot", ",", "[UNK]", "[UNK]", "[UNK]", "[SEP]",
    ]  # fmt: skip


def test_padding_changes_no_token():
    model, tokenizer = tiny_text_encoder(TEXTS)
    alone = model(**tokenizer(["a mug"], return_tensors="pt")).last_hidden_state
    padded = tokenizer(["a mug", "a red teapot, in stoneware"], return_tensors="pt", padding=True)
    torch.testing.assert_close(model(**padded).last_hidden_state[:1, :4], alone)


def test_a_long_text_is_cut_when_asked():
    model, tokenizer = tiny_text_encoder(TEXTS)
    batch = tokenizer(["mug " * 100], return_tensors="pt", truncation=True)
    assert model(**batch).last_hidden_state.shape == (1, 64, 64)


@pytest.mark.parametrize("texts", [[], [None], ["", "  "]])
def test_texts_without_a_word_are_refused(texts):
    with pytest.raises(ValueError, match="there is no word in the texts"):
        tiny_text_encoder(texts)


def test_a_single_string_is_refused():
    with pytest.raises(TypeError, match="texts is a single string; pass a list of texts"):
        tiny_text_encoder("a red mug")


def test_texts_that_are_none_are_named():
    with pytest.raises(TypeError, match="text 1 is 7, which is neither a string nor None"):
        tiny_text_encoder(["mug", 7])


@pytest.mark.parametrize(("image_size", "side"), [(16, 1), (64, 4), (96, 6)])
def test_pictures_of_any_size_become_a_feature_map(image_size, side):
    model, processor = tiny_image_encoder(image_size=image_size)
    pictures = [Image.new("RGB", (70, 30), "red"), Image.new("RGB", (20, 90), "blue")]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    found = model(pixel_values=pixels).last_hidden_state
    assert found.shape == (2, 64, side, side)
    assert not torch.allclose(found[0], found[1], atol=0.01)


@pytest.mark.parametrize("image_size", [0, 8, 60])
def test_an_image_size_that_is_no_multiple_of_16_is_refused(image_size):
    with pytest.raises(ValueError, match=f"image_size={image_size} must be a multiple of 16"):
        tiny_image_encoder(image_size=image_size)


def test_both_work_from_a_folder_as_any_pretrained_encoder_does(tmp_path):
    model, tokenizer = tiny_text_encoder(TEXTS)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "text")
    loaded = AutoModel.from_pretrained(tmp_path / "text").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "text")(["a red mug"], return_tensors="pt")
    expected = model(**tokenizer(["a red mug"], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(loaded(**batch).last_hidden_state, expected)

    model, processor = tiny_image_encoder()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "image")
    loaded = AutoModel.from_pretrained(tmp_path / "image").eval()
    picture = Image.linear_gradient("L").convert("RGB")
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "image")([picture], return_tensors="pt")
    expected = model(**processor([picture], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(loaded(**pixels).last_hidden_state, expected)


def test_extraction_takes_them_as_pairs():
    texts = extract_text_tokens(TEXTS, tiny_text_encoder(TEXTS), progress=False)
    assert texts.tokens.shape == (3, 7, 64)  # [CLS] blue teapot , in stoneware [SEP]
    assert texts.lengths.tolist() == [5, 7, 0]
    images = extract_image_tokens(
        [Image.new("RGB", (9, 9)), None], tiny_image_encoder(), progress=False
    )
    assert images.tokens.shape == (2, 17, 64)  # the mean and 4 x 4 positions
    assert images.lengths.tolist() == [17, 0]
