"""From the sensor's decisions to rows of `gpu_decisions` and back.

Belongs here: pure functions. Doesn't belong here: deciding (gpu_policy.py), keeping rows (resources/decision_log.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from lab_pipelines.gpu_policy import Decision, GpuPolicy, Mode, Signal
from lab_pipelines.provenance import Provenance

TABLE = "gpu_decisions"
ALL_LABS = "all"
"""In the place of a lab: a pool serves any."""
Outcome = Literal["dry-run", "asked", "done", "under_way", "failed"]


def decision_row(
    decision: Decision,
    *,
    policy: GpuPolicy,
    switch: Mode,
    now: datetime,
    target: str,
    provenance: Provenance,
    outcome: Outcome | None,
    detail: str | None = None,
) -> dict[str, Any]:
    """One row but for `run_id`, which is its batch's."""
    seen, pool = decision.observation, decision.observation.pool
    good = [hold for hold in seen.holds if hold.until > now]
    changed_at = seen.history.changed_at
    return {
        "lab": ALL_LABS,
        "target": target,
        "provenance": provenance,
        "recorded_at": datetime.now(UTC),
        "tick_at": now,
        "pool": pool.name,
        "vm_size": pool.vm_size,
        "mode": pool.mode,
        "nodes": pool.count,
        "ours": pool.ours,
        "autoscaled": pool.autoscaled,
        "spot": pool.spot,
        "state": pool.state,
        "usd_per_h": pool.usd_per_h,
        "held_by": sorted({hold.lab for hold in good}),
        "held_until": max((hold.until for hold in good), default=None),
        **_signal("requests", "requests", seen.requests),
        **_signal("utilisation", "utilisation_percent", seen.utilisation),
        "signals_gap": seen.signals_gap,
        "idle_for_s": decision.idle_for_s,
        "expected_idle_s": decision.expected_idle_s,
        "expected_idle_source": decision.expected_idle_source,
        "since_change_s": None if changed_at is None else (now - changed_at).total_seconds(),
        "cold_start_s": seen.cold_start.seconds,
        "cold_start_source": seen.cold_start.source,
        "switch": switch,
        "policy": policy.model_dump_json(),
        "action": decision.action,
        "rule": decision.rule,
        "reason": decision.reason,
        "outcome": outcome,
        "detail": detail,
    }


def _signal(name: str, column: str, signal: Signal) -> dict[str, Any]:
    known = signal.value is not None and signal.age_s is not None and math.isfinite(signal.value)
    return {
        column: signal.value if known else None,
        f"{name}_age_s": signal.age_s if known else None,
        f"{name}_reporting": signal.reporting,
        f"{name}_expected": signal.expected,
    }


def signals_of(row: Mapping[str, Any]) -> tuple[Signal, Signal]:
    """Requests and utilisation as a row has them."""
    requests, utilisation = (
        Signal(row[column], row[f"{name}_age_s"], row[f"{name}_reporting"], row[f"{name}_expected"])
        for name, column in (("requests", "requests"), ("utilisation", "utilisation_percent"))
    )
    return requests, utilisation
