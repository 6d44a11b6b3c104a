"""Where a session's money went. Pure.

Belongs here: the split of node time into serve, idle, cold start and failed, and its price.
Doesn't belong here: which nodes a session holds and at which share (node_time.py, sharing.py), the lanes that they make
(lanes.py), the arithmetic on columns (cost_sweep.py), what a token cost (finops.py), prices (catalog/prices.yaml,
resources/billing.py), rows (rows/costs.py), or reading and writing them (attribution.py).

The rule is OpenCost's: what is allocated plus what is idle is the asset's cost, so that the parts of a session sum
to its node cost, exactly. Everything is in stack time: a session that ran five times as fast costs five times its
wall time, since that is how long a real stack would have been held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lab_pipelines.cost_sweep import Steps, largest_remainders, sweep
from lab_pipelines.lanes import (
    DECIMALS,
    HOUR_US,
    MICROSECOND,
    UNITS,
    ClosedSession,
    CostError,
    Held,
    Lane,
    all_its_time,
    lane_of,
    unix_us,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Part = Literal["serve", "idle", "cold_start", "failed"]
PARTS: tuple[Part, ...] = ("serve", "idle", "cold_start", "failed")
StageKey = tuple[str | None, int | None]
"""Step and stage; (None, None) is the time outside every stage."""

OUTSIDE: StageKey = (None, None)
SERVED = frozenset({"ok", "cut"})
"""Outcomes that did not fail. A request that the end of a step cut off was served until then."""


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
