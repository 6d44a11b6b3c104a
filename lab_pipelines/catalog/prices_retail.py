"""Which rows of Azure's list of retail prices are the price of a Linux node-hour. Pure: rows in, prices out.

Belongs here: telling on-demand from Spot, and both from all else that the list has under a machine type's name.
Doesn't belong here: asking for the list (resources/retail_prices.py), what a sheet is (prices.py).

The fields are those of the Azure Retail Prices API, version 2023-01-01-preview. A machine type's rows are, beside the
two that are wanted: Windows, Cloud Services, Low Priority (which Spot replaced, and which is listed still), DevTest,
reservations, rows that begin to hold later, and rows of meters that aren't the region's primary ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from lab_pipelines.catalog.prices import MILLIONTH, PRIORITIES, SHOWN_PRIORITY, Priority

CURRENCY, UNIT, SERVICE = "USD", "1 Hour", "Virtual Machines"
MOST_USD = Decimal(100_000)
"""No machine's hour costs that; a figure above it is another one's."""


@dataclass(frozen=True)
class Quote:
    """One price of the list."""

    usd: Decimal
    effective_from: date | None
    meter: str


def arm_name(name: str) -> str:
    """A machine type as Azure's Resource Manager names it: the list has some with blanks, as `Standard_NC8as T4 v3`."""
    return re.sub(r"\s+", "_", name.strip())


def short_name(sku: str) -> str:
    """What the list's `skuName` begins with: `NC8as T4 v3` of `Standard_NC8as_T4_v3`."""
    return sku.removeprefix("Standard_").replace("_", " ")


def quotes(
    rows: Sequence[Any], *, sku: str, region: str, now: datetime
) -> tuple[dict[Priority, Quote], dict[Priority, str]]:
    """What a node-hour of `sku` costs in `region`, by priority, and why there is no price where there is none.

    A name counts in exactly its letters. Several rows that say the same price are one; several that say different ones
    are no price.
    """
    found = dict[Priority, Quote]()
    problems = dict[Priority, str]()
    ours = [row for row in rows if isinstance(row, Mapping) and _is_linux_hour(row, sku, region, now)]
    for priority in PRIORITIES:
        answer = _one(_primary([row for row in ours if _priority(row) == priority]))
        if isinstance(answer, Quote):
            found[priority] = answer
        else:
            problems[priority] = f"{sku} in {region}, {SHOWN_PRIORITY[priority]}: {answer}"
    return found, problems


def _one(rows: list[Mapping[str, Any]]) -> Quote | str:
    """The one price that the rows agree on, or why there is none."""
    if not rows:
        return "the list has no price"
    amounts = list[Decimal]()
    for row in rows:
        usd = _usd(row)
        if isinstance(usd, str):
            return usd
        amounts.append(usd)
    if len(set(amounts)) > 1:
        return f"the list has several prices: {', '.join(f'{usd.normalize():f}' for usd in sorted(set(amounts)))} USD"
    begins = [_time(row.get("effectiveStartDate")) for row in rows]
    known = [begin.date() for begin in begins if begin is not None]
    return Quote(amounts[0], max(known, default=None), _text(rows[0], "meterId"))


def _usd(row: Mapping[str, Any]) -> Decimal | str:
    """A row's price, or what is wrong with it. `unitPrice` and `retailPrice` are documented to be the same."""
    unit, retail = row.get("unitPrice"), row.get("retailPrice")
    if _text(row, "currencyCode") != CURRENCY:
        return f"the list's price is in {_text(row, 'currencyCode') or 'an unnamed currency'}, not in {CURRENCY}"
    try:
        usd = Decimal(str(unit))
        same = Decimal(str(retail)) == usd
    except InvalidOperation:
        return f"the list's price is no number: unitPrice {unit!r}, retailPrice {retail!r}"
    if not usd.is_finite() or not 0 < usd < MOST_USD:
        return f"the list's price is {unit!r}, which no machine costs"
    if not same:
        return f"the list says two prices in one row: unitPrice {unit}, retailPrice {retail}"
    return usd.quantize(MILLIONTH) or f"the list's price {unit!r} is below a millionth of a dollar"


def _is_linux_hour(row: Mapping[str, Any], sku: str, region: str, now: datetime) -> bool:
    product = _text(row, "productName").lower().replace(" ", "")
    names = f"{_text(row, 'skuName')} {_text(row, 'meterName')}".lower()
    begins, ends = _time(row.get("effectiveStartDate")), _time(row.get("effectiveEndDate"))
    return (
        arm_name(_text(row, "armSkuName")) == sku
        and _text(row, "armRegionName") == region
        and _text(row, "serviceName") == SERVICE
        and _text(row, "type") == "Consumption"
        and _text(row, "unitOfMeasure") == UNIT
        and "windows" not in product
        and "cloudservices" not in product
        and "low priority" not in names
        and not row.get("tierMinimumUnits")
        and not row.get("reservationTerm")
        and (begins is None or begins <= now)
        and (ends is None or ends > now)
    )


def _priority(row: Mapping[str, Any]) -> Priority:
    return "spot" if _text(row, "skuName").endswith(" Spot") else "on_demand"


def _primary(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of the region's primary meter, where the list tells which that is."""
    return [row for row in rows if row.get("isPrimaryMeterRegion") is True] or rows


def _text(row: Mapping[str, Any], field: str) -> str:
    """A field with each run of blanks as one; empty where it is missing or no text."""
    value = row.get(field)
    return " ".join(value.split()) if isinstance(value, str) else ""


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
