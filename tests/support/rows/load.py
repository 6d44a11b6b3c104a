"""Rows of what the load generator saw: `load_stages`, `requests` and `client_errors`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tests.support.rows.common import REQUESTED_AT, Row, shared

INPUT_TOKENS, OUTPUT_TOKENS = 512, 256
EVENTS = 8
"""Streamed events per request: fewer than tokens, so that rows stay small."""


def stage_row(**columns: Any) -> Row:
    return {
        **shared(),
        "step": "ramp",
        "profile": "ramp",
        "request_kind": "completion",
        "stage": 0,
        "users": 1,
        "offered_per_s": None,
        "started_at": REQUESTED_AT + timedelta(seconds=5),
        "ended_at": REQUESTED_AT + timedelta(seconds=25),
        "duration_s": 100.0,
        "duration_wall_s": 20.0,
        "hold_s": 40.0,
        "min_requests": 20,
        "requests_in_stage": 20,
        "requests_ok": 20,
        "output_tokens": 20 * OUTPUT_TOKENS,
        "clipped_requests": None,
        "client_cpu_share": 0.04,
        "model_range": None,
    } | columns


def request_row(**columns: Any) -> Row:
    """A request that was served: TTFT 0.4 s, then an event every 0.3 s, in stack seconds."""
    sent_at = columns.get("sent_at", REQUESTED_AT + timedelta(seconds=5))
    offsets = [0.4 + 0.3 * n for n in range(EVENTS)]
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "users": 1,
        "request_id": "u0-1",
        "worker": "local",
        "user_index": 0,
        "shape": 0,
        "path": None,
        "scheduled_at": sent_at,
        "sent_at": sent_at,
        "finished_at": sent_at + timedelta(seconds=offsets[-1] / 5),
        "schedule_lag_s": 0.0,
        "client_lag_wall_s": 0.0002,
        "ttft_s": offsets[0],
        "e2e_s": offsets[-1],
        "tpot_s": (offsets[-1] - offsets[0]) / (OUTPUT_TOKENS - 1),
        "event_offsets_s": offsets,
        "input_tokens": INPUT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "expected_input_tokens": INPUT_TOKENS,
        "expected_output_tokens": OUTPUT_TOKENS,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "length",
        "error": None,
        "server_ttft_s": 0.39,
        "ttft_lag_wall_s": 0.002,
        "receive_lag_p99_wall_s": 0.003,
        "first_receive_lag_wall_s": 0.001,
        "in_stage": True,
        "valid": True,
        "invalid_reasons": [],
    } | columns


def client_error_row(**columns: Any) -> Row:
    """The load generator's event loop, which was well within its budget."""
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "quantity": "event_loop_lag_p99",
        "value": 0.003,
        "unit": "s",
        "allowed": 0.05,
        "n": 500,
        "within": True,
        "reason": None,
    } | columns


def over_budget(tables: Mapping[str, list[Row]], stage: int, *, lag_s: float = 0.084) -> str:
    """Make a stage of `lab_run`'s one whose client was over its error budget; the reason."""
    reason = f"event-loop lag p99 {1000 * lag_s:.3g} ms > 50 ms"
    for row in tables["client_errors"]:
        if row["stage"] == stage:
            row.update(value=lag_s, within=False, reason=reason)
    for row in tables["requests"]:
        if row["stage"] == stage:
            row.update(valid=False, invalid_reasons=[f"client over its error budget: {reason}"])
    return reason


def failed_request_row(**columns: Any) -> Row:
    """A request that the server answered with 500."""
    return request_row(
        **{
            "outcome": "http_error",
            "http_status": 500,
            "finish_reason": None,
            "error": "500 Internal Server Error",
            "ttft_s": None,
            "e2e_s": None,
            "tpot_s": None,
            "event_offsets_s": [],
            "input_tokens": None,
            "output_tokens": None,
            "server_ttft_s": None,
            "ttft_lag_wall_s": None,
            "receive_lag_p99_wall_s": None,
            "first_receive_lag_wall_s": None,
            "valid": False,
            "invalid_reasons": ["outcome: http_error"],
        }
        | columns
    )
