"""Item indexes find the same items as exhaustive search, and can be opened without torch."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from programs import run_python

from odmt_sdk.indexes import ItemIndex, build_index
from odmt_sdk.indexes.libraries import LIBRARIES

N, W, Q = 500, 12, 40
ITEM_IDS = [f"item {number}" for number in range(N)]


def installed(name):
    return pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None,
            reason=f"needs odmt-sdk[{name}]",
        ),
    )


every_library = pytest.mark.parametrize("library", [installed(name) for name in LIBRARIES])


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).standard_normal((N, W)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(1).standard_normal((Q, W)).astype(np.float32)


def sorted_items(queries, vectors, k, exclude=None, items=None):
    scores = queries @ vectors.T
    if items is not None:
        scores[:, [place for place, name in enumerate(ITEM_IDS) if name not in items]] = -np.inf
    for query, names in enumerate(exclude or []):
        scores[query, [ITEM_IDS.index(name) for name in names if name in ITEM_IDS]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [
        [ITEM_IDS[place] for place in row if np.isfinite(scores[query, place])]
        for query, row in enumerate(order)
    ]


@every_library
def test_exact_search_is_a_product_and_a_sort(library, vectors, queries, tmp_path):
    built = build_index(tmp_path / "index", ITEM_IDS, vectors, library=library)
    opened = ItemIndex.open(tmp_path / "index")
    exclude = [[ITEM_IDS[query], ITEM_IDS[query + 1], "unknown"] for query in range(Q)]
    for index in (built, opened):
        found, scores = index.search(queries, k=10, exclude=exclude)
        assert found == sorted_items(queries, vectors, 10, exclude)
        for query, (names, values) in enumerate(zip(found, scores, strict=True)):
            rows = [ITEM_IDS.index(name) for name in names]
            np.testing.assert_allclose(values, vectors[rows] @ queries[query], rtol=1e-4, atol=1e-5)


@every_library
def test_approximate_search_finds_most(library, vectors, queries, tmp_path):
    built = build_index(tmp_path / "i", ITEM_IDS, vectors, library=library, approximate=True)
    for index in (built, ItemIndex.open(tmp_path / "i")):
        found, _ = index.search(queries, k=10)
        expected = sorted_items(queries, vectors, 10)
        hits = sum(len(set(a) & set(b)) for a, b in zip(found, expected, strict=True))
        assert hits / (10 * Q) > 0.9


@every_library
@pytest.mark.parametrize("approximate", [False, True])
def test_only_some_items(library, approximate, vectors, queries, tmp_path):
    index = build_index(tmp_path / "i", ITEM_IDS, vectors, library=library, approximate=approximate)
    items = ITEM_IDS[::7]
    if not LIBRARIES[library].filters:
        with pytest.raises(ValueError, match="cannot be restricted to some items"):
            index.search(queries, items=items)
        return
    found, _ = index.search(queries, k=5, items=items)
    expected = sorted_items(queries, vectors, 5, items=items)
    if not approximate:
        assert found == expected
    assert {name for names in found for name in names} <= set(items)
    hits = sum(len(set(a) & set(b)) for a, b in zip(found, expected, strict=True))
    assert hits / (5 * Q) > 0.8
    with pytest.raises(ValueError, match="item id 'mug' is not in the index"):
        index.search(queries, items=["mug"])
    with pytest.raises(ValueError, match="items is empty"):
        index.search(queries, items=[])


@every_library
def test_equal_scores_come_by_row(library, queries, tmp_path):
    vectors = np.ones((30, W), dtype=np.float32)
    index = build_index(tmp_path / "i", list(range(30)), vectors, library=library)
    found, _ = index.search(np.abs(queries[:2]), k=50, exclude=[[0], []])
    assert found == [list(range(1, 30)), list(range(30))]


@every_library
def test_an_index_opens_without_torch(library, vectors, queries, tmp_path):
    build_index(tmp_path / "index", ITEM_IDS, vectors, library=library)
    np.save(tmp_path / "queries.npy", queries)
    script = (
        "import json, sys\n"
        "sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from odmt_sdk.indexes import ItemIndex\n"
        "index = ItemIndex.open(sys.argv[1])\n"
        "print(json.dumps(index.search(np.load(sys.argv[2]), k=3)[0]))\n"
    )
    printed = run_python("-c", script, tmp_path / "index", tmp_path / "queries.npy")
    assert json.loads(printed) == sorted_items(queries, vectors, 3)


def any_library():
    for name in LIBRARIES:
        if importlib.util.find_spec(name):
            return name
    pytest.skip("needs an index library, such as odmt-sdk[faiss]")


def test_wrong_input(vectors, queries, tmp_path):
    library = any_library()
    build = lambda ids=ITEM_IDS, v=vectors, **more: build_index(  # noqa: E731
        tmp_path / "i", ids, v, library=library, **more
    )
    with pytest.raises(ValueError, match="library='annoy' is unknown; choose one of faiss"):
        build_index(tmp_path / "i", ITEM_IDS, vectors, library="annoy")
    with pytest.raises(ValueError, match=r"shape \(500, 12\) for 2 item ids"):
        build(["a", "b"])
    with pytest.raises(TypeError, match=r"item id 1\.5 is neither"):
        build([1.5, *ITEM_IDS[1:]])
    with pytest.raises(ValueError, match="NaN or infinity"):
        build(v=vectors * np.nan)
    with pytest.raises(ValueError, match="must name some of links"):
        build(settings={"ef": 3})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="contains something other than an index"):
        build_index(tmp_path / "mine", ITEM_IDS, vectors, library=library)
    index = build()
    with pytest.raises(ValueError, match=r"shape \(40, 11\), but the index needs \(Q, 12\)"):
        index.search(queries[:, 1:])
    with pytest.raises(ValueError, match="k=0"):
        index.search(queries, k=0)
    with pytest.raises(ValueError, match="exclude has 1 lists for 40 queries"):
        index.search(queries, exclude=[[]])
    assert index.search(queries[:0]) == ([], [])


def test_damaged_and_foreign_indexes_are_refused(vectors, tmp_path):
    library = any_library()
    index = build_index(tmp_path / "i", ITEM_IDS, vectors, library=library)
    assert ItemIndex.open(tmp_path / "i", fingerprint=index.settings["fingerprint"])
    with pytest.raises(ValueError, match="has other item vectors"):
        ItemIndex.open(tmp_path / "i", fingerprint="0")
    with pytest.raises(FileNotFoundError, match=r"contains no index: it has no index\.json"):
        ItemIndex.open(tmp_path)
    (tmp_path / "i" / "items.index").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="is damaged"):
        ItemIndex.open(tmp_path / "i")
    (tmp_path / "i" / "index.json").write_text("[")
    with pytest.raises(ValueError, match="cannot be read"):
        ItemIndex.open(tmp_path / "i")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_not_installed(monkeypatch, library, vectors, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install odmt-sdk\[{library}\]"):
        build_index(tmp_path / "i", ITEM_IDS, vectors, library=library)
