"""gpu_scale_to_zero: brings node pools of ours that nothing uses to zero nodes, and records why it did or didn't.

Belongs here: reading pools, leases and signals, and acting. Doesn't belong here: the decision (gpu_policy.py).
As it comes it decides and records only: LABS_GPU_SENSOR=on lets it act, `labs gpu pause` stops it at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DefaultSensorStatus, SensorEvaluationContext, SensorResult, SkipReason, sensor
from pydantic import BaseModel, ConfigDict, ValidationError

from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.catalog.prices import PriceSheet, load_prices
from lab_pipelines.gpu_decisions import Outcome, decision_row
from lab_pipelines.gpu_policy import (
    NO_SIGNAL,
    ColdStart,
    Decision,
    GpuPolicy,
    History,
    Mode,
    Observation,
    Signal,
    advance,
    decide,
    decide_tick,
)
from lab_pipelines.rows.common import Row
from lab_pipelines.sensors.common import EVERY_S
from lab_pipelines.words import counted
from resources.billing import Billing
from resources.cluster import Cluster, ClusterError, Progress
from resources.contract import WarehouseError
from resources.decision_log import DecisionLog
from resources.gpu_switch import GpuSwitch
from resources.kube_api import Deadline
from resources.labs import Labs
from resources.node_pools import NodePool, NodePools
from resources.pool_leases import holds, state_of, to_zero
from resources.pool_signals import PoolSignals
from resources.telemetry import TelemetryError
from resources.warehouse import Warehouse
from resources.warehouse_core import WarehouseCore

ACT_WITHIN_S = 40.0
"""For all that one tick does. Azure goes on with what it has begun, and the next tick sees it."""
LEARN_EVERY = timedelta(hours=1)
"""How often measured cold starts are read anew: they come with runs, and a tick has better things to do."""


class Memory(BaseModel):
    """What the sensor knows from one tick to the next: its cursor."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    histories: dict[str, History] = {}
    cold_starts: dict[str, ColdStart] = {}
    """By machine type; what is missing was never measured."""
    learnt_at: datetime | None = None


@dataclass(frozen=True)
class Sensed:
    """What a tick works with."""

    cluster: Cluster
    node_pools: NodePools
    pool_signals: PoolSignals
    warehouse: WarehouseCore
    policy: GpuPolicy
    mode: Mode
    target: str
    region: str
    sheet: PriceSheet

    @property
    def log(self) -> DecisionLog:
        return DecisionLog(self.warehouse, self.target)


def tick(sensed: Sensed, memory: Memory, *, now: datetime, progress: Progress) -> tuple[Memory, list[Decision]]:
    """Look once, decide, write it down, act. Raises `ClusterError` when pools or leases can't be read.

    What is to be done is on disk before it is done. Without a record nothing is done: `OSError` ends the tick.
    """
    pools = [pool for pool in sensed.node_pools.pools() if pool.ours]
    if not pools:
        return Memory(), []
    memory = learn(memory, sensed.warehouse, target=sensed.target, now=now)
    leases = sensed.cluster.leases()
    signals, gap = _signals(sensed.pool_signals, pools, now)
    seen = list[Observation]()
    for pool in pools:
        state = state_of(pool, sensed.sheet, sensed.region)
        requests, utilisation = signals.get(pool.name, (NO_SIGNAL, NO_SIGNAL))
        before = memory.histories.get(pool.name)
        history = advance(before, state, requests, utilisation, policy=sensed.policy, now=now)
        assumed = ColdStart(sensed.policy.assumed_cold_start_s, "assumed: none was measured on this machine type")
        seen.append(
            Observation(
                pool=state,
                holds=holds(pool, leases, now=now),
                requests=requests,
                utilisation=utilisation,
                signals_gap=gap,
                history=history,
                cold_start=memory.cold_starts.get(pool.vm_size, assumed),
            )
        )
    decisions = decide_tick(seen, policy=sensed.policy, mode=sensed.mode, now=now)
    sensed.log.append(
        [_row(sensed, one, now) for one in decisions if _worth_a_row(one, memory.histories)],
        now=now,
    )
    tried = _act(sensed, decisions, {pool.name: pool for pool in pools}, now=now, progress=progress)
    histories = {one.pool.name: one.history for one in seen}
    # An attempt starts the cooldown, whatever came of it: a pool that refuses must not take every tick's turn.
    histories |= {name: replace(histories[name], changed_at=now) for name in tried}
    return memory.model_copy(update={"histories": histories}), decisions


def _signals(
    pool_signals: PoolSignals, pools: Sequence[NodePool], now: datetime
) -> tuple[dict[str, tuple[Signal, Signal]], str | None]:
    """Of the pools that have nodes, and why there are none."""
    nodes = {pool.name: pool.count for pool in pools if pool.count > 0}
    if not nodes:
        return {}, None
    try:
        return pool_signals.read(nodes, at=now), None
    except TelemetryError as error:
        return {}, str(error)


def _worth_a_row(decision: Decision, before: Mapping[str, History]) -> bool:
    """A pool at zero is told once, when it gets there: nothing about it is decided."""
    pool = decision.observation.pool
    return pool.count > 0 or (pool.name in before and before[pool.name].count > 0)


def _row(sensed: Sensed, decision: Decision, now: datetime, did: tuple[Outcome, str] | None = None) -> Row:
    outcome, detail = did or (None, None)
    if did is None and decision.action == "scale_to_zero":
        outcome = "asked" if sensed.mode == "on" else "dry-run"
    return decision_row(
        decision,
        policy=sensed.policy,
        switch=sensed.mode,
        now=now,
        target=sensed.target,
        provenance=sensed.pool_signals.provenance,
        outcome=outcome,
        detail=detail,
    )


def _act(
    sensed: Sensed,
    decisions: Sequence[Decision],
    pools: Mapping[str, NodePool],
    *,
    now: datetime,
    progress: Progress,
) -> list[str]:
    """Do what was decided, unless this is a dry run; the pools that it was tried on."""
    if sensed.mode != "on":
        return []
    deadline, tried = Deadline.within(ACT_WITHIN_S), list[str]()
    for decision in decisions:
        if decision.action != "scale_to_zero":
            continue
        pool = pools[decision.observation.pool.name]
        did = _zero(sensed, decision, pool, deadline=deadline, progress=progress)
        progress(f"pool {pool.name}: {did[0]}: {did[1]}")
        sensed.log.append([_row(sensed, decision, now, did)], now=now)
        tried.append(pool.name)
    return tried


def _zero(
    sensed: Sensed, decision: Decision, pool: NodePool, *, deadline: Deadline, progress: Progress
) -> tuple[Outcome, str]:
    """Look at the pool and the leases once more, and take the nodes away if all is as it was."""
    try:
        found = sensed.node_pools.pool(pool.name)
        if found != pool:
            return "failed", "the pool is another than a moment ago; the next tick decides anew"
        again_at = datetime.now(UTC)
        again = replace(decision.observation, holds=holds(found, sensed.cluster.leases(), now=again_at))
        verdict = decide(again, policy=sensed.policy, mode=sensed.mode, now=again_at)
        if verdict.action != "scale_to_zero":
            return "failed", f"not any more: {verdict.reason}"
        gone = to_zero(sensed.node_pools, found, deadline=deadline, progress=progress)
    except ClusterError as error:
        return "failed", str(error)
    if gone == "done":
        return "done", f"{counted(pool.count, 'node')} before, none now"
    return "under_way", f"{counted(pool.count, 'node')} before; Azure is taking them away"


def learn(memory: Memory, warehouse: WarehouseCore, *, target: str, now: datetime) -> Memory:
    """The memory with the cold starts that the target has measured, at most an hour old."""
    if memory.learnt_at is not None and now - memory.learnt_at < LEARN_EVERY:
        return memory
    sql = Path(__file__).with_name("cold_starts.sql").read_text(encoding="utf-8")
    measured = {
        row["sku"]: ColdStart(row["cold_start_s"], f"median of the last {counted(row['sessions'], 'session')}")
        for row in warehouse.query(sql, {"target": target})
    }
    return memory.model_copy(update={"cold_starts": measured, "learnt_at": now})


def remembered(cursor: str | None) -> Memory:
    """The cursor's memory; none without one, or from another version: then every idle time begins anew."""
    try:
        return Memory.model_validate_json(cursor) if cursor else Memory()
    except ValidationError:
        return Memory()


@sensor(
    description="Brings node pools of ours that nothing uses to zero nodes, and records why it did or didn't.",
    minimum_interval_seconds=EVERY_S,
    default_status=DefaultSensorStatus.RUNNING,
)
def gpu_scale_to_zero(
    context: SensorEvaluationContext,
    labs: Labs,
    cluster: Cluster,
    node_pools: NodePools,
    pool_signals: PoolSignals,
    billing: Billing,
    gpu_switch: GpuSwitch,
    warehouse: Warehouse,
) -> SensorResult | SkipReason:
    now = datetime.now(UTC)
    mode, why = gpu_switch.setting()
    if mode == "off":
        return SkipReason(f"switched off ({why})")
    try:
        policy = gpu_switch.policy()
    except SpecError as error:
        return SkipReason(f"the policy can't be used, so nothing was decided: {error}")
    try:
        sheet = billing.sheet()
    except (SpecError, WarehouseError) as error:
        # What money a decision saves is told from it; no node stays up for a damaged file or a lost lake.
        context.log.warning(f"the catalog's prices are used: {error}")
        sheet = load_prices()
    sensed = Sensed(
        cluster=cluster,
        node_pools=node_pools,
        pool_signals=pool_signals,
        warehouse=warehouse,
        policy=policy,
        mode=mode,
        target=labs.target,
        region=billing.region,
        sheet=sheet,
    )
    memory, decisions = tick(sensed, remembered(context.cursor), now=now, progress=context.log.info)
    if decisions:
        acted = mode == "on" and any(one.action == "scale_to_zero" for one in decisions)
        sensed.log.publish(now=now, at_once=acted)
    return SensorResult(skip_reason=SkipReason(said(decisions, mode)), cursor=memory.model_dump_json())


def said(decisions: Sequence[Decision], mode: Mode) -> str:
    """One line on what a tick saw and did."""
    if not decisions:
        return "this target has no node pool of ours"
    acting = [one.observation.pool.name for one in decisions if one.action == "scale_to_zero"]
    rules = Counter(one.rule for one in decisions if one.action == "keep")
    kept = ", ".join(f"{number} {rule.replace('_', ' ')}" for rule, number in sorted(rules.items()))
    did = "would bring to zero (dry run)" if mode == "dry-run" else "brought to zero"
    parts = [f"{did}: {', '.join(acting)}"] if acting else []
    return f"{counted(len(decisions), 'pool')} of ours: {'; '.join([*parts, *([f'kept: {kept}'] if kept else [])])}"


sensors = [gpu_scale_to_zero]
