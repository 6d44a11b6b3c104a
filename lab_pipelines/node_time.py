"""Which node time a session pays for: its own nodes, and its shares of those that others hold, too. Pure.

Belongs here: from rows of `node_time` to lanes (lanes.py). Doesn't belong here: how one node is divided (sharing.py),
which nodes a stack has (resources/cluster*.py), or reading rows (attribution.py).

A node's time is shared on the wall clock, on which its tenants meet. What a tenant pays is its share of its own stack
seconds, as for a node of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from lab_pipelines.catalog.prices import Priority
from lab_pipelines.lanes import (
    UNITS,
    ClosedSession,
    CostError,
    Held,
    Lane,
    all_its_time,
    exact_node_hours,
    lane_of,
    unix_us,
)
from lab_pipelines.sharing import Amounts, Tenant, divide

PriceOf = Callable[[str | None, Priority], Decimal | None]
"""USD of a node-hour of a SKU; None where no price is known."""

REQUESTS_ALONE = "by requests alone, since usage is unknown"
REQUESTS_AND_USAGE = "by the larger of request and usage"


@dataclass(frozen=True)
class NodeTime:
    """A row of `node_time`."""

    session_id: str
    node: str | None
    nodes: int
    pool: str | None
    sku: str | None
    priority: Priority
    start_us: int
    end_us: int
    exclusive: bool
    capacity: Amounts | None
    requested: Amounts | None
    used: Mapping[str, float | None]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> NodeTime:
        return cls(
            session_id=row["session_id"],
            node=row["node"],
            nodes=row["nodes"],
            pool=row["pool"],
            sku=row["sku"],
            priority=row["priority"],
            start_us=unix_us(row["held_from"]),
            end_us=unix_us(row["held_until"]),
            exclusive=row["exclusive"],
            capacity=_amounts(row, "capacity"),
            requested=_amounts(row, "requested"),
            used={name: row[f"used_{name}"] for name in Amounts._fields},
        )

    @property
    def asks(self) -> Amounts:
        """The larger of request and usage. Usage that is unknown is left out; it is not zero."""
        assert self.requested is not None
        known = {name: value for name, value in self.used.items() if value is not None}
        return self.requested.at_least(self.requested._replace(**known))

    @property
    def divided(self) -> str:
        """How its node is divided, in words."""
        unknown = all(value is None for value in self.used.values())
        return REQUESTS_ALONE if unknown else REQUESTS_AND_USAGE


def lanes_of(
    session_id: str,
    session: ClosedSession,
    sku: str | None,
    node_times: Sequence[NodeTime],
    *,
    shared: Mapping[str, Sequence[Lane]],
    price_of: PriceOf,
) -> list[Lane]:
    """What a session pays for, by pool, SKU and priority; each shared node on its own.

    `node_times` are the session's rows. Without any it held the nodes of its own row, which are of `sku`, on demand.
    `shared`: by session, as `share_nodes` gives it.
    """
    if not node_times:
        return [lane_of(session, all_its_time(session), usd_per_node_hour=price_of(sku, "on_demand"), sku=sku)]
    groups = defaultdict[tuple[str | None, str | None, Priority], list[Held]](list)
    for one in node_times:
        if one.exclusive:
            groups[one.pool, one.sku, one.priority].append(Held(one.start_us, one.end_us, Fraction(one.nodes)))
    own = [
        lane_of(session, held, usd_per_node_hour=price_of(sku, priority), pool=pool, sku=sku, priority=priority)
        for (pool, sku, priority), held in groups.items()
    ]
    return [*own, *shared.get(session_id, [])]


def share_nodes(
    node_times: Sequence[NodeTime], sessions: Mapping[str, ClosedSession], *, price_of: PriceOf
) -> dict[str, list[Lane]]:
    """The lanes of sessions on nodes that others may hold at the same time, by session.

    `node_times` are those of one target, and `sessions` all that they name. What the tenants of a node pay sums to what
    the node costs while somebody is there, exactly: the units that rounding leaves go to the largest remainders.
    """
    nodes = defaultdict[str, list[NodeTime]](list)
    for one in node_times:
        if not one.exclusive and one.node is not None:
            nodes[one.node].append(one)
    lanes = defaultdict[str, list[Lane]](list)
    for node, of_name in sorted(nodes.items()):
        machines = defaultdict[tuple[str | None, Priority], list[list[NodeTime]]](list)
        for stay in _stays(of_name):
            kinds: set[tuple[str | None, Priority]] = {(one.sku, one.priority) for one in stay}
            if len(kinds) > 1:
                raise CostError(
                    f"node {node} has several prices at one time; its rows in node_time differ in sku or priority"
                )
            machines[kinds.pop()].append(stay)
        for (sku, priority), stays in machines.items():
            for session_id, lane in _share_machine(node, stays, sessions, price_of(sku, priority)):
                lanes[session_id].append(lane)
    return dict(lanes)


def _stays(of_name: Iterable[NodeTime]) -> list[list[NodeTime]]:
    """Those of one node's name, apart wherever nobody was there: by then it may be the name of another machine."""
    stays, until = list[list[NodeTime]](), 0
    for one in sorted(of_name, key=lambda one: (one.start_us, one.session_id)):
        if not stays or one.start_us >= until:
            stays.append([])
        stays[-1].append(one)
        until = max(until, one.end_us)
    return stays


def _share_machine(
    node: str, stays: Sequence[Sequence[NodeTime]], sessions: Mapping[str, ClosedSession], price: Decimal | None
) -> list[tuple[str, Lane]]:
    """What each tenant of the stays of one SKU and priority pays; each stay has the capacity that its last one saw."""
    tenants, held = list[NodeTime](), list[list[Held]]()
    for stay in stays:
        capacity = stay[-1].capacity
        assert capacity is not None
        divided = divide([Tenant(one.session_id, one.start_us, one.end_us, one.asks) for one in stay], capacity)
        tenants += stay
        held += [[Held(*share) for share in divided.shares[one.session_id]] for one in stay]
    hours = [exact_node_hours(sessions[one.session_id], of_it) for one, of_it in zip(tenants, held, strict=True)]
    exact = [sum(of_it, Fraction()) for of_it in hours]
    units = apportioned(exact)
    usd = [None] * len(tenants) if price is None else apportioned([one * Fraction(price) for one in exact])
    return [
        (
            one.session_id,
            Lane(
                pool=one.pool,
                sku=one.sku,
                priority=one.priority,
                usd_per_node_hour=price,
                held=shares,
                cold=of_it[0],
                hours=rounded,
                usd=paid,
                how=None
                if all(share.nodes == 1 for share in shares)
                else f"a share of node {node}, which other sessions held too, {one.divided}",
            ),
        )
        for one, shares, of_it, rounded, paid in zip(tenants, held, hours, units, usd, strict=True)
    ]


def apportioned(exact: Sequence[Fraction]) -> list[int]:
    """Whole units that sum to the sum of `exact` (node-hours, USD), to the nearest unit: largest remainders."""
    scaled = [value * UNITS for value in exact]
    units = [int(value) for value in scaled]
    left = round(sum(scaled, Fraction())) - sum(units)
    for index in sorted(range(len(units)), key=lambda i: units[i] - scaled[i])[:left]:
        units[index] += 1
    return units


def _amounts(row: Mapping[str, Any], prefix: str) -> Amounts | None:
    values = [row[f"{prefix}_{name}"] for name in Amounts._fields]
    return None if None in values else Amounts(*values)
