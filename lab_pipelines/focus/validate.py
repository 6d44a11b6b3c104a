"""Holds a data set to the rules of FOCUS. No I/O of its own: DuckDB looks at all rows of a source at once.

Belongs here: turning rules into conditions that a row breaks, and naming what is broken.
Doesn't belong here: the rules (columns-1.2.yaml), or what is done about a data set that breaks them.

Rows are counted from 1. A table, Arrow or a Parquet file has types, and these are held to the rules'; of a CSV file
every column is read as text, and the text is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_pipelines.focus.rules import CUSTOM_PREFIX, Column, Rules

if TYPE_CHECKING:
    import duckdb

TEXT = "VARCHAR"
_DATETIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"
_NUMBER = r"-?\d+(\.\d+)?"
_TIMES = "(Years?|Months?|Days?|Hours?|Minutes?|Seconds?)"
_UNIT = rf"(\d+ )?[A-Z][A-Za-z]*(-{_TIMES})?(/(\d+ )?{_TIMES})?"
_PLACEHOLDERS = ("n/a", "na", "nan", "none", "null", "not applicable", "unknown")
_SHOWN = 80
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class Violation:
    """One rule that a data set breaks: where first, and how often. `str()` is one line."""

    column: str
    rule: str
    row: int | None = None
    """The first row that breaks it, counted from 1; None: the columns themselves do."""
    value: str | None = None
    """What stands there."""
    rows: int = 0
    """How many rows break it."""

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.column}: {self.rule}"
        shown = "null" if self.value is None else repr(self.value[:_SHOWN])
        more = f" ({self.rows} rows break this)" if self.rows > 1 else ""
        return f"row {self.row}: {self.column}={shown}: {self.rule}{more}"


@dataclass(frozen=True)
class _Check:
    column: str
    rule: str
    broken: str
    """SQL that is true of a row that breaks the rule; over `raw."C"` as it stands, and over "C" by its type."""


def find_violations(
    connection: duckdb.DuckDBPyConnection, source: str, rules: Rules, *, text: bool = False
) -> list[Violation]:
    """Every rule that the data set breaks: of its columns, then of its rows. Empty when it keeps to all of them.

    `source` is what stands behind FROM, such as a table's name. `text`: it is CSV, every column read as text. One pass
    over the rows, one for each rule between rows, and one more for each rule that is broken.
    """
    described = connection.execute(f"DESCRIBE FROM {source}").fetchall()
    columns = [(name, kind) for name, kind, *_ in described]
    found = [*_of_columns(columns, rules), *_of_types(columns, rules, text=text)]
    # A column that is missing or of a wrong type would break the rules of its values as well.
    wrong = {violation.column for violation in found}
    given = [name for name, _ in columns if name in rules.columns and name not in wrong]
    typed = f"WITH typed AS ({_typed(given, rules, source)})"
    found += _of_rows(connection, typed, list(_checks(given, rules, text=text)))
    for key, value in rules.determines:
        if key in given and value in given:
            found += _of_rows(connection, typed, [_determines(key, value)])
    return found


def _of_columns(columns: list[tuple[str, str]], rules: Rules) -> Iterator[Violation]:
    names = [name for name, _ in columns]
    for name in rules.mandatory():
        if name not in names:
            yield Violation(name, "is mandatory, and missing")
    custom = False
    for name in names:
        if name.startswith(CUSTOM_PREFIX):
            custom = True
        elif name not in rules.columns:
            meant = next((known for known in rules.columns if known.lower() == name.lower()), None)
            hint = f"; FOCUS writes it {meant}" if meant else f", and does not begin with {CUSTOM_PREFIX}"
            yield Violation(name, f"is no column of FOCUS {rules.version}{hint}")
        elif custom:
            yield Violation(name, f"comes after a column of one's own ({CUSTOM_PREFIX}…); FOCUS's come first")


def _of_types(columns: list[tuple[str, str]], rules: Rules, *, text: bool) -> Iterator[Violation]:
    for name, found in columns:
        column = rules.columns.get(name)
        if text or column is None or found == '"NULL"':
            continue
        if column.type == "string" and found != TEXT:
            yield Violation(name, f"must be text, and is {found}")
        elif column.type == "decimal" and not found.startswith(("DECIMAL", "DOUBLE", "BIGINT", "INTEGER")):
            yield Violation(name, f"must be a number, and is {found}")
        elif column.type == "datetime" and found != "TIMESTAMP WITH TIME ZONE":
            yield Violation(name, f"must be a time in UTC, and is {found}")


def _typed(given: list[str], rules: Rules, source: str) -> str:
    """All columns of FOCUS, by their types; NULL where the data lacks one or a value is no such thing."""
    kinds = {"string": TEXT, "decimal": "DECIMAL(38, 15)", "datetime": "TIMESTAMPTZ"}
    parts = [
        f'TRY_CAST("{name}" AS {kinds[column.type]}) AS "{name}"'
        if name in given
        else f'NULL::{kinds[column.type]} AS "{name}"'
        for name, column in rules.columns.items()
    ]
    raw = [f'"{name}" AS "raw {name}"' for name in given]
    return f"SELECT row_number() OVER () AS row, {', '.join([*raw, *parts])} FROM {source}"


def _checks(given: list[str], rules: Rules, *, text: bool) -> Iterator[_Check]:
    for name in given:
        column = rules.columns[name]
        yield from _of_nulls(name, column)
        yield from _of_values(name, column, rules, text=text)
    for relation in rules.relations:
        if set(relation.columns) <= set(given):
            yield _Check(relation.columns[0], relation.rule, f"NOT ({relation.holds})")
    for product in rules.products:
        of = (product.price, product.quantity, product.cost)
        if set(of) <= set(given):
            yield _Check(
                product.cost,
                f"must be {product.price} * {product.quantity} to the last digit",
                # One that overflows is broken too: it can't be shown to hold.
                f"ChargeClass IS NULL AND {' AND '.join(f'{name} IS NOT NULL' for name in of)} "
                f"AND (TRY_CAST({product.price} AS DECIMAL(18, 9)) * TRY_CAST({product.quantity} AS DECIMAL(18, 9)) "
                f"= TRY_CAST({product.cost} AS DECIMAL(38, 18))) IS NOT TRUE",
            )
    for unpriced in rules.unpriced:
        if {unpriced.cost, unpriced.billed} <= set(given):
            yield _Check(
                unpriced.cost,
                f"must be {unpriced.billed} where {unpriced.price} is null",
                f"{unpriced.price} IS NULL AND ChargeCategory <> 'Tax' AND {unpriced.cost} <> {unpriced.billed}",
            )


def _of_nulls(name: str, column: Column) -> Iterator[_Check]:
    raw = f'"raw {name}"'
    if not column.nullable:
        yield _Check(name, "must not be null", f"{raw} IS NULL")
    if column.null_when:
        yield _Check(name, f"must be null when {column.null_when}", f"{raw} IS NOT NULL AND ({column.null_when})")
    if column.given_when:
        yield _Check(name, f"must not be null when {column.given_when}", f"{raw} IS NULL AND ({column.given_when})")


def _of_values(name: str, column: Column, rules: Rules, *, text: bool) -> Iterator[_Check]:
    raw, typed = f'"raw {name}"', f'"{name}"'
    if column.type == "string":
        yield _Check(name, "must be null rather than empty", f"trim({raw}) = ''")
        placeholder = f"lower(trim({raw})) IN {_list(_PLACEHOLDERS)}"
        yield _Check(name, "must be null rather than a word for it", placeholder)
    elif column.type == "decimal" and text:
        yield _Check(
            name, "must be a plain decimal number, such as -0.25", f"NOT regexp_full_match({raw}, '{_NUMBER}')"
        )
    elif column.type == "datetime" and text:
        yield _Check(
            name,
            "must be a time in UTC to the second, such as 2026-03-02T09:00:00Z",
            f"NOT regexp_full_match({raw}, '{_DATETIME}') OR ({raw} IS NOT NULL AND {typed} IS NULL)",
        )
    elif column.type == "datetime":
        yield _Check(name, "must be a whole second", f"{typed} <> date_trunc('second', {typed})")
    if column.type == "decimal":
        range_ = f"{raw} IS NOT NULL AND {typed} IS NULL"
        yield _Check(name, "must be a finite number below 1e23", range_)
    if column.minimum is not None:
        yield _Check(name, f"must be {column.minimum} or more", f"{typed} < {column.minimum}")
    if column.allowed:
        yield _Check(name, f"must be one of {', '.join(column.allowed)}", f"{raw} NOT IN {_list(column.allowed)}")
    for parent, allowed in column.allowed_of.items():
        yield _Check(
            name,
            f"must be one of {', '.join(allowed)} where {column.parent} is {parent}",
            f"\"{column.parent}\" = '{parent}' AND {raw} NOT IN {_list(allowed)}",
        )
    if column.format == "currency":
        yield _Check(name, "must be a currency of ISO 4217, such as USD", f"{raw} NOT IN {_list(rules.currencies)}")
    elif column.format == "unit":
        yield _Check(
            name, "must be a unit as FOCUS writes it, such as Node-Hours", f"NOT regexp_full_match({raw}, '{_UNIT}')"
        )
    elif column.format == "key_value":
        flat = (
            f"len(json_keys({raw})) = len(list_distinct(json_keys({raw}))) AND "
            f"len(list_filter(json_extract({raw}, '$.*'), lambda v: json_type(v) IN ('OBJECT', 'ARRAY'))) = 0"
        )
        yield _Check(
            name,
            "must be a JSON object whose keys differ and whose values are neither objects nor arrays",
            f"NOT (CASE WHEN NOT json_valid({raw}) THEN false WHEN json_type({raw}) <> 'OBJECT' THEN false "
            f"WHEN {raw} IS NULL THEN true ELSE {flat} END)",
        )


def _determines(key: str, value: str) -> _Check:
    several = f'SELECT "{key}" FROM typed GROUP BY "{key}" HAVING count(DISTINCT "{value}") > 1'
    return _Check(key, f"must have one {value} over all rows", f'"{key}" IN ({several})')


def _of_rows(connection: duckdb.DuckDBPyConnection, typed: str, checks: list[_Check]) -> Iterator[Violation]:
    """What rows break, in the order of the checks."""
    if not checks:
        return
    counts = [f"count(*) FILTER (WHERE {check.broken})" for check in checks]
    [found] = connection.execute(f"{typed} SELECT {', '.join(counts)} FROM typed").fetchall()
    for check, rows in zip(checks, found, strict=True):
        if rows:
            value = f'CAST("raw {check.column}" AS VARCHAR)'
            [(row, shown)] = connection.execute(
                f"{typed} SELECT row, {value} FROM typed WHERE {check.broken} ORDER BY row LIMIT 1"
            ).fetchall()
            yield Violation(check.column, check.rule, row, shown, rows)


def _list(values: tuple[str, ...]) -> str:
    quoted = ["'" + value.replace("'", "''") + "'" for value in values]
    return f"({', '.join(quoted)})"
