"""The nodes that a released session held, as lanes: all node time of one kind and price. Pure.

Belongs here: exact node-hours of a session's nodes, in stack time, and their total.
Doesn't belong here: which nodes those are and at which share (node_time.py, sharing.py), or how the time of a lane is
split (cost.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from lab_pipelines.catalog.prices import Priority

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


def _overlap(held: Held, start_us: int, end_us: int) -> int:
    return max(min(held.end_us, end_us) - max(held.start_us, start_us), 0)
