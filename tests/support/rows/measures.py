"""Rows of what Prometheus and SQL answered: `metric_samples`, `metric_summaries` and `counter_totals`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.support.rows.common import REQUESTED_AT, Row, shared


def _of_a_stage() -> Row:
    return {**shared(), "step": "ramp", "stage": 0, "users": 1, "measure": "queue_depth", "unit": "requests"}


def sample_row(**columns: Any) -> Row:
    return {
        **_of_a_stage(),
        "sampled_at": REQUESTED_AT + timedelta(seconds=6),
        "value": 0.0,
    } | columns


def summary_row(**columns: Any) -> Row:
    return {
        **_of_a_stage(),
        "statistic": "mean",
        "value": 0.0,
        "samples": 20,
        "status": "ok",
        "gap_reason": None,
        "promql": 'sum(vllm:num_requests_waiting{namespace="lab-06"})',
        "sql_file": None,
        "window_start": REQUESTED_AT + timedelta(seconds=5),
        "window_end": REQUESTED_AT + timedelta(seconds=25),
    } | columns


def gap_row(**columns: Any) -> Row:
    """A measure that Prometheus had no series for."""
    return summary_row(**{"value": None, "samples": 0, "status": "gap", "gap_reason": "no such series"} | columns)


def counter_total_row(**columns: Any) -> Row:
    return {
        **shared(),
        "step": "ramp",
        "quantity": "output_tokens",
        "counter": 'vllm:generation_tokens_total{namespace="lab-06"}',
        "client_total": 10_240.0,
        "client_unknown": 0.0,
        "server_total": 10_260.0,
        "disagreement": 20 / 10_240,
    } | columns
