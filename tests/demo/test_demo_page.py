"""What the demo page shows, without a browser; most of it without Gradio."""

import asyncio
import base64
import io
import re
import sys

import pytest
import torch
from PIL import Image
from toys import toy_model

from odmt_sdk.demo import build, launch, thumbnails
from odmt_sdk.demo.cards import escaped, recommendation_cards, small_cards
from odmt_sdk.demo.item_table import ItemTable
from odmt_sdk.demo.page import Page
from odmt_sdk.demo.recommender import MAX_HISTORY, MAX_K, Recommender
from odmt_sdk.demo.server import LocalOnly
from odmt_sdk.demo.thumbnails import thumbnail
from odmt_sdk.retrieval import MaximalMarginalRelevance, fused_vectors
from odmt_sdk.vocabulary import ItemVocabulary

HOSTILE = """<img src=x onerror="alert(1)"> {{value}} ${1+1} `\\"""
IDS = [f"item-{number}" for number in range(12)]


def picture_bytes(size=(20, 10), kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = toy_model().eval()
    model.set_item_popularity(torch.tensor([0, 0, 0, *range(10, 20)]))  # items 0 and 1 are cold
    return model


@pytest.fixture(scope="module")
def items():
    titles = [HOSTILE, *(f"Red mug {number}" for number in range(1, 11)), None]
    return {"item_id": IDS, "title": titles, "image": [picture_bytes(), b"broken", *[None] * 10]}


@pytest.fixture(scope="module")
def page(model, items):
    return Page(Recommender(model, ItemTable(model.vocabulary, items)))


def shown_ids(html):
    return re.findall(r'<article class="odmt-card" data-item="([^"]*)"', html)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((5, 0.0, True, 1, 1, 1), {"k": 5}),
        (
            (4, 0.0, False, 1, 2.5, 0),
            {"k": 4, "source_weights": {"id": 0, "text": 2.5, "image": 0}},
        ),
        ((24, 0, True), {"k": 24}),
    ],
)
def test_the_page_recommends_what_the_model_recommends(model, page, settings, expected):
    history = [IDS[3], IDS[7], IDS[1]]
    _, cards = page.show(model.vocabulary.rows(history), *settings)
    assert shown_ids(cards) == model.recommend([history], **expected).item_ids[0]


def test_diversity_is_maximal_marginal_relevance_over_the_content(model, page):
    vectors = fused_vectors(model.encode_catalogue(), ("text", "image"))
    rerank = MaximalMarginalRelevance(vectors, diversity=0.6)
    _, cards = page.show([2, 3], 6, 0.6, True)
    expected = model.recommend([IDS[1:3]], k=6, rerank=rerank).item_ids[0]
    assert shown_ids(cards) == expected != model.recommend([IDS[1:3]], k=6).item_ids[0]


def test_contributions_add_up_and_cold_items_are_marked(model, page):
    cards = page.recommender.recommend([5, 6], k=10)
    for card in cards:
        assert sum(card.shares.values()) == pytest.approx(card.score, abs=1e-4)
    assert page.recommender.cold == {1, 2}
    assert {card.row for card in cards if card.cold} == {1, 2}
    html = recommendation_cards(page.table, cards, model.sources)
    assert html.count('class="odmt-cold"') == 2
    assert all(html.count(f"<span>{source}</span>") == 10 for source in model.sources)


@pytest.mark.parametrize(
    ("history", "settings", "message"),
    [
        ([], (8, 0, True), "The history is empty"),
        ([1], (0, 0, True), "must lie in 1 to 24, not 0"),
        ([1], (10**9, 0, True), "must lie in 1 to 24"),
        ([1], (2.5, 0, True), "must lie in 1 to 24, not 2.5"),
        ([1], ("many", 0, True), "The number of recommendations must be a number"),
        ([1], (None, 0, True), "must be a number"),
        ([1], (8, 1.5, True), "Diversity must lie in 0 to 1"),
        ([1], (8, float("nan"), True), "Diversity must be a number"),
        ([1], (8, 0, True, -1), "The weight of id must be at least 0"),
        ([1], (8, 0, False, 1, 0, 0), "Every source is off"),
        ([99], (8, 0, True), "There is no item 99"),
        (["item-1"], (8, 0, True), "There is no item"),
        ([0], (8, 0, True), "There is no item 0"),
    ],
)
def test_wrong_input_becomes_a_notice(page, history, settings, message):
    shown = " ".join(page.show(history, *settings))
    assert message in shown
    assert "odmt-card" not in shown


def test_a_history_grows_and_shrinks(page):
    settings = (8, 0, True)
    history, chosen, cards = page.add([1, 2, 3], 2, *settings)
    assert history == [1, 3, 2]
    assert re.findall(r'data-row="(\d+)"', chosen) == ["1", "3", "2"]
    assert page.show([1, 3, 2], *settings) == (chosen, cards)
    assert page.remove([1, 3, 2], 1, *settings)[0] == [1, 2]
    assert page.remove([1], 7, *settings)[0] == [1]
    assert len(page.recommender.checked([1, 2] * MAX_HISTORY)) == MAX_HISTORY
    for wrong in (13, 0, -1, None, "1", True, 1.0, [1]):
        history, chosen, cards = page.add([1], wrong, *settings)
        assert history == [1]
        assert "odmt-remove" in chosen
        assert "There is no item" in cards
    everything, cards = page.show(range(1, 13), MAX_K, 0, True)
    assert everything.count("<button") == 12
    assert "the history holds every item" in cards


def test_titles_are_text(page):
    chosen, cards = page.show([3, 4], 12, 0, True)
    for html in (chosen, cards, page.search(""), small_cards(page.table, [1], action="add")):
        assert not re.search(r"<img (?!src=\"data:image/jpeg;base64,[\w+/=]+\" alt)", html)
        assert not re.search(r"[{}$`\\]", html)
    assert escaped(HOSTILE) in cards


def test_search(page):
    def rows(query):
        return page.table.search(query, 5)

    assert rows("MUG red 10") == [11]
    assert rows("item-11") == [12]  # its title is missing
    assert rows("") == [1, 2, 3, 4, 5]
    assert page.table.search("red", 3, [9, 1]) == [9, 2, 3]
    assert rows("nowhere") == []
    assert "No item has all of these words" in page.search("nowhere")
    assert "No item" in page.search("x" * 100_000)


def test_examples_of_any_catalogue(page):
    examples = page.recommender.examples()
    assert len(examples) == 4
    for rows in examples.values():
        assert len(set(rows)) == 3
        assert "odmt-card" in page.show(rows, 8, 0, True)[1]


def test_an_items_table_without_titles_or_pictures(model):
    table = ItemTable(model.vocabulary, {"item_id": [*IDS, "unknown"]})
    assert table.titles[1:] == IDS
    assert not table.has_pictures
    html = small_cards(table, [1], action="add")
    assert "odmt-none" in html
    assert "<img" not in html


def test_ids_of_a_csv_file_keep_their_zeros(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,name\n007,Bond\n008,Bill\n")
    table = ItemTable(ItemVocabulary(["007", "009"]), tmp_path / "items.csv")
    assert table.titles == ["", "Bond", "009"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"items": {"item_id": [1, 2]}},
            ValueError,
            "none of the 2 items .* such as 1, but the model",
        ),
        ({"items": {"item": IDS}}, ValueError, "column 'item_id' is not in the table"),
        (
            {"items": {"item_id": IDS}, "title_column": "heading"},
            ValueError,
            "column 'heading' is not in the table",
        ),
        ({"image_folder": "no-such-folder"}, NotADirectoryError, "image_folder='no-such-folder'"),
    ],
)
def test_a_table_that_does_not_fit(model, settings, error, message):
    with pytest.raises(error, match=message):
        ItemTable(model.vocabulary, **settings)


def test_pictures_are_read_from_the_folder_only(tmp_path):
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    outside = tmp_path / "private.png"
    outside.write_bytes(picture_bytes())
    (folder / "a.png").write_bytes(picture_bytes())
    (folder / "deep" / "b.webp").write_bytes(picture_bytes(kind="WEBP"))
    (folder / "link.png").symlink_to(outside)
    ids = ["a", "deep/b", "../private", "link", str(outside.with_suffix("")), "~/x", "a\0b"]
    by_name = ItemTable(ItemVocabulary(ids), image_folder=folder)
    assert [row for row in range(1, 8) if by_name.picture(row)] == [1, 2]
    paths = ["a.png", "deep/../a.png", "../private.png", "link.png", str(outside), None, "deep"]
    by_path = ItemTable(ItemVocabulary(ids), {"item_id": ids, "image": paths}, folder)
    assert [row for row in range(1, 8) if by_path.picture(row)] == [1, 2]


def test_thumbnails_are_small_and_odd_pictures_have_none(monkeypatch):
    uri = thumbnail(Image.new("RGBA", (3000, 1500)))
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as small:
        assert (small.format, small.size) == ("JPEG", (224, 112))
    assert thumbnail({"bytes": picture_bytes(), "path": None}).startswith("data:image/jpeg;base64,")
    odd = [
        None,
        b"",
        b"broken",
        picture_bytes()[:40],
        picture_bytes(kind="PPM"),
        3,
        "",
        float("nan"),
    ]
    assert [thumbnail(picture) for picture in odd] == [None] * len(odd)
    assert thumbnail(picture_bytes((2000, 3))) is None  # a line
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 199)
    assert thumbnail(picture_bytes((20, 10))) is None
    monkeypatch.setattr(thumbnails, "MAX_BYTES", 30)
    assert thumbnail(picture_bytes((2, 2))) is None


def test_without_gradio_the_error_names_the_extra(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for call in (build, launch):
        with pytest.raises(ImportError, match=re.escape("pip install odmt-sdk[demo]")):
            call(model)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/gradio_api/queue/join", 200),
        ("/gradio_api/file=/etc/passwd", 404),
        ("/gradio_api/file/etc/passwd", 404),
        ("/gradio_api/upload", 404),
        ("/gradio_api/proxy=http://example.org", 404),
    ],
)
def test_only_the_page_is_served(path, status):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(LocalOnly(app)({"type": "http", "path": path}, None, send))
    assert sent[0]["status"] == status
    if status == 200:
        policy = dict(sent[0]["headers"])[b"content-security-policy"]
        assert policy.startswith(b"default-src 'self';")
        assert b"http" not in policy


def test_wrong_arguments(model):
    pytest.importorskip("gradio", reason="needs odmt-sdk[demo]")
    with pytest.raises(ValueError, match="k=0 must be a whole number from 1 to 24"):
        build(model, k=0)
    with pytest.raises(ValueError, match="pass the model or adapter too"):
        build(items={"item_id": IDS})
    with pytest.raises(ValueError, match="the model is already loaded"):
        build(model, loading={"revision": "main"})
    with pytest.raises(ValueError, match="'nope' is not among"):
        build(model, examples={"mine": ["nope"]})
    with pytest.raises(ValueError, match=r"port=70000 must lie in 0\.\.65535"):
        launch(model, port=70_000)
