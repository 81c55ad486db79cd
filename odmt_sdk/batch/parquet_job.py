"""`recommend_parquet`: a resumable batch job on one machine, with bounded memory.

The input is split into parts of whole row groups. Each part becomes one output file, which is
written under a temporary name and renamed when it is complete. An output file that exists is
therefore finished, and a job that was killed continues with the missing files.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from odmt_sdk.batch.table_recommender import ITEMS, TableRecommender
from odmt_sdk.errors import missing_library
from odmt_sdk.files.atomic_files import is_partial, write_text, write_whole
from odmt_sdk.hub.download import HubOptions, locate

if TYPE_CHECKING:
    import pyarrow.parquet as pq

JOB, SUCCESS = "_job.json", "_SUCCESS"
PROGRESS_DELAY_SECONDS = 3.0
ROWS_IN_MEMORY = 4096  # histories that are read, and results that are written, at a time


@dataclass(frozen=True)
class BatchReport:
    """Summary returned by `recommend_parquet`.

    Args:
        users: rows in the output of this call's share, from this call and earlier ones.
        without_recommendations: number of these users whose history contains no item of the
            adapter.
        parts: number of output files of this call's share.
        resumed: number of these files that an earlier call had finished.
        complete: whether the output of all shares is complete.
    """

    users: int
    without_recommendations: int
    parts: int
    resumed: int
    complete: bool


class Part(NamedTuple):
    """Row groups of an input file that become one output file."""

    number: int
    file: str
    row_groups: tuple[int, ...]
    rows: int

    def path(self, output: Path) -> Path:
        """Path of the output file."""
        return output / f"part-{self.number:05d}.parquet"


def recommend_parquet(
    adapter: str | Path,
    histories: str | Path,
    output: str | Path,
    *,
    k: int = 10,
    user_column: str = "user_id",
    history_column: str = "item_ids",
    exclude_seen: bool = True,
    batch_size: int = 256,
    rows_per_part: int = 100_000,
    processes: int = 1,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
    loading: Mapping[str, Any] | None = None,
) -> BatchReport:
    """Recommend items for the users in Parquet files and write the results to Parquet files.

    After an interruption, run the same call again: complete parts are kept, and the missing ones
    are written. A part is at least one row group and is read in pieces, so memory does not grow
    with the number of users.

    Args:
        adapter: path, repository or "shipped:..." for `ODMTWrapper.from_pretrained`.
        histories: a Parquet file or a folder of Parquet files, with one row per user.
        output: the folder to create. It receives "part-00000.parquet", ... with the user column,
            "item_ids" and "scores", and an empty file "_SUCCESS" once everything is done.
        k: number of items to recommend per user.
        user_column: name of the user column.
        history_column: name of the column with lists of item ids, oldest first.
        exclude_seen: whether to leave out the items of the history.
        batch_size: number of histories scored at once.
        rows_per_part: row groups are combined until a part has about this many users.
        processes: number of processes. Each loads its own copy of the adapter and gets an equal
            share of the CPU threads.
        share: (index, count), to split the parts among `count` machines that see the same folders.
            Run one call for each index in 0..count - 1.
        progress: whether to show a progress bar if the job takes more than a few seconds.
        loading: additional arguments of `from_pretrained`, such as `backbone` or `revision`.

    Returns:
        A summary of the job.

    Raises:
        AdapterError: if the adapter cannot be loaded.
        ValueError: if a setting is out of range, a column is missing or has the wrong type, or
            `output` contains something other than the output of this job.
        FileNotFoundError: if the input does not exist.
        ImportError: if pyarrow is not installed (`pip install odmt-sdk[tables]`).
        RuntimeError: if a process was killed; complete parts are kept.

    Examples:
        >>> recommend_parquet("shipped:films-sasrec", "users.parquet", "out")  # doctest: +SKIP
        BatchReport(users=6040, without_recommendations=0, parts=1, resumed=0, complete=True)
    """
    index, count = share
    if not 0 <= index < count:
        raise ValueError(f"share={share} must be (index, count) with index in 0..count - 1")
    if processes < 1 or rows_per_part < 1:
        raise ValueError(
            f"processes={processes} and rows_per_part={rows_per_part} must be at least 1"
        )
    _parquet()  # or ImportError, before the adapter is loaded
    settings: dict[str, Any] = {
        "k": k,
        "user_column": user_column,
        "history_column": history_column,
        "exclude_seen": exclude_seen,
    }
    source, target = Path(histories).expanduser(), Path(output).expanduser()
    recommender = TableRecommender(adapter, batch_size=batch_size, loading=loading, **settings)
    files = _input_files(source)
    parts = list(_cut(source, files, rows_per_part))
    _check_columns(source / parts[0].file if source.is_dir() else source, recommender)
    job = {
        **settings,
        "adapter": _fingerprint(adapter, loading or {}),
        "input": [[part.file, list(part.row_groups), part.rows] for part in parts],
    }
    _claim(target, job)
    own = parts[index::count]
    missing = [part for part in own if not _is_complete(part.path(target), part.rows)]
    if missing:  # of an output that was complete and has been damaged since
        (target / SUCCESS).unlink(missing_ok=True)
    work = _Work(source, target, recommender)
    if processes == 1 or len(missing) < 2:
        done: Iterator[object] = map(work.write, missing)
        _run(done, len(missing), progress)
    else:
        arguments = {"adapter": adapter, "batch_size": batch_size, "loading": loading, **settings}
        _run_in_processes(work, missing, arguments, processes, progress)
    empty = sum(_count_empty(part.path(target)) for part in own)
    complete = all(_is_complete(part.path(target), part.rows) for part in parts)
    if complete:
        write_text(target / SUCCESS, "")
    return BatchReport(
        users=sum(part.rows for part in own),
        without_recommendations=empty,
        parts=len(own),
        resumed=len(own) - len(missing),
        complete=complete,
    )


# ------------------------------------------------------------------ input


def _parquet() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_library("Parquet files need pyarrow", error, "tables") from error
    return pq


def _input_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"there is no Parquet file or folder {source}")
    hidden = (".", "_")
    files = sorted(
        path
        for path in source.rglob("*.parquet")
        if path.is_file()
        and not any(name.startswith(hidden) for name in path.relative_to(source).parts)
    )
    if not files:
        raise FileNotFoundError(f"{source} holds no file that ends in .parquet")
    return files


def _cut(source: Path, files: list[Path], rows_per_part: int) -> Iterator[Part]:
    """Split the input into parts, in the order of the input."""
    number = 0
    for path in files:
        name = path.relative_to(source).as_posix() if source.is_dir() else path.name
        metadata = _parquet().ParquetFile(path).metadata
        groups: list[int] = []
        rows = 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            rows += metadata.row_group(group).num_rows
            if rows and (rows >= rows_per_part or group == metadata.num_row_groups - 1):
                yield Part(number, name, tuple(groups), rows)
                number, groups, rows = number + 1, [], 0
    if not number:
        raise ValueError(f"{source} holds no rows: there is no user to recommend to")


def _check_columns(path: Path, recommender: TableRecommender) -> None:
    """Check the names and types of the columns before any work is done."""
    recommender(_parquet().read_schema(path).empty_table())


def _fingerprint(adapter: str | Path, loading: Mapping[str, Any]) -> str:
    """A digest of the adapter's files, which identifies the adapter."""
    options = {
        name: loading[name]
        for name in ("revision", "token", "cache_dir", "local_files_only")
        if name in loading
    }
    folder = locate(
        adapter, loading.get("subfolder", ""), HubOptions(**options), item_embeddings=True
    )
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors") and path.is_file():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


# ------------------------------------------------------------------ output


def _claim(target: Path, job: Mapping[str, Any]) -> None:
    """Reserve the output folder for this job; raise if it belongs to another one."""
    target.mkdir(parents=True, exist_ok=True)
    path = target / JOB
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before == json.loads(json.dumps(job)):
            return
        differs = [name for name in job if not before or before.get(name) != job[name]]
        raise ValueError(
            f"{target} contains the output of another job, with another {' and '.join(differs)}: "
            "choose another output folder, or delete this one"
        )
    strangers = [entry.name for entry in target.iterdir() if not is_partial(entry.name)]
    if strangers:
        raise ValueError(f"{target} is not empty and has no {JOB}: choose another output folder")
    write_text(path, json.dumps(job))


def _is_complete(path: Path, rows: int) -> bool:
    if not path.is_file():
        return False
    try:
        return bool(_parquet().read_metadata(path).num_rows == rows)
    except (OSError, ValueError):  # damaged after it was written: write it again
        return False


def _count_empty(path: Path) -> int:
    import pyarrow.compute as pc

    return sum(
        int(pc.sum(pc.equal(pc.list_value_length(batch.column(0)), 0)).as_py() or 0)
        for batch in _parquet().ParquetFile(path).iter_batches(columns=[ITEMS])
    )


class _Work:
    """Writes the output files of parts.

    Args:
        source: the input file or folder.
        target: the output folder.
        recommender: computes the recommendations.
    """

    def __init__(self, source: Path, target: Path, recommender: TableRecommender) -> None:
        self.source, self.target, self.recommender = source, target, recommender

    def write(self, part: Part) -> None:
        """Write the recommendations for the users of one part."""
        path = self.source / part.file if self.source.is_dir() else self.source
        name = part.path(self.target).name
        for left in self.target.glob(f".{name}.*"):  # left by a run that was killed while writing
            left.unlink(missing_ok=True)
        file = _parquet().ParquetFile(path)
        try:
            write_whole(part.path(self.target), lambda partial: self._fill(file, part, partial))
        finally:
            file.close()

    def _fill(self, file: "pq.ParquetFile", part: Part, partial: Path) -> None:
        import pyarrow as pa

        columns = [self.recommender.user_column, self.recommender.history_column]
        schema = self.recommender.schema(file.schema_arrow.field(columns[0]).type)
        with _parquet().ParquetWriter(partial, schema) as writer:
            for batch in file.iter_batches(
                batch_size=ROWS_IN_MEMORY, row_groups=list(part.row_groups), columns=columns
            ):
                writer.write_table(self.recommender(pa.Table.from_batches([batch])))


# ------------------------------------------------------------------ processes


_of_this_process: _Work | None = None


def _start(source: Path, target: Path, arguments: Mapping[str, Any]) -> None:
    global _of_this_process
    _of_this_process = _Work(source, target, TableRecommender(**arguments))


def _write(part: Part) -> None:
    assert _of_this_process is not None  # set by `_start`
    _of_this_process.write(part)


def _run_in_processes(
    work: _Work,
    missing: list[Part],
    arguments: Mapping[str, Any],
    processes: int,
    progress: bool,
) -> None:
    import torch

    threads = max(1, torch.get_num_threads() // processes)
    with ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(work.source, work.target, {**arguments, "num_threads": threads}),
    ) as pool:
        jobs = [pool.submit(_write, part) for part in missing]
        try:
            _run((job.result() for job in as_completed(jobs)), len(missing), progress)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process of this job was killed, perhaps because memory ran out. Complete parts "
                "are kept: run the same call again, with fewer processes= if memory was short"
            ) from error
        finally:
            for job in jobs:
                job.cancel()


def _run(done: Iterator[object], number: int, progress: bool) -> None:
    from transformers.utils import logging

    for _ in logging.tqdm(
        done,
        desc="Recommending",
        total=number,
        unit="part",
        disable=not progress,
        delay=PROGRESS_DELAY_SECONDS,
        leave=False,
    ):
        pass
