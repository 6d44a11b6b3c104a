"""Rows of `stack_sessions`, a stack's life under one lease, and `node_time`, the nodes that it held."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from lab_pipelines.rows.common import Row, common_columns, common_columns_of
from resources.cluster import HeldNode, Session


def session_row(session: Session, *, released_at: datetime | None) -> Row:
    """`stack_sessions`: open without `released_at`, closed with it."""
    phase_s = {phase.name: phase.duration_s for phase in session.phases}
    held_s = (released_at - session.ready_at).total_seconds() * session.time_scale if released_at else None
    return {
        **common_columns(session),
        "state": "closed" if released_at else "open",
        "namespace": session.namespace,
        "model": session.model,
        "sku": session.sku,
        "nodes": session.nodes,
        "requested_at": session.requested_at,
        "ready_at": session.ready_at,
        "released_at": released_at,
        "cold_start_time_scale": session.cold_start_time_scale,
        "node_ready_s": phase_s.get("node_ready"),
        "driver_ready_s": phase_s.get("driver_ready"),
        "image_pulled_s": phase_s.get("image_pulled"),
        "model_loaded_s": phase_s.get("model_loaded"),
        "engine_ready_s": phase_s.get("engine_ready"),
        "first_token_s": phase_s.get("first_token"),
        "cold_start_s": sum(phase_s.values()) if phase_s else None,
        "held_s": held_s,
        "spec_digest": session.spec_digest,
        "values_digest": session.values_digest,
        "engine_args": json.dumps(session.engine_args),
        "refusal": session.refusal,
        "model_range": session.model_range,
        "gpus": session.gpus,
        "cost_labels": json.dumps(session.cost_labels) if session.cost_labels else None,
    }


def node_time_row(session: Session, held: HeldNode) -> Row:
    """`node_time`: a node that a session held."""
    return node_time_of(session_row(session, released_at=None), held)


def node_time_of(session: Mapping[str, Any], held: HeldNode) -> Row:
    """As `node_time_row`, from the session's row of `stack_sessions`."""
    requested_at, time_scale = session["requested_at"], session["time_scale"]
    warm_at = session["ready_at"] + timedelta(seconds=(session["first_token_s"] or 0.0) / time_scale)
    cold_wall_s = (warm_at - requested_at).total_seconds()
    waited_s = _overlap_s(held, requested_at, warm_at)
    return {
        **common_columns_of(session),
        "node": held.node,
        "nodes": held.nodes,
        "pool": held.pool,
        "sku": held.sku,
        "priority": held.priority,
        "held_from": held.held_from,
        "held_until": held.held_until,
        "cold_start_s": (session["cold_start_s"] or 0.0) * (waited_s / cold_wall_s if cold_wall_s else 1.0),
        "held_s": _overlap_s(held, warm_at, held.held_until) * time_scale,
        "exclusive": held.exclusive,
        **{
            f"{name}_{resource}": amount
            for name, amounts in (("capacity", held.capacity), ("requested", held.requested), ("used", held.used))
            for resource, amount in amounts.model_dump().items()
        },
    }


def _overlap_s(held: HeldNode, start: datetime, end: datetime) -> float:
    """Wall seconds of the time from `start` to `end` for which a node was held."""
    return max((min(held.held_until, end) - max(held.held_from, start)).total_seconds(), 0.0)
