"""A page of Cost Management's answer, read as lines of the bill. Pure.

Belongs here: columns by name, days, amounts and what they may look like. Doesn't belong here: asking (cost_query.py).

Azure names and orders columns as it likes: the cost is `Cost` or `PreTaxCost`, a day a number, 20260302, or a time.
What can't be read is refused with page, row and column, and never skipped: a row that is left out is money lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from lab_pipelines.bill import Amount, LineKey, Window

TAG = "lab"
"""The tag that the bill is grouped by."""
USD = "USD"
NANO = Decimal("1e-9")

_COST = ("cost", "pretaxcost", "totalcost")
_COST_USD = ("costusd", "pretaxcostusd", "totalcostusd")
_CURRENCY = ("currency", "billingcurrency", "billingcurrencycode")
_TAG = ("tagvalue", TAG)
_DAY = ("usagedate", "date")
_RESOURCE = ("resourceid",)
_LARGEST = Decimal(10) ** 9
"""Of an amount: DECIMAL(18, 9)."""


class AnswerError(ValueError):
    """Azure's answer can't be read. The message says where and what was expected."""


class Line(NamedTuple):
    key: LineKey
    amount: Amount
    place: str
    """Page and row, for a message."""
    said: tuple[str, ...]
    """Everything that the row says but its amounts: no two rows of an answer say the same."""


@dataclass(frozen=True)
class Page:
    lines: Sequence[Line]
    next_link: str | None


def read_page(text: str, *, number: int, window: Window, grouped: bool = True) -> Page:
    """One page, `number` counted from 1. `grouped`: by resource and tag, not days alone.

    Raises `AnswerError` for what can't be read, and for a day outside of the window.
    """
    where = f"page {number}"
    try:
        answer = json.loads(text, parse_float=Decimal, parse_constant=_no_number)
    except ValueError as error:
        raise AnswerError(f"{where} is no JSON: {error}") from None
    properties = answer.get("properties") if isinstance(answer, dict) else None
    if not isinstance(properties, dict):
        raise AnswerError(f"{where} has no properties: expected the answer of a cost query")
    rows = properties.get("rows")
    if not isinstance(rows, list):
        raise AnswerError(f"{where}: properties.rows is {_shown(rows)}, expected a list of rows")
    columns = _columns(properties.get("columns"), where, grouped=grouped)
    next_link = properties.get("nextLink")
    if not isinstance(next_link, str | None):
        raise AnswerError(f"{where}: nextLink is {_shown(next_link)}, expected an address or null")
    lines = [
        _line(row, columns, f"{where}, row {index}", window, grouped=grouped) for index, row in enumerate(rows, start=1)
    ]
    return Page(lines, (next_link or "").strip() or None)


class _Columns(NamedTuple):
    names: Sequence[str]
    cost: int
    cost_usd: int | None
    currency: int
    day: int
    resource: int | None
    tag: int | None


def _columns(found: Any, where: str, *, grouped: bool) -> _Columns:
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in found
    ):
        raise AnswerError(f"{where}: properties.columns is {_shown(found)}, expected a list of columns with names")
    names = [one["name"] for one in found]
    lower = [name.lower() for name in names]
    if repeated := {name for name in lower if lower.count(name) > 1}:
        raise AnswerError(f"{where} has several columns named {', '.join(sorted(repeated))}")

    def place(wanted: Sequence[str]) -> int | None:
        return next((lower.index(name) for name in wanted if name in lower), None)

    def required(wanted: Sequence[str], what: str) -> int:
        index = place(wanted)
        if index is None:
            raise AnswerError(f"{where} has no column of {what} ({' or '.join(wanted)}); it has: {', '.join(names)}")
        return index

    return _Columns(
        names=names,
        cost=required(_COST, "the cost"),
        cost_usd=place(_COST_USD),
        currency=required(_CURRENCY, "the currency"),
        day=required(_DAY, "the day"),
        resource=required(_RESOURCE, "the resource") if grouped else None,
        tag=required(_TAG, f"the tag {TAG}") if grouped else None,
    )


def _line(row: Any, columns: _Columns, where: str, window: Window, *, grouped: bool) -> Line:
    if not isinstance(row, list) or len(row) != len(columns.names):
        raise AnswerError(f"{where}: {_shown(row)}, expected a list of {len(columns.names)} values")

    def wrong(index: int, expected: str) -> AnswerError:
        return AnswerError(f"{where}, column {columns.names[index]}: {_shown(row[index])}, expected {expected}")

    day = _day(row[columns.day])
    if day is None:
        raise wrong(columns.day, "a day, as 20260302 or 2026-03-02T00:00:00")
    if not window.first <= day <= window.last:
        raise wrong(columns.day, f"a day from {window.first} to {window.last}, as was asked for")
    cost = _amount(row[columns.cost])
    if cost is None:
        raise wrong(columns.cost, "an amount of money, as a number")
    currency = row[columns.currency]
    if not isinstance(currency, str) or not currency.strip():
        raise wrong(columns.currency, "a currency, e.g. EUR")
    currency = currency.strip().upper()
    cost_usd = cost if currency == USD else None
    if columns.cost_usd is not None and row[columns.cost_usd] is not None and currency != USD:
        cost_usd = _amount(row[columns.cost_usd])
        if cost_usd is None:
            raise wrong(columns.cost_usd, "an amount of money, as a number")
    texts = dict[int, str | None]()
    for index in (columns.resource, columns.tag):
        if index is not None:
            if not isinstance(row[index], str | None):
                raise wrong(index, "text")
            texts[index] = (row[index] or "").strip().lower() or None
    amounts = (columns.cost, columns.cost_usd)
    return Line(
        key=LineKey(
            usage_date=day,
            resource_id=None if columns.resource is None else texts[columns.resource],
            tag_lab=None if columns.tag is None else texts[columns.tag],
            currency=currency,
        ),
        amount=Amount(cost, cost_usd),
        place=where,
        said=tuple(json.dumps(value, default=str) for index, value in enumerate(row) if index not in amounts),
    )


def _day(value: Any) -> date | None:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        return None
    text = text.strip()
    try:
        return date.fromisoformat(text) if text.isdigit() else datetime.fromisoformat(text).date()
    except ValueError:
        return None


def _amount(value: Any) -> Decimal | None:
    """To nine decimals, as everything here; None: it is no amount."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    try:
        amount = Decimal(value).quantize(NANO)
    except InvalidOperation:
        return None
    return amount if abs(amount) < _LARGEST else None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 160 else f"{text[:160]}…"
