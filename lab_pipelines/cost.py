"""Where a session's money went. Pure: rows in, rows out.

Belongs here: the split of node time into serve, idle, cold start and failed, and its price.
Doesn't belong here: which nodes a session holds and at which share (node_time.py, sharing.py), the arithmetic on
columns (cost_sweep.py), what a token cost (finops.py), prices (catalog/prices.yaml, resources/billing.py) or reading
and writing rows (attribution.py).

The rule is OpenCost's: what is allocated plus what is idle is the asset's cost, so that the parts of a session sum
to its node cost, exactly. Everything is in stack time: a session that ran five times as fast costs five times its
wall time, since that is how long a real stack would have been held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lab_pipelines.catalog.prices import Priority, UnitPrice
from lab_pipelines.cost_sweep import Steps, largest_remainders, sweep

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
UNITS = 10**DECIMALS
"""What is counted and rounded to: so many make a node-hour, or a dollar."""
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
    def requested_us(self) -> int:
        return unix_us(self.requested_at)

    @property
    def warm_us(self) -> int:
        return unix_us(self.warm_at)

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


class Held(NamedTuple):
    """So many nodes from `start_us` to `end_us`, Unix microseconds of the wall clock; a share of one is less than 1."""

    start_us: int
    end_us: int
    nodes: Fraction


@dataclass(frozen=True)
class Lane:
    """A session's node time of one kind: all of it has one price, and it sums to `hours` and `usd` on its own.

    `hours` and `usd` are whole units of 1e-9 (`UNITS`).
    """

    pool: str | None
    sku: str | None
    priority: Priority
    usd_per_node_hour: Decimal | None
    """None where no price is known."""
    held: Sequence[Held]
    """They may overlap, and leave time without a node."""
    cold: Fraction
    """Exact node-hours of the cold start."""
    hours: int
    usd: int | None
    how: str | None = None
    """How the node time came about, in words, where it isn't simply the lab's own."""


@dataclass(frozen=True)
class Case:
    """A session to be split."""

    session: ClosedSession
    stages: Sequence[StageWindow]
    lanes: Sequence[Lane]


class RequestColumns(NamedTuple):
    """Requests of many sessions, one column each. `case` is the number of the case that a request belongs to."""

    case: NDArray[np.int64]
    sent_us: NDArray[np.int64]
    finished_us: NDArray[np.int64]
    """Both in Unix microseconds."""
    failed: NDArray[np.bool_]

    @classmethod
    def of(cls, requests: Sequence[tuple[int, RequestInterval]]) -> RequestColumns:
        """From requests, each with the number of its case."""
        import numpy as np

        return cls(
            np.array([case for case, _ in requests], np.int64),
            np.array([unix_us(one.sent_at) for _, one in requests], np.int64),
            np.array([unix_us(one.finished_at) for _, one in requests], np.int64),
            np.array([one.outcome not in SERVED for _, one in requests], np.bool_),
        )


def unix_us(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def exact_node_hours(session: ClosedSession, held: Sequence[Held]) -> tuple[Fraction, Fraction]:
    """Node-hours of the cold start, and of the time since then, in stack time.

    A node that was there for a part of the cold start has that part of its stack seconds: a phase's own seconds don't
    pass evenly, and nothing says how they did.
    """
    began, warm, ended = session.requested_us, session.warm_us, session.warm_us + session.warm_wall_us
    cold_us = warm - began
    if cold_us:
        cold = sum((_overlap(one, began, warm) * one.nodes for one in held), Fraction()) / cold_us
    else:
        cold = sum((one.nodes for one in held if one.start_us <= warm < one.end_us), Fraction())
    warm_us = sum((_overlap(one, warm, ended) * one.nodes for one in held), Fraction())
    return Fraction(session.cold_start_s) * cold / 3600, warm_us * Fraction(session.time_scale) / HOUR_US


def lane_of(
    session: ClosedSession,
    held: Sequence[Held],
    *,
    usd_per_node_hour: Decimal | None,
    pool: str | None = None,
    sku: str | None = None,
    priority: Priority = "on_demand",
) -> Lane:
    """Nodes that a session holds alone. Its total is what they cost, to the nearest unit."""
    cold, warm = exact_node_hours(session, held)
    price = usd_per_node_hour
    return Lane(
        pool=pool,
        sku=sku,
        priority=priority,
        usd_per_node_hour=price,
        held=held,
        cold=cold,
        hours=round((cold + warm) * UNITS),
        usd=None if price is None else round((cold + warm) * Fraction(price) * UNITS),
    )


def all_its_time(session: ClosedSession) -> list[Held]:
    """All of a session's nodes from its request to its release."""
    return [Held(session.requested_us, session.warm_us + session.warm_wall_us, Fraction(session.nodes))]


def split(cases: Sequence[Case], requests: RequestColumns) -> list[list[list[CostPart]]]:
    """Split node time into its parts: of each case and lane, for each stage and for the time outside all stages.

    - cold_start: requested → first token.
    - serve and failed: time since then with at least one request in flight. In every instant the node's time is
      shared equally among the requests in flight, and the shares of those that failed in the end are `failed`.
    - idle: the rest (OpenCost: idle = asset cost - allocated cost).

    Node-hours and USD of a lane sum exactly to its own: each part is rounded down to nine decimals, and the units of
    1e-9 that are left go one each to the parts with the largest remainders. Parts without any time are left out.
    Requests are counted only while their session was warm. Takes time in proportion to the rows of all cases. Raises
    `CostError` when stages of a session overlap or lie outside of it.
    """
    import numpy as np

    lanes = [_Placed(number, case, lane) for number, case in enumerate(cases) for lane in case.lanes]
    if not lanes:
        return [[] for _ in cases]
    keys = [_stage_keys(case.stages) for case in cases]
    windows, weights = _Drawn([], []), _Drawn([], [])
    starts_at, at, windows_so_far = list[int](), 0, 0
    for number, case, lane in lanes:
        for start_us, key in _windows(case.session, case.stages):
            windows.draw(at + start_us, windows_so_far + keys[number][key])
        for start_us, nodes in _weights(case.session, lane.held):
            weights.draw(at + start_us, nodes)
        starts_at.append(at)
        at += case.session.warm_wall_us
        windows_so_far += len(keys[number])
    spent = sweep(
        windows.steps(at, np.int64),
        weights.steps(at, np.float64),
        *_on_one_axis(cases, requests, np.array(starts_at, np.int64)),
    )
    exact = np.stack([spent.serve, spent.failed, spent.idle], axis=1)
    return _rounded(cases, lanes, keys, exact)


def split_session(
    session: ClosedSession,
    stages: Sequence[StageWindow],
    requests: Sequence[RequestInterval],
    *,
    usd_per_node_hour: Decimal | None,
) -> list[CostPart]:
    """As `split`, of one session whose nodes are its own."""
    lane = lane_of(session, all_its_time(session), usd_per_node_hour=usd_per_node_hour)
    [[parts]] = split([Case(session, stages, [lane])], RequestColumns.of([(0, one) for one in requests]))
    return parts


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
    pool: str | None = None,
    how: str | None = None,
) -> list[Row]:
    """`cost_records` of one lane: an estimate from a list price. `shared` are the columns that every table begins with.

    `price` is None where none is known. `how` says in words where the node time is from, unless it is all the lab's.
    """
    known = price.source if price else "no price is known for the machine"
    split = "node time shared equally among the requests in flight, the rest idle"
    method = "; ".join(one for one in (known, how, split) if one)
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
            "x_pool": pool,
            "x_part": part.part,
            "x_step": part.step,
            "x_stage": part.stage,
            "x_state": "estimated",
            "x_method": method,
            "x_price_low": price.usd_low if price else None,
            "x_price_high": price.usd_high if price else None,
            **NOT_BILLED,
        }
        for part in parts
    ]


class _Placed(NamedTuple):
    """A lane, and the case that it is of."""

    number: int
    case: Case
    lane: Lane


class _Drawn(NamedTuple):
    """`Steps` in the making."""

    edges: list[int]
    values: list[Any]

    def draw(self, edge: int, value: float) -> None:
        self.edges.append(edge)
        self.values.append(value)

    def steps(self, end: int, kind: type[np.generic]) -> Steps:
        import numpy as np

        return Steps(np.array([*self.edges, end], np.int64), np.array(self.values, kind))


def _overlap(held: Held, start_us: int, end_us: int) -> int:
    return max(min(held.end_us, end_us) - max(held.start_us, start_us), 0)


def _stage_keys(stages: Sequence[StageWindow]) -> dict[StageKey, int]:
    """Each stage's place among the session's windows, in the order of their time; OUTSIDE is the first."""
    ordered = sorted(stages, key=lambda s: s.started_at)
    return {key: n for n, key in enumerate([OUTSIDE, *((s.step, s.stage) for s in ordered)])}


def _windows(session: ClosedSession, stages: Sequence[StageWindow]) -> list[tuple[int, StageKey]]:
    """The warm time from end to end: where each stage begins, and OUTSIDE after it, in microseconds since `warm_at`."""
    windows: list[tuple[int, StageKey]] = [(0, OUTSIDE)]
    reached, end = 0, session.warm_wall_us
    for stage in sorted(stages, key=lambda s: s.started_at):
        start, stop = ((at - session.warm_at) // MICROSECOND for at in (stage.started_at, stage.ended_at))
        if not reached <= start <= stop <= end:
            raise CostError(
                f"stage {stage.stage} of {stage.step} ({stage.started_at} to {stage.ended_at}) overlaps another stage, "
                f"or lies outside of the session's warm time ({session.warm_at} to {session.released_at})"
            )
        windows += [(start, (stage.step, stage.stage)), (stop, OUTSIDE)]
        reached = stop
    return windows


def _weights(session: ClosedSession, held: Sequence[Held]) -> list[tuple[int, float]]:
    """How many nodes the session has from when on, in microseconds since `warm_at`, over all of its warm time."""
    warm, length = session.warm_us, session.warm_wall_us
    changes = {0: Fraction()}
    for one in held:
        start, end = (min(max(at - warm, 0), length) for at in (one.start_us, one.end_us))
        changes[start] = changes.get(start, Fraction()) + one.nodes
        changes[end] = changes.get(end, Fraction()) - one.nodes
    weights, nodes = list[tuple[int, float]](), Fraction()
    for at in sorted(changes):
        nodes += changes[at]
        weights.append((at, float(nodes)))
    return weights


def _on_one_axis(
    cases: Sequence[Case], requests: RequestColumns, starts_at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Start, end and whether it failed, of each request in each lane of its session. What isn't warm is cut off.

    `starts_at`: where each lane begins on the axis.
    """
    import numpy as np

    warm = np.array([case.session.warm_us for case in cases], np.int64)
    length = np.array([case.session.warm_wall_us for case in cases], np.int64)
    lanes = np.array([len(case.lanes) for case in cases], np.int64)
    first = np.cumsum(lanes) - lanes
    start = np.maximum(requests.sent_us - warm[requests.case], 0)
    end = np.minimum(requests.finished_us - warm[requests.case], length[requests.case])
    starts, ends, failed = [], [], []
    for nth in range(int(lanes.max(initial=0))):
        there = (start < end) & (lanes[requests.case] > nth)
        at = starts_at[first[requests.case[there]] + nth]
        starts.append(at + start[there])
        ends.append(at + end[there])
        failed.append(requests.failed[there])
    none = np.array([], np.int64)
    return (
        np.concatenate([none, *starts]),
        np.concatenate([none, *ends]),
        np.concatenate([none.astype(np.bool_), *failed]),
    )


def _rounded(
    cases: Sequence[Case],
    lanes: Sequence[_Placed],
    keys: Sequence[Mapping[StageKey, int]],
    spent: NDArray[np.float64],
) -> list[list[list[CostPart]]]:
    """The parts of each lane. `spent`: serve, failed and idle wall microseconds of its nodes, a row for each window."""
    import numpy as np

    windows = np.array([len(keys[one.number]) for one in lanes], np.int64)
    size = 1 + 3 * windows  # the cold start, and three of each window
    first = np.cumsum(size) - size
    group = np.repeat(np.arange(len(lanes)), size)
    scale = np.array([one.case.session.time_scale for one in lanes]) * (UNITS / HOUR_US)
    exact = np.empty(int(size.sum()))
    exact[first] = [float(one.lane.cold * UNITS) for one in lanes]
    exact[~np.isin(np.arange(len(exact)), first, assume_unique=True)] = (
        spent * np.repeat(scale, windows)[:, np.newaxis]
    ).ravel()
    price = np.array([float(one.lane.usd_per_node_hour or 0) for one in lanes])
    hours = largest_remainders(exact, group, np.array([one.lane.hours for one in lanes], np.int64))
    usd = largest_remainders(exact * price[group], group, np.array([one.lane.usd or 0 for one in lanes], np.int64))
    split: list[list[list[CostPart]]] = [[] for _ in cases]
    for one, start, end in zip(lanes, first.tolist(), (first + size).tolist(), strict=True):
        slots = _slots(one.case, keys[one.number])
        part_hours, part_usd = hours[start:end].tolist(), usd[start:end].tolist()
        priced = one.lane.usd_per_node_hour is not None
        split[one.number].append(
            [
                CostPart(*slot, node_hours=_decimal(h), usd=_decimal(u) if priced else None)
                for slot, there, h, u in zip(slots, (exact[start:end] != 0).tolist(), part_hours, part_usd, strict=True)
                if there
            ]
        )
    return split


def _slots(case: Case, keys: Mapping[StageKey, int]) -> list[tuple[Part, str | None, int | None, datetime, datetime]]:
    """Part, step, stage, start and end of everything that a lane may have a part of, in the order of `_rounded`."""
    session = case.session
    warm_at = session.warm_at
    periods: dict[StageKey, tuple[datetime, datetime]] = {OUTSIDE: (warm_at, session.released_at)}
    periods |= {(s.step, s.stage): (s.started_at, s.ended_at) for s in case.stages}
    slots: list[tuple[Part, str | None, int | None, datetime, datetime]]
    slots = [("cold_start", *OUTSIDE, session.requested_at, warm_at)]
    for key in keys:
        for part in _OF_A_WINDOW:
            slots.append((part, *key, *periods[key]))
    return slots


_OF_A_WINDOW: tuple[Part, Part, Part] = ("serve", "failed", "idle")


def _decimal(units: int) -> Decimal:
    return Decimal(units).scaleb(-DECIMALS)
