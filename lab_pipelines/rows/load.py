"""Rows of what the load generator saw: `requests`, `load_stages` and `client_errors`.

Doesn't belong here: what it is asked to do (load_plan.py), or how its own error is judged (client_errors.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lab_pipelines.client_errors import ClientError, expected_tokens, token_fault
from lab_pipelines.rows.common import Row, common_columns, utc
from lab_pipelines.words import counted
from resources.cluster import Session
from resources.load_generator import (
    CompletionShape,
    HttpShape,
    LoadPlan,
    LoadResult,
    RequestRecord,
    Shape,
    StagePlan,
    StageRecord,
    TracedShape,
)


def request_rows(
    session: Session, plan: LoadPlan, result: LoadResult, *, faults: Mapping[int, Sequence[str]] | None = None
) -> list[Row]:
    """`requests`: one row per request that was sent, or was due and no longer sent.

    `faults` are reasons why no request of a stage is valid, by stage.
    """
    shared = common_columns(session)
    users = {stage.stage: stage.users for stage in result.stages}
    return [
        _request_row(shared, plan, users[record.stage], record, (faults or {}).get(record.stage, ()))
        for record in result.requests
    ]


def _request_row(shared: Row, plan: LoadPlan, users: int | None, record: RequestRecord, faults: Sequence[str]) -> Row:
    scale = shared["time_scale"]
    shape = plan.shapes[record.shape]
    # As they are where the clock is the wall's, else packed: a second list of each takes 100 MiB at 10,000 requests.
    given = record.event_offsets_s
    offsets = given if scale == 1 or not given else array("d", [offset * scale for offset in given])
    ttft_s = offsets[0] if offsets else None
    e2e_s = record.finished_offset_s * scale if record.outcome == "ok" else None
    tokens = tpot_s = ttft_lag_wall_s = None
    if isinstance(shape, TracedShape) or (isinstance(shape, CompletionShape) and shape.expect == 200):
        tokens = record.output_tokens if record.output_tokens is not None else len(offsets)
        if e2e_s is not None and ttft_s is not None and tokens > 1:
            tpot_s = (e2e_s - ttft_s) / (tokens - 1)
    if record.server_ttft_s is not None and record.event_offsets_s:
        ttft_lag_wall_s = record.event_offsets_s[0] - record.sent_offset_s - record.server_ttft_s
    reasons = []
    if record.outcome != "ok":
        reasons.append(f"outcome: {record.outcome}")
    if not record.in_stage:
        reasons.append("began and ended in different stages")
    if not record.counted:
        reasons.append("sent only to keep the rate up while the stage's sample came to its end")
    if (wrong := token_fault(shape, record)) is not None:
        reasons.append(wrong)
    reasons += faults
    return {
        **shared,
        "step": plan.step,
        "stage": record.stage,
        "users": users,
        "request_id": record.request_id,
        "worker": record.worker,
        "user_index": record.user_index,
        "shape": record.shape,
        "path": shape.path if isinstance(shape, HttpShape) else None,
        "scheduled_at": utc(record.scheduled_at),
        "sent_at": utc(record.scheduled_at + record.sent_offset_s),
        "finished_at": utc(record.scheduled_at + record.finished_offset_s),
        "schedule_lag_s": record.sent_offset_s * scale,
        "client_lag_wall_s": record.client_lag_s,
        "ttft_s": ttft_s,
        "e2e_s": e2e_s,
        "tpot_s": tpot_s,
        "event_offsets_s": offsets,
        "input_tokens": record.input_tokens,
        "output_tokens": tokens,
        **_expected_tokens(shape, record),
        "outcome": record.outcome,
        "http_status": record.http_status,
        "finish_reason": record.finish_reason,
        "error": record.error,
        "server_ttft_s": record.server_ttft_s * scale if record.server_ttft_s is not None else None,
        "ttft_lag_wall_s": ttft_lag_wall_s,
        "receive_lag_p99_wall_s": record.receive_lag_p99_s,
        "first_receive_lag_wall_s": record.first_receive_lag_s,
        "in_stage": record.in_stage,
        "valid": not reasons,
        "invalid_reasons": reasons,
    }


def _expected_tokens(shape: Shape, record: RequestRecord) -> Row:
    """What the server's usage must say of a success; nothing where it is to refuse the request."""
    expected_input, expected_output = expected_tokens(shape, record) or (None, None)
    return {"expected_input_tokens": expected_input, "expected_output_tokens": expected_output}


def stage_rows(session: Session, plan: LoadPlan, result: LoadResult) -> list[Row]:
    """`load_stages`: one row per stage that was applied."""
    shared = common_columns(session)
    planned = {stage.stage: stage for stage in plan.stages}
    return [
        {
            **shared,
            "step": plan.step,
            "profile": plan.profile,
            "request_kind": plan.request_kind,
            "stage": stage.stage,
            "users": stage.users,
            "offered_per_s": _offered_per_s(planned[stage.stage], session.time_scale),
            "started_at": utc(stage.started_at),
            "ended_at": utc(stage.ended_at),
            "duration_s": (stage.ended_at - stage.started_at) * session.time_scale,
            "duration_wall_s": stage.ended_at - stage.started_at,
            "hold_s": round(planned[stage.stage].hold_wall_s * session.time_scale, 9),  # as offered_per_s
            "min_requests": planned[stage.stage].min_requests,
            "requests_in_stage": sum(1 for r in result.requests if r.stage == stage.stage and r.in_stage),
            "requests_ok": sum(
                1 for r in result.requests if r.stage == stage.stage and r.in_stage and r.outcome == "ok"
            ),
            "output_tokens": round(sum(tokens_in_window(r, stage) for r in result.requests)),
            "clipped_requests": plan.trace.clipped if plan.trace else None,
            "client_cpu_share": stage.client_cpu_share,
            "model_range": _model_range(session, stage.users),
        }
        for stage in result.stages
    ]


def client_error_rows(session: Session, plan: LoadPlan, errors: Mapping[int, Sequence[ClientError]]) -> list[Row]:
    """`client_errors`: one row per stage and quantity."""
    shared = common_columns(session)
    return [
        {**shared, "step": plan.step, "stage": stage, **asdict(error)} for stage, of in errors.items() for error in of
    ]


def _model_range(session: Session, users: int | None) -> str | None:
    """Whether the engine model can be trusted for a stage: the session's own range, and its largest concurrency."""
    most = session.model_range_users
    if session.model_range != "inside" or users is None or most is None or users <= most:
        return session.model_range
    return f"outside: {counted(users, 'user')}, and the model was compared with measurements up to {most}"


def _offered_per_s(stage: StagePlan, scale: float) -> float | None:
    # Rounded, so that the way to the wall clock and back leaves the spec's own number.
    return None if stage.per_wall_s is None else round(stage.per_wall_s / scale, 9)


def tokens_in_window(record: RequestRecord, stage: StageRecord) -> float:
    """Output tokens of one request that arrived within the stage; an event of several tokens counts for all of them."""
    if not record.event_offsets_s:
        return 0.0
    tokens = record.output_tokens if record.output_tokens is not None else len(record.event_offsets_s)
    per_event = tokens / len(record.event_offsets_s)
    offsets, due = record.event_offsets_s, record.scheduled_at  # in order, so that no event need be looked at
    arrived = bisect_left(offsets, stage.ended_at - due) - bisect_left(offsets, stage.started_at - due)
    return arrived * per_event
