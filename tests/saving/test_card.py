"""The model card: metadata that huggingface_hub accepts, and a complete page."""

import re

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from toys import MyModel, toy_features, toy_model

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.saving.card import MARK

RESULTS = {
    "hit_rate@10": 0.25,
    "ndcg@10": 0.125,
    "id/hit_rate@10": 0.2,
    "id/ndcg@10": 0.1,
    "text/hit_rate@10": 0.1875,
    "text/ndcg@10": 0.09,
    "image/hit_rate@10": 0.15,
    "image/ndcg@10": 0.08,
}


@pytest.fixture
def model():
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    features.provenance = {
        "text": {"encoder": "bert-base-uncased", "revision": "86b5e09", "tokens": 4},
        "image": {"encoder": "/home/me/secret/clip", "width": 5},
    }
    model = ODMTWrapper(SASRec(8, max_seq_length=7), features, ODMTConfig(num_layers=1))
    model.card.dataset, model.card.dataset_id = "My shop | 2026", "me/shop"
    model.card.license, model.card.language = "apache-2.0", "en"
    model.card.training = {"epochs": "12"}
    model.card.results = {"test": RESULTS}
    model.card.description = "For the shop's front page."
    model.card.limits = "Knows no gifts."
    return model


def card_of(model, tmp_path, **saving):
    model.save_pretrained(tmp_path / "a", **saving)
    return (tmp_path / "a" / "README.md").read_text()


def test_metadata(model, tmp_path):
    card_of(model, tmp_path, repo_id="me/adapter")
    data = ModelCard.load(tmp_path / "a" / "README.md").data
    assert isinstance(data, ModelCardData)
    assert data.library_name == "odmt-sdk"
    assert data.pipeline_tag == "other"
    assert {"odmt", "sequential-recommendation", "text", "image"} <= set(data.tags)
    assert (data.license, data.language) == ("apache-2.0", "en")
    assert data.datasets == ["me/shop"]
    assert data.metrics == ["hit_rate@10", "ndcg@10"]
    assert data.model_name == "adapter"
    found = {r.metric_type: r.metric_value for r in data.eval_results}
    assert found == {"hit_rate@10": 0.25, "ndcg@10": 0.125}
    assert {r.dataset_split for r in data.eval_results} == {"test"}
    name, again = model_index_to_eval_results(data.to_dict()["model-index"])
    assert name == "adapter"
    assert again == data.eval_results


def test_text(model, tmp_path):
    card = card_of(model, tmp_path, repo_id="me/adapter")
    assert card.count(MARK) == 1
    assert "# adapter\n" in card
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Use",
        "Model",
        "Features it needs",
        "Training",
        "Results",
        "Limits",
        "Citation",
    ]
    assert "| backbone | SASRec (hidden_size=8, num_layers=2, num_heads=2" in card
    assert "| text | bert-base-uncased | 86b5e09 | 4 | 6 |" in card
    assert "| image | clip | not recorded | not recorded | 5 |" in card
    assert "secret" not in card
    assert "[My shop \\| 2026](https://huggingface.co/datasets/me/shop)" in card
    assert "| epochs | 12 |" in card
    assert re.search(r"\| fused +\| +0\.2500 \| +0\.1250 \|", card)
    assert re.search(r"\| - text alone +\| +0\.1875 \| +0\.0900 \|", card)
    assert "For the shop's front page." in card
    assert "Knows no gifts." in card
    for table in re.findall(r"(?:^\|.*\|$\n?)+", card, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def snippet(card):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


def test_the_snippet_works(model, tmp_path, capsys):
    exec(snippet(card_of(model, tmp_path)), {})
    assert capsys.readouterr().out.startswith("[['item-")


def test_the_snippet_of_an_own_backbone_asks_for_it(tmp_path):
    code = snippet(card_of(toy_model(), tmp_path))
    assert "from my_code import MyModel  # its code is not in this adapter" in code
    assert "backbone=MyModel(...))" in code
    assert "hidden size 8" not in code


def test_the_snippet_asks_for_features_where_it_must(model, tmp_path):
    code = snippet(card_of(model, tmp_path, item_embeddings=False))
    assert "ItemFeatures.from_items(items, text_encoder='bert-base-uncased'" in code
    assert "item_features=features)" in code
    code = snippet(card_of(model, tmp_path, content_only=True))
    assert "item_features=features, transfer=True)" in code
    assert "recommend" not in code


def test_without_anything_known(tmp_path):
    model = ODMTWrapper(MyModel(), vocabulary=["```", "b"], config=ODMTConfig(fusion="id"))
    card = card_of(model, tmp_path)
    assert "Not measured." in card
    assert "Trained on data that are not named here." in card
    assert "None: it knows items by their IDs." in card
    assert "recommend([['b']], k=2)" in card
    assert ModelCard.load(tmp_path / "a" / "README.md").data.eval_results is None


def test_what_is_known_survives_saving_and_loading(model, tmp_path):
    card = card_of(model, tmp_path, repo_id="me/adapter")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "a")
    assert loaded.card == model.card
    assert card_of(loaded, tmp_path / "again", repo_id="me/adapter") == card


def test_a_text_by_hand_stays(model, tmp_path):
    card_of(model, tmp_path)
    model.card.title = "Another title"
    assert "# Another title" in card_of(model, tmp_path)
    (tmp_path / "a" / "README.md").write_text("By hand.")
    assert card_of(model, tmp_path) == "By hand."


def test_hostile_words_stay_words(tmp_path):
    model = toy_model()
    model.card.title = "a: b\n---\n# c"
    model.card.dataset = "x\ny: [z"
    model.card.results = {"test": {"ndcg@10": 0.5}}
    card_of(model, tmp_path)
    data = ModelCard.load(tmp_path / "a" / "README.md").data
    assert data.library_name == "odmt-sdk"
    assert data.model_name == "a: b --- # c"
    assert torch.tensor(data.eval_results[0].metric_value) == 0.5
