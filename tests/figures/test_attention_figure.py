"""The attention figure."""

import numpy as np
import pytest
import torch
from figure_checks import canvas, check_readable, texts
from PIL import Image
from toys import MyModel, toy_model

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper
from odmt_sdk.figures.attention import draw_attention
from odmt_sdk.figures.patch_grid import as_seen, patch_grid
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder

TEXTS = ["red mug", "blue tea-pot, gift-boxed"]


def wrap(features):
    torch.manual_seed(0)
    return ODMTWrapper(backbone=MyModel(), item_features=features, config=ODMTConfig()).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_text_encoder(TEXTS)[1]


@pytest.fixture(scope="module")
def model():
    """Items with 4 and 10 text, 1 + 3 x 3 image and 2 audio tokens; item "c" has no content."""
    torch.manual_seed(0)
    return wrap(
        ItemFeatures.from_tensors(
            item_ids=["a", "b", "c"],
            text=torch.randn(4, 10, 5),
            image=torch.randn(4, 10, 6),
            audio=torch.randn(4, 2, 3),
            lengths={
                "text": torch.tensor([0, 4, 10, 0]),
                "image": torch.tensor([0, 10, 10, 0]),
                "audio": torch.tensor([0, 2, 2, 0]),
            },
        )
    )


def attention(model, item):
    row = torch.tensor(model.vocabulary.rows([item]))
    with torch.no_grad():
        return model.item_encoder.attention(row, model.item_features.gather(row))


def heat_maps(figure):
    """Return the opacity (rows, columns) of every heat map, in the order of the sources."""
    arrays = [image.get_array() for image in figure.axes[0].images]
    return [np.asarray(a)[..., 3] for a in arrays if a.shape[-1] == 4]


def test_the_heat_map_is_the_attention_on_the_patches(model):
    figure = draw_attention(model, "a")
    maps = heat_maps(figure)
    assert len(maps) == 4
    weights = attention(model, "a")
    for shown, reader in zip(maps, ("id", "text", "image", "audio"), strict=True):
        patches = weights[reader]["image"][0].mean(0)[1:].view(3, 3)
        np.testing.assert_allclose(shown / shown.max(), patches / patches.max(), rtol=1e-4)
        assert shown.shape == (3, 3)


def test_the_first_row_of_patches_is_drawn_at_the_top(model):
    figure = draw_attention(model, "a")
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert left < right
    assert top < bottom  # positions in inches from the top
    assert figure.axes[0].images[0].origin == "upper"


def test_words_carry_what_is_read_of_them(model, tokenizer):
    figure = draw_attention(model, "a", text=TEXTS[0], tokenizer=tokenizer)
    shown = texts(figure)
    assert shown.count("mug") == 4  # once per source
    weights = attention(model, "a")
    for reader in ("id", "text", "image", "audio"):
        percent = 100 * weights[reader]["text"][0].mean(0)
        for value in percent[:4]:
            assert f"{float(value):.1f}" in shown
        for source, read in weights[reader].items():
            assert f"{100 * float(read[0].mean(0).sum()):.0f} %" in shown, source


def test_one_head_can_be_looked_at(model):
    expected = attention(model, "a")["id"]["image"][0, 1, 1:].view(3, 3)
    shown = heat_maps(draw_attention(model, "a", head=1))[0]
    np.testing.assert_allclose(shown / shown.max(), expected / expected.max(), rtol=1e-4)
    assert any("head 1" in text for text in texts(draw_attention(model, "a", head=1)))


def test_labels_of_the_users_own(model):
    shown = texts(draw_attention(model, "a", words=["<s>", "rot", "tasse", "</s>"]))
    assert shown.count("tasse") == 4


def test_an_item_without_content_says_so(model):
    shown = texts(draw_attention(model, "c"))
    assert "no picture" in shown
    assert "no text: a learned token stands in" in shown
    assert "no audio: a learned token stands in" in shown
    assert "100 %" in shown  # the ID attends only to itself


@pytest.mark.parametrize("size", [(40, 40), (40, 60), (60, 40), (20, 90)])
def test_text_is_readable_whatever_the_picture(model, tokenizer, size, tmp_path):
    picture = Image.new("RGB", size, (30, 160, 30))
    figure = draw_attention(
        model,
        "b",
        text=TEXTS[1],
        tokenizer=tokenizer,
        image=picture,
        title="A blue teapot for $5",
        path=tmp_path / "figure.png",
        dpi=80,
    )
    check_readable(figure)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert (np.abs(canvas(figure).astype(int) - (30, 160, 30)).max(-1) < 12).sum() > 1000


def test_long_texts_are_written_in_lines(tokenizer):
    text = " ".join(["mug"] * 60)
    features = ItemFeatures.from_tensors(text=torch.randn(3, 62, 5))
    figure = draw_attention(wrap(features), 1, text=text, tokenizer=tokenizer)
    check_readable(figure)
    assert texts(figure).count("mug") == 2 * 60  # for the sources "id" and "text"


def test_one_token_for_the_whole_picture():
    features = ItemFeatures.from_tensors(image=torch.randn(3, 1, 5))
    figure = draw_attention(wrap(features), 1, image=Image.new("RGB", (9, 9)))
    assert texts(figure).count("one token for the whole picture") == 2
    assert heat_maps(figure) == []


def test_a_grid_of_other_proportions():
    model = wrap(ItemFeatures.from_tensors(image=torch.randn(3, 8, 5)))
    with pytest.raises(ValueError, match=r"8 image tokens are not one .*give grid=\(rows, col"):
        draw_attention(model, 1)
    assert heat_maps(draw_attention(model, 1, grid=(2, 3)))[0].shape == (2, 3)


def test_the_grid():
    assert patch_grid(50, None) == (7, 7)
    assert patch_grid(2, None) == (1, 1)
    assert patch_grid(198, (14, 14)) == (14, 14)  # two leading tokens
    with pytest.raises(ValueError, match=r"grid=\(3, 3\) needs 9 patches, .* has 8 tokens"):
        patch_grid(8, (3, 3))


def test_the_picture_is_shown_as_the_encoder_saw_it():
    from transformers import CLIPImageProcessor

    picture = Image.new("RGB", (100, 50), (200, 30, 30))
    picture.paste((30, 30, 200), (0, 0, 25, 50))  # outside the centre crop
    assert as_seen(picture, None).size == (100, 50)
    whole = np.asarray(as_seen(picture, tiny_image_encoder()[1]))
    assert whole.shape == (64, 64, 3)
    assert np.abs(whole[32, 5].astype(int) - (30, 30, 200)).max() <= 2
    cutting = CLIPImageProcessor(
        size={"shortest_edge": 32},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        do_rescale=False,
        do_normalize=False,
    )
    seen = np.asarray(as_seen(picture, cutting))
    assert seen.shape[0] == 32
    assert np.abs(seen[16, 16].astype(int) - (200, 30, 30)).max() <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "red mug"}, "give text= and tokenizer= together"),
        ({"words": ["a"]}, "words has 1 entries, but the features hold 4 text tokens"),
        ({"head": 2}, r"head=2 must lie in 0..1"),
        ({"item_id": "z"}, "'z'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_attention(model, **{"item_id": "a", **arguments})


def test_a_picture_of_another_kind_is_refused(model):
    with pytest.raises(TypeError, match="a picture of type ndarray cannot be drawn"):
        draw_attention(model, "a", image=np.zeros((4, 4, 3)))


def test_models_that_read_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="IDEncoder has no attention to show: .*fusion='odmt'"):
        draw_attention(toy_model(fusion="id"), "item-1")
    toy_model().save_pretrained(tmp_path / "adapter")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "adapter", backbone=MyModel())
    with pytest.raises(ValueError, match="this model has no item features"):
        draw_attention(loaded, "item-1")
