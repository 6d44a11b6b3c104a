"""From what happened to warehouse rows, whose durations are stack seconds: here wall seconds become them.

Times of day stay the wall clock's; who makes durations of them multiplies by `time_scale` (assets/samples.py).

Belongs here: pure functions from sessions and load records to rows of the tables in warehouse/schema/.
Doesn't belong here: cost (cost.py), reading or writing the warehouse (resources/warehouse.py).
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Literal

from lab_pipelines.catalog.prices import Priority, UnitPrice
from lab_pipelines.catalog.spec import Measure, Pace
from lab_pipelines.catalog.steps import (
    Burst,
    CompletionRequest,
    Drawn,
    HttpRequest,
    LoadStep,
    Profile,
    ReclaimsStep,
    Scheduled,
    TracedRequest,
    TraceReplay,
)
from lab_pipelines.client_errors import ClientError, expected_tokens, token_fault
from lab_pipelines.load_stages import load_stages
from lab_pipelines.provenance import combine
from lab_pipelines.reclaims import Scenario, Spell
from lab_pipelines.traces import replayed_by
from lab_pipelines.words import counted
from resources.cluster import Endpoint, HeldNode, Phase, Session
from resources.load_generator import (
    CompletionShape,
    HttpShape,
    LoadError,
    LoadPlan,
    LoadResult,
    RequestRecord,
    Shape,
    StagePlan,
    StageRecord,
    TracedShape,
    TracePlan,
)
from resources.telemetry import Reading

Row = dict[str, Any]

MILESTONE = "milestone"
"""`events.kind` of a moment, beside `cold_start` for a phase, and the kinds of steps."""


def common(session: Session) -> Row:
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


def common_of(row: Mapping[str, Any]) -> Row:
    """The columns that every table begins with, for rows derived from `row`; written now."""
    return {**{name: row[name] for name in _COMMON}, "recorded_at": datetime.now(UTC)}


_COMMON = ("lab", "variant", "trial", "run_id", "target", "engine", "pace", "time_scale", "provenance", "session_id")


def session_row(session: Session, *, released_at: datetime | None) -> Row:
    """`stack_sessions`: open without `released_at`, closed with it."""
    phase_s = {phase.name: phase.duration_s for phase in session.phases}
    held_s = (released_at - session.ready_at).total_seconds() * session.time_scale if released_at else None
    return {
        **common(session),
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
        **common_of(session),
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
        **common(session),
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


def spell_rows(
    session: Session,
    step: ReclaimsStep,
    scenario: Scenario,
    spells: Sequence[Spell],
    *,
    position: int,
    cold_start_s: float,
    prices: Mapping[Priority, UnitPrice | None],
) -> list[Row]:
    """`capacity_spells` of one scenario. `prices` are those of the priorities that the pool has nodes of."""
    usd = {priority: price.usd for priority, price in prices.items() if price is not None}
    shared = {
        **common(session),
        "provenance": "modelled",
        "step": step.name,
        "scenario": scenario.name,
        "position": position,
        "reclaims_per_hour": scenario.per_hour,
        "together": scenario.together,
        "band": scenario.band,
        "wait_s": scenario.wait_s,
        "cold_start_s": cold_start_s,
        "requests_per_s": step.requests_per_s,
        "on_demand_nodes": step.on_demand,
        "spot_nodes": step.spot,
        "on_demand_usd": usd.get("on_demand"),
        "spot_usd": usd.get("spot"),
    }
    return [{**shared, **asdict(spell)} for spell in spells]


def log_rows(session: Session, component: str, lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """`log_lines`: one row per structured line of a component's log."""
    shared = common(session)
    return [
        {
            **shared,
            "component": component,
            "logged_at": _at(line["ts"]),
            "level": line["level"],
            "event": line["event"],
            "line": line["line"],
        }
        for line in lines
    ]


def load_plan(
    session: Session,
    step: LoadStep,
    pace: Pace,
    *,
    address: Callable[[Endpoint], str | None] = attrgetter("base_url"),
) -> LoadPlan:
    """What the load generator is to do, on the wall clock of this session; `address` is how it reaches an endpoint.

    Raises `LoadError` where the component has no address or the stack no model, and `ValueError` as `load_stages` does.
    """
    base_url = address(session.endpoint(step.component))
    if base_url is None:
        raise LoadError(f"{step.name}: the component {step.component} has no address that requests could be sent to")
    if session.model is None and step.asks_for_tokens:
        raise LoadError(f"{step.name} asks for completions, but the stack of {session.lab} has no engine")
    scale = session.time_scale
    return LoadPlan(
        run_id=session.run_id,
        trial=session.trial,
        step=step.name,
        base_url=base_url,
        model=session.model,
        profile=step.profile.kind,
        arrivals=step.profile.arrivals if isinstance(step.profile, Drawn) else "even",
        burstiness=step.profile.burstiness if isinstance(step.profile, Drawn) else None,
        trace=_trace(step, scale),
        max_in_flight=_max_in_flight(step.profile),
        shapes=[_shape(request, scale) for request in step.requests],
        stages=[
            StagePlan(
                stage=stage.stage,
                users=stage.users,
                per_wall_s=None if stage.offered_per_s is None else stage.offered_per_s * scale,
                hold_wall_s=stage.hold_s / scale,
                min_requests=stage.min_requests,
                max_hold_wall_s=stage.max_hold_s / scale,
                points=stage.points and [(at_s / scale, per_s * scale) for at_s, per_s in stage.points],
            )
            for stage in load_stages(step, pace, trial=session.trial)
        ],
    )


def _max_in_flight(profile: Profile) -> int | None:
    match profile:
        case Burst(requests=requests):
            return requests
        case Scheduled(max_in_flight=most):
            return most
        case _:
            return None


def _trace(step: LoadStep, scale: float) -> TracePlan | None:
    profile, request = step.profile, step.requests[0]
    if not isinstance(profile, TraceReplay):
        return None
    assert isinstance(request, TracedRequest)
    trace = replayed_by(profile, request)
    return TracePlan(
        file=profile.file,
        format=profile.format,
        start_s=profile.start_s,
        duration_s=profile.duration_s,
        per_wall_s=profile.speed * scale,
        max_input_tokens=request.max_input_tokens,
        max_output_tokens=request.max_output_tokens,
        clipped=trace.clipped,
        digest=trace.digest,
    )


def _shape(request: CompletionRequest | HttpRequest | TracedRequest, scale: float) -> Shape:
    timeout_wall_s = request.timeout_s / scale
    if isinstance(request, TracedRequest):
        return TracedShape(temperature=request.temperature, timeout_wall_s=timeout_wall_s, text=request.text)
    if isinstance(request, HttpRequest):
        return HttpShape(weight=request.weight, path=request.path, expect=request.expect, timeout_wall_s=timeout_wall_s)
    return CompletionShape(
        weight=request.weight,
        prompts=request.prompts,
        input_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        temperature=request.temperature,
        timeout_wall_s=timeout_wall_s,
        shared_prefix_tokens=request.shared_prefix_tokens,
        text=request.text,
        truncate_to=request.truncate_to,
        expect=request.expect,
    )


def request_rows(
    session: Session, plan: LoadPlan, result: LoadResult, *, faults: Mapping[int, Sequence[str]] | None = None
) -> list[Row]:
    """`requests`: one row per request that was sent, or was due and no longer sent.

    `faults` are reasons why no request of a stage is valid, by stage.
    """
    shared = common(session)
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
        "scheduled_at": _at(record.scheduled_at),
        "sent_at": _at(record.scheduled_at + record.sent_offset_s),
        "finished_at": _at(record.scheduled_at + record.finished_offset_s),
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
    shared = common(session)
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
            "started_at": _at(stage.started_at),
            "ended_at": _at(stage.ended_at),
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
    shared = common(session)
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


ALL_VARIANTS = "all"
"""In the place of a variant: a measure that compares them."""
WHOLE_RUN: Row = {"step": None, "stage": None, "users": None}
"""In the place of a stage: a measure of the whole run."""


def sample_rows(shared: Row, stage: Mapping[str, Any], measure: Measure, reading: Reading) -> list[Row]:
    """`metric_samples` of one measure in one stage."""
    if measure.over != "stage":
        return []
    return [
        {**_measure_of(shared, stage, measure), "sampled_at": _at(sample.at), "value": sample.value}
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
        **common(session),
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


def _at(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def first_and_last(stages: Sequence[Mapping[str, Any]]) -> tuple[datetime, datetime]:
    """When a step's first stage began and its last one ended."""
    return min(s["started_at"] for s in stages), max(s["ended_at"] for s in stages)
