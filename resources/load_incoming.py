"""Load records on their way from a cluster's pods to the process that asked for the load: files below the lake.

Belongs here: writing a pod's files as one Parquet file, reading them back, removing them. Doesn't belong here: what the
records mean (load_records.py), how a lake is reached (lake_remote.py), or tables of the data contract, of which this is
none: what is here is gone when the load's rows are published.

The lines travel as they were written, not as typed columns: so one set of rules reads what a Locust process wrote,
wherever it ran. A folder's name begins with its time, so what a dead process left behind is known by its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from resources.contract import WarehouseError
from resources.lake_remote import RemoteFiles
from resources.ownership import LONGEST

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "_load_incoming"
"""Below the lake. No table has such a name."""
_BATCH_LINES = 2000
_NAME = re.compile(r"[a-z0-9-]+(\.[a-z]+)?\.ndjson")
_BEGUN = re.compile(r"(?P<at>[0-9]{1,11})-[a-z0-9]+")


def folder_of(load_id: str, *, now: datetime) -> str:
    """Where the records of one load go, below the lake."""
    return f"{FOLDER}/{int(now.timestamp())}-{load_id}"


def put(lake: RemoteFiles, folder: str, pod: str, records: Path) -> int:
    """Write every record file in `records` to `folder` as `<pod>.parquet`; how many lines. Raises `WarehouseError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines, buffer = 0, pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, _schema(), compression="zstd") as writer:
        for path in sorted(records.glob("*.ndjson")):
            for batch in _batches(path):
                writer.write_batch(batch)
                lines += batch.num_rows
    name = f"{folder}/{pod}.parquet"
    if not lake.create(name, buffer.getvalue().to_pybytes()):
        raise WarehouseError(f"{lake.url}/{name} exists: another pod of that name has been here")
    return lines


def fetch(lake: RemoteFiles, folder: str, into: Path) -> list[str]:
    """Write the files of every pod in `folder` as they were to `into`; the pods' names.

    Raises `WarehouseError`, also for a file that two pods brought or that is no record file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(lake.sizes(folder))
    for path in paths:  # one by one: a large load has hundreds of megabytes
        with pq.ParquetFile(pa.BufferReader(lake.read([path])[path])) as content:
            try:
                _write(content, into)
            except (FileExistsError, ValueError) as error:
                raise WarehouseError(f"{lake.url}/{path} is no part of this load: {error}") from None
    return [PurePosixPath(path).stem for path in paths]


def sweep(lake: RemoteFiles, *, now: datetime) -> list[str]:
    """Remove folders that no load can still be using; their names. Raises `WarehouseError`, also for a lake that this
    process can't list."""
    names = {PurePosixPath(path).parts[1] for path in lake.sizes(FOLDER)}
    over = sorted(name for name in names if _is_over(name, before=(now - LONGEST).timestamp()))
    for name in over:
        lake.remove(f"{FOLDER}/{name}")
    return over


def _is_over(name: str, *, before: float) -> bool:
    begun = _BEGUN.fullmatch(name)
    return begun is not None and int(begun["at"]) < before


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
