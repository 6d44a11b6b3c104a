"""An engine that comes up in virtual time: its values, its node, its weights and its first token, phase by phase.

Belongs here: what a rehearsal's cluster does to start one engine. Doesn't belong here: leases, sessions and steps
(cluster_rehearsal.py), how long a phase takes (lab_pipelines/engine/cold_start.py, lab_pipelines/rehearsal/weights.py).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.engine import tables
from lab_pipelines.engine.cold_start import PlannedPhase, drawn_bootstrap_s
from lab_pipelines.rehearsal.control_plane import apply_all
from lab_pipelines.rehearsal.weights import StorageError, Weights, volume_of
from resources import chart_values
from resources.chart_values import ValuesError
from resources.cluster import ClusterError, ColdStartPhase, Phase
from resources.rehearsals import Rehearsal

if TYPE_CHECKING:
    from lab_pipelines.rehearsal.world import World

FIRST_PROMPT_TOKENS = 8
SETTLE_S = 0.001
NODE_WITHIN_S = 3600.0
"""How long an engine may wait for its node, virtual seconds: four times what an autoscaler gives a node to appear."""


def values_of(component: Component, overrides: list[Overrides]) -> dict[str, Any]:
    try:
        return chart_values.load_values(REPO_ROOT / component.chart.values, *overrides)
    except ValuesError as error:
        raise ClusterError(str(error)) from None


def arguments_of(component: Component, values: dict[str, Any]) -> list[str]:
    try:
        return chart_values.vllm_arguments(values, source=component.chart.values)
    except ValuesError as error:
        raise ClusterError(str(error)) from None


def gpu_of(sku: str) -> str:
    gpu = load_prices().sku(sku).gpu
    if gpu is None:
        raise ClusterError(f"the stack has an engine, and {sku} has no GPU; name a GPU node in the spec's `nodes`")
    return gpu


def is_known(model: str, gpu: str) -> bool:
    """Whether a cold start of it can be planned at all."""
    return model in tables.all_models() and gpu in tables.all_hardware()


def weights_of(
    component: Component, values: Mapping[str, Any], spec: LabSpec, model: str, *, seed: str
) -> Weights | None:
    """The weights of a variant that has just been chosen, on an empty volume; None where its values name no volume.

    `seed`: of the machine, so that variants on the same one differ by their volumes and not by their luck.
    Raises `ClusterError` for a volume without a model, and for replicas whose load a single engine can't stand for.
    """
    try:
        volume = volume_of(values)
    except StorageError as error:
        raise ClusterError(f"{component.chart.values}: {error}") from None
    if (replicas := values["servingEngineSpec"]["modelSpec"][0].get("replicaCount", 1)) > 1:
        crowded = [step.name for step in spec.load_steps if any(users != 1 for users in step.stage_users)]
        if crowded:
            raise ClusterError(
                f"{component.name} has {replicas} replicas, and a rehearsal has one engine, which stands for them only "
                f"where one request is open at a time; not so in {', '.join(crowded)}"
            )
    if volume is None or model not in tables.all_models():
        return None
    return Weights(
        name=component.name,
        namespace=spec.namespace,
        volume=volume,
        amount=tables.model(model).weights_bytes,
        bootstrap_s=drawn_bootstrap_s(random.Random(f"{seed}/weights")),
        replicas=replicas,
    )


def come_up(rehearsal: Rehearsal, planned: Sequence[PlannedPhase], *, seed: str, same_pod: bool = False) -> list[Phase]:
    """Let the phases of a cold start pass, one after the other; weights on a volume take as long as it lets them."""
    world, phases = rehearsal.world, list[Phase]()
    for one in planned:
        started_s, took_s = world.now_s, one.duration_s
        if one.name == "model_loaded" and (weights := rehearsal.weights) is not None:
            numbers = random.Random(f"{seed}/weights/{started_s}")
            moving_s = weights.load(started_s + weights.bootstrap_s, numbers, same_pod=same_pod)
            took_s = weights.bootstrap_s + moving_s
        world.advance(started_s + took_s)
        phases.append(phase_of(one.name, started_s, world.now_s))
    return phases


def place(rehearsal: Rehearsal, pod: dict[str, Any]) -> list[Phase]:
    """Let an engine's pod take the place of the last one, and wait until its image is on a node."""
    world, plane, name = rehearsal.world, rehearsal.control_plane, pod["metadata"]["name"]
    plane.delete(name, world.now_s)
    if (refusal := apply_all(plane, [pod], world.now_s)) is not None:
        raise ClusterError(refusal)
    until_s = world.now_s + NODE_WITHIN_S
    while (waits := plane.waits(name, world.now_s)) is None:
        if world.now_s >= until_s:
            raise ClusterError(f"{name} had no node within {NODE_WITHIN_S:g} virtual s: {plane.why_waiting(name)}")
        world.advance(min(until_s, plane.next_change_s()))
    return [phase_of(wait.name, wait.started_s, wait.ended_s) for wait in waits]


def first_token(world: World) -> Phase:
    """Ask the engine for one token, as the readiness that counts."""
    from lab_pipelines.rehearsal.world import VirtualRequest

    assert world.engine is not None
    started_s = world.now_s
    request = VirtualRequest(FIRST_PROMPT_TOKENS, 1, arrived_s=started_s, request_id="first-token")
    world.engine.replica.submit(request)
    while not world.advance(started_s + 3600.0):
        pass
    ended_s = world.ended_s
    # Whatever is next begins after it, also when both are rounded to a timestamp's microseconds; and its counters
    # begin with this request in them, or L04 would find one request more in the metrics than in the log.
    world.advance(ended_s + SETTLE_S)
    world.scrape()
    world.advance(world.now_s + SETTLE_S)
    return phase_of("first_token", started_s, ended_s)


def phase_of(name: ColdStartPhase, started_s: float, ended_s: float) -> Phase:
    return Phase(name=name, started_at=at(started_s), ended_at=at(ended_s), duration_s=ended_s - started_s)


def at(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
