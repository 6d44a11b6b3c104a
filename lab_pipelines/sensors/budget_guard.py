"""budget_guard: watches the budgets, and where one is overspent ends what costs money, if it may; says why.

Belongs here: looking, recording, and cutting. Doesn't belong here: the decision (budget_guard.py), what was spent
(resources/spending.py), or the refusal of a new lease, which needs no sensor (assets/budget.py).

A run is marked before it is cut, so that what dies in between is found by its mark and brought to its end by the next
tick. A cut ends money first (the pools), then the lease, and then closes the books: the session, and its cost.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DefaultSensorStatus, SensorEvaluationContext, SkipReason, sensor

from assets.cost_attribution import publish_estimates
from lab_pipelines.budget_decisions import MARKS, Action, Outcome, decision_row, mark_row, said_scope
from lab_pipelines.budget_guard import Cut, Holding, Verdict, cuts
from lab_pipelines.budgets import Budgets
from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.catalog.prices import UnknownPriceError
from lab_pipelines.deployment import BudgetMode
from lab_pipelines.lanes import CostError
from lab_pipelines.provenance import Provenance
from lab_pipelines.rows.common import Row
from lab_pipelines.rows.sessions import node_time_of
from lab_pipelines.sensors.common import EVERY_S
from lab_pipelines.turns import visit_name
from lab_pipelines.words import counted
from resources.billing import Billing
from resources.budget_guard import BudgetGuard
from resources.cluster import Cluster, ClusterError, HeldNode, Lease, Progress
from resources.kube_api import Deadline
from resources.labs import Labs
from resources.node_pools import NodePool, NodePools
from resources.ownership import LEASE_TTL, NO_LEASE, RUN_LABEL
from resources.spending import Look, Place, look, planned_priority
from resources.warehouse import Warehouse, WarehouseError, Within

ACT_WITHIN_S = 40.0
"""For all that one tick begins. What is left is marked, and the next tick's."""
FINISH_FOR = timedelta(days=31)
"""How long after it was marked a run's end is still looked after; no lease lasts as long as a day."""


@dataclass(frozen=True)
class Watch:
    """What a tick works with."""

    place: Place
    guard: BudgetGuard
    progress: Progress


def tick(watch: Watch, budgets: Budgets) -> tuple[Look, list[str]]:
    """Look once, write down what changed, and cut what may be cut; the look, and what was cut or brought to its end.

    Raises `ClusterError` when leases or pools can't be read, `OSError` when nothing can be written down: then nothing
    is done.
    """
    place, mode = watch.place, watch.guard.mode
    now, found = place.now(), look(place, budgets)

    def row(
        verdict: Verdict, action: Action = "tell", of: Holding | None = None, did: tuple[Outcome, str] | None = None
    ) -> Row:
        outcome, detail = did or (None, None)
        return decision_row(
            verdict,
            budgets=budgets,
            guard=mode,
            now=now,
            target=place.target,
            provenance=found.provenance,
            action=action,
            of=of,
            outcome=outcome,
            detail=detail,
        )

    changed = [verdict for verdict in found.verdicts if verdict.state != verdict.before]
    for verdict in changed:
        watch.progress(f"budget of {said_scope(verdict.scope)}: {verdict.reason}")
    rows = [row(verdict) for verdict in changed]
    wanted = cuts(found.verdicts, found.holdings)
    if mode != "cut":
        said = f"LABS_BUDGET_GUARD={mode} doesn't end what runs"
        rows += [row(one.verdict, "cut", one.holding, ("withheld", said)) for one in wanted if one.verdict in changed]
        wanted = []
    place.log.append(rows, now=now)
    if wanted:  # once more, immediately before it is done: a lease may have ended, a budget been raised
        again = look(place, watch.guard.budgets())
        still = {(one.holding.name, one.holding.run_id) for one in cuts(again.verdicts, again.holdings)}
        wanted = [one for one in wanted if (one.holding.name, one.holding.run_id) in still]
    place.log.append([row(one.verdict, "cut", one.holding, ("asked", "")) for one in wanted], now=now)
    failed, taken = _end_spending(watch, wanted, provenance=found.provenance, now=now)
    ended, unended = _finish(watch, taken, now=now)
    done = list[str]()
    for one in wanted:
        holding = one.holding
        trouble = failed.get(holding.name) or unended.get(holding.run_id or "")
        did = ("failed", trouble) if trouble else ("done", _how(holding))
        watch.progress(f"{holding.name}: {did[1]}")
        place.log.append([row(one.verdict, "cut", holding, did)], now=now)
        if not trouble:
            done.append(holding.name)
    # What an earlier tick had begun, and this one has ended.
    done += [lab for lab in ended if lab not in {one.holding.name for one in wanted}]
    place.log.publish(now=now, at_once=bool(rows or wanted))
    return found, done


def _how(holding: Holding) -> str:
    if holding.run_id is None:
        return "its nodes go"
    return f"run {holding.run_id} is marked, its stack and its nodes are gone"


def _end_spending(
    watch: Watch, wanted: Sequence[Cut], *, provenance: Provenance, now: datetime
) -> tuple[dict[str, str], list[NodePool]]:
    """Mark the runs, then begin to take the nodes away, the dearest first.

    What failed, by holding, and why; and the pools, as they were before.
    """
    place, failed, deadline = watch.place, dict[str, str](), Deadline.within(ACT_WITHIN_S)
    taken = list[NodePool]()
    for one in wanted:
        holding = one.holding
        try:
            if holding.run_id is not None:
                mark = mark_row(
                    one.verdict,
                    lab=holding.name,
                    run_id=holding.run_id,
                    target=place.target,
                    provenance=provenance,
                    now=now,
                )
                _mark(place, mark)
            for pool in place.node_pools.pools():
                if pool.ours and pool.count > 0 and _is_of(pool, holding):
                    taken.append(pool)
                    place.node_pools.begin_scale(pool, 0, tags=NO_LEASE, deadline=deadline, progress=watch.progress)
        except (ClusterError, WarehouseError) as error:
            failed[holding.name] = str(error)
    return failed, taken


def _is_of(pool: NodePool, holding: Holding) -> bool:
    return pool.name == holding.name if holding.run_id is None else pool.tags.get(RUN_LABEL) == holding.run_id


def _mark(place: Place, mark: Row) -> None:
    """Publish a run's mark, unless it has one. Raises `WarehouseError`."""
    target, lab, run_id = mark["target"], mark["lab"], mark["run_id"]

    def is_marked() -> bool:
        found = place.warehouse.query(f"FROM {MARKS} WHERE mark = 'cut'", within={"lab": lab, "run_id": run_id})
        return bool(found)

    if is_marked():
        return
    try:
        place.warehouse.publish(MARKS, [mark], target=target, lab=lab, run_id=run_id, part=mark["mark"])
    except WarehouseError:
        if not is_marked():  # else another daemon was quicker, in other words: either mark will do
            raise


def _finish(watch: Watch, taken: Sequence[NodePool], *, now: datetime) -> tuple[list[str], dict[str, str]]:
    """Bring every run that was cut of late to its end: its lease, its nodes, its session, its cost.

    `taken`: the pools whose nodes this tick has begun to take away, as they were before.
    The labs of those that needed it, and by run what kept one from it. Idempotent.
    """
    place, ended, trouble = watch.place, list[str](), dict[str, str]()
    deadline = Deadline.within(ACT_WITHIN_S)
    asked = {"target": place.target, "since": now - FINISH_FOR}
    marked = place.warehouse.query(_sql("cut_runs"), asked, within={"target": place.target})
    if not marked:
        return [], {}
    leases = {lease.run_id: lease for lease in place.cluster.leases()}
    pools = place.node_pools.pools()
    for run in marked:
        lease = leases.get(run["run_id"])
        left = [one for one in pools if one.ours and one.count > 0 and one.tags.get(RUN_LABEL) == run["run_id"]]
        if lease is None and not left and not run["unsettled"]:
            continue
        if deadline.remaining_s == 0:
            trouble[run["run_id"]] = "its stack goes with the next tick: this one has taken long enough"
            continue
        try:
            for pool in left:
                place.node_pools.begin_scale(pool, 0, tags=NO_LEASE, deadline=deadline, progress=watch.progress)
            # Before the release, after which nobody knows any more.
            asked_at = place.now()
            known = _Known([*taken, *left], _held_nodes(place, lease, until=asked_at), asked_at)
            gone_at = place.cluster.release(lease.lab, run_id=lease.run_id) if lease is not None else None
            _close_books(place, run, gone_at or min(place.now(), run["cut_at"] + LEASE_TTL), known)
            ended.append(run["lab"])
        except (ClusterError, CostError, UnknownPriceError, WarehouseError) as error:
            trouble[run["run_id"]] = str(error)
            watch.progress(f"{run['lab']} (run {run['run_id']}), which was cut: {error}")
    return ended, trouble


@dataclass(frozen=True)
class _Known:
    """What can be told of the nodes of runs that were cut."""

    pools: Sequence[NodePool]
    """As they were before their nodes went."""
    held: Mapping[str, Sequence[HeldNode]]
    """By session, where the lease was still there to be asked."""
    asked_at: datetime

    def nodes_of(self, session: Row) -> list[HeldNode]:
        """The nodes of a closed session, from its row of `stack_sessions`."""
        end, sku = session["released_at"], session["sku"]
        if held := self.held.get(session["session_id"]):
            return [one.held_to(end, asked_at=self.asked_at) for one in held]
        run_id = session["run_id"]
        own = (pool for pool in self.pools if (pool.tags.get(RUN_LABEL), pool.vm_size) == (run_id, sku))
        pool = next(own, None)
        return [
            HeldNode(
                nodes=session["nodes"],
                pool=pool.name if pool else None,
                sku=sku,
                priority=pool.priority if pool else planned_priority(session["lab"], session["variant"]),
                held_from=session["requested_at"],
                held_until=end,
            )
        ]


def _held_nodes(place: Place, lease: Lease | None, *, until: datetime) -> dict[str, list[HeldNode]]:
    """The nodes of each session of the lease up to `until`, where the cluster can tell them."""
    if lease is None:
        return {}
    try:
        sessions = place.cluster.sessions(lease.lab)
        ends = [*(following.requested_at for following in sessions[1:]), until]
        return {
            session.session_id: place.cluster.held_nodes(session, until=end)
            for session, end in zip(sessions, ends, strict=True)
        }
    except ClusterError:
        return {}  # the stack is to end all the same


def _close_books(place: Place, run: Row, gone_at: datetime, known: _Known) -> None:
    """Close what the run has left open, and estimate what it cost: a run that was cut has been paid for too."""
    asked, within = {"run_id": run["run_id"]}, Within(run_id=run["run_id"])
    where = {"target": place.target, "lab": run["lab"], "run_id": run["run_id"]}
    closed = "FROM stack_sessions WHERE run_id = $run_id AND state = 'closed' ORDER BY requested_at"
    sessions, closing = place.warehouse.query(closed, asked, within=within), list[Row]()
    for opened in place.warehouse.query(_sql("open_sessions"), asked, within=within):
        last_stage = opened.pop("last_stage_ended_at")
        released_at = max(gone_at, opened["ready_at"], *([last_stage] if last_stage else []))
        held_s = (released_at - opened["ready_at"]).total_seconds() * opened["time_scale"]
        changes = {"state": "closed", "released_at": released_at, "held_s": held_s, "recorded_at": datetime.now(UTC)}
        closing.append(opened | changes)
    sessions += closing
    if not sessions:
        return
    if not place.warehouse.query("FROM node_time WHERE run_id = $run_id", asked, within=within):
        # Under the name that metrics_snapshot gives them: of a run that comes to its end meanwhile, one holds.
        node_times = [node_time_of(session, one) for session in sessions for one in known.nodes_of(session)]
        place.warehouse.publish("node_time", node_times, **where)
    for row in closing:
        place.warehouse.publish(
            "stack_sessions", [row], **where, part=f"{visit_name(row['variant'], row['trial'])}.closed"
        )
    publish_estimates(sessions, place.billing, place.warehouse, price_of=place.billing.listed_price)


def _sql(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")


@contextmanager
def _alone(place: Place) -> Iterator[bool]:
    """Whether no other tick of this data folder is at it: one that cuts may take longer than a minute."""
    folder = Path(place.warehouse.data_dir) / "state"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"budget-guard-{place.target}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@sensor(
    description="Watches the budgets; where one is overspent it ends what costs money, if it may.",
    minimum_interval_seconds=EVERY_S,
    default_status=DefaultSensorStatus.RUNNING,
)
def budget_guard(
    context: SensorEvaluationContext,
    labs: Labs,
    cluster: Cluster,
    node_pools: NodePools,
    billing: Billing,
    budget_guard: BudgetGuard,
    warehouse: Warehouse,
) -> SkipReason:
    try:
        budgets = budget_guard.budgets()
    except SpecError as error:
        return SkipReason(f"the budgets can't be read, so nothing was decided: {error}")
    if (idle := budget_guard.why_idle(budgets, labs.target)) is not None:
        return SkipReason(idle)
    watch = Watch(Place(labs.target, cluster, node_pools, billing, warehouse), budget_guard, context.log.info)
    with _alone(watch.place) as alone:
        if not alone:
            return SkipReason("the tick before this one is still at it")
        found, done = tick(watch, budgets)
    return SkipReason(said(found, done, budget_guard.mode))


def said(found: Look, done: Sequence[str], mode: BudgetMode) -> str:
    """One line on what a tick saw and did."""
    states = [f"{said_scope(one.scope)}: {one.state}, {one.reason}" for one in found.verdicts if one.state != "ok"]
    fine = len(found.verdicts) - len(states)
    parts = [f"cut: {', '.join(done)}"] if done else []
    parts += states + ([f"{counted(fine, 'budget')} within bounds"] if fine else [])
    return f"{'; '.join(parts)} (LABS_BUDGET_GUARD={mode})"


sensors = [budget_guard]
