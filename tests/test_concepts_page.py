"""What the page of concepts shows is what works."""

import re
from pathlib import Path

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec, make_shop
from odmt_sdk.config import LIVE_SETTINGS
from odmt_sdk.items import embedder
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder

PAGE = (Path(__file__).parents[1] / "docs" / "concepts.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shop = make_shop(num_items=50, num_users=5, image_size=32)
    titles, pictures = shop.items["title"], shop.items["image"]
    ids = ["mug", "lamp", "vase", *map(str, range(9))]
    encoders = {
        "text_encoder": tiny_text_encoder(titles, width=16),
        "image_encoder": tiny_image_encoder(width=16, image_size=32),
    }
    items = {"item_id": ids, "text": titles[:12], "image": pictures[:12]}
    model = ODMTWrapper(SASRec(16), ItemFeatures.from_items(items, **encoders))
    new_items = {"item_id": ["kettle"], "text": titles[12:13], "image": pictures[12:13]}
    names = {"model": model, "ItemFeatures": ItemFeatures, "new_items": new_items, **encoders}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        exec(block, names)
    assert model.distillation_weight == 0.1
    assert [len(found) for found in names["found"].item_ids] == [10, 10]
    loaded = ODMTWrapper.from_pretrained("my-adapter")
    assert "kettle" in loaded.vocabulary
    assert loaded.config.distillation_weight == 0.1


def test_what_the_page_calls_a_live_setting_is_one():
    named = re.search(r"LIVE_SETTINGS`,\s+such as\s+`(\w+)`\s+and\s+`(\w+)`", PAGE)
    assert set(named.groups()) <= set(LIVE_SETTINGS)


def test_every_method_that_recommends_is_in_the_page():
    calls = re.findall(r"`model\.(\w+)\(", PAGE)
    assert {
        "recommend_iter",
        "score",
        "similar_items",
        "encode_histories",
        "item_vectors",
    } <= set(calls)
    assert [name for name in calls if not hasattr(ODMTWrapper, name)] == []


def test_every_fusion_is_in_the_table():
    table = PAGE.split("## Fusions to compare with")[1].split("\n\nWith one backbone")[0]
    explained = re.findall(r'^\| `"([\w:]+)"`', table, re.MULTILINE)
    families = {name.partition(":")[0] + ":" * (":" in name) for name in explained}
    fusions = embedder.FUSIONS  # other tests register fusions of their own
    assert families == {name for name in fusions if fusions.is_built_in(name)}
