"""Ray Data and Spark, run locally, give the same recommendations as `recommend`."""

import sys

import pytest
import torch

from odmt_sdk import ODMTWrapper
from odmt_sdk.batch import recommend_parquet, recommend_ray, recommend_spark

pa = pytest.importorskip("pyarrow")

ADAPTER = "shipped:films-sasrec"


@pytest.fixture(scope="module")
def users():
    """A table of users, and the model's recommendations for them."""
    model = ODMTWrapper.from_pretrained(ADAPTER)
    item_ids = list(model.vocabulary)
    generator = torch.Generator().manual_seed(0)
    histories = [
        [item_ids[row] for row in torch.randint(len(item_ids), (9,), generator=generator).tolist()]
        for _ in range(200)
    ]
    names = [f"user {number:03d}" for number in range(200)]
    table = pa.table({"user_id": names, "item_ids": histories})
    return table, dict(zip(names, model.recommend(histories, k=10).item_ids, strict=True))


@pytest.mark.slow
def test_ray(local_ray, users, tmp_path):
    table, expected = users
    dataset = local_ray.data.from_arrow([table.slice(0, 70), table.slice(70)])
    recommend_ray(dataset, ADAPTER, concurrency=1).write_parquet(str(tmp_path / "out"))
    import pyarrow.parquet as pq

    found = pq.read_table(tmp_path / "out")
    rows = zip(*(found.column(name).to_pylist() for name in ("user_id", "item_ids")), strict=True)
    assert dict(rows) == expected
    assert found.num_rows == 200
    with pytest.warns(UserWarning, match="3 workers of 1 threads use all 3 CPUs of the Ray"):
        recommend_ray(dataset, ADAPTER, concurrency=3)


@pytest.mark.slow
def test_spark(local_spark, users):
    table, expected = users
    frame = local_spark.createDataFrame(table.to_pandas()).repartition(2)
    found = recommend_spark(frame, ADAPTER).collect()
    assert {row.user_id: row.item_ids for row in found} == expected
    assert len(found) == 200
    with pytest.raises(ValueError, match="column 'name' is not among"):
        recommend_spark(frame, ADAPTER, user_column="name")
    numbers = local_spark.createDataFrame([(1, [2])], "user_id long, item_ids array<long>")
    with pytest.raises(ValueError, match="holds array<bigint>; it needs arrays of str"):
        recommend_spark(numbers, ADAPTER)


def test_ray_asks_for_its_own_data_sets():
    pytest.importorskip("ray", reason="needs odmt-sdk[ray]")
    with pytest.raises(TypeError, match=r"it needs a ray\.data\.Dataset"):
        recommend_ray([[1, 2]], ADAPTER)


@pytest.mark.parametrize(
    ("function", "library", "extra"),
    [(recommend_ray, "ray.data", "ray"), (recommend_spark, "pyspark.sql.types", "spark")],
)
def test_an_engine_that_is_not_installed(monkeypatch, function, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install odmt-sdk\[{extra}\]"):
        function(None, ADAPTER)


def test_parquet_files_without_pyarrow(monkeypatch, tmp_path):
    (tmp_path / "users.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install odmt-sdk\[tables\]"):
        recommend_parquet(ADAPTER, tmp_path / "users.parquet", tmp_path / "out")
