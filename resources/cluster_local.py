"""The local target: every component of the stack as a process on this machine, and a real Prometheus that scrapes them.

Belongs here: the order in which a stack comes up, and what steps do to it.
Doesn't belong here: leases (cluster_loopback.py), a component's own process (local_components.py), the engine's timing
(lab_pipelines/engine/), an engine that is not ours (cluster_external.py).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component, Variant
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.digest import canonical_digest
from lab_pipelines.engine.cold_start import cold_start_plan
from resources import chart_values, local_components, local_monitoring, processes, prometheus_server
from resources.chart_values import ValuesError
from resources.cluster import ClusterError, Phase, Progress, Session, StackOrder
from resources.cluster_loopback import LoopbackCluster, once_more, scrape_interval_s
from resources.first_token import first_token
from resources.local_components import EngineRefusedError, Place, Started

NO_ENGINE = "none"
"""What `engine` says of a stack without one."""


class LocalCluster(LoopbackCluster):
    """The modelled vLLM server, stand-ins for other services, and a real Prometheus.

    Node, driver and image phases of an engine's cold start are waited for at `cold_start_time_scale` stack seconds per
    wall second; the server plays its own phases, at the same scale, before it binds its port.
    """

    cold_start_time_scale: float = 400.0

    def _bring_up(self, order: StackOrder, *, environ: dict[str, str], folder: Path, progress: Progress) -> Session:
        folder.mkdir(parents=True, exist_ok=True)
        spec, pace = order.spec, order.pace
        requested_at = datetime.now(UTC)
        place = Place(folder, environ, pace.time_scale, self.cold_start_time_scale)
        values = {c.name: _values(c, [order.variant.values.get(c.name, {})]) for c in spec.stack.components}
        engine = spec.stack.of_kind("vllm")
        node = spec.nodes_of(order.variant)
        gpu = load_prices().sku(node.sku).gpu
        arguments = _vllm_arguments(engine, values[engine.name]) if engine else []

        watch = spec.stack.of_kind("monitoring")
        monitoring = local_monitoring.start(
            watch,
            values[watch.name] if watch else {},
            place,
            namespace=spec.namespace,
            components=spec.stack.names,
            scrape_interval_s=scrape_interval_s(pace.time_scale),
            progress=progress,
        )
        phases = self._prepare_node(_gpu_of(gpu, node.sku), arguments[0], progress) if engine else []
        started = [self._start(component, arguments, gpu, node.gpus, place) for component in spec.stack.components]
        up = [one for one in started if one is not None]
        phases += [phase for one in up for phase in one.phases]
        ready_at = datetime.now(UTC)
        if engine:
            at = next(one.endpoint for one in up if one.endpoint.component == engine.name)
            assert at.base_url is not None
            phases.append(first_token(at.base_url, arguments[0], time_scale=pace.time_scale))
        prometheus_server.announce(
            monitoring.prometheus_url,
            [*(target for one in up for target in one.targets), *monitoring.targets],
            namespace=spec.namespace,
            folder=folder,
        )
        if engine:
            progress(f"{arguments[0]} on {gpu} is ready after a cold start of {_seconds(phases):.0f} s (modelled)")
        else:
            progress(f"{', '.join(spec.stack.names)}: up in {(ready_at - requested_at).total_seconds():.1f} s")
        return Session(
            session_id=environ[processes.LEASE_ID_VARIABLE],
            lab=spec.id,
            run_id=order.run_id,
            target="local",
            engine="modelled-vllm" if engine else NO_ENGINE,
            provenance="modelled" if engine else "measured",
            pace=order.pace_name,
            time_scale=pace.time_scale,
            cold_start_time_scale=self.cold_start_time_scale,
            namespace=spec.namespace,
            endpoints=[*(one.endpoint for one in up), *monitoring.endpoints],
            prometheus_url=monitoring.prometheus_url,
            metric_selector=f'namespace="{spec.namespace}"',
            spec_digest=spec.digest,
            cost_labels=spec.cost_labels,
            values_digest=canonical_digest(values),
            requested_at=requested_at,
            ready_at=ready_at,
            phases=phases,
            **_of_variant(spec, order.variant, arguments),
        )

    def _switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        spec, variant = order.spec, order.variant
        engine, requested_at = spec.stack.of_kind("vllm"), datetime.now(UTC)
        if engine is None:
            if variant.id != session.variant:
                raise ClusterError(
                    f"variants of {spec.id} can't be told apart on this machine: its stack has no engine"
                )
            return once_more(session, order, requested_at=requested_at, ready_at=datetime.now(UTC))
        values = {c.name: _values(c, [variant.values.get(c.name, {})]) for c in spec.stack.components}
        arguments, node = _vllm_arguments(engine, values[engine.name]), spec.nodes_of(variant)
        gpu = _gpu_of(load_prices().sku(node.sku).gpu, node.sku)
        if session.refusal is None:
            self.stop(session, engine)
        place = Place(
            self._folder(session), self.marker(session.lab), session.time_scale, session.cold_start_time_scale
        )
        # The next variant's engine starts on the node that is there; another SKU is another node.
        phases = [] if node.sku == session.sku else self._prepare_node(gpu, arguments[0], progress)
        at, refusal = session.endpoint(engine.name), None
        try:
            phases += local_components.start_vllm(engine.name, arguments, gpu, node.gpus, place, at=at).phases
        except EngineRefusedError as error:
            refusal = str(error)
        ready_at = datetime.now(UTC)
        if refusal is None:
            assert at.base_url is not None
            local_monitoring.note_pod(place.folder, engine.name, running=True)
            phases.append(first_token(at.base_url, arguments[0], time_scale=session.time_scale))
            progress(f"{variant.id}: {arguments[0]} on {gpu} is ready after {_seconds(phases):.0f} s (modelled)")
        return session.model_copy(
            update={
                "session_id": f"{_lease_id(place.environ)}.{order.visit}",
                "trial": order.trial,
                "values_digest": canonical_digest(values),
                "requested_at": requested_at,
                "ready_at": ready_at,
                "phases": phases,
                "refusal": refusal,
                **_of_variant(spec, variant, arguments),
            }
        )

    def stop(self, session: Session, component: Component) -> None:
        local_components.stop(self._state_dir, _lease_id(self.marker(session.lab)), component.name)
        local_monitoring.note_pod(self._folder(session), component.name, running=False)

    def start(
        self, session: Session, component: Component, overrides: list[Overrides], *, restart: bool, progress: Progress
    ) -> list[Phase]:
        folder = self._folder(session)
        place = Place(folder, self.marker(session.lab), session.time_scale, session.cold_start_time_scale)
        at = session.endpoint(component.name)
        gpu = load_prices().sku(session.sku).gpu if session.sku else None
        arguments = _vllm_arguments(component, _values(component, overrides)) if component.kind == "vllm" else []
        started = self._start(component, arguments, gpu, session.gpus, place, again=session)
        if started is None:
            raise ClusterError(f"component {component.name} ({component.kind}) can't be restarted on this machine")
        local_monitoring.note_pod(folder, component.name, running=True, restarted=restart)
        if component.kind != "vllm":
            return started.phases
        assert at.base_url is not None
        phases = [*started.phases, first_token(at.base_url, arguments[0], time_scale=session.time_scale)]
        progress(f"{component.name} is up again after {_seconds(phases):.0f} s (modelled)")
        return phases

    def log_lines(self, session: Session, component: str) -> list[dict[str, Any]]:
        log, since = session.endpoint(component).log, session.requested_at.timestamp()
        # The file is the stack's, and has what earlier sessions of it had to say.
        return [line for line in local_components.read_log(Path(log)) if line["ts"] >= since] if log else []

    def _start(
        self,
        component: Component,
        arguments: list[str],
        gpu: str | None,
        gpus: int,
        place: Place,
        *,
        again: Session | None = None,
    ) -> Started | None:
        """Start one component; None for a kind that needs no process of its own here."""
        at = again.endpoint(component.name) if again else None
        match component.kind:
            case "vllm":
                return local_components.start_vllm(
                    component.name, arguments, _gpu_of(gpu, "its node"), gpus, place, at=at
                )
            case "http_server":
                return local_components.start_http_server(component.name, place, at=at)
            case "dcgm_exporter" | "monitoring" | "logging":
                # The modelled GPU has its exporter in the engine's process; Prometheus and Alertmanager are up before
                # the rest; a log is a file here.
                return None
            case "workload":
                raise ClusterError(
                    f"component {component.name} is a workload for a scheduler, and this machine has none; run the lab "
                    "on a cluster"
                )

    def _folder(self, session: Session) -> Path:
        return self.run_folder(session.run_id, session.lab)

    def _prepare_node(self, gpu: str, model: str, progress: Progress) -> list[Phase]:
        """Wait, compressed, for what happens before the server's own process exists in a cluster."""
        phases = []
        for planned in cold_start_plan(gpu, model):
            if planned.name in ("model_loaded", "engine_ready"):
                continue  # the server's own
            progress(f"cold start: {planned.name} takes {planned.duration_s:.0f} s (modelled)")
            started = datetime.now(UTC)
            time.sleep(planned.duration_s / self.cold_start_time_scale)
            phases.append(
                Phase(name=planned.name, started_at=started, ended_at=datetime.now(UTC), duration_s=planned.duration_s)
            )
        return phases


def _of_variant(spec: LabSpec, variant: Variant, arguments: list[str]) -> dict[str, Any]:
    """The fields of a session that a variant decides."""
    node = spec.nodes_of(variant)
    return {
        "variant": variant.id,
        "model": arguments[0] if arguments else None,
        "sku": node.sku,
        "nodes": node.count,
        "gpus": node.gpus,
        "priority": node.priority,
        "engine_args": arguments,
    }


def _seconds(phases: list[Phase]) -> float:
    return sum(phase.duration_s for phase in phases)


def _lease_id(marker: dict[str, str]) -> str:
    """The lease's id, by which its processes are found."""
    return marker[processes.LEASE_ID_VARIABLE]


def _values(component: Component, overrides: list[Overrides]) -> dict[str, Any]:
    try:
        return chart_values.load_values(REPO_ROOT / component.chart.values, *overrides)
    except ValuesError as error:
        raise ClusterError(str(error)) from None


def _vllm_arguments(component: Component, values: dict[str, Any]) -> list[str]:
    try:
        return chart_values.vllm_arguments(values, source=component.chart.values)
    except ValuesError as error:
        raise ClusterError(str(error)) from None


def _gpu_of(gpu: str | None, sku: str) -> str:
    if gpu is None:
        raise ClusterError(f"the stack has an engine, and {sku} has no GPU; name a GPU node in the spec's `nodes`")
    return gpu
