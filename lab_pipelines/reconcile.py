"""Whose cost each line of Azure's bill is, and what that makes of the estimates. Pure: rows in, rows out.

Belongs here: placing lines on sessions, splitting a session's bill into its parts, and the deltas.
Doesn't belong here: the bill itself (bill.py), estimates (cost.py), or reading and writing rows
(resources/bill_ledger.py).

Every unit of 1e-9 of the bill is somewhere: with a session, or with nobody and a reason. Two rules place a line:

1. its tag names a lab: it goes to the sessions of that lab that held nodes that day;
2. it has no tag and is a node pool's machines: it goes to the sessions that held nodes of that pool that day.

Among several it is split in proportion to what each was estimated to cost that day.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any, Literal

from lab_pipelines.bill import ALL_LABS, BillLine, day_end, day_start, settled

Row = dict[str, Any]
State = Literal["provisional", "settled"]

DECIMALS = 9
"""Of every amount, as in `cost_records`."""
HOUR = timedelta(hours=1)

_LAB_TAG = re.compile(r"l[0-9]{2}", re.IGNORECASE)
METHOD = "Azure's bill (actual cost) by day, resource and the tag lab; split by the estimate of each session and part"


@dataclass(frozen=True)
class NodeSpan:
    """Nodes that a session held. `pool` is None where it is not known which pool's they were."""

    pool: str | None
    nodes: int
    requested_at: datetime
    released_at: datetime

    def node_hours(self, day: date) -> Fraction:
        """The node-hours of that day."""
        start, end = max(self.requested_at, day_start(day)), min(self.released_at, day_end(day))
        return _hours(end - start) * self.nodes if start < end else Fraction()

    @property
    def all_node_hours(self) -> Fraction:
        return _hours(self.released_at - self.requested_at) * self.nodes

    @property
    def days(self) -> list[date]:
        """The days on which it held them; a span of no length belongs to its own day."""
        first = self.requested_at.date()
        last = max((self.released_at - timedelta(microseconds=1)).date(), first)
        return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@dataclass(frozen=True)
class EstimatedSession:
    """A session that has ended, with its newest estimate."""

    session_id: str
    lab: str
    spans: Sequence[NodeSpan]
    estimate: Sequence[Mapping[str, Any]]
    """Rows of `cost_records` in the state `estimated`; none where it was not attributed yet."""
    billed: Sequence[Mapping[str, Any]] = ()
    """The newest rows in the state `billed`."""

    @cached_property
    def days(self) -> list[date]:
        return sorted({day for span in self.spans for day in span.days})

    @cached_property
    def usd(self) -> Fraction | None:
        """The estimate; None where none was made, or no price was known."""
        costs = [row["ListCost"] for row in self.estimate]
        return sum(map(Fraction, costs), Fraction()) if costs and None not in costs else None

    @cached_property
    def usd_per_node_hour(self) -> Fraction | None:
        hours = sum((span.all_node_hours for span in self.spans), Fraction())
        return self.usd / hours if self.usd is not None and hours else None


@dataclass(frozen=True)
class Share:
    """A part of a line, and whose it is. `session_id` is None exactly when there is a `reason` why it is nobody's."""

    line: BillLine
    session_id: str | None
    cost: Decimal
    cost_usd: Decimal | None
    reason: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What the bill made of one session."""

    session: EstimatedSession
    rows: Sequence[Row]
    """`cost_records` in the state `billed`; empty while it waits."""
    waiting: str | None
    """Why it isn't billed yet; None: it is."""

    @property
    def news(self) -> bool:
        """Whether the rows say anything that the session's newest billed rows don't."""
        return bool(self.rows) and _signature(self.rows) != _signature(self.session.billed)


@dataclass
class Reconciled:
    shares: list[Share] = field(default_factory=list)
    """Of every line, in their order. They sum to the bill."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Of every session, in their order."""


def reconcile(
    lines: Sequence[BillLine],
    sessions: Sequence[EstimatedSession],
    *,
    asked: Mapping[date, datetime],
    now: datetime,
) -> Reconciled:
    """Place `lines` on `sessions`, and bill each session of whose every day Azure has said something.

    A session that was billed once stays so: what Azure takes back or gives to another session is taken from its bill.
    `asked`: when each day was last asked for. `now` becomes the rows' `recorded_at`. Takes time linear in lines,
    sessions' days and rows, as long as few sessions share a day.
    """
    by_lab = defaultdict[tuple[date, str], list[EstimatedSession]](list)
    by_pool = defaultdict[tuple[date, str], list[EstimatedSession]](list)
    for session in sessions:
        for day in session.days:
            by_lab[day, session.lab].append(session)
        for day, pool in {(day, span.pool) for span in session.spans for day in span.days}:
            if pool is not None:
                by_pool[day, pool].append(session)
    result = Reconciled()
    of_session = defaultdict[str, list[Share]](list)
    for line in lines:
        for share in _placed(line, by_lab, by_pool):
            result.shares.append(share)
            if share.session_id is not None:
                of_session[share.session_id].append(share)
    days_with_data = {line.key.usage_date for line in lines if line.amount is not None}
    for session in sessions:
        result.outcomes.append(_outcome(session, of_session[session.session_id], asked, days_with_data, now))
    return result


def share_out(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole units in proportion to `weights`, none of them negative, that sum to `total`, which may be negative.

    Each gets its share rounded down; the units left go one each to the largest remainders.
    """
    common = lcm(*(weight.denominator for weight in weights))
    scaled = [weight.numerator * (common // weight.denominator) for weight in weights]
    if not any(scaled):
        scaled = [1] * len(scaled)
    whole = sum(scaled)
    divided = [divmod(total * weight, whole) for weight in scaled]
    units = [quotient for quotient, _ in divided]
    left = total - sum(units)
    for index in sorted(range(len(units)), key=lambda i: -divided[i][1])[:left]:
        units[index] += 1
    return units


def _placed(
    line: BillLine,
    by_lab: Mapping[tuple[date, str], list[EstimatedSession]],
    by_pool: Mapping[tuple[date, str], list[EstimatedSession]],
) -> list[Share]:
    """The line's shares: at least one, and they sum to it."""
    if line.amount is None:
        return [Share(line, None, Decimal(), None, "a later bill no longer has it")]
    found, reason = _candidates(line, by_lab, by_pool)
    if not found:
        return [Share(line, None, line.amount.cost, line.amount.cost_usd, reason)]
    weights = _weights(found, line)
    costs = split_amount(line.amount.cost, weights)
    usds = [None] * len(found) if line.amount.cost_usd is None else split_amount(line.amount.cost_usd, weights)
    return [Share(line, session.session_id, cost, usd) for session, cost, usd in zip(found, costs, usds, strict=True)]


def _candidates(
    line: BillLine,
    by_lab: Mapping[tuple[date, str], list[EstimatedSession]],
    by_pool: Mapping[tuple[date, str], list[EstimatedSession]],
) -> tuple[list[EstimatedSession], str]:
    """Whose the line may be, or nobody and why."""
    day, tag, pool = line.key.usage_date, line.key.tag_lab, line.pool
    if tag is not None:
        if _LAB_TAG.fullmatch(tag) is None:
            return [], f"its tag lab={tag} names no lab"
        of_lab = by_lab.get((day, tag.upper()), [])
        if not of_lab:
            return [], f"no session of {tag.upper()} held nodes on that day"
        if pool is None:
            return of_lab, ""
        fitting = [one for one in of_lab if any(span.pool in (pool, None) and day in span.days for span in one.spans)]
        return fitting, f"no session of {tag.upper()} held nodes of pool {pool} on that day"
    if pool is None:
        return [], "it has no tag lab and is no node pool's machines"
    return by_pool.get((day, pool), []), f"it has no tag lab, and no session held nodes of pool {pool} on that day"


def _weights(sessions: Sequence[EstimatedSession], line: BillLine) -> list[Fraction]:
    """What each was estimated to cost that day on the line's pool; where a price is missing, its node-hours."""
    day, pool = line.key.usage_date, line.pool
    hours = [
        sum(
            (span.node_hours(day) for span in one.spans if pool is None or span.pool in (pool, None)),
            Fraction(),
        )
        for one in sessions
    ]
    rates = [one.usd_per_node_hour for one in sessions]
    if None in rates:
        return hours
    return [hour * (rate or 0) for hour, rate in zip(hours, rates, strict=True)]


def split_amount(amount: Decimal, weights: Sequence[Fraction]) -> list[Decimal]:
    """`amount`, which has nine decimals at most, in proportion to `weights`, exactly."""
    units = int(amount.scaleb(DECIMALS))
    return [Decimal(part).scaleb(-DECIMALS) for part in share_out(units, weights)]


def _outcome(
    session: EstimatedSession,
    shares: Sequence[Share],
    asked: Mapping[date, datetime],
    days_with_data: set[date],
    now: datetime,
) -> Outcome:
    waiting = _why_waiting(session, shares, asked, days_with_data)
    if waiting and not _taken_back(session, shares, asked):
        return Outcome(session, [], waiting)
    final = not waiting and all(settled(day, asked[day]) for day in session.days)
    state: State = "settled" if final else "provisional"
    return Outcome(session, _billed_rows(session, shares, state, _said_at(session, shares, asked), now), None)


def _taken_back(session: EstimatedSession, shares: Sequence[Share], asked: Mapping[date, datetime]) -> bool:
    """Whether a session that was billed before is to be billed with what is left, be it nothing.

    If it waited, its former rows would go on to hold, and money that Azure took back or that others pay by now would be
    counted with it as well.
    """
    currencies = {share.line.key.currency for share in shares}
    return (
        bool(session.billed and session.estimate) and all(day in asked for day in session.days) and len(currencies) <= 1
    )


def _said_at(session: EstimatedSession, shares: Sequence[Share], asked: Mapping[date, datetime]) -> datetime:
    """When Azure said what the session's bill is.

    Nothing says that a session has no share, so that is the newest ask; asking again doesn't make it news.
    """
    if shares:
        return max(share.line.said_at for share in shares)
    if any(row["BilledCost"] for row in session.billed):
        return max(asked[day] for day in session.days)
    return max(row["x_billed_at"] for row in session.billed)


def _why_waiting(
    session: EstimatedSession, shares: Sequence[Share], asked: Mapping[date, datetime], days_with_data: set[date]
) -> str | None:
    said = {share.line.key.usage_date for share in shares}
    for day in session.days:
        if gap := _gap(day, asked, days_with_data):
            return gap
        if day not in said:
            return f"the bill of {day} has no line for its nodes"
    if len(currencies := sorted({share.line.key.currency for share in shares})) > 1:
        return f"it is billed in several currencies: {', '.join(currencies)}"
    if not session.estimate:
        return "it has no estimate that the bill could be split by: materialize cost_attribution"
    return None


def _gap(day: date, asked: Mapping[date, datetime], days_with_data: set[date]) -> str | None:
    if day not in asked:
        return f"{day} was never asked for"
    if asked[day] < day_end(day):
        return f"{day} was asked for before it was over"
    return None if day in days_with_data else f"Azure has no data of {day} yet"


def _billed_rows(
    session: EstimatedSession, shares: Sequence[Share], state: State, said_at: datetime, now: datetime
) -> list[Row]:
    """One row for each of the estimate's, summing to the session's shares; without any, zero in its former currency."""
    currency = shares[0].line.key.currency if shares else session.billed[0]["BillingCurrency"]
    weights = _part_weights(session.estimate)
    costs = split_amount(sum((share.cost for share in shares), Decimal()), weights)
    usds: Sequence[Decimal | None] = [None] * len(weights)
    if all(share.cost_usd is not None for share in shares):
        usds = split_amount(sum((share.cost_usd or Decimal() for share in shares), Decimal()), weights)
    rows = list[Row]()
    for row, cost, usd in zip(session.estimate, costs, usds, strict=True):
        estimated = row["ListCost"]
        in_dollars = currency == row["BillingCurrency"]
        rows.append(
            {
                **row,
                "recorded_at": now,
                "BillingCurrency": currency,
                # A list price in dollars is none in the bill's currency; x_estimated_usd keeps it.
                "ListUnitPrice": row["ListUnitPrice"] if in_dollars else None,
                "ListCost": estimated if in_dollars else None,
                "BilledCost": cost,
                "x_state": "billed",
                "x_method": METHOD,
                "x_estimated_usd": estimated,
                "x_billed_usd": usd,
                "x_delta_usd": None if usd is None or estimated is None else usd - estimated,
                "x_billed_at": said_at,
                "x_bill_state": state,
            }
        )
    return rows


def _part_weights(estimate: Sequence[Mapping[str, Any]]) -> list[Fraction]:
    column = "PricingQuantity" if any(row["ListCost"] is None for row in estimate) else "ListCost"
    return [Fraction(row[column]) for row in estimate]


def _signature(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """What makes billed rows worth repeating when it changes; not when they were written."""
    columns = (
        *("x_part", "x_step", "x_stage", "x_pool", "SkuId", "BillingCurrency", "BilledCost", "x_estimated_usd"),
        *("x_billed_usd", "x_billed_at", "x_bill_state"),
    )
    return sorted(tuple(_text(row[column]) for column in columns) for row in rows)


def _text(value: object) -> str:
    return f"{value:.9f}" if isinstance(value, Decimal) else str(value)


def share_rows(shares: Sequence[Share], *, target: str, run_id: str, now: datetime) -> list[Row]:
    """`bill_shares`."""
    return [
        {
            "lab": ALL_LABS,
            "run_id": run_id,
            "target": target,
            "provenance": "measured",
            "recorded_at": now,
            "usage_date": share.line.key.usage_date,
            "resource_id": share.line.key.resource_id,
            "pool": share.line.pool,
            "tag_lab": share.line.key.tag_lab,
            "currency": share.line.key.currency,
            "session_id": share.session_id,
            "cost": share.cost,
            "cost_usd": share.cost_usd,
            "reason": share.reason,
        }
        for share in shares
    ]


def share_signature(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a share says, whoever wrote it when."""
    columns = ("resource_id", "tag_lab", "currency", "session_id", "cost", "cost_usd", "reason")
    return tuple(_text(row[column]) for column in columns)


def _hours(length: timedelta) -> Fraction:
    return Fraction(length // timedelta(microseconds=1), HOUR // timedelta(microseconds=1))
