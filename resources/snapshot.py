"""labs.duckdb: the lake's tables and views as one file, for people.

Belongs here: bringing it up to date beside the former one, and swapping it in. Doesn't belong here: the pipeline's own
questions, which go to the lake (warehouse_core.py).

The lake's files never change. So where the former labs.duckdb is as we left it, and lake, schema and views are but for
files that came since, a copy of it takes those in: after a year of runs a lab would wait for all of them otherwise.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab_pipelines.digest import canonical_digest
from lab_pipelines.files import TEMPORARY, sync_directory
from resources.contract import Table, WarehouseError
from resources.duck import connect
from resources.lake import Lake
from resources.lake_sql import create_views, explained, quoted, read_parquet

if TYPE_CHECKING:
    import duckdb

SNAPSHOT = "labs.duckdb"
_RECORD = f".{SNAPSHOT}.made.json"


class _Made(NamedTuple):
    """What a labs.duckdb was made of, and how to know it again."""

    itself: list[int]
    """As `_identity` says; another one when somebody else wrote to it."""
    definitions: str
    """Digest of the tables' and the views' SQL, and DuckDB's version."""
    files: dict[str, list[int]]
    """The lake's, by path, as `_identity` says."""


def rebuild(path: Path, lake: Lake, views: Sequence[Path]) -> Path:
    """Bring the labs.duckdb at `path` up to date, and swap it in. Readers keep the file they have open.

    Processes take turns, so the last one to begin sees every file that was published before. Also sweeps what
    dead writers left. Raises `WarehouseError`, with the former labs.duckdb left in place.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WarehouseError(
            f"{path.parent} can't be made ({error.strerror or error}); name another folder with LABS_DATA_DIR"
        ) from None
    with (path.parent / f"{SNAPSHOT}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lake.sweep()
        for stale in path.parent.glob(f".{SNAPSHOT}.*{TEMPORARY}*"):  # only the lock's holder writes these
            stale.unlink()
        building = path.with_name(f".{SNAPSHOT}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            definitions, files = _build(building, path, lake, views)
            descriptor = os.open(building, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            # Someone who opened labs.duckdb for writing may have left its log; it doesn't fit the new file.
            path.with_name(f"{SNAPSHOT}.wal").unlink(missing_ok=True)
            building.replace(path)
        finally:
            building.unlink(missing_ok=True)
        # After the swap: killed in between, the record tells of another labs.duckdb, and so of none.
        building.write_text(json.dumps(_Made(_identity(path), definitions, files)._asdict()), encoding="utf-8")
        building.replace(path.with_name(_RECORD))
        sync_directory(path.parent)
    return path


def _build(building: Path, former: Path, lake: Lake, views: Sequence[Path]) -> tuple[str, dict[str, list[int]]]:
    """Make `building`, from `former` where that will do; the digest of its definitions, and the files that it holds."""
    import duckdb

    with explained(lake):
        listed = {table.name: {str(file): file for file in lake.files(table)} for table in lake.tables.values()}
        files = {name: _identity(file) for of_table in listed.values() for name, file in of_table.items()}
        sql = [
            *(table.ddl for table in lake.tables.values()),
            *(view.read_text(encoding="utf-8") for view in views),
        ]
        definitions = canonical_digest([duckdb.__version__, *sql])
        copied = _copy(former, building, definitions, files)
        held = copied or set()
        with connect(building) as connection:
            if copied is None:
                connection.execute(";".join(table.ddl for table in lake.tables.values()))
            # One transaction: each of them waits for the disk.
            connection.execute("BEGIN")
            for table in lake.tables.values():
                _load(connection, lake, table, [file for name, file in listed[table.name].items() if name not in held])
            connection.execute("COMMIT")
            if copied is None:
                create_views(connection, views)
    return definitions, files


def _copy(former: Path, building: Path, definitions: str, files: dict[str, list[int]]) -> set[str] | None:
    """Begin `building` as a copy of `former`; the files that it holds. None, without a copy, where it won't do."""
    made = _read_record(former.with_name(_RECORD))
    if made is None or made.definitions != definitions or not made.files.items() <= files.items():
        return None
    try:
        unchanged = _identity(former) == made.itself
        if unchanged:
            shutil.copyfile(former, building)
            unchanged = _identity(former) == made.itself  # nobody wrote to it meanwhile
    except FileNotFoundError:
        unchanged = False
    if unchanged:
        return set(made.files)
    building.unlink(missing_ok=True)
    return None


def _read_record(path: Path) -> _Made | None:
    try:
        return _Made(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # there is none, or it isn't ours
        return None


def _identity(path: Path) -> list[int]:
    """Of a file as it is: another one in its place, or a write to it, makes it differ."""
    status = path.stat()
    return [status.st_ino, status.st_mtime_ns, status.st_size]


def open_snapshot(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a labs.duckdb, in UTC, that reaches no other file. Raises `WarehouseError`."""
    import duckdb

    if not path.exists():
        raise WarehouseError(f"{path} does not exist yet; `make demo` runs a lab and builds it")
    try:
        connection = duckdb.connect(
            str(path), read_only=True, config={"enable_external_access": "false", "autoload_known_extensions": "false"}
        )
    except duckdb.Error as error:
        raise WarehouseError(
            f"{path} can't be opened: {error}. It is a copy of the lake: delete it and rebuild."
        ) from None
    # Of a question that takes seconds DuckDB draws a progress bar on stdout, where JSON or CSV is expected.
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def _load(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, files: list[Path]) -> None:
    """Copy files of the table into it, under the rules of its DDL. Raises `WarehouseError` that names the file."""
    import duckdb

    if not files:
        return
    try:
        _insert(connection, lake, table, files)
    except (duckdb.ConstraintException, duckdb.ConversionException) as error:
        connection.execute("ROLLBACK")
        for path in files:
            try:
                _insert(connection, lake, table, [path])
            except (duckdb.ConstraintException, duckdb.ConversionException) as reason:
                raise WarehouseError(f"{path} breaks a rule of {table.source.name}: {reason}") from None
        raise WarehouseError(f"the files of {table.name} break a rule of {table.source.name}: {error}") from None


def _insert(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, files: list[Path]) -> None:
    existing = frozenset[str]().union(*(lake.columns(table, path) for path in files))
    columns = ", ".join(quoted(column) for column in table.types if column in existing)
    connection.execute(
        f"INSERT INTO {quoted(table.name)} BY NAME SELECT {columns} FROM {read_parquet(files, union=True)}"
    )
