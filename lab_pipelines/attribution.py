"""What the sessions of a lab cost by today's prices and overlaps: read from the lake, split, and published.

Belongs here: which rows the split of node time needs, and which sessions a new estimate changes. Doesn't belong here:
the split (cost.py), shares of nodes (node_time.py), or who asks for it (assets/cost_attribution.py,
cli/cost_reattribute.py).

A lab's sessions on a target are read and split together: their files lie together, so that a year of labs is read
once and not once for each of its sessions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lab_pipelines.catalog.prices import Priority, UnitPrice
from lab_pipelines.cost import Case, CostPart, RequestColumns, StageWindow, split
from lab_pipelines.lanes import ClosedSession, Lane
from lab_pipelines.node_time import NodeTime, PriceOf, lanes_of, share_nodes
from lab_pipelines.rows.common import Row, common_columns_of
from lab_pipelines.rows.costs import cost_rows
from lab_pipelines.session_sheets import bring_up_to_date

if TYPE_CHECKING:
    from resources.warehouse_core import WarehouseCore

UnitPriceOf = Callable[[str | None, Priority], UnitPrice | None]
"""The price of a node-hour; None exactly for a machine without a SKU. Raises for a SKU that has no price."""

_WHERE = "lab = $lab AND target = $target AND ($run_id IS NULL OR run_id = $run_id)"
_SESSIONS = f"SELECT * FROM stack_sessions WHERE state = 'closed' AND {_WHERE} ORDER BY requested_at, session_id"
_NODES = f"SELECT * FROM node_time WHERE {_WHERE} ORDER BY session_id, held_from, node"
_STAGES = f"SELECT session_id, step, stage, started_at, ended_at FROM load_stages WHERE {_WHERE} ORDER BY started_at"
_REQUESTS = f"""
    WITH numbered AS (
        SELECT session_id, row_number() OVER (ORDER BY requested_at, session_id) - 1 AS number
        FROM stack_sessions WHERE state = 'closed' AND {_WHERE}
    )
    SELECT number, epoch_us(sent_at) AS sent_us, epoch_us(finished_at) AS finished_us,
           outcome NOT IN ('ok', 'cut') AS failed
    FROM requests JOIN numbered USING (session_id)
"""
_SHARED_NODES = "SELECT * FROM node_time WHERE NOT exclusive AND target = $target ORDER BY held_from, session_id"
_TENANTS = """
    SELECT * FROM stack_sessions
    WHERE state = 'closed' AND target = $target
        AND session_id IN (SELECT session_id FROM node_time WHERE NOT exclusive AND target = $target)
"""
_NEIGHBOURS = """
    SELECT DISTINCT other.lab, other.run_id, other.session_id
    FROM node_time AS own
    JOIN node_time AS other
        ON other.node = own.node AND other.held_from < own.held_until AND own.held_from < other.held_until
    WHERE NOT own.exclusive AND own.target = $target AND own.run_id = $run_id
        AND NOT other.exclusive AND other.target = $target AND other.run_id <> $run_id
    ORDER BY ALL
"""
_ESTIMATES = f"""
    SELECT session_id, SkuId, x_priority, x_pool, x_part, x_step, x_stage,
           PricingQuantity, ListUnitPrice, x_price_low, x_price_high, ListCost
    FROM cost_current WHERE x_state = 'estimated' AND {_WHERE}
"""
_LABS = "SELECT DISTINCT target, lab FROM stack_sessions WHERE state = 'closed' ORDER BY target, lab"


class Attributed(NamedTuple):
    """What one session cost."""

    session: Row
    """Its closed row of `stack_sessions`."""
    lanes: list[tuple[Lane, list[CostPart]]]
    alone: bool
    """Nobody else could hold a node of its at the same time."""

    def usd(self) -> Decimal | None:
        """None where some of its nodes have no known price."""
        if any(lane.usd is None for lane, _ in self.lanes):
            return None
        return sum((part.usd or Decimal() for _, parts in self.lanes for part in parts), Decimal())


class Reestimated(NamedTuple):
    """A session whose estimate became another. None: no price was or is known."""

    lab: str
    target: str
    session_id: str
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True)
class Reattribution:
    """What a reattribution found."""

    sessions: int
    changed: list[Reestimated]
    sheets: int
    """So many were written, for these changes or for costs that had none yet."""


def attribute(
    warehouse: WarehouseCore, lab: str, target: str, *, price_of: UnitPriceOf, run_id: str | None = None
) -> list[Attributed]:
    """What the closed sessions of a lab on a target cost, those of one run or all.

    Raises `CostError` for rows that contradict each other, and what `price_of` raises.
    """
    where = {"lab": lab, "target": target, "run_id": run_id}
    files: Any = {"lab": lab, "target": target, **({"run_id": run_id} if run_id else {})}
    sessions = warehouse.query(_SESSIONS, where, within=files)
    if not sessions:
        return []
    usd_of = _usd_of(price_of)
    node_times, stages = defaultdict[str, list[NodeTime]](list), defaultdict[str, list[StageWindow]](list)
    for row in warehouse.query(_NODES, where, within=files):
        node_times[row["session_id"]].append(NodeTime.from_row(row))
    for row in warehouse.query(_STAGES, where, within=files):
        stages[row.pop("session_id")].append(StageWindow(**row))
    alone = all(one.exclusive for of_it in node_times.values() for one in of_it)
    shared = {} if alone else _shared(warehouse, target, usd_of)
    cases = list[Case]()
    for row in sessions:
        name, session = row["session_id"], ClosedSession.from_row(row)
        lanes = lanes_of(name, session, row["sku"], node_times[name], shared=shared, price_of=usd_of)
        cases.append(Case(session, stages[name], lanes))
    requests = warehouse.frame(_REQUESTS, where, within=files)
    columns = RequestColumns(
        *(requests[name].to_numpy("int64") for name in ("number", "sent_us", "finished_us")),
        failed=requests["failed"].to_numpy("bool"),
    )
    return [
        Attributed(
            row, list(zip(case.lanes, parts, strict=True)), all(one.exclusive for one in node_times[row["session_id"]])
        )
        for row, case, parts in zip(sessions, cases, split(cases, columns), strict=True)
    ]


def estimate_rows(one: Attributed, *, price_of: UnitPriceOf) -> list[Row]:
    """`cost_records` of a session: all of them written at the same time, which makes them one estimate."""
    shared = common_columns_of(one.session)
    return [
        row
        for lane, parts in one.lanes
        for row in cost_rows(
            parts,
            shared=shared,
            sku=lane.sku,
            price=price_of(lane.sku, lane.priority),
            pool=lane.pool,
            how=lane.how,
        )
    ]


def labs_with_sessions(warehouse: WarehouseCore) -> list[tuple[str, str]]:
    """Target and lab of everything that has closed sessions."""
    return [(row["target"], row["lab"]) for row in warehouse.query(_LABS)]


def reattribute(
    warehouse: WarehouseCore, where: Iterable[tuple[str, str]], *, price_of: UnitPriceOf, now: datetime
) -> Reattribution:
    """Estimate all closed sessions of the given targets and labs anew; publish what became another, and its sheets.

    Prices and overlapping sessions are those that are known today. What a session's rows say already is left alone, so
    that doing it again changes nothing. `now` names the files.
    """
    sessions, changed, sheets = 0, list[Reestimated](), 0
    for target, lab in where:
        found = attribute(warehouse, lab, target, price_of=price_of)
        sessions += len(found)
        changed += publish_changed(warehouse, found, price_of=price_of, now=now)
        sheets += bring_up_to_date(warehouse, target=target, lab=lab, now=now)
    return Reattribution(sessions, changed, sheets)


def reattribute_neighbours(
    warehouse: WarehouseCore, found: Sequence[Attributed], *, price_of: UnitPriceOf, now: datetime
) -> None:
    """Estimate those sessions of other runs anew that held a node together with `found`, of one run, and their sheets.

    They may have been estimated before it was known who else was there. Nothing is read where nobody could be.
    """
    if all(one.alone for one in found):
        return
    run = {name: found[0].session[name] for name in ("target", "run_id")}
    runs = defaultdict[tuple[str, str], set[str]](set)
    for row in warehouse.query(_NEIGHBOURS, run, within={"target": run["target"]}):
        runs[row["lab"], row["run_id"]].add(row["session_id"])
    for (lab, run_id), beside in runs.items():
        others = attribute(warehouse, lab, run["target"], price_of=price_of, run_id=run_id)
        there = [one for one in others if one.session["session_id"] in beside]
        publish_changed(warehouse, there, price_of=price_of, now=now)
    for lab in {lab for lab, _ in runs}:
        bring_up_to_date(warehouse, target=run["target"], lab=lab, now=now)


def publish_changed(
    warehouse: WarehouseCore, found: Sequence[Attributed], *, price_of: UnitPriceOf, now: datetime
) -> list[Reestimated]:
    """Publish those of one lab's sessions on a target whose estimate isn't the one that holds, a file for each run.

    What is published already in other words, or at another time, is left alone. `now` names the files.
    """
    if not found:
        return []
    lab, target = (found[0].session[name] for name in ("lab", "target"))
    runs = {one.session["run_id"] for one in found}
    where: Any = {"lab": lab, "target": target, **({"run_id": min(runs)} if len(runs) == 1 else {})}
    former = defaultdict[str, list[Row]](list)
    for row in warehouse.query(_ESTIMATES, {"run_id": None, **where}, within=where):
        former[row["session_id"]].append(row)
    files, changed = defaultdict[str, list[Row]](list), list[Reestimated]()
    for one in found:
        session_id, published = one.session["session_id"], estimate_rows(one, price_of=price_of)
        if _numbers(published) == _numbers(former[session_id]) or not published:
            continue
        files[one.session["run_id"]] += published
        changed.append(Reestimated(lab, target, session_id, _usd(former[session_id]), _usd(published)))
    for run_id, published in files.items():
        part = f"estimated-{now.astimezone(UTC):%Y%m%dT%H%M%S%fZ}"
        warehouse.publish("cost_records", published, target=target, lab=lab, run_id=run_id, part=part)
    return changed


_COMPARED = (
    *("SkuId", "x_priority", "x_pool", "x_part", "x_step", "x_stage"),
    *("PricingQuantity", "ListUnitPrice", "x_price_low", "x_price_high", "ListCost"),
)


def _numbers(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What an estimate says, words and times aside; in an order of its own."""
    return sorted(repr([_plain(row[name]) for name in _COMPARED]) for row in records)


def _plain(value: object) -> object:
    return value.normalize() if isinstance(value, Decimal) else value


def _usd(records: Sequence[Mapping[str, Any]]) -> Decimal | None:
    costs = [row["ListCost"] for row in records]
    return None if not costs or None in costs else sum(costs, Decimal())


def _usd_of(price_of: UnitPriceOf) -> PriceOf:
    """As a number, looked up once."""

    @cache
    def usd_of(sku: str | None, priority: Priority) -> Decimal | None:
        price = price_of(sku, priority)
        return price.usd if price else None

    return usd_of


def _shared(warehouse: WarehouseCore, target: str, usd_of: PriceOf) -> dict[str, list[Lane]]:
    """The lanes of all sessions of a target on nodes that others may hold, whatever their lab."""
    within: Any = {"target": target}
    tenants = {
        row["session_id"]: ClosedSession.from_row(row)
        for row in warehouse.query(_TENANTS, {"target": target}, within=within)
    }
    times = [NodeTime.from_row(row) for row in warehouse.query(_SHARED_NODES, {"target": target}, within=within)]
    return share_nodes([one for one in times if one.session_id in tenants], tenants, price_of=usd_of)
