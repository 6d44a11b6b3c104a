"""Where a session's money went. Pure: rows in, rows out.

Belongs here: the split of node time into serve, idle, cold start and failed, and its price.
Doesn't belong here: what a token cost (finops.py), prices (catalog/prices.yaml, resources/billing.py) or reading and
writing rows (assets/).

The rule is OpenCost's: what is allocated plus what is idle is the asset's cost, so that the parts of a session sum
to its node cost, exactly. Everything is in stack time: a session that ran five times as fast costs five times its
wall time, since that is how long a real stack would have been held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from lab_pipelines.catalog.prices import UnitPrice

Row = dict[str, Any]
Part = Literal["serve", "idle", "cold_start", "failed"]
PARTS: tuple[Part, ...] = ("serve", "idle", "cold_start", "failed")
StageKey = tuple[str | None, int | None]
"""Step and stage; (None, None) is the time outside every stage."""

OUTSIDE: StageKey = (None, None)
SERVED = frozenset({"ok", "cut"})
"""Outcomes that did not fail. A request that the end of a step cut off was served until then."""

DECIMALS = 9
"""Of node-hours and USD, as in `cost_records`."""
MICROSECOND = timedelta(microseconds=1)
HOUR_US = 3_600_000_000


class CostError(ValueError):
    """The rows of a session contradict each other. The message says which and how."""


@dataclass(frozen=True)
class ClosedSession:
    """A session that was released. `_s` are stack seconds, `_at` wall clock."""

    requested_at: datetime
    ready_at: datetime
    released_at: datetime
    nodes: int
    time_scale: float
    cold_start_s: float
    """Requested → first token; 0 for an engine that was already running."""
    first_token_s: float
    """The last phase of it, ready → first token."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ClosedSession:
        """From a row of `stack_sessions`. Raises `CostError` for one that is still open."""
        if row["released_at"] is None:
            raise CostError(f"session {row['session_id']} is still open; its cost starts from its release")
        return cls(
            requested_at=row["requested_at"],
            ready_at=row["ready_at"],
            released_at=row["released_at"],
            nodes=row["nodes"],
            time_scale=row["time_scale"],
            cold_start_s=row["cold_start_s"] or 0.0,
            first_token_s=row["first_token_s"] or 0.0,
        )

    @property
    def warm_at(self) -> datetime:
        """When the first token had come: the cold start is over, and from here on a second is serving or idle."""
        return self.ready_at + timedelta(seconds=self.first_token_s / self.time_scale)

    @property
    def warm_wall_us(self) -> int:
        """From `warm_at` to the release, in wall microseconds. Raises `CostError` when that is negative."""
        if self.released_at < self.warm_at:
            raise CostError(f"the session was released at {self.released_at}, before its first token at {self.warm_at}")
        return (self.released_at - self.warm_at) // MICROSECOND


@dataclass(frozen=True)
class StageWindow:
    step: str
    stage: int
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True)
class RequestInterval:
    """A request while it was with the server."""

    sent_at: datetime
    finished_at: datetime
    outcome: str


@dataclass(frozen=True)
class CostPart:
    """One part of a session's node time. `usd` is None where no price is known."""

    part: Part
    step: str | None
    stage: int | None
    started_at: datetime
    ended_at: datetime
    node_hours: Decimal
    usd: Decimal | None


def node_hours(session: ClosedSession) -> Decimal:
    """The session's node-hours in stack time: nodes x (cold start + time held since), to nine decimals."""
    return _decimal(round(_exact_node_hours(session) * 10**DECIMALS))


def node_cost(session: ClosedSession, usd_per_node_hour: Decimal) -> Decimal:
    """What the session's nodes cost in USD, to nine decimals: what the parts of `split_session` sum to."""
    return _decimal(round(_exact_node_hours(session) * Fraction(usd_per_node_hour) * 10**DECIMALS))


def split_session(
    session: ClosedSession,
    stages: Sequence[StageWindow],
    requests: Sequence[RequestInterval],
    *,
    usd_per_node_hour: Decimal | None,
) -> list[CostPart]:
    """Split the session's node time into its parts, for each stage and for the time outside all stages.

    - cold_start: requested → first token.
    - serve and failed: time since then with at least one request in flight. In every instant the node's time is
      shared equally among the requests in flight, and the shares of those that failed in the end are `failed`.
    - idle: the rest (OpenCost: idle = asset cost - allocated cost).

    Node-hours and USD sum exactly to `node_hours` and `node_cost`: each part is rounded down to nine decimals, and
    the units of 1e-9 that are left go one each to the parts with the largest remainders. Parts without any time are
    left out. Requests are counted only while the session was warm. Raises `CostError` when stages overlap or lie
    outside of the session.
    """
    windows = _windows(session, stages)
    spent = _sweep(windows, _clipped(session, requests))
    cold = Fraction(session.cold_start_s) * session.nodes / 3600
    per_wall_us = Fraction(session.time_scale) * session.nodes / HOUR_US
    periods: dict[StageKey, tuple[datetime, datetime]] = {OUTSIDE: (session.warm_at, session.released_at)}
    periods |= {(s.step, s.stage): (s.started_at, s.ended_at) for s in stages}

    keys: list[tuple[Part, StageKey]] = [("cold_start", OUTSIDE)]
    hours = [cold]
    for key in [OUTSIDE, *((s.step, s.stage) for s in sorted(stages, key=lambda s: s.started_at))]:
        for part in ("serve", "failed", "idle"):
            keys.append((part, key))
            hours.append(spent[key, part] * per_wall_us)

    quantities = _apportion(hours)
    price = None if usd_per_node_hour is None else Fraction(usd_per_node_hour)
    costs = [None] * len(hours) if price is None else _apportion([h * price for h in hours])
    return [
        CostPart(
            part=part,
            step=step,
            stage=stage,
            started_at=session.requested_at if part == "cold_start" else periods[step, stage][0],
            ended_at=session.warm_at if part == "cold_start" else periods[step, stage][1],
            node_hours=quantity,
            usd=cost,
        )
        for (part, (step, stage)), exact, quantity, cost in zip(keys, hours, quantities, costs, strict=True)
        if exact
    ]


NOT_BILLED: Row = {
    "x_estimated_usd": None,
    "x_billed_usd": None,
    "x_delta_usd": None,
    "x_billed_at": None,
    "x_bill_state": None,
}
"""The columns of `cost_records` that an estimate leaves empty."""


def cost_rows(
    parts: Sequence[CostPart],
    *,
    shared: Mapping[str, Any],
    sku: str | None,
    price: UnitPrice | None,
) -> list[Row]:
    """`cost_records`: an estimate from a list price. `shared` are the columns that every table begins with.

    `price` is None where none is known.
    """
    split = "node time shared equally among the requests in flight, the rest idle"
    return [
        {
            **shared,
            "ChargePeriodStart": part.started_at,
            "ChargePeriodEnd": part.ended_at,
            "BillingCurrency": "USD",
            "ListUnitPrice": price.usd if price else None,
            "PricingQuantity": part.node_hours,
            "PricingUnit": "node-hour",
            "ListCost": part.usd,
            "BilledCost": None,
            "SkuId": sku,
            "RegionId": price.region if price else None,
            "x_priority": price.priority if price else None,
            "x_pool": None,
            "x_part": part.part,
            "x_step": part.step,
            "x_stage": part.stage,
            "x_state": "estimated",
            "x_method": f"{price.source if price else 'no price is known for the machine'}; {split}",
            "x_price_low": price.usd_low if price else None,
            "x_price_high": price.usd_high if price else None,
            **NOT_BILLED,
        }
        for part in parts
    ]


def _exact_node_hours(session: ClosedSession) -> Fraction:
    held_s = Fraction(session.warm_wall_us) * Fraction(session.time_scale) / 10**6
    return (Fraction(session.cold_start_s) + held_s) * session.nodes / 3600


def _windows(session: ClosedSession, stages: Sequence[StageWindow]) -> list[tuple[int, int, StageKey]]:
    """The warm time from end to end: each stage, and OUTSIDE between them, in microseconds since `warm_at`."""
    windows: list[tuple[int, int, StageKey]] = []
    reached, end = 0, session.warm_wall_us
    for stage in sorted(stages, key=lambda s: s.started_at):
        start, stop = ((at - session.warm_at) // MICROSECOND for at in (stage.started_at, stage.ended_at))
        if not reached <= start <= stop <= end:
            raise CostError(
                f"stage {stage.stage} of {stage.step} ({stage.started_at} to {stage.ended_at}) overlaps another stage, "
                f"or lies outside of the session's warm time ({session.warm_at} to {session.released_at})"
            )
        windows += [(reached, start, OUTSIDE), (start, stop, (stage.step, stage.stage))]
        reached = stop
    return [*windows, (reached, end, OUTSIDE)]


def _clipped(session: ClosedSession, requests: Sequence[RequestInterval]) -> list[tuple[int, int, bool]]:
    """Start, end and whether it failed, in microseconds since `warm_at`; what lies outside the warm time is cut off."""
    clipped = []
    for request in requests:
        start = max((request.sent_at - session.warm_at) // MICROSECOND, 0)
        end = min((request.finished_at - session.warm_at) // MICROSECOND, session.warm_wall_us)
        if start < end:
            clipped.append((start, end, request.outcome not in SERVED))
    return clipped


def _sweep(
    windows: Sequence[tuple[int, int, StageKey]], requests: Sequence[tuple[int, int, bool]]
) -> dict[tuple[StageKey, str], Fraction]:
    """Wall microseconds of serve, failed and idle time in each window."""
    in_flight: dict[int, int] = defaultdict(int)
    failing: dict[int, int] = defaultdict(int)
    for start, end, failed in requests:
        in_flight[start] += 1
        in_flight[end] -= 1
        failing[start] += failed
        failing[end] -= failed
    spent: dict[tuple[StageKey, str], Fraction] = defaultdict(Fraction)
    moments = sorted({*in_flight, *(moment for start, end, _ in windows for moment in (start, end))})
    remaining = iter(window for window in windows if window[0] < window[1])
    window = next(remaining, None)
    flying = doomed = 0
    for now, then in pairwise(moments):
        flying, doomed = flying + in_flight[now], doomed + failing[now]
        while window is not None and window[1] <= now:
            window = next(remaining, None)
        if window is None:
            break
        key, length = window[2], then - now
        lost = Fraction(length * doomed, flying) if flying else Fraction()
        spent[key, "failed"] += lost
        spent[key, "serve" if flying else "idle"] += length - lost
    return spent


def _apportion(exact: Sequence[Fraction]) -> list[Decimal]:
    """Round to nine decimals so that the sum of the results is the rounded sum (largest remainders)."""
    scaled = [value * 10**DECIMALS for value in exact]
    units = [int(value) for value in scaled]
    left = round(sum(scaled, Fraction())) - sum(units)
    for index in sorted(range(len(units)), key=lambda i: units[i] - scaled[i])[:left]:
        units[index] += 1
    return [_decimal(n) for n in units]


def _decimal(units: int) -> Decimal:
    return Decimal(units).scaleb(-DECIMALS)
