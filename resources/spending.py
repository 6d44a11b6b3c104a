"""What a target has spent so far, and is committed to: from the lake, its leases and its pools, as they are now.

Belongs here: reading, and the price of what is up. Doesn't belong here: what follows from it
(lab_pipelines/budget_guard.py), or the cost of a closed session (lab_pipelines/cost.py).

Everything is read anew at each look, and nothing that was computed before is trusted: a daemon that died has left no
state behind that could allow what it should not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path

from lab_pipelines.budget_decisions import TABLE, Outcome, decision_row, said_scope, state_before
from lab_pipelines.budget_guard import Amount, Holding, Verdict, judge, spend_of
from lab_pipelines.budgets import MONTH, Budgets, Period, period_of
from lab_pipelines.catalog.loader import SpecError, load_catalog
from lab_pipelines.catalog.prices import Priority, UnknownPriceError, load_prices
from lab_pipelines.catalog.stack import Nodes
from lab_pipelines.deployment import BudgetMode
from lab_pipelines.provenance import Provenance
from lab_pipelines.rows.common import Row
from resources.billing import Billing
from resources.cluster import Cluster, Lease, Progress
from resources.decision_log import DecisionLog
from resources.lake import Within
from resources.node_pools import USER_MODE, NodePool, NodePools
from resources.ownership import LEASE_LABEL, LEASE_TTL, RUN_LABEL
from resources.pool_leases import holds, usd_per_h
from resources.warehouse_core import WarehouseCore

_HOUR = timedelta(hours=1)
Price = Callable[[str | None, Priority], Decimal | None]
"""USD per node-hour of a machine type, as it is rented; None where it is not known."""
Rented = Mapping[tuple[str | None, str], Priority]
"""How the nodes are rented that a run has of a machine type now."""


@dataclass(frozen=True)
class Place:
    """Where money is spent, and where that is on record."""

    target: str
    cluster: Cluster
    node_pools: NodePools
    billing: Billing
    warehouse: WarehouseCore

    def now(self) -> datetime:
        """The clock by which money is spent, which is the cluster's."""
        return self.cluster.now()

    @property
    def log(self) -> DecisionLog:
        return DecisionLog(self.warehouse, self.target, table=TABLE, about="scope")


@dataclass(frozen=True)
class Look:
    """What one look at a target's money has found."""

    verdicts: list[Verdict]
    """Of every budget that money was spent for, or that a running lease is under: the month's first."""
    holdings: list[Holding]
    """What costs money now."""
    provenance: Provenance
    """`modelled` as soon as any session of the period was."""


def look(place: Place, budgets: Budgets, *, labs: Sequence[str] = ()) -> Look:
    """Every budget's spend and state now; of `labs` also where nothing was spent yet.

    Raises `ClusterError` when leases or pools can't be read, `WarehouseError` when the lake can't.
    """
    now = place.now()
    pools = [pool for pool in place.node_pools.pools() if pool.ours and pool.count > 0]
    leases = [lease for lease in place.cluster.leases() if lease.expires_at > now]
    rates = _holdings(place, leases, pools, now)
    newest = place.log.newest()
    verdicts, provenance = list[Verdict](), set[str]()
    month, year = period_of(MONTH, now), period_of("a lab", now)
    spent = _amounts(place, [month, year], leases, pools, rates, now)
    named = {one.lab for one in spent[year][0] if one.lab} | {lease.lab for lease in leases} | {*labs}
    for scope in (MONTH, *sorted(named)):
        budget_usd, period = budgets.of(scope), month if scope == MONTH else year
        if budget_usd is None:
            continue
        amounts, kinds = spent[period]
        provenance |= kinds
        before = state_before(newest.get(scope), period=period, budget_usd=budget_usd)
        spend = spend_of(scope, amounts)
        verdicts.append(judge(scope, period, budget_usd, spend, budgets=budgets, before=before))
    return Look(verdicts, rates, "modelled" if "modelled" in provenance else "measured")


def refusal(
    place: Place, budgets: Budgets, mode: BudgetMode, asking: Holding, *, budgets_file: str, progress: Progress
) -> str | None:
    """Why `asking` may not have a GPU now, in words, once that is on record; None where it may.

    Told of a budget that is spent where the guard may only warn. Raises as `look`.
    """
    now = place.now()
    found = look(place, budgets, labs=[asking.name] if asking.run_id else [])
    over = next((one for one in found.verdicts if one.refuses and one.scope in (MONTH, asking.name)), None)
    if over is None:
        return None
    said = f"{asking.name} gets no GPU, for the budget of {said_scope(over.scope)}: {over.reason}"
    outcome: Outcome = "withheld" if mode == "warn" else "done"
    row = decision_row(
        over,
        budgets=budgets,
        guard=mode,
        now=now,
        target=place.target,
        provenance=found.provenance,
        action="refuse",
        of=asking,
        outcome=outcome,
    )
    place.log.append([row], now=now)
    place.log.publish(now=now, at_once=True)  # a pod's disk goes with the pod
    if outcome == "withheld":
        progress(f"{said}; LABS_BUDGET_GUARD=warn lets it pass")
        return None
    return (
        f"{said}; refused from {budgets.refuse_percent:g} %, until {over.period.end:%Y-%m-%d}. Raise "
        f"{'month_usd' if over.scope == MONTH else f'labs: {over.scope}'} in {budgets_file} (LABS_BUDGETS), or let it "
        "pass with LABS_BUDGET_GUARD=warn; labs budget shows where the money went"
    )


def needs_gpu(nodes: Nodes) -> bool:
    """Whether the lab's machine has a GPU, used or not: it is paid for either way."""
    return nodes.gpus > 0 or has_gpu(nodes.sku)


@cache
def has_gpu(sku: str) -> bool:
    """Whether a machine type has GPUs; one that the price sheet doesn't have may well."""
    try:
        return load_prices().sku(sku).gpus > 0
    except UnknownPriceError:
        return True


def _amounts(
    place: Place,
    periods: Sequence[Period],
    leases: Sequence[Lease],
    nodes: Sequence[NodePool],
    rates: Sequence[Holding],
    now: datetime,
) -> dict[Period, tuple[list[Amount], set[str]]]:
    """The amounts of each period, and the provenances of the sessions among them."""
    within: Within = {"target": place.target}
    asked = {"starts": [one.start for one in periods], "ends": [one.end for one in periods], "target": place.target}
    sessions = place.warehouse.query(_sql("sessions"), asked, within=within)
    live = {(lease.lab, lease.run_id) for lease in leases}
    alive = {"live": sorted({lease.run_id for lease in leases}), "lease_ttl": LEASE_TTL}
    pools = place.warehouse.query(_sql("pools"), asked | alive, within=within)
    price = _price_of(place.billing)
    rented: Rented = {(pool.tags.get(RUN_LABEL), pool.vm_size): pool.priority for pool in nodes}
    found = dict[Period, tuple[list[Amount], set[str]]]()
    for number, period in enumerate(periods):
        own = [row for row in sessions if row["period"] == number]
        amounts = [_of_session(row, period, live=live, rented=rented, price=price, now=now) for row in own]
        for row in pools:
            if row["period"] != number:
                continue
            amounts.append(Amount(row["lab"], "pools", row["usd"], "nodes that no session accounts for"))
            if row["unpriced"]:
                amounts.append(Amount(row["lab"], "pools", None, "pools of machines without a known price"))
        amounts += [_projected(holding, holding.until, period, now) for holding in rates if holding.until is not None]
        found[period] = amounts, {row["provenance"] for row in own}
    return found


def _projected(holding: Holding, until: datetime, period: Period, now: datetime) -> Amount:
    """What a lease, or nodes given by hand, will cost until `until`, or until the period is over."""
    left = max(timedelta(), min(until, period.end) - now) / _HOUR
    usd = None if holding.usd_per_h is None else holding.usd_per_h * Decimal(str(left))
    lab = holding.name if holding.run_id else None
    return Amount(lab, "projected", usd, f"what {holding.name} is committed to: no price is known")


def _of_session(
    row: Row,
    period: Period,
    *,
    live: set[tuple[str, str]],
    rented: Rented,
    price: Price,
    now: datetime,
) -> Amount:
    """What one session has cost in the period: as estimated, or billed, or else by its time so far and the price."""
    if row["has_estimate"]:
        estimated, billed = row["estimated_usd"], row["billed_usd"]
        known = [usd for usd in (estimated, billed) if usd is not None]
        usd = max(known, default=None)
        more = usd - estimated if usd is not None and estimated is not None else Decimal()
        return Amount(row["lab"], "closed", usd, f"no price of {row['lab']}'s machine", more)
    up = row["released_at"] is None and (row["lab"], row["run_id"]) in live
    if row["released_at"] is not None:
        end = row["released_at"]
    else:
        # A run that died has closed nothing. Its lease can't have outlived its last sign of life by more.
        end = now if up else min(now, row["heard_of_at"] + LEASE_TTL)
    priority = (
        row["priority"] or rented.get((row["run_id"], row["sku"])) or planned_priority(row["lab"], row["variant"])
    )
    usd_per_node_hour = price(row["sku"], priority)
    if usd_per_node_hour is None:
        usd = None
    else:
        usd = _node_hours(row, end) * usd_per_node_hour * _share(row["requested_at"], end, period)
    what = f"no price of {row['lab']}'s machine ({row['sku'] or 'of no known type'})"
    return Amount(row["lab"], "open" if up else "closed", usd, what)


def _node_hours(row: Row, end: datetime) -> Decimal:
    """Node-hours until `end` in stack time, as lanes.py counts them: the first token is part of the cold start."""
    cold_s = row["cold_start_s"] or 0.0
    held_s = max(0.0, (end - row["ready_at"]).total_seconds() * row["time_scale"] - (row["first_token_s"] or 0.0))
    return Decimal(str((cold_s + held_s) * row["nodes"] / 3600))


def _share(start: datetime, end: datetime, period: Period) -> Decimal:
    """The share of the time from `start` to `end` that lies in the period."""
    if end <= start:
        return Decimal(period.start <= start < period.end)
    inside = min(end, period.end) - max(start, period.start)
    return Decimal(str(max(timedelta(), inside) / (end - start)))


def _holdings(place: Place, leases: Sequence[Lease], pools: Sequence[NodePool], now: datetime) -> list[Holding]:
    """What costs money now: good leases, and our pools that none of them holds."""
    price, region, found = _price_of(place.billing), place.billing.region, list[Holding]()
    sheet = place.billing.sheet()
    ids = {lease.lease_id for lease in leases}
    for lease in leases:
        held = [pool for pool in pools if pool.tags.get(LEASE_LABEL) == lease.lease_id]
        nodes = _planned(lease.lab)
        if held:
            rates = [usd_per_h(pool, sheet, region) for pool in held]
            gpu = any(has_gpu(pool.vm_size) for pool in held)
        else:
            each = None if nodes is None else price(nodes.sku, nodes.priority)
            rates = [None if nodes is None or each is None else each * nodes.count]
            gpu = nodes is None or needs_gpu(nodes)
        known = [rate for rate in rates if rate is not None]
        usd = sum(known, Decimal()) if len(known) == len(rates) else None
        found.append(Holding(lease.lab, lease.run_id, gpu, usd, lease.expires_at))
    for pool in pools:
        if pool.tags.get(LEASE_LABEL) not in ids and pool.mode == USER_MODE:
            until = max((hold.until for hold in holds(pool, (), now=now)), default=None)
            found.append(Holding(pool.name, None, has_gpu(pool.vm_size), usd_per_h(pool, sheet, region), until))
    return found


def planned_priority(lab: str, variant: str) -> Priority:
    """How the lab's spec rents the variant's nodes; on demand where it doesn't say."""
    nodes = _planned(lab, variant)
    return "on_demand" if nodes is None else nodes.priority


def _planned(lab: str, variant: str | None = None) -> Nodes | None:
    """The nodes of a variant, or of the lab's first one; None for a lab that isn't written."""
    try:
        spec = load_catalog().spec(lab)
    except (LookupError, SpecError):
        return None
    return spec.nodes_of(next((one for one in spec.variants if one.id == variant), spec.variants[0]))


def _price_of(billing: Billing) -> Price:
    """List prices of any age: an old one counts money better than none."""
    sheet = billing.sheet()

    def price(sku: str | None, priority: Priority) -> Decimal | None:
        try:
            return None if sku is None else sheet.unit_price(sku, billing.region, priority).usd
        except UnknownPriceError:
            return None

    return price


@cache
def _sql(name: str) -> str:
    return Path(__file__).with_name(f"spending_{name}.sql").read_text(encoding="utf-8")
