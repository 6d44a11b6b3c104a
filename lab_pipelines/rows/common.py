"""The columns that every table begins with, and what else rows of several tables share.

Doesn't belong here: what rows of one table alone need (their own module).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lab_pipelines.provenance import combine
from resources.cluster import Session

Row = dict[str, Any]


def common_columns(session: Session) -> Row:
    """The columns that every table begins with."""
    return {
        "lab": session.lab,
        "variant": session.variant,
        "trial": session.trial,
        "run_id": session.run_id,
        "target": session.target,
        "engine": session.engine,
        "pace": session.pace,
        "time_scale": session.time_scale,
        # A clock that runs faster than the wall's is a model too, whatever serves behind it.
        "provenance": combine([session.provenance, "measured" if session.time_scale == 1 else "modelled"]),
        "recorded_at": datetime.now(UTC),
        "session_id": session.session_id,
    }


def common_columns_of(row: Mapping[str, Any]) -> Row:
    """The columns that every table begins with, for rows derived from `row`; written now."""
    return {**{name: row[name] for name in _COMMON}, "recorded_at": datetime.now(UTC)}


_COMMON = ("lab", "variant", "trial", "run_id", "target", "engine", "pace", "time_scale", "provenance", "session_id")


def utc(unix_s: float) -> datetime:
    """A moment by its Unix seconds."""
    return datetime.fromtimestamp(unix_s, UTC)
