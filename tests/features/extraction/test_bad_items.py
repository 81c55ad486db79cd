"""A bad item is treated as missing, or the error names it."""

import base64
import io

import datasets
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_encoders import bert, pictures, vit

from odmt_sdk import ItemFeatures


class Picky:
    """A tokenizer or image processor that fails for some of its inputs."""

    def __init__(self, processor, refuses):
        self.processor, self.refuses = processor, refuses

    def __call__(self, values=None, **settings):
        given = settings.get("images", values)
        if any(self.refuses(value) for value in given):
            raise TypeError("this one is too odd")
        return (
            self.processor(values, **settings) if values is not None else self.processor(**settings)
        )

    def __getattr__(self, name):
        return getattr(self.processor, name)


def extract(items, **encoders):
    return ItemFeatures.from_items(items, progress=False, **encoders)


def test_a_title_that_the_tokenizer_refuses():
    model, tokenizer = bert()
    encoder = (model, Picky(tokenizer, lambda text: "odd" in text))
    items = {"item_id": ["a", "b", "c"], "text": ["red hat", "odd", "blue"]}
    with pytest.warns(UserWarning, match="item 'b': the tokenizer refuses it: TypeError: this one"):
        features = extract(items, text_encoder=encoder)
    assert features["text"].lengths.bool().tolist() == [False, True, False, True]
    assert list(features.report.problems["text"]) == ["b"]
    with pytest.raises(TypeError, match="too odd"):  # not caused by a single text
        extract({**items, "text": ["odd", "odd", "odd"]}, text_encoder=encoder)


def test_a_title_that_the_encoder_fails_on():
    model, tokenizer = bert()
    small = type(model)(type(model.config)(**{**model.config.to_dict(), "vocab_size": 10})).eval()
    rare = tokenizer.convert_ids_to_tokens(15)
    items = {"item_id": ["a", "b"], "text": ["red", rare]}
    with pytest.warns(UserWarning, match="item 'b': IndexError: index out of range"):
        features = extract(items, text_encoder=(small, tokenizer))
    assert features["text"].lengths.bool().tolist() == [False, True, False]


def test_a_text_that_is_none(tmp_path):
    items = {"item_id": ["a", "b"], "text": ["red", 5]}
    for path in (None, tmp_path / "store"):
        with pytest.raises(TypeError, match=r"text of item 'b' is 5 \(int\), but a text must be"):
            extract(items, text_encoder=bert(), path=path)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_of_no_size_and_of_no_use(workers):
    model, processor = vit()
    good = pictures(3)
    odd = Image.new("RGB", (7, 7))
    processor = Picky(processor, lambda picture: picture.size == (7, 7))
    items = {"item_id": list("abcd"), "image": [good[0], Image.new("RGB", (0, 0)), odd, good[1]]}
    with pytest.warns(UserWarning, match="2 of 4 pictures") as caught:
        features = extract(items, image_encoder=(model, processor), num_workers=workers)
    said = str(caught[0].message)
    assert "item 'b': ValueError: the picture is 0 x 0: it is empty" in said
    assert "item 'c': TypeError: this one is too odd" in said
    assert features["image"].lengths.bool().tolist() == [False, True, False, False, True]


def test_tokens_that_cannot_be_stored_name_the_item(tmp_path):
    vectors = [[1.0], [1e9], [2.0]]
    for path in (None, tmp_path / "store"):
        with pytest.raises(
            ValueError, match="the tokens of the sound of item 'b' cannot be stored"
        ):
            extract({"item_id": list("abc")}, arrays={"sound": vectors}, path=path)
        with pytest.raises(ValueError, match="sound of item 'c' is not an array of numbers"):
            extract({"item_id": list("abc")}, arrays={"sound": [[1.0], None, ["x"]]}, path=path)


class TestKindsOfPictures:
    @pytest.fixture
    def png(self, tmp_path):
        pictures(1)[0].save(tmp_path / "a.png")
        return tmp_path / "a.png"

    def test_columns_of_datasets(self, png, tmp_path):
        encoder, table = vit(), {"item_id": [1, 2], "image": [str(png), None]}
        expected = extract(table, image_encoder=encoder)["image"]
        by_path = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
        embedded = [{"bytes": png.read_bytes(), "path": None}, None]
        by_bytes = datasets.Dataset.from_dict({"item_id": [1, 2], "image": embedded}).cast_column(
            "image", datasets.Image()
        )
        by_bytes.to_parquet(tmp_path / "items.parquet")
        cells = [{"bytes": None, "path": str(png)}, {"bytes": None, "path": None}]
        for given in (
            by_path,
            by_bytes,
            tmp_path / "items.parquet",
            pd.read_parquet(tmp_path / "items.parquet"),
            {"item_id": [1, 2], "image": cells},
            {"item_id": [1, 2], "image": [bytearray(png.read_bytes()), None]},
        ):
            found = extract(given, image_encoder=encoder)["image"]
            assert torch.equal(found.tokens, expected.tokens)
            assert torch.equal(found.lengths, expected.lengths)

    def test_long_values_are_never_printed_whole(self, png):
        uri = "data:image/png;base64," + base64.b64encode(png.read_bytes() * 50).decode()
        items = {"item_id": ["a", "b"], "image": [png, uri]}
        with pytest.raises(ValueError, match="image of item 'b' is a data URI") as raised:
            extract(items, image_encoder=vit())
        assert len(str(raised.value)) < 300
        assert "b64decode" in str(raised.value)
        for long in ("x" * 5000, b"x" * 5000, "https://a.b/" + "c" * 5000, {"bytes": b"x" * 5000}):
            with pytest.raises(ValueError, match="item 'b'|none of 1 items") as raised:
                extract({"item_id": ["b"], "image": [long]}, image_encoder=vit())
            assert len(str(raised.value)) < 700
        with pytest.raises(TypeError, match="text of item 'b'") as raised:
            extract({"item_id": ["b"], "text": [b"x" * 5000]}, text_encoder=bert())
        assert len(str(raised.value)) < 300

    def test_a_cut_jpeg(self):
        data = io.BytesIO()
        Image.effect_noise((90, 90), 50).save(data, "JPEG")
        items = {"item_id": ["a", "b"], "image": [data.getvalue(), data.getvalue()[:800]]}
        with pytest.warns(UserWarning, match="item 'b': OSError: image file is truncated"):
            extract(items, image_encoder=vit())
