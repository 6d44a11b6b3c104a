"""The rehearsal target: a stack that exists in virtual time only, in the process that runs the lab.

Belongs here: what the assets ask of a cluster, asked of a world. Doesn't belong here: the world itself
(lab_pipelines/rehearsal/), how an engine comes up in it (rehearsed_engine.py), its load and its telemetry
(load_rehearsal.py, telemetry_rehearsal.py).

A world lives in the memory of one process, and so each process has leases of its own: two rehearsals of a lab at once
don't meet. What a process that died may leave, the Prometheus over its series, the next rehearsal's reaper ends.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.prices import Priority, load_prices
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component
from lab_pipelines.catalog.steps import ApplyStep, FireAlertStep
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.digest import canonical_digest
from lab_pipelines.engine.args import EngineArgsError
from lab_pipelines.engine.cold_start import drawn_cold_start, drawn_node_start
from lab_pipelines.engine.memory import GpuMemoryError
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.tables import UnknownNameError
from lab_pipelines.engine.trust import longest_sequence, trust_of
from lab_pipelines.rehearsal.control_plane import INSTANCE_TYPE, apply_all
from lab_pipelines.rehearsal.lab_nodes import control_plane_of, engine_pod
from lab_pipelines.rehearsal.scheduler import NotModelledError
from resources import manifests, processes
from resources.cluster import (
    ApplyOutcome,
    ClusterError,
    Endpoint,
    HeldNode,
    Phase,
    Progress,
    Reaped,
    Session,
    StackOrder,
)
from resources.cluster_loopback import LoopbackCluster
from resources.leases import LeaseBook
from resources.rehearsals import ELSEWHERE, Rehearsal, close_rehearsal, newest_rehearsal, open_rehearsal, rehearsal_at
from resources.rehearsed_engine import (
    arguments_of,
    at,
    come_up,
    first_token,
    gpu_of,
    is_known,
    place,
    values_of,
    weights_of,
)

LOOK_EVERY_S = 1.0
"""Between two looks at pods that are waited for, virtual seconds."""
API_CALL_S = 0.02
"""What a step of manifests takes at least, so that no two happen at once; virtual seconds, an estimate."""
STARTS_AT = time(9, 0, tzinfo=UTC)
MODELLED = frozenset({"vllm", "dcgm_exporter", "monitoring", "logging"})
"""Kinds of components that a rehearsal knows. Only `vllm` has something to do there."""


class RehearsalCluster(LoopbackCluster):
    """Stacks in virtual time. The same `seed` gives the same rehearsal.

    Virtual seconds are stack seconds, at any pace. Of a pace's `time_scale` only the client feels something: a
    rehearsal shows what a client on the wall clock would see of a stack that runs so fast.
    """

    seed: int = 78
    vcpu_quota: int | None = None
    """vCPUs of each machine family that the subscription grants, for pools that scale; None: as many as they ask."""

    @property
    def _home(self) -> Path:
        return Path(self.data_dir) / "state" / "rehearsal"

    @property
    def _state_dir(self) -> Path:
        return self._home / processes.owner_of()

    def now(self) -> datetime:
        """The clock of the rehearsal that was begun last in this process; the wall's before there was one."""
        rehearsal = newest_rehearsal()
        return datetime.now(UTC) if rehearsal is None else at(rehearsal.world.now_s)

    def deploy(self, order: StackOrder, *, progress: Progress) -> Session:
        if order.hold is not None:
            raise ClusterError(f"hold_minutes has no effect on a rehearsal: {ELSEWHERE}")
        return super().deploy(order, progress=progress)

    def sessions(self, lab: str) -> list[Session]:
        if self._book().read(lab) is None:
            raise ClusterError(f"no rehearsal of {lab} is under way here: {ELSEWHERE}")
        return super().sessions(lab)

    def held_nodes(self, session: Session, *, until: datetime) -> list[HeldNode]:
        """Those of pools that scale for as long as each was paid for, whichever variant ordered it."""
        rehearsal = rehearsal_at(session.prometheus_url)
        fixed = super().held_nodes(session, until=until)
        if _scales(rehearsal.spec, session.sku):
            fixed = [one.model_copy(update={"nodes": 0, "held_until": one.held_from}) for one in fixed]
        if (pools := rehearsal.control_plane.pools) is None:
            return fixed
        priorities: dict[str, Priority] = {nodes.sku: nodes.priority for nodes in rehearsal.spec.nodes}
        scaled = list[HeldNode]()
        for one in pools.nodes:
            held_from = max(at(one.requested_s), session.requested_at)
            held_until = at(min(one.spells[-1].until_s, until.timestamp()))
            if held_from < held_until:
                scaled.append(
                    HeldNode(
                        node=one.node.name,
                        pool=one.pool.name,
                        sku=(sku := one.node.labels[INSTANCE_TYPE]),
                        priority=priorities[sku],
                        held_from=held_from,
                        held_until=held_until,
                    )
                )
        return [one for one in fixed if one.nodes or not scaled] + scaled

    def _bring_up(self, order: StackOrder, *, environ: dict[str, str], folder: Path, progress: Progress) -> Session:
        from lab_pipelines.rehearsal.world import World

        spec = order.spec
        if strange := _without_model(spec):
            raise ClusterError(
                f"{spec.id} can't be rehearsed, since nothing models {', '.join(strange)}. Run it on: "
                f"{', '.join(target for target in spec.targets if target != 'rehearsal') or 'no target yet'}"
            )
        lease_id = environ[processes.LEASE_ID_VARIABLE]
        world = World(
            folder / "world",
            start_s=_first_morning(spec).timestamp(),
            namespace=spec.namespace,
            seed=self.seed,
            client_scale=order.pace.time_scale,
        )
        plane = control_plane_of(spec, order.variant, seed=self.seed, start_s=world.now_s, vcpu_quota=self.vcpu_quota)
        rehearsal = Rehearsal(lease_id, spec, world, plane, environ)
        open_rehearsal(rehearsal)
        session = self._session(order, rehearsal, former=None, progress=progress)
        if session.refusal is not None:
            raise ClusterError(f"variant {order.variant.id} of {spec.id} does not come up: {session.refusal}")
        return session

    def _switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        rehearsal = rehearsal_at(session.prometheus_url)
        if rehearsal.world.engine is not None:
            rehearsal.world.take_down()
        return self._session(order, rehearsal, former=session, progress=progress)

    def _session(
        self, order: StackOrder, rehearsal: Rehearsal, *, former: Session | None, progress: Progress
    ) -> Session:
        """Bring a variant up, or find out that it is refused."""
        spec, variant, world = order.spec, order.variant, rehearsal.world
        node = spec.nodes_of(variant)
        engine = spec.stack.of_kind("vllm")
        values = {c.name: values_of(c, [variant.values.get(c.name, {})]) for c in spec.stack.components}
        requested_s, seed = world.now_s, f"{self.seed}/{spec.id}/{order.visit}"
        phases, refusal, model, arguments, gpu = list[Phase](), None, None, list[str](), None
        if engine is not None:
            arguments = arguments_of(engine, values[engine.name])
            gpu = gpu_of(node.sku)
            numbers = random.Random(seed)
            scales = node.min_count is not None
            warm = scales or (former is not None and former.sku == node.sku)
            try:
                model = EngineModel.of(arguments, gpu, node.gpus)
            except (EngineArgsError, GpuMemoryError, UnknownNameError) as error:
                refusal = str(error)
            planned = drawn_cold_start(gpu, arguments[0], numbers, warm=warm) if is_known(arguments[0], gpu) else []
            if scales:
                phases = place(rehearsal, engine_pod(engine.name, values[engine.name], gpus=node.gpus))
            machine = f"{self.seed}/{spec.id}/{node.sku}"
            rehearsal.weights = weights_of(engine, values[engine.name], spec, arguments[0], seed=machine)
            # An engine that runs out of memory does so while it loads.
            planned = [phase for phase in planned if refusal is None or phase.name != "engine_ready"]
            phases += come_up(rehearsal, planned, seed=seed)
        elif former is None and node.min_count is None and load_prices().sku(node.sku).gpu is not None:
            phases = come_up(rehearsal, drawn_node_start(gpu_of(node.sku), random.Random(seed)), seed=seed)
        ready_s = world.now_s
        trust = None
        if model is not None and engine is not None:
            world.bring_up(engine.name, model, trial=order.trial)
            trust = trust_of(model, context=longest_sequence(spec.steps))
            phases.append(first_token(world))
            took_s = sum(phase.duration_s for phase in phases)
            progress(f"{variant.id}: {arguments[0]} on {gpu} is ready after {took_s:.0f} virtual s (modelled)")
            progress(
                f"{variant.id}: the engine model is {f'inside: {trust.says}' if trust.inside else trust.model_range}"
            )
        return Session(
            session_id=rehearsal.lease_id if former is None else f"{rehearsal.lease_id}.{order.visit}",
            lab=spec.id,
            run_id=order.run_id,
            target="rehearsal",
            engine="modelled-vllm" if engine else "modelled-cluster",
            provenance="modelled",
            pace=order.pace_name,
            time_scale=1.0,
            cold_start_time_scale=1.0,
            namespace=spec.namespace,
            endpoints=[_endpoint(component, rehearsal) for component in spec.stack.components],
            prometheus_url=rehearsal.address,
            metric_selector=f'namespace="{spec.namespace}"',
            spec_digest=spec.digest,
            cost_labels=spec.cost_labels,
            values_digest=canonical_digest(values),
            requested_at=at(requested_s),
            ready_at=at(ready_s),
            phases=phases,
            refusal=refusal,
            model_range=trust.model_range if trust else None,
            model_range_users=trust.users if trust else None,
            variant=variant.id,
            trial=order.trial,
            model=arguments[0] if arguments else None,
            sku=node.sku,
            nodes=node.count,
            gpus=node.gpus,
            priority=node.priority,
            engine_args=arguments,
        )

    def idle(self, session: Session, seconds: float) -> None:
        world = rehearsal_at(session.prometheus_url).world
        until_s = world.now_s + seconds
        while world.advance(until_s):  # requests that were under way
            pass

    def stop(self, session: Session, component: Component) -> None:
        rehearsal = rehearsal_at(session.prometheus_url)
        world = rehearsal.world
        if component.kind == "vllm" and world.engine is None:
            raise ClusterError(f"component {component.name} is not up, so it can't be stopped")
        world.take_down()
        rehearsal.control_plane.delete(component.name, world.now_s)
        if rehearsal.weights is not None:
            rehearsal.weights.gone()

    def start(
        self, session: Session, component: Component, overrides: list[Overrides], *, restart: bool, progress: Progress
    ) -> list[Phase]:
        if component.kind != "vllm" or session.sku is None:
            raise ClusterError(f"component {component.name} ({component.kind}) can't be restarted in a rehearsal")
        rehearsal = rehearsal_at(session.prometheus_url)
        world, values = rehearsal.world, values_of(component, overrides)
        arguments, gpu = arguments_of(component, values), gpu_of(session.sku)
        try:
            model = EngineModel.of(arguments, gpu, session.gpus)
        except (EngineArgsError, GpuMemoryError, UnknownNameError) as error:
            raise ClusterError(f"{component.name} does not come up: {error}") from None
        numbers = random.Random(f"{self.seed}/{session.lab}/{session.visit}/{world.now_s}")
        phases = list[Phase]()
        if _scales(rehearsal.spec, session.sku):
            phases = place(rehearsal, engine_pod(component.name, values, gpus=session.gpus))
        planned = drawn_cold_start(gpu, arguments[0], numbers, warm=True)
        phases += come_up(rehearsal, planned, seed=f"{self.seed}/{session.lab}/{session.visit}", same_pod=restart)
        world.bring_up(component.name, model, trial=session.trial)
        phases.append(first_token(world))
        took_s = sum(phase.duration_s for phase in phases)
        progress(f"{component.name} is up again after {took_s:.0f} virtual s (modelled)")
        return phases

    def log_lines(self, session: Session, component: str) -> list[dict[str, Any]]:
        since_s = session.requested_at.timestamp()
        lines = [
            {"ts": line.at_s, **line.said.log_fields()}
            for line in rehearsal_at(session.prometheus_url).world.log
            if line.component == component and line.at_s >= since_s
        ]
        return [{**line, "line": json.dumps(line)} for line in lines]

    def apply(self, session: Session, step: ApplyStep, *, progress: Progress) -> ApplyOutcome:
        rehearsal = rehearsal_at(session.prometheus_url)
        world, plane = rehearsal.world, rehearsal.control_plane
        labels = manifests.labels_of(rehearsal.spec, session.run_id)
        objects = [
            manifests.placed(one, namespace=session.namespace, labels=labels)
            for one in manifests.read_manifests(REPO_ROOT / step.manifests, os.environ)
        ]
        world.advance(world.now_s + API_CALL_S)
        try:
            refusal = apply_all(plane, objects, world.now_s)
        except NotModelledError as error:
            raise ClusterError(f"{step.manifests}: a rehearsal has no model of {error}") from None
        world.changed += 1
        if refusal is not None:
            return ApplyOutcome(accepted=False, message=refusal, pods=[])
        until_s = world.now_s + step.within_s
        while True:
            pods = [manifests.pod_outcome(pod) for pod in plane.pods(world.now_s)]
            if manifests.settled(pods, step.pods) or world.now_s >= until_s:
                break
            world.advance(min(until_s, world.now_s + LOOK_EVERY_S))
        progress(f"{step.name}: taken by the modelled API server")
        for pod in (pod for pod in pods if pod.phase == "Pending"):
            progress(f"{pod.name} is pending: {plane.why_waiting(pod.name)}")
        return ApplyOutcome(accepted=True, message=None, pods=manifests.found(pods, step.pods))

    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        now = self.now()
        return now if super().release(lab, run_id=run_id) is not None else None

    def _release(self, lab: str, lease_id: str | None) -> datetime | None:
        entry = self._book().read(lab)
        released = super()._release(lab, lease_id)
        if entry is not None and released is not None:
            close_rehearsal(entry.lease.lease_id)
        return released

    def _reap(self, book: LeaseBook) -> list[Reaped]:
        """As on any target of this machine; and what rehearsals in processes that have died left behind."""
        reaped = super()._reap(book)
        for folder in self._home.iterdir():
            if processes.is_alive(folder.name):
                continue
            marked = processes.find_marked(folder)
            reaped += [
                Reaped(
                    lease_id=entry.lease.lease_id,
                    lab=entry.lease.lab,
                    run_id=entry.lease.run_id,
                    reason=f"its process {folder.name.partition(':')[0]} is dead",
                    removed=processes.end(marked.get(entry.lease.lease_id, [])),
                )
                for entry in LeaseBook(folder).all()
            ]
            shutil.rmtree(folder, ignore_errors=True)  # another reaper may be as far
        return reaped


def _without_model(spec: LabSpec) -> list[str]:
    """What of a lab a rehearsal can't do, for a person."""
    components = [f"{c.name} ({c.kind})" for c in spec.stack.components if c.kind not in MODELLED]
    here = [step for step in spec.steps if step.can_be_done_on("rehearsal")]
    return components + [f"{step.name} ({step.kind})" for step in here if isinstance(step, FireAlertStep)]


def _scales(spec: LabSpec, sku: str | None) -> bool:
    return any(nodes.sku == sku and nodes.min_count is not None for nodes in spec.nodes)


def _first_morning(spec: LabSpec) -> datetime:
    """When the lab's week begins, at nine."""
    from lab_pipelines.catalog.calendar import load_calendar

    week = next(week for week in load_calendar().weeks if week.number == spec.week)
    return datetime.combine(week.starts, STARTS_AT)


def _endpoint(component: Component, rehearsal: Rehearsal) -> Endpoint:
    served = component.kind == "vllm"
    return Endpoint(
        component=component.name,
        kind=component.kind,
        base_url=rehearsal.address if served else None,
        metrics_url=None,
        gpu_metrics_url=None,
        log=None,
    )
