"""From a load step to what the load generator is to do: here stack seconds become the wall clock's.

Belongs here: a step's requests and profile as a `LoadPlan`. Doesn't belong here: which stages a pace makes of a step
(load_stages.py), applying a load (resources/load_generator.py), or what came of it (rows/load.py).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.steps import (
    Burst,
    CompletionRequest,
    Drawn,
    HttpRequest,
    LoadStep,
    Profile,
    Scheduled,
    TracedRequest,
    TraceReplay,
)
from lab_pipelines.load_stages import load_stages
from lab_pipelines.traces import replayed_by
from resources.cluster import Endpoint, Session
from resources.load_generator import (
    CompletionShape,
    HttpShape,
    LoadError,
    LoadPlan,
    Shape,
    StagePlan,
    TracedShape,
    TracePlan,
)


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
