"""What Azure's bill says of each day and resource, and what is new in an answer. Pure.

Belongs here: days and windows to ask for, lines of the bill, and which of them are worth a row of `bill_days`.
Doesn't belong here: asking (resources/cost_query.py), reading an answer (resources/cost_answer.py), or whose cost a
line is (reconcile.py).

A day that was asked for and has no line is a gap, never zero: `bill_asks` has that it was asked, `bill_days` nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

Row = dict[str, Any]

ALL_LABS = "all"
"""In the place of a lab: a bill is of a whole cluster."""

LONGEST_WINDOW_DAYS = 31
"""Of a question by day. Azure cuts a longer one at its start and doesn't say so
(microsoft/GitHub-Copilot-for-Azure, plugin/skills/azure-cost/cost-query/guardrails.md, read 2026-11)."""
REFRESHED_EVERY = timedelta(hours=4)
"""Azure updates charges six times a day ("Understand Cost Management data", Microsoft's documentation, read 2026-11):
asking for the same day earlier than that spends a call on the same answer."""
SETTLES_AFTER = timedelta(days=36)
"""After a day's end its charges no longer change. A billing period that holds the day ends within a month of it,
wherever in a month it begins, and charges can change until the fifth day after its end (same page)."""
ASKED_BACK_DAYS = 62
"""How far back the daily question goes: two windows, and every day is asked for once after it has settled."""

_POOL = re.compile(r"/virtualmachinescalesets/aks-([a-z0-9]+)-[0-9]+-vmss(?:/|$)")


class BillError(ValueError):
    """The days that were asked for make no question. The message says which, and what would."""


class Window(NamedTuple):
    """Days from `first` to `last`, both within. Days are UTC's, as Azure's are."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


class LineKey(NamedTuple):
    """What tells a line of the bill from the others of all days."""

    usage_date: date
    resource_id: str | None
    """In lower case: Azure writes the same resource in several ways. None: the charge names none."""
    tag_lab: str | None
    """The value of the resource's tag `lab` when it was used; None: it had none."""
    currency: str


class Amount(NamedTuple):
    """What a line costs, to nine decimals."""

    cost: Decimal
    cost_usd: Decimal | None
    """None: Azure did not say it in dollars."""


@dataclass(frozen=True)
class BillLine:
    """A line of the newest known bill. `amount` is None for one that a later answer no longer has."""

    key: LineKey
    amount: Amount | None
    said_at: datetime
    """When Azure first said so."""

    @property
    def pool(self) -> str | None:
        return pool_of(self.key.resource_id)


@dataclass(frozen=True)
class Answer:
    """Everything that Azure said about one window."""

    window: Window
    asked_at: datetime
    lines: Mapping[LineKey, Amount]
    calls: int
    """Requests that it took, refused ones among them."""


def pool_of(resource_id: str | None) -> str | None:
    """The node pool whose machines a resource is: AKS names their scale set `aks-POOL-NUMBER-vmss`; None for others."""
    found = _POOL.search((resource_id or "").lower())
    return found[1] if found else None


def check_days(first: date, last: date, *, today: date) -> None:
    """Raise `BillError` for days that Azure would silently change into others."""
    if first > last:
        raise BillError(f"{first} comes after {last}: Azure would swap them; give the earlier day first")
    if last > today:
        raise BillError(
            f"{last} is in the future: Azure would answer for other days; the last one that can be asked for is {today}"
        )


def ended_days(now: datetime) -> Window:
    """The days that the daily question is about: those that have ended, `ASKED_BACK_DAYS` of them."""
    last = now.date() - timedelta(days=1)
    return Window(last - timedelta(days=ASKED_BACK_DAYS - 1), last)


def windows(days: Iterable[date]) -> list[Window]:
    """The fewest windows without a day between them that isn't in `days`, each as long as Azure takes at most."""
    found = list[Window]()
    for day in sorted(set(days)):
        last = found[-1] if found else None
        if last and day == last.last + timedelta(days=1) and (day - last.first).days < LONGEST_WINDOW_DAYS:
            found[-1] = Window(last.first, day)
        else:
            found.append(Window(day, day))
    return found


def days_due(first: date, last: date, *, asked: Mapping[date, datetime], now: datetime) -> list[date]:
    """The days from `first` to `last` whose answer may be another by now. `asked`: when each was last asked for.

    Raises `BillError` as `check_days` does.
    """
    check_days(first, last, today=now.date())
    return [day for day in Window(first, last).days if day not in asked or now - asked[day] >= REFRESHED_EVERY]


def settled(day: date, asked_at: datetime) -> bool:
    """Whether what Azure said of `day` at `asked_at` will stay."""
    return asked_at - day_end(day) >= SETTLES_AFTER


def day_start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def day_end(day: date) -> datetime:
    return day_start(day) + timedelta(days=1)


def news(answer: Answer, known: Mapping[LineKey, Amount | None]) -> list[tuple[LineKey, Amount | None]]:
    """What the answer says that `known`, the newest lines of its days, does not. A line that is gone has no amount."""
    within = set(answer.window.days)
    changed: list[tuple[LineKey, Amount | None]] = [
        (key, amount) for key, amount in answer.lines.items() if known.get(key) != amount
    ]
    gone = [
        key
        for key, amount in known.items()
        if key.usage_date in within and amount is not None and key not in answer.lines
    ]
    return sorted(
        [*changed, *((key, None) for key in gone)], key=lambda one: tuple(part or "" for part in map(str, one[0]))
    )


def day_rows(answer: Answer, known: Mapping[LineKey, Amount | None], *, target: str, run_id: str) -> list[Row]:
    """`bill_days`: what is new in the answer. Nothing where Azure says the same as before."""
    return [
        {
            "lab": ALL_LABS,
            "run_id": run_id,
            "target": target,
            "provenance": "measured",
            "recorded_at": answer.asked_at,
            "usage_date": key.usage_date,
            "resource_id": key.resource_id,
            "pool": pool_of(key.resource_id),
            "tag_lab": key.tag_lab,
            "currency": key.currency,
            "cost": amount.cost if amount else None,
            "cost_usd": amount.cost_usd if amount else None,
            "asked_at": answer.asked_at,
            "asked_from": answer.window.first,
            "asked_to": answer.window.last,
        }
        for key, amount in news(answer, known)
    ]


def ask_row(answer: Answer, *, scope: str, target: str, run_id: str) -> Row:
    """`bill_asks`: that the window was asked for."""
    return {
        "lab": ALL_LABS,
        "run_id": run_id,
        "target": target,
        "provenance": "measured",
        "recorded_at": answer.asked_at,
        "asked_at": answer.asked_at,
        "asked_from": answer.window.first,
        "asked_to": answer.window.last,
        "scope": scope,
        "days_with_data": len({key.usage_date for key in answer.lines}),
        "lines": len(answer.lines),
        "calls": answer.calls,
    }


def lines_of(rows: Sequence[Mapping[str, Any]]) -> list[BillLine]:
    """From rows of the view `bill_current`."""
    return [
        BillLine(
            key=LineKey(row["usage_date"], row["resource_id"], row["tag_lab"], row["currency"]),
            amount=None if row["cost"] is None else Amount(row["cost"], row["cost_usd"]),
            said_at=row["asked_at"],
        )
        for row in rows
    ]
