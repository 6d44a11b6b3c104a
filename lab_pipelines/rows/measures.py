"""Rows of what Prometheus and SQL answered: `metric_samples`, `metric_summaries` and `counter_totals`.

Doesn't belong here: asking them (resources/telemetry.py, assets/measures.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lab_pipelines.catalog.measures import Measure
from lab_pipelines.rows.common import Row, common_columns, utc
from resources.cluster import Session
from resources.telemetry import Reading

ALL_VARIANTS = "all"
"""In the place of a variant: a measure that compares them."""
WHOLE_RUN: Row = {"step": None, "stage": None, "users": None}
"""In the place of a stage: a measure of the whole run."""


def sample_rows(shared: Row, stage: Mapping[str, Any], measure: Measure, reading: Reading) -> list[Row]:
    """`metric_samples` of one measure in one stage."""
    if measure.over != "stage":
        return []
    return [
        {**_measure_of(shared, stage, measure), "sampled_at": utc(sample.at), "value": sample.value}
        for sample in reading.samples
    ]


def summary_row(shared: Row, stage: Mapping[str, Any], measure: Measure, reading: Reading) -> Row:
    """`metric_summaries` of one measure in one stage."""
    return {
        **_measure_of(shared, stage, measure),
        "statistic": measure.statistic,
        "value": reading.value,
        "samples": len(reading.samples),
        "status": "gap" if reading.value is None else "ok",
        "gap_reason": reading.gap,
        "promql": reading.promql,
        "sql_file": measure.sql,
        "window_start": stage["started_at"],
        "window_end": stage["ended_at"],
    }


def counter_total_row(
    session: Session,
    step: str,
    quantity: str,
    counter: str,
    *,
    client: float,
    unknown: float,
    server: float | None,
) -> Row:
    """`counter_totals`: one quantity over one load step; the truth lies between `client` and `client + unknown`."""
    disagreement = None
    if server is not None and client:
        disagreement = max(client - server, server - (client + unknown), 0.0) / client
    elif server == 0:  # nothing was to be counted, and nothing was
        disagreement = 0.0
    return {
        **common_columns(session),
        "step": step,
        "quantity": quantity,
        "counter": counter,
        "client_total": client,
        "client_unknown": unknown,
        "server_total": server,
        "disagreement": disagreement,
    }


def _measure_of(shared: Row, stage: Mapping[str, Any], measure: Measure) -> Row:
    return {
        **shared,
        "step": stage["step"],
        "stage": stage["stage"],
        "users": stage["users"],
        "measure": measure.name,
        "unit": measure.unit,
    }


def first_and_last(stages: Sequence[Mapping[str, Any]]) -> tuple[datetime, datetime]:
    """When a step's first stage began and its last one ended."""
    return min(s["started_at"] for s in stages), max(s["ended_at"] for s in stages)
