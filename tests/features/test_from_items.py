"""Extracting features from raw titles and images."""

import pytest
import torch
from rounding import one_step

from odmt_sdk import ItemFeatures, make_shop
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder


@pytest.fixture(scope="module")
def shop():
    return make_shop(num_items=50, num_users=10, image_size=32)


@pytest.fixture(scope="module")
def encoders(shop):
    return {
        "text_encoder": tiny_text_encoder(shop.items["title"], width=16),
        "image_encoder": tiny_image_encoder(width=16, image_size=32),
    }


def extract(items, **arguments):
    return ItemFeatures.from_items(items, **{"text": "title", "progress": False, **arguments})


def test_both_modalities(shop, encoders):
    features = extract(shop.items, **encoders)
    assert features.vocabulary.item_ids == tuple(shop.items["item_id"])
    assert features.widths == {"text": 16, "image": 16}
    assert features["text"].tokens.dtype == torch.float16
    assert (features["text"].lengths[1:] > 2).all()
    assert features["text"].lengths[0] == 0


def test_features_belong_to_ids_whatever_the_order_of_rows(shop, encoders):
    features = extract(shop.items, **encoders)
    backwards = {name: column[::-1] for name, column in shop.items.items()}
    again = extract(backwards, **encoders).select(features.vocabulary)
    for name in features.modalities:
        assert torch.equal(features[name].lengths, again[name].lengths)
        torch.testing.assert_close(
            features[name].tokens, again[name].tokens, **one_step(torch.float16)
        )


def test_one_modality_and_fewer_tokens(shop, encoders):
    text = extract(shop.items, text_encoder=encoders["text_encoder"], max_text_tokens=4)
    assert text.modalities == ("text",)
    assert text["text"].tokens.shape[1] == 4
    image = extract(shop.items, image_encoder=encoders["image_encoder"], max_image_tokens=1)
    whole = extract(shop.items, image_encoder=encoders["image_encoder"])
    assert torch.equal(image["image"].tokens[:, 0], whole["image"].tokens[:, 0])
    assert image["image"].lengths.max() == 1


def test_empty_cells_are_missing_modalities(shop, encoders):
    items = {name: list(column) for name, column in shop.items.items()}
    items["title"][3], items["image"][5] = None, None
    features = extract(items, **encoders)
    assert features["text"].lengths[4] == 0
    assert features["image"].lengths[6] == 0
    assert (features["image"].lengths[1:] == 0).sum() == 1


def test_errors(shop, encoders):
    with pytest.raises(ValueError, match="no encoder given: pass text_encoder="):
        extract(shop.items)
    with pytest.raises(ValueError, match="max_image_tokens=0 must be at least 1"):
        extract(shop.items, **encoders, max_image_tokens=0)
    with pytest.raises(ValueError, match="picture"):
        extract(shop.items, **encoders, image="picture")
    items = {**shop.items, "item_id": ["same"] * 50}
    with pytest.raises(ValueError, match="item id 'same' stands more than once"):
        extract(items, **encoders)


def test_pictures_of_a_folder_by_item_id(shop, encoders, tmp_path):
    suffixes = ("jpeg", "PNG", "webp", "png")
    for row in range(0, 50, 2):
        path = tmp_path / f"{shop.items['item_id'][row]}.{suffixes[row % 4]}"
        shop.items["image"][row].save(path)
    without = {name: column for name, column in shop.items.items() if name != "image"}
    images = {"image_encoder": encoders["image_encoder"], "num_workers": 0}
    features = extract(without, image_folder=tmp_path, **images)
    assert features["image"].lengths[1:].gt(0).tolist() == [row % 2 == 0 for row in range(50)]
    paths = [next(tmp_path.glob(f"{item}.*"), None) for item in shop.items["item_id"]]
    named = extract({**without, "image": paths}, **images)
    assert torch.equal(features["image"].tokens, named["image"].tokens)
    with pytest.raises(ValueError, match="column 'image' is not in the table.*pass image_folder="):
        extract(without, **images)
    with pytest.raises(ValueError, match="has no effect without image_encoder="):
        extract(without, image_folder=tmp_path, text_encoder=encoders["text_encoder"])
    with pytest.raises(FileNotFoundError, match="no folder of pictures"):
        extract(without, image_folder=tmp_path / "absent", **images)


def test_titles_and_ids_of_files_are_kept_as_written(tmp_path, encoders):
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\n1,1984\n2,300\n")
    numbers = extract(path, text_encoder=encoders["text_encoder"])
    texts = extract(
        {"item_id": [1, 2], "title": ["1984", "300"]}, text_encoder=encoders["text_encoder"]
    )
    assert numbers.vocabulary == texts.vocabulary
    assert torch.equal(numbers["text"].tokens, texts["text"].tokens)
    path.write_text("item_id,title\n007,mug\n8,lamp\n")
    with pytest.warns(UserWarning, match="ids such as '007', which are read as 7: pass csv_opt"):
        assert extract(path, text_encoder=encoders["text_encoder"]).vocabulary.item_ids == (7, 8)
