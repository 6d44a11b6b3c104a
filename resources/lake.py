"""The lake: immutable Parquet files, one per table and run, that hold everything the labs have found out.

Belongs here: the data contract (warehouse/schema), checking rows against it, publishing files, listing them.
Doesn't belong here: questions, views and labs.duckdb (warehouse.py).

A file is `lake/<table>/target=<target>/lab=<lab>/<run_id>[-<part>].parquet`. It is written once, and says its own
name in its metadata, so that a copy or a file of another origin is found out instead of being counted.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from lab_pipelines.files import new_file, sweep_temporaries

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Row = Mapping[str, object]

_STAMP = b"lab_pipelines.path"
_PATH_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHOWN = 160
"""Characters of a value that an error message shows."""


class WarehouseError(RuntimeError):
    """Rows, files or a question that the warehouse can't take. The message says which, why, and what to do."""


class Within(TypedDict, total=False):
    """Some rows of the lake: those that have all of these values."""

    target: str
    lab: str
    run_id: str


@dataclass(frozen=True)
class Table:
    """One table of the data contract, as its DDL says."""

    name: str
    ddl: str
    source: Path
    schema: pa.Schema
    types: dict[str, str]
    """Column → DuckDB type, in the DDL's order."""
    required: frozenset[str]
    """Columns that are NOT NULL."""
    checks: tuple[str, ...]


def connect(path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of our own: in UTC, and never reaching for extensions over the network."""
    import duckdb

    connection = duckdb.connect(
        str(path) if path else ":memory:",
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """One in-memory DuckDB for all questions and checks of a process: to start one takes 14 ms, longer than to ask."""
    return connect()


@contextmanager
def own_schema() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees nothing but what it makes itself, and leaves nothing behind. Threads don't meet."""
    name = f"q{uuid.uuid4().hex}"
    with _engine().cursor() as connection:
        connection.execute(f"CREATE SCHEMA {name}; SET schema = '{name}'; SET TimeZone = 'UTC'")
        try:
            yield connection
        finally:
            connection.execute(f"SET schema = 'main'; DROP SCHEMA {name} CASCADE")


@cache
def contract(schema_dir: Path) -> dict[str, Table]:
    """The tables of `schema_dir`, by name. Raises `WarehouseError` that names a file which isn't one table."""
    import duckdb

    tables = {}
    with connect() as connection:
        for source in sorted(schema_dir.glob("*.sql")):
            name, ddl = source.stem, source.read_text(encoding="utf-8")
            try:
                connection.execute(ddl)
                types = connection.execute(
                    "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
                    "WHERE table_name = ? ORDER BY ordinal_position",
                    [name],
                ).fetchall()
                checks = connection.execute(
                    "SELECT expression FROM duckdb_constraints() WHERE table_name = ? AND constraint_type = 'CHECK' "
                    "ORDER BY constraint_index",
                    [name],
                ).fetchall()
                schema = connection.sql(f'FROM "{name}"').to_arrow_table().schema
            except duckdb.Error as error:
                raise WarehouseError(f"{source}: must create the table {name}, as the file is named: {error}") from None
            tables[name] = Table(
                name=name,
                ddl=ddl,
                source=source,
                schema=schema,
                types={column: kind for column, kind, _ in types},
                required=frozenset(column for column, _, nullable in types if nullable == "NO"),
                checks=tuple(expression for (expression,) in checks),
            )
    if not tables:
        raise WarehouseError(f"{schema_dir} has no table; expected one .sql file per table")
    return tables


class Lake:
    """The files below one folder, under one data contract."""

    def __init__(self, root: Path, schema_dir: Path) -> None:
        self.root = root
        self.tables = contract(schema_dir)

    def table(self, name: str) -> Table:
        """The contract of one table. Raises `WarehouseError` that names the known ones."""
        if name not in self.tables:
            raise WarehouseError(f"there is no table {name!r}; the warehouse has: {', '.join(self.tables)}")
        return self.tables[name]

    def publish(
        self, table: str, rows: Sequence[Row], *, target: str, lab: str, run_id: str, part: str | None = None
    ) -> Path:
        """Check `rows` and publish them as one new file; its path. See `Warehouse.publish`."""
        import pyarrow.parquet as pq

        name = f"{run_id}-{part}" if part else run_id
        for what, value in {"target": target, "lab": lab, "run_id": run_id, "part": part or name}.items():
            if not _PATH_PART.fullmatch(value):
                raise WarehouseError(f"{table}: {what}={value!r} can't be part of a path; use letters, digits, . _ -")
        checked = check_rows(self.table(table), rows, key={"target": target, "lab": lab, "run_id": run_id})
        path = self.root / table / f"target={target}" / f"lab={lab}" / f"{name}.parquet"
        stamped = checked.replace_schema_metadata({_STAMP: self._stamp(path)})
        try:
            if not path.exists():  # spares the writing; the link below decides
                with new_file(path) as stream:
                    pq.write_table(stamped, stream, compression="zstd")
                return path
        except FileExistsError:
            pass
        self._require_same(path, checked)
        return path

    def files(self, table: Table, within: Within | None = None) -> list[Path]:
        """The table's files, each proven to be ours and to fit the contract. Raises `WarehouseError` otherwise.

        One wrong file stops every question: without it a number could be wrong, and nobody would know. Of `within`
        only the files that may hold its rows are looked at: no other can make its numbers wrong.
        """
        return [path for path in self._listed(table, within or {}) if self.columns(table, path)]

    def columns(self, table: Table, path: Path) -> frozenset[str]:
        """The columns that one file has. Raises `WarehouseError` when the file doesn't belong where it is."""
        status = path.stat()
        stamp, columns = _footer(path, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp(path):
            was = f"says that it is {stamp.decode()}" if stamp else "was not written by this warehouse"
            raise WarehouseError(f"{path} {was}. Move it out of the lake; it can't be counted there.")
        if missing := table.required - columns:
            raise WarehouseError(
                f"{path} lacks {', '.join(sorted(missing))}, which {table.source.name} now requires of every row. "
                f"Give the column a default for older files there, or allow NULL."
            )
        return columns

    def find_damage(self) -> list[str]:
        """Read every file in full; one line for each that can't be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        damage = []
        for table in self.tables.values():
            for path in self._listed(table, {}):
                try:
                    pq.ParquetFile(path).read()
                except (pa.ArrowException, OSError) as error:
                    damage.append(_damaged(path, error))
        return damage

    def sweep(self) -> list[Path]:
        """Remove the temporary files of dead writers."""
        return sweep_temporaries(self.root)

    def _listed(self, table: Table, within: Within) -> list[Path]:
        if not within:  # wherever they lie: a file that is out of place is to be found out
            pattern = "**/*.parquet"
        elif all(_PATH_PART.fullmatch(str(value)) for value in within.values()):
            target, lab, run_id = within.get("target", "*"), within.get("lab", "*"), within.get("run_id", "")
            pattern = f"target={target}/lab={lab}/{run_id}*.parquet"
        else:  # such a name was never published
            return []
        return sorted((self.root / table.name).glob(pattern))

    def _stamp(self, path: Path) -> bytes:
        return path.relative_to(self.root).as_posix().encode()

    def _require_same(self, path: Path, new: pa.Table) -> None:
        import pyarrow.parquet as pq

        old = pq.ParquetFile(path).read()
        # When a row was written is not what it says: a retry that computed the same again is welcome.
        if not old.drop_columns(["recorded_at"]).equals(new.drop_columns(["recorded_at"])):
            raise WarehouseError(
                f"{path} exists with other rows, and the lake never overwrites. Results that differ belong to a new "
                f"run: materialize again, so that they get a run_id of their own."
            )


def check_rows(table: Table, rows: Sequence[Row], *, key: Mapping[str, str]) -> pa.Table:
    """`rows` as an Arrow table in the contract's types and order, under every rule of its DDL.

    Every column must be given, None where nothing is known. `key` must agree with the rows' own columns.
    Raises `WarehouseError` that names table, column, row (counted from 0) and remedy.
    """
    import pyarrow as pa

    _check_columns(table, rows)
    arrays = [_column(table, field, [row[field.name] for row in rows]) for field in table.schema]
    data = pa.Table.from_arrays(arrays, schema=table.schema)
    for column, expected in key.items():
        for number, value in enumerate(data.column(column).to_pylist()):
            if value != expected:
                raise _wrong(table, column, number, value, f"the file is published for {expected!r}; make them agree")
    _check_constraints(table, data)
    return data


def _check_columns(table: Table, rows: Sequence[Row]) -> None:
    expected = set(table.types)
    for number, row in enumerate(rows):
        if row.keys() == expected:
            continue
        parts = []
        if missing := [column for column in table.types if column not in row]:
            parts.append(f"lacks {', '.join(missing)} (give None where nothing is known)")
        if unknown := sorted(row.keys() - expected):
            parts.append(f"has {', '.join(unknown)}, which {table.source.name} doesn't know")
        raise WarehouseError(f"{table.name}: row {number} {' and '.join(parts)}")


def _column(table: Table, field: pa.Field, values: list[object]) -> pa.Array:
    import pyarrow as pa

    required = field.name in table.required
    if not _plainly_good(values, field.type, required=required):
        for number, value in enumerate(values):
            problem = _problem(value, field.type, required=required)
            if problem:
                raise _wrong(table, field.name, number, value, problem)
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError):
        for number, value in enumerate(values):
            try:
                pa.array([value], field.type)
            except (pa.ArrowException, OverflowError) as error:
                problem = f"expected {table.types[field.name]}: {error}"
                raise _wrong(table, field.name, number, value, problem) from None
        raise


def _plainly_good(values: list[Any], kind: pa.DataType, *, required: bool) -> bool:
    """Whether a whole column has only types that are always right. One that hasn't is looked at value by value."""
    import pyarrow.types as kinds

    found = set(map(type, values))
    if type(None) in found:
        if required:
            return False
        found.discard(type(None))
    if kinds.is_integer(kind):
        return found <= {int}
    if kinds.is_floating(kind):
        return found <= {int, float} and all(math.isfinite(value) for value in values if value is not None)
    return kinds.is_string(kind) and found <= {str}


def _problem(value: Any, kind: pa.DataType, *, required: bool) -> str | None:
    """What is wrong with `value`. Stricter than Arrow, which cuts 1.5 to 1 and takes local time for UTC."""
    import pyarrow.types as kinds

    good, expected = True, ""
    if value is None:
        good, expected = not required, "a value; the column is NOT NULL"
    elif kinds.is_timestamp(kind):
        good = isinstance(value, datetime) and value.tzinfo is not None
        expected = "a datetime with a time zone, such as datetime.now(UTC)"
    elif kinds.is_integer(kind):
        good, expected = isinstance(value, int) and not isinstance(value, bool), "an integer"
    elif kinds.is_floating(kind):
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        expected = "a finite number, or None where nothing is known"
    elif kinds.is_list(kind) and kinds.is_floating(kind.value_type):
        good, expected = _all_finite(value), "a list of finite numbers"
    return None if good else f"expected {expected}"


def _all_finite(values: Any) -> bool:
    try:
        return all(map(math.isfinite, values))
    except TypeError:
        return False


def _check_constraints(table: Table, data: pa.Table) -> None:
    """Let DuckDB enforce the DDL; on a violation, find the row that it doesn't name."""
    import duckdb
    import pyarrow as pa

    with own_schema() as connection:
        connection.execute(table.ddl)
        connection.register("candidates", data)
        try:
            connection.execute(f'INSERT INTO "{table.name}" BY NAME FROM candidates')
        except duckdb.ConstraintException as error:
            numbered = data.append_column("row_number", pa.array(range(data.num_rows)))
            connection.register("numbered", numbered)
            for check in table.checks:
                found = connection.execute(f"SELECT min(row_number) FROM numbered WHERE NOT ({check})").fetchone()
                if found and found[0] is not None:
                    columns = [column for column in table.types if re.search(rf"\b{column}\b", check)]
                    values = {column: data.column(column)[found[0]].as_py() for column in columns}
                    raise WarehouseError(
                        f"{table.name}: row {found[0]}: {values} breaks the rule {check} of {table.source.name}; "
                        f"correct the values, or the rule if the contract has changed"
                    ) from None
            raise WarehouseError(f"{table.name}: the rows break a rule of {table.source.name}: {error}") from None


def _wrong(table: Table, column: str, number: int, value: object, problem: str) -> WarehouseError:
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    return WarehouseError(f"{table.name}: row {number}: {column}={shown}: {problem}")


@cache
def _footer(path: Path, modified_ns: int, size: int) -> tuple[bytes, frozenset[str]]:
    """The stamp and the columns of one Parquet file. Files never change, so each is opened once per process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(_damaged(path, error)) from None
    return (schema.metadata or {}).get(_STAMP, b""), frozenset(schema.names)


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} can't be read as Parquet ({error}). Restore it, or move it out of the lake and run its lab again."
