"""The demo page in a real browser: Chromium without a window, driven by playwright."""

import contextlib
import os
import re
import shutil
import socket

import pytest
import torch
from PIL import Image

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec, make_shop
from odmt_sdk.demo import launch
from odmt_sdk.retrieval import MaximalMarginalRelevance, fused_vectors

pytestmark = pytest.mark.slow

pytest.importorskip("gradio", reason="needs odmt-sdk[demo]")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("needs a browser: apt-get install chromium", allow_module_level=True)

HOSTILE = "<img src=x onerror=\"document.title='pwned'\"> {{value}} ${1+1}"
SECONDS = 1000
WAIT = 60 * SECONDS  # other tests may keep the processors busy
SHOWN = "ids => [...document.querySelectorAll('.odmt-card')].map(c => c.dataset.item).join() == ids"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    ids = make_shop(num_items=60, num_users=1, image_size=16).items["item_id"]
    features = ItemFeatures.from_tensors(
        item_ids=ids, text=torch.randn(61, 3, 16), image=torch.randn(61, 2, 16)
    )
    model = ODMTWrapper(SASRec(16, max_seq_length=12), features).eval()
    model.set_item_popularity(torch.tensor([0] * 41 + list(range(20, 0, -1))))  # 40 cold items
    return model


@pytest.fixture(scope="module")
def outside():
    """Addresses outside this machine to which this process tried to connect."""
    tried = []
    connect = socket.socket.connect

    def noted(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not host.startswith("127.") and host not in ("::1", "localhost"):
                tried.append(host)
                raise OSError("no network in tests")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", noted)
        yield tried


@pytest.fixture(scope="module")
def served(model, outside, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    shop = make_shop(num_items=60, num_users=1, image_size=64)
    paths = [f"{row}.png" for row in range(60)]
    for path, image in zip(paths, shop.items["image"], strict=True):
        image.save(folder / path)
    (folder / paths[1]).write_bytes(b"broken")
    Image.new("RGB", (3000, 10)).save(folder / paths[2])
    items = {**shop.items, "image": paths}
    items["title"][0] = HOSTILE
    examples = {"First": items["item_id"][3:6], "Second": items["item_id"][10:11]}
    page = launch(
        model, items, folder, port=0, block=False, examples=examples, title="A <b>shop</b>"
    )
    yield page, items
    page.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, served):
    """Open the page; afterwards, everything that it asked for must have been on this machine."""
    asked, problems, contexts = [], [], []

    def open_page(width=1280, dark=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        context.set_default_timeout(WAIT)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(served[0].local_url)
        tab.wait_for_selector(".odmt-card")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert {url.split("/")[2].split(":")[0] for url in asked if url.startswith("http")} == {
        "127.0.0.1"
    }
    assert {url.split(":")[0] for url in asked} <= {"http", "data", "blob"}
    assert not problems


def shown(tab):
    return tab.eval_on_selector_all(".odmt-card", "cards => cards.map(c => c.dataset.item)")


def wait_for(tab, expected):
    """Wait until these items are recommended."""
    try:
        tab.wait_for_function(SHOWN, arg=",".join(expected), timeout=WAIT)
    except playwright.TimeoutError:
        assert shown(tab) == expected


def set_number(tab, label, value, expected=None):
    """Set a number; with `expected`, until these items are recommended.

    A widget that has just appeared may put its first value back, and the page never hears of ours.
    """
    box = tab.get_by_label(f"number input for {label}")
    for _ in range(10):
        box.fill(str(value))
        box.press("Enter")
        box.blur()
        if expected is None:
            return
        with contextlib.suppress(playwright.TimeoutError):
            tab.wait_for_function(SHOWN, arg=",".join(expected), timeout=WAIT / 10)
            return
    assert shown(tab) == expected


def test_it_recommends_what_the_model_recommends(visit, model, served, outside):
    tab = visit()
    items = served[1]["item_id"]
    history = items[3:6]
    wait_for(tab, model.recommend([history], k=8).item_ids[0])

    tab.locator("#odmt-search textarea, #odmt-search input").first.fill(items[20])
    tab.wait_for_function("document.querySelectorAll('#odmt-found button').length == 1")
    tab.click("#odmt-found button")
    history = [*history, items[20]]
    wait_for(tab, model.recommend([history], k=8).item_ids[0])

    tab.click("#odmt-history button >> nth=0")
    history = history[1:]
    wait_for(tab, model.recommend([history], k=8).item_ids[0])

    tab.click("#odmt-settings button")
    set_number(tab, "Recommendations", 5, model.recommend([history], k=5).item_ids[0])
    tab.get_by_label("Use the ID's source").uncheck()
    wait_for(tab, model.recommend([history], k=5, source_weights={"id": 0}).item_ids[0])
    weights = {"id": 0, "text": 2.5}
    expected = model.recommend([history], k=5, source_weights=weights).item_ids[0]
    set_number(tab, "Weight of text", 2.5, expected)
    vectors = fused_vectors(model.encode_catalogue(), ("text", "image"))
    rerank = MaximalMarginalRelevance(vectors, diversity=0.6)
    settings = {"k": 5, "source_weights": weights, "rerank": rerank}
    set_number(tab, "Diversity", 0.6, model.recommend([history], **settings).item_ids[0])

    tab.get_by_role("button", name="Second").click()
    wait_for(tab, model.recommend([items[10:11]], **settings).item_ids[0])
    assert outside == []


def test_it_survives_wrong_input(visit, model, served):
    tab = visit()
    items = served[1]["item_id"]
    tab.click("#odmt-clear")
    tab.wait_for_selector("text=The history is empty")
    search = tab.locator("#odmt-search textarea, #odmt-search input").first
    search.fill("no such item")
    tab.wait_for_selector("text=No item has all of these words")
    search.fill("")
    tab.wait_for_selector("#odmt-found button")
    tab.click("#odmt-settings button")
    set_number(tab, "Recommendations", 9999)
    tab.get_by_role("button", name="First").click()
    expected = model.recommend([items[3:6]], k=4).item_ids[0]
    for _ in range(10):  # the widget may take a moment to bring 9999 back into its range
        set_number(tab, "Recommendations", 4)
        tab.get_by_role("button", name="First").click()
        tab.wait_for_timeout(1 * SECONDS)
        if shown(tab) == expected:
            break
    assert shown(tab) == expected


def test_titles_are_text_and_broken_pictures_have_a_placeholder(visit, served):
    tab = visit()
    ids = served[1]["item_id"]
    for row, picture in ((0, "img"), (1, ".odmt-none"), (2, ".odmt-none")):
        tab.locator("#odmt-search textarea, #odmt-search input").first.fill(ids[row])
        found = tab.locator(f"#odmt-found button[data-row='{row + 1}']")
        found.wait_for()
        assert found.locator(picture).count() == 1
        if row == 0:
            assert HOSTILE in found.inner_text()
            assert "{{value}} ${1+1}" in found.get_attribute("title")
        found.click()
    tab.wait_for_function("document.querySelectorAll('#odmt-history button').length == 6")
    assert tab.title() == "A <b>shop</b>"
    sources = tab.eval_on_selector_all("img", "images => images.map(i => i.src)")
    assert all(re.match(r"data:image/jpeg;base64,", source) for source in sources)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(visit, width, dark, tmp_path):
    tab = visit(width, dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    boxes = tab.eval_on_selector_all(
        ".odmt-card", "cards => cards.map(c => c.getBoundingClientRect().toJSON())"
    )
    assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1
    assert min(box["x"] for box in boxes) >= 0
    assert max(box["right"] for box in boxes) <= width
    assert len({round(box["x"]) for box in boxes}) >= 2  # columns
    if folder := os.environ.get("ODMT_SCREENSHOTS"):
        tab.screenshot(path=f"{folder}/{width}{'-dark' * dark}.png", full_page=True)


def test_gradio_serves_no_files(served):
    import urllib.error
    import urllib.request

    address = served[0].local_url.rstrip("/")
    for path in ("file=/etc/passwd", "file=pyproject.toml", "file/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/gradio_api/{path}", timeout=30)
    with urllib.request.urlopen(f"{address}/config", timeout=30) as answer:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert b'"analytics_enabled":false' in answer.read().replace(b" ", b"")
