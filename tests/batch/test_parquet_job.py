"""Batch jobs on Parquet files give the same recommendations as `recommend`, even if interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from odmt_sdk import Interactions, ItemFeatures, ODMTWrapper, SASRec, shipped_adapters
from odmt_sdk.batch import TableRecommender, recommend_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SHIPPED = "shipped:films-sasrec"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    torch.manual_seed(0)
    features = ItemFeatures.from_tensors(
        item_ids=list(range(101, 141)), text=torch.randn(41, 2, 8), image=torch.randn(41, 2, 6)
    )
    model = ODMTWrapper(SASRec(16, max_seq_length=6), features)
    return model.eval().save_pretrained(tmp_path_factory.mktemp("adapter"))


def some_histories(item_ids, users, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(users):
        length = int(torch.randint(1, 12, (), generator=generator))
        rows = torch.randint(len(item_ids), (length,), generator=generator)
        found.append([item_ids[row] for row in rows.tolist()])
    return found


def write_users(path, histories, row_group_size=10):
    item_ids = pa.array(histories, None if histories else pa.list_(pa.int64()))
    table = pa.table({"user_id": list(range(len(histories))), "item_ids": item_ids})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def read_output(folder):
    return pq.read_table(folder).sort_by("user_id")


def assert_same(table, model, histories, **options):
    expected = model.recommend(histories, **options)
    assert table.column("item_ids").to_pylist() == expected.item_ids
    for found, scores in zip(table.column("scores").to_pylist(), expected.scores, strict=True):
        assert found == pytest.approx(scores, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_recommends_what_the_model_does(adapter, tmp_path, processes):
    model = ODMTWrapper.from_pretrained(adapter)
    histories = some_histories(list(model.vocabulary), 65)
    write_users(tmp_path / "users.parquet", histories)
    report = recommend_parquet(
        adapter, tmp_path / "users.parquet", tmp_path / "out", k=5, rows_per_part=20,
        processes=processes,
    )  # fmt: skip
    assert (report.users, report.parts, report.resumed, report.complete) == (65, 4, 0, True)
    assert report.without_recommendations == 0
    table = read_output(tmp_path / "out")
    assert table.column("user_id").to_pylist() == list(range(65))
    assert_same(table, model, histories, k=5)
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_starts_from_a_shipped_adapter(tmp_path):
    model = ODMTWrapper.from_pretrained(SHIPPED)
    histories = some_histories(list(model.vocabulary), 300)
    write_users(tmp_path / "users.parquet", histories, row_group_size=100)
    recommend_parquet(SHIPPED, tmp_path / "users.parquet", tmp_path / "out")
    assert_same(read_output(tmp_path / "out"), model, histories, k=10)


def test_folders_of_files_and_users_of_any_kind(adapter, tmp_path):
    model = ODMTWrapper.from_pretrained(adapter)
    item_ids = list(model.vocabulary)
    source = tmp_path / "in" / "day=1"
    source.mkdir(parents=True)
    (tmp_path / "in" / "_temporary").mkdir()
    (tmp_path / "in" / "_temporary" / "x.parquet").write_bytes(b"unfinished")
    histories = [[item_ids[0], None, 7], [], None, [7, 8], item_ids]
    columns = {"name": ["a", "b", "c", "d", "e"], "seen": pa.array(histories, pa.list_(pa.int32()))}
    pq.write_table(pa.table(columns), source / "a.parquet")
    report = recommend_parquet(
        adapter, tmp_path / "in", tmp_path / "out", k=3, user_column="name", history_column="seen"
    )
    assert report.without_recommendations == 4  # the last user has seen all items
    table = pq.read_table(tmp_path / "out")
    assert table.column("name").to_pylist() == columns["name"]
    found = table.column("item_ids").to_pylist()
    assert found[0] == model.recommend([[item_ids[0]]], k=3).item_ids[0]
    assert found[1:] == [[], [], [], []]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[101, None, 7, 103], [], None, [102]], pa.list_(pa.int32())),
        pa.array([[101, 103], [8, 9], None, [102, 2**64 - 1]], pa.list_(pa.uint64(), 2)),
        pa.array([[0], [101, 103], [], [], [102]], pa.large_list(pa.int64())).slice(1),
        pa.ListArray.from_arrays(
            [0, 3, 3, 3, 4],
            pa.DictionaryArray.from_arrays(
                pa.array([1, None, 0, 2], pa.int8()), pa.array([103, 101, 102])
            ),
        ),
    ],
    ids=["missing", "fixed size", "sliced", "dictionary"],
)
def test_columns_of_every_kind(adapter, column):
    model = ODMTWrapper.from_pretrained(adapter)
    table = pa.table({"user_id": list("abcd"), "item_ids": column})
    found = TableRecommender(model, k=4, batch_size=1)(table)
    expected = model.recommend([[101, 103], [102]], k=4).item_ids
    assert found.column("item_ids").to_pylist() == [expected[0], [], [], expected[1]]
    assert found.column("user_id").to_pylist() == list("abcd")
    nothing = TableRecommender(model)(table.slice(0, 0))
    assert nothing.schema == TableRecommender(model).schema(pa.string())


@pytest.mark.slow
def test_goes_on_after_a_kill(adapter, tmp_path):
    """After repeated kills during writing, every user is in the output exactly once."""
    model = ODMTWrapper.from_pretrained(adapter)
    histories = some_histories(list(model.vocabulary), 600)
    users = write_users(tmp_path / "users.parquet", histories, row_group_size=20)
    out = tmp_path / "out"
    arguments = (str(adapter), str(users), str(out))
    script = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "from odmt_sdk.batch import recommend_parquet\n"
        "recommend_parquet(*sys.argv[1:], k=4, rows_per_part=20)"
    )
    root = str(Path(__file__).parents[2])
    kills = 0
    for already in (1, 8, 17):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments], env={**os.environ, "PYTHONPATH": root}
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob("part-*.parquet"))) >= already:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        kills += process.wait() == -signal.SIGKILL
    assert kills > 0
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert before
    report = recommend_parquet(*arguments, k=4, rows_per_part=20)
    assert report.complete
    assert report.resumed == len(before)
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in out.glob("part-*")}.items()
    table = read_output(out)
    assert table.column("user_id").to_pylist() == list(range(600))
    assert_same(table, model, histories, k=4)
    assert sorted(entry.name for entry in out.iterdir() if entry.name.startswith(".")) == []


def test_shares_of_several_machines(adapter, tmp_path):
    model = ODMTWrapper.from_pretrained(adapter)
    histories = some_histories(list(model.vocabulary), 50)
    users = write_users(tmp_path / "users.parquet", histories)
    reports = [
        recommend_parquet(adapter, users, tmp_path / "out", rows_per_part=10, share=(index, 3))
        for index in range(3)
    ]
    assert [report.users for report in reports] == [20, 20, 10]
    assert [report.complete for report in reports] == [False, False, True]
    assert_same(read_output(tmp_path / "out"), model, histories, k=10)


def test_a_damaged_part_is_made_again(adapter, tmp_path):
    users = write_users(tmp_path / "users.parquet", some_histories(list(range(101, 141)), 30))
    recommend_parquet(adapter, users, tmp_path / "out", rows_per_part=10)
    part = tmp_path / "out" / "part-00001.parquet"
    before = pq.read_table(part)
    part.write_bytes(part.read_bytes()[:-5])
    report = recommend_parquet(adapter, users, tmp_path / "out", rows_per_part=10)
    assert (report.parts, report.resumed) == (3, 2)
    assert pq.read_table(part).equals(before)


def test_an_output_that_is_no_longer_complete_does_not_say_so(adapter, tmp_path, monkeypatch):
    users = write_users(tmp_path / "users.parquet", some_histories(list(range(101, 141)), 30))
    recommend_parquet(adapter, users, tmp_path / "out", rows_per_part=10)
    (tmp_path / "out" / "part-00002.parquet").unlink()
    (tmp_path / "out" / ".part-00002.parquet.1.tmp").write_bytes(b"half a file")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("odmt_sdk.batch.parquet_job._Work._fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recommend_parquet(adapter, users, tmp_path / "out", rows_per_part=10)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert recommend_parquet(adapter, users, tmp_path / "out", rows_per_part=10).complete
    assert read_output(tmp_path / "out").column("user_id").to_pylist() == list(range(30))
    assert len(list((tmp_path / "out").iterdir())) == 3 + 2  # no half-written file is left


def test_another_job_is_refused(adapter, tmp_path):
    users = write_users(tmp_path / "users.parquet", some_histories(list(range(101, 141)), 30))
    recommend_parquet(adapter, users, tmp_path / "out")
    with pytest.raises(ValueError, match="output of another job, with another k: choose another"):
        recommend_parquet(adapter, users, tmp_path / "out", k=3)
    other = write_users(tmp_path / "other.parquet", some_histories(list(range(101, 141)), 31))
    with pytest.raises(ValueError, match="with another input"):
        recommend_parquet(adapter, other, tmp_path / "out")
    films = write_users(tmp_path / "films.parquet", [["1"]])
    with pytest.raises(ValueError, match="another adapter and input"):
        recommend_parquet(SHIPPED, films, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"mine is not empty and has no _job\.json"):
        recommend_parquet(adapter, users, tmp_path / "mine")
    (tmp_path / "out" / "_job.json").write_text("{")
    with pytest.raises(ValueError, match="another job"):
        recommend_parquet(adapter, users, tmp_path / "out")


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (
            [["101"]],
            r"holds lists of string, but the adapter's item ids are of type int .*101.*: cast",
        ),
        ([[101.0]], "holds lists of double"),
        ([101], "holds int64; it needs lists of item ids"),
    ],
)
def test_histories_of_another_kind_are_refused_before_any_work(
    adapter, tmp_path, histories, message
):
    users = write_users(tmp_path / "users.parquet", histories)
    with pytest.raises(ValueError, match=message):
        recommend_parquet(adapter, users, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_settings(adapter, tmp_path):
    users = write_users(tmp_path / "users.parquet", [[101]])
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="k=0 and batch_size=256 must be at least 1"):
        recommend_parquet(adapter, users, out, k=0)
    with pytest.raises(ValueError, match=r"share=\(2, 2\) must be"):
        recommend_parquet(adapter, users, out, share=(2, 2))
    with pytest.raises(ValueError, match="processes=0"):
        recommend_parquet(adapter, users, out, processes=0)
    with pytest.raises(ValueError, match="column 'user' is not among"):
        recommend_parquet(adapter, users, out, user_column="user")
    with pytest.raises(FileNotFoundError, match="there is no Parquet file or folder"):
        recommend_parquet(adapter, tmp_path / "nowhere", out)
    with pytest.raises(ValueError, match="user_column='scores' is the name of a column"):
        recommend_parquet(adapter, users, out, user_column="scores")
    empty = write_users(tmp_path / "empty.parquet", [])
    with pytest.raises(ValueError, match="holds no rows"):
        recommend_parquet(adapter, empty, out)


def test_ids_of_several_types_are_refused():
    data = Interactions.from_sequences([["a", 1]])
    features = ItemFeatures.from_tensors(item_ids=data.item_ids, text=torch.randn(3, 2, 8))
    model = ODMTWrapper(SASRec(8, max_seq_length=4), features)
    with pytest.raises(ValueError, match="of type int, str"):
        TableRecommender(model)


def test_the_job_names_everything_that_changes_its_result(adapter, tmp_path):
    users = write_users(tmp_path / "users.parquet", [[101, 102]])
    recommend_parquet(adapter, users, tmp_path / "out")
    job = json.loads((tmp_path / "out" / "_job.json").read_text())
    assert set(job) == {"k", "user_column", "history_column", "exclude_seen", "adapter", "input"}


def test_a_shipped_adapter_is_there():
    assert SHIPPED in {adapter.name for adapter in shipped_adapters()}
