"""Rows of sessions: `stack_sessions`, `node_time`, `events`, `log_lines`, and `capacity_spells` of their pools."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.support.rows.common import REQUESTED_AT, SKU, USD_PER_NODE_HOUR, Row, shared

COLD_START_S = {
    "node_ready": 284.0,
    "driver_ready": 126.0,
    "image_pulled": 101.0,
    "model_loaded": 41.0,
    "engine_ready": 88.0,
    "first_token": 0.5,
}


def session_row(**columns: Any) -> Row:
    """A closed session; `state="open", released_at=None, held_s=None` for an open one."""
    ready_at = REQUESTED_AT + timedelta(seconds=2)
    released_at = ready_at + timedelta(minutes=2)
    return {
        **shared(),
        "state": "closed",
        "namespace": "lab-06",
        "model": "microsoft/Phi-3-mini-4k-instruct",
        "sku": SKU,
        "nodes": 1,
        "requested_at": REQUESTED_AT,
        "ready_at": ready_at,
        "released_at": released_at,
        "cold_start_time_scale": 400.0,
        **{f"{name}_s": seconds for name, seconds in COLD_START_S.items()},
        "cold_start_s": sum(COLD_START_S.values()),
        "held_s": (released_at - ready_at).total_seconds() * 5,
        "spec_digest": "5" * 64,
        "values_digest": "7" * 64,
        "engine_args": json.dumps(["microsoft/Phi-3-mini-4k-instruct", "--dtype", "half"]),
        "refusal": None,
        "model_range": None,
        "gpus": 1,
        "cost_labels": json.dumps({"cost-center": "llm-serving-labs", "lab": "l06", "phase": "1"}),
    } | columns


_OF_NODES = [f"{name}_{one}" for name in ("capacity", "requested", "used") for one in ("gpus", "cpus", "memory_bytes")]


def node_time_row(session: Row | None = None, **columns: Any) -> Row:
    """All nodes of a closed session, which it held alone."""
    held = session or session_row()
    first_token_s = held["first_token_s"] or 0.0
    return {
        **{name: held[name] for name in shared()},
        "node": None,
        "nodes": held["nodes"],
        "pool": None,
        "sku": held["sku"],
        "priority": "on_demand",
        "held_from": held["requested_at"],
        "held_until": held["released_at"],
        "cold_start_s": held["cold_start_s"] or 0.0,
        "held_s": held["held_s"] - first_token_s,
        "exclusive": True,
        **dict.fromkeys(_OF_NODES),
    } | columns


def shared_node_row(session: Row | None = None, **columns: Any) -> Row:
    """A node with one GPU, 4 vCPUs and 28 GiB; a session's pods ask for half the vCPUs and a quarter of the memory."""
    asked = {"capacity_gpus": 1.0, "capacity_cpus": 4.0, "capacity_memory_bytes": 28.0 * 2**30}
    asked |= {"requested_gpus": 0.0, "requested_cpus": 2.0, "requested_memory_bytes": 7.0 * 2**30}
    return node_time_row(session, **({"node": "node-0", "nodes": 1, "exclusive": False} | asked | columns))


def event_row(**columns: Any) -> Row:
    return {
        **shared(),
        "kind": "cold_start",
        "name": "node_ready",
        "started_at": REQUESTED_AT,
        "ended_at": REQUESTED_AT + timedelta(seconds=0.71),
        "duration_s": 284.0,
        "outcome": "ok",
        "detail": None,
    } | columns


def log_row(**columns: Any) -> Row:
    return {
        **shared(),
        "component": "vllm",
        "logged_at": REQUESTED_AT + timedelta(seconds=6),
        "level": "INFO",
        "event": "request_finished",
        "line": json.dumps({"event": "request_finished", "request_id": "u0-1"}),
    } | columns


def spell_row(**columns: Any) -> Row:
    """A spell of a pool of one on-demand and four Spot nodes, of which one is starting."""
    return {
        **shared(),
        "step": "reclaims",
        "scenario": "0.05 per hour, correlated",
        "position": 0,
        "reclaims_per_hour": 0.05,
        "together": 0.92,
        "band": "0-5",
        "wait_s": 1800.0,
        "cold_start_s": 600.0,
        "requests_per_s": 2.4,
        "on_demand_nodes": 1,
        "spot_nodes": 4,
        "on_demand_usd": USD_PER_NODE_HOUR,
        "spot_usd": Decimal("0.0627"),
        "month": 0,
        "started_h": 12.0,
        "hours": 0.25,
        "on_demand_up": 1,
        "spot_up": 3,
        "spot_starting": 1,
    } | columns
