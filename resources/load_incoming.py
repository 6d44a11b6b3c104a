"""Load records on their way from a cluster's pods to the process that asked for the load: files below the lake.

Belongs here: writing a pod's files as one Parquet file, reading them back, removing them. Doesn't belong here: what the
records mean (load_records.py), or tables of the data contract (lake.py), of which this is none.

The lines travel as they were written, not as typed columns: so one set of rules reads what a Locust process wrote,
wherever it ran. A folder's name begins with its time, so what a dead process left behind is known by its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.ownership import LONGEST
from resources.redaction import redacted

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "_load_incoming"
"""Below the lake. No table has such a name."""
_BATCH_LINES = 2000
_NAME = re.compile(r"[a-z0-9-]+(\.[a-z]+)?\.ndjson")
_BEGUN = re.compile(r"(?P<at>[0-9]{1,11})-[a-z0-9]+")


class IncomingError(RuntimeError):
    """The records can't be written or read. The message names the URL, and what its file system says."""


def folder_of(lake_url: str, load_id: str, *, now: datetime) -> str:
    """Where the records of one load go."""
    return f"{lake_url.rstrip('/')}/{FOLDER}/{int(now.timestamp())}-{load_id}"


def put(folder: str, pod: str, records: Path) -> int:
    """Write every record file in `records` to `folder` as `<pod>.parquet`; how many lines. Raises `IncomingError`."""
    import pyarrow.parquet as pq

    written = 0
    with _opened(folder) as (files, root):
        files.makedirs(root, exist_ok=True)
        with files.open(f"{root}/{pod}.parquet", "wb") as stream, pq.ParquetWriter(stream, _schema()) as writer:
            for path in sorted(records.glob("*.ndjson")):
                for batch in _batches(path):
                    writer.write_batch(batch)
                    written += batch.num_rows
    return written


def fetch(folder: str, into: Path) -> list[str]:
    """Write the files of every pod in `folder` as they were to `into`; the pods' names.

    Raises `IncomingError`, also for a file that two pods brought.
    """
    import pyarrow.parquet as pq

    pods = []
    with _opened(folder) as (files, root):
        for path in sorted(files.find(root)) if files.exists(root) else ():
            with files.open(path, "rb") as stream, pq.ParquetFile(stream) as content:
                _write(content, into)
            pods.append(Path(path).stem)
    return pods


def remove(folder: str) -> None:
    """Remove a load's folder. Idempotent. Raises `IncomingError`."""
    with _opened(folder) as (files, root):
        if files.exists(root):
            files.rm(root, recursive=True)


def sweep(lake_url: str, *, now: datetime) -> list[str]:
    """Remove folders that no load can still be using; their names. Raises `IncomingError`, also for a lake
    that this process can't list."""
    with _opened(f"{lake_url.rstrip('/')}/{FOLDER}") as (files, root):
        names = [Path(path.rstrip("/")).name for path in files.ls(root, detail=False)] if files.exists(root) else []
        over = [name for name in names if _is_over(name, before=(now - LONGEST).timestamp())]
        for name in over:
            files.rm(f"{root}/{name}", recursive=True)
    return over


def _is_over(name: str, *, before: float) -> bool:
    begun = _BEGUN.fullmatch(name)
    return begun is not None and int(begun["at"]) < before


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of `url`, with nothing remembered of it, and the path within. Raises `IncomingError`."""
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
        files.invalidate_cache()
        yield files, root
    except Exception as error:  # every store has errors of its own
        said = " ".join(str(error).split())
        raise IncomingError(redacted(f"{url}: {type(error).__name__}: {said}")) from error


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("file", pa.string()), ("line", pa.string())])


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with path.open(encoding="utf-8") as lines:
        while some := [line.rstrip("\n") for line in islice(lines, _BATCH_LINES)]:
            yield pa.record_batch([[path.name] * len(some), some], schema=_schema())


def _write(content: Any, into: Path) -> None:
    """One pod's lines, to the files that they came from. Nothing but a record file's plain name is taken for one."""
    begun: set[str] = set()
    for batch in content.iter_batches(_BATCH_LINES):
        for name, line in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no record file of a load process")
            with (into / name).open("a" if name in begun else "x", encoding="utf-8") as file:
                file.write(f"{line}\n")
            begun.add(name)
