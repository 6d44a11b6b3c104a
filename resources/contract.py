"""The data contract: which tables there are, and which rows they take (warehouse/schema).

Belongs here: reading the contract, and holding rows to it. Doesn't belong here: files (lake.py) or questions
(warehouse_core.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.duck import connect, engine

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, object]

_SHOWN = 160
"""Characters of a value that an error message shows."""


class WarehouseError(RuntimeError):
    """Rows, files or a question that the warehouse can't take. The message says which, why, and what to do."""


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


@cache
def contract(schema_dir: Path) -> dict[str, Table]:
    """The tables of `schema_dir`, by name. Raises `WarehouseError` that names a file which isn't one table of ours."""
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
                rules = connection.execute(
                    "SELECT constraint_type, expression, constraint_text FROM duckdb_constraints() "
                    "WHERE table_name = ? AND constraint_type <> 'NOT NULL' ORDER BY constraint_index",
                    [name],
                ).fetchall()
                schema = connection.sql(f'FROM "{name}"').to_arrow_table().schema
            except duckdb.Error as error:
                raise WarehouseError(f"{source}: must create the table {name}, as the file is named: {error}") from None
            if others := [text for kind, _, text in rules if kind != "CHECK"]:
                raise WarehouseError(
                    f"{source}: {', '.join(others)}: a file's rows can be held to NOT NULL and CHECK alone, since the "
                    f"table's other rows lie in other files"
                )
            tables[name] = Table(
                name=name,
                ddl=ddl,
                source=source,
                schema=schema,
                types={column: kind for column, kind, _ in types},
                required=frozenset(column for column, _, nullable in types if nullable == "NO"),
                checks=tuple(expression for _, expression, _ in rules),
            )
    if not tables:
        raise WarehouseError(f"{schema_dir} has no table; expected one .sql file per table")
    return tables


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
        for number, row in enumerate(rows):
            if row[column] != expected:
                raise _wrong(
                    table, column, number, row[column], f"the file is published for {expected!r}; make them agree"
                )
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
    try:
        array = pa.array(values, field.type)
    except (pa.ArrowException, OverflowError):
        array = None
    if array is None or not _plainly_good(values, array, required=required):
        for number, value in enumerate(values):
            if problem := _problem(value, field.type, required=required):
                raise _wrong(table, field.name, number, value, problem)
    if array is not None:
        return array
    for number, value in enumerate(values):
        try:
            pa.array([value], field.type)
        except (pa.ArrowException, OverflowError) as error:
            problem = f"expected {table.types[field.name]}: {error}"
            raise _wrong(table, field.name, number, value, problem) from None
    return pa.array(values, field.type)  # raises what it said of all of them together


def _plainly_good(values: list[Any], array: pa.Array, *, required: bool) -> bool:
    """Whether a whole column, as Arrow took it, has only values that are always right.

    One that hasn't is looked at value by value.
    """
    import pyarrow.types as kinds

    kind, python = array.type, set(map(type, values)) - {type(None)}
    if required and array.null_count:
        good = False
    elif kinds.is_integer(kind):
        good = python <= {int}
    elif kinds.is_floating(kind):
        good = python <= {int, float} and _is_finite(array.drop_null())
    elif kinds.is_timestamp(kind):
        good = python <= {datetime} and all(value.tzinfo is not None for value in values if value is not None)
    elif kinds.is_list(kind) and kinds.is_floating(kind.value_type):
        good = python <= {list} and _is_finite(array.flatten())
    else:  # Arrow took them
        good = True
    return good


def _is_finite(numbers: pa.Array) -> bool:
    import numpy as np

    return not numbers.null_count and bool(np.isfinite(numbers.to_numpy()).all())


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
    """Hold every row to the DDL's CHECKs, in DuckDB's own words. One that is NULL is met, as in any database."""
    if not table.checks:
        return
    met = " AND ".join(f"coalesce({check}, true)" for check in table.checks)
    with engine().cursor() as connection:
        connection.register("candidates", data)
        if connection.execute(f"SELECT count(*) FROM candidates WHERE NOT ({met})").fetchall() == [(0,)]:
            return
    _name_broken_rule(table, data)


def _name_broken_rule(table: Table, data: pa.Table) -> None:
    """Raise `WarehouseError` of the first rule that a row breaks, and the first such row."""
    import pyarrow as pa

    with engine().cursor() as connection:
        connection.register("numbered", data.append_column("row_number", pa.array(range(data.num_rows))))
        for check in table.checks:
            [(row,)] = connection.execute(f"SELECT min(row_number) FROM numbered WHERE NOT ({check})").fetchall()
            if row is None:
                continue
            columns = [column for column in table.types if re.search(rf"\b{column}\b", check)]
            values = {column: data.column(column)[row].as_py() for column in columns}
            raise WarehouseError(
                f"{table.name}: row {row}: {values} breaks the rule {check} of {table.source.name}; "
                f"correct the values, or the rule if the contract has changed"
            )


def _wrong(table: Table, column: str, number: int, value: object, problem: str) -> WarehouseError:
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    return WarehouseError(f"{table.name}: row {number}: {column}={shown}: {problem}")
