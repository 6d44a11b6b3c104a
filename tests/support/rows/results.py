"""Rows of what a run came to: `stage_statistics`, `findings`, and `baselines` of one that is pinned."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lab_pipelines.baseline import UNITS
from tests.support.rows.common import REQUESTED_AT, Row, shared
from tests.support.rows.sessions import session_row


def statistic_row(**columns: Any) -> Row:
    """The median TTFT of a stage, with its interval."""
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "users": 1,
        "offered_per_s": None,
        "quantity": "ttft_p50",
        "unit": "s",
        "value": 0.4,
        "low": 0.38,
        "high": 0.42,
        "n": 20,
        "n_effective": 20.0,
        "method": "order statistics around the p50",
        "reason": None,
        "left_out": 0,
        "state": "steady",
        "drift": 0.0,
    } | columns


def statistic_rows(*, ttft_s: float = 0.4, **columns: Any) -> list[Row]:
    """A stage without a warm-up, steady unless `columns` say otherwise: two rows of that, its median TTFT, and a p95
    that has no interval."""
    without = {"low": None, "high": None, "n_effective": None}
    refusal = "20 values; an interval of the p95 needs 72"
    quiet = {"method": "MSER-5", "reason": "none: the beginning is like the rest"}
    steady = {"method": "Mann-Kendall", "reason": "no trend (p = 1), no shift (p = 1)"}
    return [
        statistic_row(
            **(without | quiet | columns | {"quantity": "warm_up", "value": 0.0, "state": None, "drift": None})
        ),
        statistic_row(**(without | steady | {"quantity": "steady_state", "unit": "ratio", "value": 0.0} | columns)),
        statistic_row(**({"value": ttft_s, "low": 0.95 * ttft_s, "high": 1.05 * ttft_s} | columns)),
        statistic_row(**(without | {"quantity": "ttft_p95", "reason": refusal} | columns)),
    ]


def finding_row(**columns: Any) -> Row:
    return {
        **shared(),
        "finding": "throughput-saturates",
        "claim": "Past 16 users more concurrency buys little",
        "verdict": "confirmed",
        "effect": 1.1,
        "interval_low": 1.05,
        "interval_high": 1.15,
        "n": 2,
        "method": "ratio of stage values",
        "reason": "1.10 is below 1.25",
    } | columns


def baseline_row(**columns: Any) -> Row:
    """The first stage of a pinned run."""
    return {
        **{name: value for name, value in shared().items() if name not in ("trial", "session_id")},
        "file": "0001.json",
        "digest": "9" * 64,
        "pinned_at": REQUESTED_AT + timedelta(hours=1),
        **{name: session_row()[name] for name in ("spec_digest", "values_digest", "model", "sku", "nodes")},
        **{"step": "ramp", "stage": 0, "users": 1, "offered_per_s": None},
        **dict.fromkeys(UNITS),
        **{"requests": 20, "requests_ok": 20, "error_rate": 0.0, "output_tokens_per_s": 51.2},
    } | columns
