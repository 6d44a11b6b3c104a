"""Rows of `events`, what happened to a stack, and `log_lines`, what its components said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from lab_pipelines.rows.common import Row, common_columns, utc
from resources.cluster import Phase, Session

MILESTONE = "milestone"
"""`events.kind` of a moment, beside `cold_start` for a phase, and the kinds of steps."""


def event_row(
    session: Session,
    kind: str,
    name: str,
    *,
    started_at: datetime,
    ended_at: datetime,
    outcome: Literal["ok", "failed", "skipped"] = "ok",
    detail: Mapping[str, Any] | None = None,
    duration_s: float | None = None,
) -> Row:
    """`events`: something that happened. `duration_s` is in stack seconds; unless given, from the wall clock."""
    wall_s = (ended_at - started_at).total_seconds()
    return {
        **common_columns(session),
        "kind": kind,
        "name": name,
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_s": wall_s * session.time_scale if duration_s is None else duration_s,
        "outcome": outcome,
        "detail": json.dumps(detail) if detail is not None else None,
    }


def cold_start_events(session: Session, phases: Sequence[Phase], *, step: str | None = None) -> list[Row]:
    """`events`: one row per phase of a cold start, the stack's own or that of the restart in `step`."""
    return [
        event_row(
            session,
            "cold_start",
            phase.name,
            started_at=phase.started_at,
            ended_at=phase.ended_at,
            duration_s=phase.duration_s,
            detail={"step": step} if step else None,
        )
        for phase in phases
    ]


def milestone_events(session: Session) -> list[Row]:
    """`events`: one row per moment of the cold start that somebody stamped, with whose stamp it is."""
    return [
        event_row(session, MILESTONE, one.name, started_at=one.at, ended_at=one.at, detail={"source": one.source})
        for one in session.milestones
    ]


def log_rows(session: Session, component: str, lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """`log_lines`: one row per structured line of a component's log."""
    shared = common_columns(session)
    return [
        {
            **shared,
            "component": component,
            "logged_at": utc(line["ts"]),
            "level": line["level"],
            "event": line["event"],
            "line": line["line"],
        }
        for line in lines
    ]
