"""The targets `kubernetes` and `aks`: a lab's stack as Helm releases in a namespace of its own, which is its lease.

Belongs here: the order in which a stack comes up in a cluster, and what steps do to it there.
Doesn't belong here: leases and how they end (cluster_kubernetes_leases.py), how a release came up (kube_cold_start.py),
what guards a namespace (kube_namespace.py), charts and values (kube_stack.py), Helm (helm.py), pods (kube_pods.py),
nodes (node_holds.py).
"""

from __future__ import annotations

import atexit
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component, Nodes
from lab_pipelines.catalog.steps import ApplyStep
from lab_pipelines.deployment import DEFAULT_IMAGE, REPO_ROOT, ClusterEngine, ClusterSettings, Target
from lab_pipelines.digest import canonical_digest
from resources import (
    kube_api,
    kube_cold_start,
    kube_deadlines,
    kube_namespace,
    kube_nodes,
    kube_secrets,
    kube_stack,
    kube_timeline,
    loki,
    manifests,
    node_holds,
    ownership,
)
from resources.cluster import (
    ApplyOutcome,
    ClusterError,
    Lease,
    Milestone,
    NodeSeen,
    Phase,
    Progress,
    Session,
    StackOrder,
)
from resources.cluster_kubernetes_leases import KubernetesLeases, silent
from resources.helm import HelmReleases
from resources.helm_sdk import ReleaseError
from resources.kube_api import Deadline
from resources.kube_pods import ReleasePods, refusal_in
from resources.kube_reach import Service
from resources.kube_stack import Release, Surroundings
from resources.lease_keeper import kept
from resources.ownership import MANAGED_BY, MANAGED_BY_LABEL

CUT_NOTICED_S = 0.25
"""For a client's end to come through a port-forward: three connections and the API server. 0.14 s was seen on two busy
cores."""

NO_ENGINE = "none"
"""What `engine` says of a stack without one."""
_ENGINES = {"vllm": "vllm", "modelled": "modelled-vllm"}


class KubernetesCluster(KubernetesLeases):
    """Stacks in one cluster. With node pools that can be scaled its nodes come and go with the lease."""

    engine: str = ClusterSettings.engine
    image: str = ClusterSettings.image
    prometheus_url: str | None = None
    prometheus_service: str = ClusterSettings.prometheus_service
    loki_url: str | None = None
    secret_store: str | None = None
    secrets_namespace: str | None = None
    cold_start_time_scale: float = 400.0
    """Of the modelled server's own phases, weights and engine, as on the local target. A cluster's own are what they
    are."""

    # --- A stack's life ---

    def check(self) -> None:
        self._leases.all(deadline=Deadline.within(kube_deadlines.ASK_S))
        self.node_pools.pools()
        if self._engine != "modelled":
            return
        if self.image == DEFAULT_IMAGE and self.target == "aks":
            raise ClusterError(
                f"LABS_CLUSTER_ENGINE=modelled runs the image {self.image}, which only a cluster of this machine has; "
                "push it to a registry and set LABS_IMAGE"
            )

    def deploy(self, order: StackOrder, *, progress: Progress) -> Session:
        self._require_possible(order)
        for reaped in self.reap():
            progress(f"reaped {', '.join(reaped.removed)} of {reaped.lab}, because {reaped.reason}")
        requested_at = datetime.now(UTC)
        lease = self._leases.take(
            order.spec, order.run_id, hold=order.hold, deadline=Deadline.within(kube_deadlines.TAKE_S)
        )
        self._taken[order.spec.id] = lease.lease_id
        progress(f"{order.spec.id} holds namespace {lease.namespace} until {lease.expires_at:%H:%M:%S} UTC, and renews")
        try:
            with kept(lambda: self._renew(lease)):
                self._guard(order.spec, lease)
                session = self._bring_up(order, lease, former=None, requested_at=requested_at, progress=progress)
                if session.refusal is not None:
                    raise ClusterError(
                        f"variant {order.variant.id} of {order.spec.id} does not come up: {session.refusal}"
                    )
                self._record([session])
                reachable = self._reachable(session)
        except BaseException:  # Dagster's interrupt is not an Exception, and it must not leave a stack behind
            self._end_quietly(lease, progress)
            raise
        if order.hold is None:
            # A run that ends before metrics_snapshot (a failed check skips the rest) must not leave its stack behind.
            atexit.register(self._end_quietly, lease, print)
        return reachable

    def switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        self._require_possible(order)
        held, requested_at = self._held(session), datetime.now(UTC)
        with kept(lambda: self._renew(held.lease)):
            following = self._bring_up(order, held.lease, former=session, requested_at=requested_at, progress=progress)
        self._record([*self._recorded(held.lease), following])
        return self._reachable(following)

    def _bring_up(
        self, order: StackOrder, lease: Lease, *, former: Session | None, requested_at: datetime, progress: Progress
    ) -> Session:
        spec, variant, node = order.spec, order.variant, order.spec.nodes_of(order.variant)
        namespace = str(lease.namespace)
        deadline = Deadline.within(kube_deadlines.READY_S)
        around = self._surroundings(lease, sku=node.sku, gpus=node.gpus, time_scale=order.pace.time_scale)
        releases = [
            kube_stack.release_of(component, [variant.values.get(component.name, {})], around)
            for component in spec.stack.components
        ]
        engine = next((one for one in releases if one.component.kind == "vllm"), None)
        if former is not None and former.refusal is None and engine is not None:
            self._stop_if_same(engine, former, spec, around)
        hold = self._hold_nodes(spec, lease, node, former=former, progress=progress)
        scaled_at, pool = (hold.since, hold.pool) if hold else (None, former.pool if former else None)
        refusal, reached, phases, digests = None, list[Milestone](), list[Phase](), dict[str, str]()
        for release in releases:
            try:
                digests[release.name] = self._install(release, around, deadline, partial(_told, progress, variant.id))
            except ReleaseError as error:
                refusal = _refusal(error) if release is engine else None
                if refusal is None:
                    raise
        if engine is not None and refusal is None:
            reached, phases = kube_cold_start.reached(
                self._api, engine, namespace, requested_at=requested_at, scaled_at=scaled_at
            )
        elif scaled_at is not None:
            reached = [
                Milestone(name="requested", at=requested_at, source=kube_timeline.OUR_CLOCK),
                Milestone(name="scaled_out", at=scaled_at, source=kube_timeline.AZURE),
            ]
            seconds = (scaled_at - requested_at).total_seconds()
            phases = [Phase(name="node_ready", started_at=requested_at, ended_at=scaled_at, duration_s=seconds)]
        ready_at = reached[-1].at if reached else datetime.now(UTC)
        seen = list[NodeSeen]()
        if not self.node_pools.gives_nodes:
            seen = kube_nodes.nodes_seen(
                self._api, namespace, sku=node.sku, deadline=Deadline.within(kube_deadlines.ASK_S)
            )
        session = Session(
            session_id=lease.lease_id if former is None else f"{lease.lease_id}.{order.visit}",
            lab=spec.id,
            variant=variant.id,
            trial=order.trial,
            run_id=order.run_id,
            target=cast(Target, self.target),
            engine=NO_ENGINE if engine is None else _ENGINES[self._engine],
            provenance="modelled" if engine is not None and self._engine == "modelled" else "measured",
            pace=order.pace_name,
            time_scale=order.pace.time_scale,
            cold_start_time_scale=self.cold_start_time_scale if self._engine == "modelled" else 1.0,
            namespace=namespace,
            model=engine.arguments[0] if engine else None,
            sku=node.sku,
            nodes=node.count,
            gpus=node.gpus,
            priority=node.priority,
            pool=pool,
            nodes_seen=seen,
            endpoints=[release.endpoint for release in releases],
            prometheus_url=self._prometheus_address,
            metric_selector=f'namespace="{namespace}"',
            engine_args=engine.arguments if engine else [],
            spec_digest=spec.digest,
            cost_labels=spec.cost_labels,
            values_digest=canonical_digest({**{one.name: one.values for one in releases}, "manifests": digests}),
            requested_at=requested_at,
            ready_at=ready_at,
            phases=phases,
            milestones=reached,
            refusal=refusal,
            cut_noticed_s=CUT_NOTICED_S if self.reach == "port-forward" else 0.0,
        )
        if engine is None or refusal is not None:
            return session
        phase = kube_cold_start.ask_first_token(self._reachable(session))
        session = kube_cold_start.with_first_token(session, phase, progress)
        kube_cold_start.wait_for_scrape(self._reachable(session), after=session.ready_at, progress=progress)
        return session

    # --- What steps do to a stack that is up ---

    def stop(self, session: Session, component: Component) -> None:
        deadline = Deadline.within(kube_deadlines.RELEASE_S)
        self._helm(session.namespace).scale(component.name, 0, deadline=deadline, progress=silent)
        ReleasePods(self._api, session.namespace, component.name).wait_until_gone(deadline)

    def start(
        self, session: Session, component: Component, overrides: list[Overrides], *, restart: bool, progress: Progress
    ) -> list[Phase]:
        lease, requested_at = self._held(session).lease, datetime.now(UTC)
        around = self._surroundings(lease, sku=session.sku, gpus=session.gpus, time_scale=session.time_scale)
        release = kube_stack.release_of(component, overrides, around)
        deadline = Deadline.within(kube_deadlines.READY_S)
        with kept(lambda: self._renew(lease)):
            # `stop` has taken the pods away; the release gives the number again, and then waits for them.
            self._install(release, around, deadline, progress)
            _, phases = kube_cold_start.reached(
                self._api, release, session.namespace, requested_at=requested_at, scaled_at=None
            )
        if component.kind != "vllm":
            return phases
        asked = self._reachable(session).model_copy(update={"model": release.arguments[0]})
        phases.append(kube_cold_start.ask_first_token(asked))
        kube_cold_start.wait_for_scrape(self._reachable(session), after=phases[-1].started_at, progress=progress)
        took_s = sum(phase.duration_s for phase in phases)
        progress(f"{component.name} is up again after {took_s:.0f} s ({session.provenance})")
        return phases

    def log_lines(self, session: Session, component: str) -> list[dict[str, Any]]:
        pods, deadline = ReleasePods(self._api, session.namespace, component), Deadline.within(kube_deadlines.ASK_S)
        if self.loki_url is not None:
            return loki.json_lines(self.loki_url, session.namespace, component, since=session.requested_at)
        lines = [line for pod in pods.all(deadline) for line in pods.log(pod, container=None, deadline=deadline)]
        return kube_timeline.json_lines(lines, since=session.requested_at)

    def apply(self, session: Session, step: ApplyStep, *, progress: Progress) -> ApplyOutcome:
        return manifests.carry_out(
            self._api,
            step,
            root=REPO_ROOT,
            environ=os.environ,
            namespace=session.namespace,
            labels=_made_by_us(self._labels(self._held(session).lease)),
            progress=progress,
        )

    # --- Parts ---

    def _require_possible(self, order: StackOrder) -> None:
        """Raise `ClusterError` for what no cluster could do, before anything is begun."""
        spec = order.spec
        if order.pace.time_scale != 1.0 and self._engine != "modelled":
            raise ClusterError(
                f"pace {order.pace_name} of {spec.id} runs {order.pace.time_scale:g} stack seconds per second, which "
                "only the modelled engine can: set LABS_PACE to a pace with time_scale 1, or "
                "LABS_CLUSTER_ENGINE=modelled"
            )
        if strange := [c for c in spec.stack.components if c.kind not in kube_stack.KINDS]:
            named = ", ".join(f"{component.name} ({component.kind})" for component in strange)
            raise ClusterError(f"{spec.id} can't run on target {self.target}: nothing here reaches {named}")

    def _guard(self, spec: LabSpec, lease: Lease) -> None:
        """Close the new namespace before anything runs in it."""
        objects = kube_namespace.guards(spec, monitoring_namespace=Service.of(self.prometheus_service).namespace)
        names, labels = sorted(set(_secrets(spec))), _made_by_us(self._labels(lease))
        if self.secret_store is not None:
            objects += kube_namespace.external_secrets(names, store=self.secret_store)
        namespace, deadline = str(lease.namespace), Deadline.within(kube_deadlines.ASK_S)
        refusal = manifests.apply(self._api, objects, namespace=namespace, labels=labels, deadline=deadline)
        if refusal is not None:
            raise ClusterError(f"namespace {namespace} can't be guarded: {refusal}")
        if self.secrets_namespace is not None:
            kube_secrets.copy(
                self._api, names, source=self.secrets_namespace, namespace=namespace, labels=labels, deadline=deadline
            )

    def _hold_nodes(
        self, spec: LabSpec, lease: Lease, node: Nodes, *, former: Session | None, progress: Progress
    ) -> node_holds.Hold | None:
        """Nodes for a variant, where this target gives them. The former kind goes first; None: it is the same kind."""
        if former is not None and (node.sku, node.priority) == (former.sku, former.priority):
            return None
        tags = ownership.lease_labels(
            spec.cost_labels, run_id=lease.run_id, lease_id=lease.lease_id, expires_at=lease.expires_at
        )
        deadline = Deadline.within(kube_deadlines.NODES_S)
        return node_holds.hold(
            self.node_pools, node, tags=tags, free_first=former is not None, deadline=deadline, progress=progress
        )

    def _stop_if_same(self, engine: Release, former: Session, spec: LabSpec, around: Surroundings) -> None:
        """Stop an engine that is up with the very values that come next: an upgrade would leave its pods, and what they
        have in their caches, as they are."""
        before = next(variant for variant in spec.variants if variant.id == former.variant)
        up = kube_stack.release_of(engine.component, [before.values.get(engine.name, {})], around)
        if up.values == engine.values:
            self.stop(former, engine.component)

    def _install(self, release: Release, around: Surroundings, deadline: Deadline, progress: Progress) -> str:
        """Install or upgrade a release and wait until it is ready; the digest of what it consists of."""
        done = self._helm(around.namespace).apply(
            release.name,
            release.chart,
            release.values,
            labels=around.labels,
            deadline=deadline,
            progress=progress,
        )
        return done.manifest_digest

    def _surroundings(self, lease: Lease, *, sku: str | None, gpus: int, time_scale: float) -> Surroundings:
        return Surroundings(
            namespace=str(lease.namespace),
            engine=self._engine,
            image=self.image,
            sku=sku,
            gpus=gpus,
            time_scale=time_scale,
            cold_start_time_scale=self.cold_start_time_scale,
            labels=self._labels(lease),
            monitors=self._knows_service_monitors(),
            secrets=self.secret_store is not None or self.secrets_namespace is not None,
        )

    def _knows_service_monitors(self) -> bool:
        known = kube_api.resources_of(
            self._api, "monitoring.coreos.com/v1", deadline=Deadline.within(kube_deadlines.ASK_S)
        )
        return any(one["kind"] == "ServiceMonitor" for one in known)

    # --- What is asked ---

    def _helm(self, namespace: str) -> HelmReleases:
        kubeconfig = Path(self.kubeconfig) if self.kubeconfig else None
        return HelmReleases(self._api, kubeconfig=kubeconfig, context=self.context, namespace=namespace)

    @property
    def _engine(self) -> ClusterEngine:
        return cast(ClusterEngine, self.engine)

    @property
    def _prometheus_address(self) -> str:
        return self.prometheus_url or Service.of(self.prometheus_service).url


def _secrets(spec: LabSpec) -> list[str]:
    """The Secrets that the lab's values refer to, whichever variant."""
    return [
        name
        for component in spec.stack.components
        for variant in spec.variants
        for name in kube_namespace.secret_names(
            kube_stack.values_of(component, [variant.values.get(component.name, {})])
        )
    ]


def _made_by_us(labels: dict[str, str]) -> dict[str, str]:
    """Labels of an object that no chart brings: what a chart brings names Helm in that place."""
    return {**labels, MANAGED_BY_LABEL: MANAGED_BY}


def _refusal(error: ReleaseError) -> str | None:
    """What an engine that won't start says itself; None where something else is wrong."""
    return refusal_in([line for trouble in error.troubles for line in trouble.log])


def _told(progress: Progress, variant: str, line: str) -> None:
    progress(f"{variant}: {line}")
