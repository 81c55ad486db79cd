"""Thousands of damaged adapters give an `AdapterError` or a model, in bounded memory and time."""

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutated_adapters import load_mutated, peak_memory
from programs import TESTS, run_python
from safetensors import SafetensorError
from safetensors.torch import load

from odmt_sdk import AdapterError
from odmt_sdk.files.tensor_file import DTYPES, read_header
from odmt_sdk.files.untrusted_files import JsonScan, parse_json
from odmt_sdk.saving.description import ReadDescription
from odmt_sdk.saving.layout import FORMAT_VERSION, LIBRARY


def check(found, count):
    assert found["loaded"] + found["refused"] == count
    assert found["refused"] > found["loaded"] > 0
    assert found["slowest, s"] < 5


def test_damaged_adapters(tmp_path):
    before = peak_memory()
    found = load_mutated(150, 1, tmp_path)
    check(found, 150)
    assert found["peak memory, MB"] - before < 300


@pytest.mark.slow
def test_ten_thousand_damaged_adapters():
    found = json.loads(run_python(TESTS / "mutated_adapters.py", "10000"))
    check(found, 10_000)
    assert found["peak memory, MB"] - found["before, MB"] < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_json_or_refused(text):
    try:
        content = parse_json(text, "config.json")
    except AdapterError as error:
        assert str(error).startswith("config.json is damaged")  # noqa: PT017
        return
    assert content == json.loads(text)


awkward = st.text(st.sampled_from(['"', "\\", "[", "]", "{", "}", ",", ":", "é", "\ud800", "a"]))
awkward_values = st.recursive(
    st.none() | awkward,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(awkward, inner, max_size=3),
    max_leaves=8,
)


def count_values(value):
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(count_values, value.values()))
    return 1 + sum(map(count_values, value)) if isinstance(value, list) else 1


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, inner), default=0)


@given(awkward_values, st.integers(1, 9))
def test_a_scan_tells_depth_and_number_of_values(value, size):
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    scan = JsonScan()
    for start in range(0, len(text), size):
        scan.read(text[start : start + size])
    assert scan.depth == depth_of(value)
    assert count_values(value) <= scan.values <= 2 * count_values(value)


PARTS = ["model", "modalities", "backbone", "files", "features", "shared_weights", "card"]


@given(st.dictionaries(st.sampled_from([*PARTS, "save_id", "other"]), json_values))
def test_any_description_is_read_or_refused(content):
    whole = {
        "library_name": LIBRARY,
        "format_version": FORMAT_VERSION,
        "save_id": "0",
        "model": {},
        "modalities": {},
        "backbone": {"name": "Mine"},
        "files": {"model": ["model.safetensors"]},
        **content,
    }
    try:
        found = ReadDescription.from_json(whole, where="here")
    except AdapterError as error:
        assert "cannot load the adapter in here" in str(error)  # noqa: PT017
        return
    assert found.description.backbone.name


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F4", ""]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)


@st.composite
def safetensors_files(draw):
    """Draw safetensors files that are valid or nearly valid."""
    sizes = draw(st.lists(st.integers(0, 4), max_size=3))
    header, place = {}, 0
    for number, size in enumerate(sizes):
        end = place + 4 * size
        header[str(number)] = {"dtype": "F32", "shape": [size], "data_offsets": [place, end]}
        place = end
    header.update(draw(st.dictionaries(st.sampled_from(["0", "1", "x"]), entries, max_size=1)))
    text = json.dumps(header).encode()
    length = draw(st.just(len(text)) | st.integers(0, 200))
    body = bytes(place + draw(st.sampled_from([0, 0, 0, -1, 1])) if place else 0)
    return length.to_bytes(8, "little") + text + body


@given(safetensors_files())
def test_a_header_is_accepted_only_where_safetensors_accepts_it(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    with path.open("rb") as file:
        try:
            tensors, _ = read_header(file, "any")
        except AdapterError as error:
            assert str(error).startswith("any is damaged")  # noqa: PT017
            return
        found = {name: tensor.read() for name, tensor in tensors.items()}
    try:
        expected = load(data)
    except SafetensorError as error:
        pytest.fail(f"accepted, but safetensors says {error}")
    assert {n: (t.dtype, t.shape) for n, t in found.items()} == {
        n: (t.dtype, t.shape) for n, t in expected.items()
    }


def test_a_file_cut_while_it_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [40000], "data_offsets": [0, 160000]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(160_000))
    with path.open("rb") as file:
        tensors, _ = read_header(file, "a.safetensors")
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(AdapterError, match="a.safetensors is damaged: it ends inside 'a'"):
            tensors["a"].read()
    assert isinstance(file, io.BufferedReader)
