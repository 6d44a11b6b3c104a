"""The targets `kubernetes` and `aks`: a lab's stack as Helm releases in a namespace of its own, which is its lease.

Belongs here: the order in which a stack comes up in a cluster, and what steps do to it there.
Doesn't belong here: leases (kube_leases.py), what guards a namespace (kube_namespace.py), charts and values
(kube_stack.py), Helm (helm.py), pods (kube_pods.py), nodes (node_holds.py), ways into the cluster (kube_reach.py).

Nothing of a stack is on record outside of the cluster itself, so any process that may ask it can attach, release or
reap. What this machine adds are port-forwards, which carry the lease's mark and end with it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import PrivateAttr

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component, Nodes
from lab_pipelines.catalog.steps import ApplyStep
from lab_pipelines.deployment import DEFAULT_IMAGE, REPO_ROOT, ClusterEngine, ClusterSettings, Reach, Target
from lab_pipelines.digest import canonical_digest
from resources import (
    kube_api,
    kube_namespace,
    kube_nodes,
    kube_secrets,
    kube_stack,
    kube_timeline,
    loki,
    manifests,
    node_holds,
    ownership,
    processes,
)
from resources.cluster import (
    Amounts,
    ApplyOutcome,
    Cluster,
    ClusterError,
    HeldNode,
    Lease,
    Milestone,
    NodeSeen,
    Phase,
    Progress,
    Reaped,
    Session,
    StackOrder,
)
from resources.first_token import first_token
from resources.helm import HelmReleases
from resources.helm_sdk import ReleaseError
from resources.kube_api import Deadline
from resources.kube_leases import Held, LeaseLostError, NamespaceLeases
from resources.kube_pods import ReleasePods, refusal_in
from resources.kube_reach import ClusterReach, Service
from resources.kube_stack import Release, Surroundings
from resources.lease_keeper import kept
from resources.node_pools import NodePools
from resources.ownership import LEASE_TTL, MANAGED_BY, MANAGED_BY_LABEL
from resources.prometheus_server import scraped

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TAKE_S = 300.0
"""For a lease: a former namespace of the lab may have to go away first."""
ASK_S = 60.0
"""For what is asked of the API server in passing."""
READY_S = 2400.0
"""For a stack to come up: a node, its image, and the weights of the largest model, each with its longest time."""
NODES_S = 1500.0
"""For Azure to give or take nodes."""
RELEASE_S = 600.0
"""For a namespace to go away: a pod may take its grace period, a volume its detachment."""
TICK_S = 20.0
"""For a tick of the reaper to have nodes taken away. Azure makes one change at a time, each of minutes: what it has not
taken by then, the next tick asks for."""
CUT_NOTICED_S = 0.25
"""For a client's end to come through a port-forward: three connections and the API server. 0.14 s was seen on two busy
cores."""
SCRAPED_S = 180.0
"""For Prometheus to find new pods: the operator's reload, discovery, and one interval."""
RENEW_EVERY_S = 20.0
"""Progress comes every second; a renewal reads the namespace."""

NO_ENGINE = "none"
"""What `engine` says of a stack without one."""
_ENGINES = {"vllm": "vllm", "modelled": "modelled-vllm"}

_T = TypeVar("_T")


class KubernetesCluster(Cluster):
    """Stacks in one cluster. With node pools that can be scaled its nodes come and go with the lease."""

    node_pools: NodePools
    data_dir: str
    target: str = "kubernetes"
    kubeconfig: str | None = None
    context: str | None = None
    engine: str = ClusterSettings.engine
    image: str = ClusterSettings.image
    reach: str = ClusterSettings.reach
    prometheus_url: str | None = None
    prometheus_service: str = ClusterSettings.prometheus_service
    loki_url: str | None = None
    secret_store: str | None = None
    secrets_namespace: str | None = None
    cold_start_time_scale: float = 400.0
    """Of the modelled server's own phases, weights and engine, as on the local target. A cluster's own are what they
    are."""

    _renewed: dict[str, float] = PrivateAttr(default_factory=dict)
    _taken: dict[str, str] = PrivateAttr(default_factory=dict)
    """The leases that this process took itself, by lab."""
    _client: Any = PrivateAttr(default=None)
    """An `ApiClient`, once it was needed."""

    # --- A stack's life ---

    def check(self) -> None:
        self._leases.all(deadline=Deadline.within(ASK_S))
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
        lease = self._leases.take(order.spec, order.run_id, hold=order.hold, deadline=Deadline.within(TAKE_S))
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
        deadline = Deadline.within(READY_S)
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
            reached, phases = self._reached(engine, namespace, requested_at, scaled_at)
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
            seen = kube_nodes.nodes_seen(self._api, namespace, sku=node.sku, deadline=Deadline.within(ASK_S))
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
            spec_digest=canonical_digest(spec.model_dump(mode="json")),
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
        session = self._with_first_token(session, progress)
        self._wait_for_scrape(session, after=session.ready_at, progress=progress)
        return session

    def _wait_for_scrape(self, session: Session, *, after: datetime, progress: Progress) -> None:
        """Until Prometheus has found the new pods: a counter that grows before its first scrape has lost that growth.

        A Prometheus that never finds them leaves gaps, which the lab's measures will say; it is no reason to fail.
        """
        address = self._reachable(session).prometheus_url
        if not scraped(address, session.metric_selector, after=after, deadline=Deadline.within(SCRAPED_S)):
            progress(
                f"{session.variant}: Prometheus has not scraped {session.metric_selector} within {SCRAPED_S:.0f} s; "
                "measures will be gaps. Does it select the namespace's ServiceMonitors?"
            )

    def _with_first_token(self, session: Session, progress: Progress) -> Session:
        """The session with the phase that ends its cold start."""
        phase = self._first_token(session)
        milestone = Milestone(name="first_token", at=phase.ended_at, source="the answer to a request for one token")
        # Until this machine could ask, nothing served: no second between a pod's readiness and the request is lost.
        *former, last = session.phases
        gap_s = max((phase.started_at - session.ready_at).total_seconds(), 0.0)
        last = last.model_copy(update={"ended_at": phase.started_at, "duration_s": last.duration_s + gap_s})
        phases = [*former, last, phase]
        took_s = sum(one.duration_s for one in phases)
        progress(f"{session.variant}: {session.model} is ready after {took_s:.0f} s ({session.provenance})")
        return session.model_copy(
            update={
                "ready_at": phase.started_at,
                "phases": phases,
                "milestones": [*session.milestones, milestone],
            }
        )

    def _first_token(self, session: Session) -> Phase:
        reachable = self._reachable(session)
        base_url = next(one.base_url for one in reachable.endpoints if one.kind == "vllm")
        assert base_url is not None and session.model is not None
        return first_token(base_url, session.model, time_scale=session.time_scale)

    def _reached(
        self, release: Release, namespace: str, requested_at: datetime, scaled_at: datetime | None
    ) -> tuple[list[Milestone], list[Phase]]:
        """Milestones and phases of a release that is ready."""
        pods, deadline = ReleasePods(self._api, namespace, release.name), Deadline.within(ASK_S)
        # Of several replicas the last one to be ready is what the stack waited for.
        last = max(pods.all(deadline), key=kube_timeline.ready_at)
        log = pods.log(last, container=release.container, deadline=deadline)
        reached = kube_timeline.milestones(
            last,
            pods.events(last, deadline),
            pods.node(last, deadline),
            log,
            requested_at=requested_at,
            scaled_at=scaled_at,
            container=release.container,
        )
        return reached, kube_timeline.phases(reached, log)

    # --- Leases ---

    def attach(self, lab: str) -> Session:
        return self.sessions(lab)[-1]

    def sessions(self, lab: str) -> list[Session]:
        held = self._live(lab)
        if held is None and lab in self._taken:
            raise LeaseLostError(f"the lease of {lab} is gone: its stack was released or reaped meanwhile")
        found = self._recorded(held.lease) if held is not None else []
        if not found:
            raise ClusterError(
                f"no stack of {lab} is up on target {self.target}. Materialize deployed_stack in the same run, or "
                "first on its own with hold_minutes set"
            )
        return [self._reachable(session) for session in found]

    def marker(self, lab: str) -> dict[str, str]:
        held = self._live(lab)
        if held is None:
            raise ClusterError(f"{lab} holds no lease on target {self.target}")
        return self._reach.marker(held.lease.lease_id)

    def run_folder(self, run_id: str, lab: str) -> Path:
        return Path(self.data_dir) / "runs" / run_id / lab

    def held_nodes(self, session: Session, *, until: datetime) -> list[HeldNode]:
        """Where nobody gives nodes to a lease: those that the session's pods are on, beside those of other labs."""
        if not session.nodes_seen:
            return super().held_nodes(session, until=until)
        used = kube_nodes.used(session.prometheus_url, session.namespace, since=session.requested_at, until=until)
        alone = used.get(None, Amounts()) if len(session.nodes_seen) == 1 else Amounts()
        return [
            HeldNode(
                node=one.node,
                pool=one.pool,
                sku=session.sku,
                priority=one.priority,
                held_from=session.requested_at,
                held_until=until,
                exclusive=False,
                capacity=one.capacity,
                requested=one.requested,
                used=used.get(one.node, alone),
            )
            for one in session.nodes_seen
        ]

    def renew(self, session: Session) -> None:
        lease_id = _lease_id(session)
        now = time.monotonic()
        since_s = now - self._renewed.get(lease_id, -RENEW_EVERY_S)
        if since_s < RENEW_EVERY_S:
            return
        try:
            self._leases.renew(session.namespace, lease_id, deadline=Deadline.within(ASK_S))
            self._renewed[lease_id] = now
        except LeaseLostError:
            raise
        except ClusterError:
            # An hour of load must not end with an API server's bad minute, as long as the lease outlasts it.
            if since_s > LEASE_TTL.total_seconds() / 2:
                raise

    def _renew(self, lease: Lease) -> None:
        self._leases.renew(str(lease.namespace), lease.lease_id, deadline=Deadline.within(ASK_S))

    def leases(self) -> list[Lease]:
        return sorted(
            (held.lease for held in self._leases.all(deadline=Deadline.within(ASK_S))), key=lambda one: one.lab
        )

    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        held = next((one for one in self._leases.all(deadline=Deadline.within(ASK_S)) if one.lease.lab == lab), None)
        if held is None or run_id not in (None, held.lease.run_id):
            return None
        return self._end(held.lease, _silent)

    def _end(self, lease: Lease, progress: Progress) -> datetime | None:
        """Take away what the lease holds: nodes first, since they cost money; the namespace, which is the lease, last.

        What fails doesn't keep the rest from being taken away. Raises the first failure.
        """
        failures, nodes = list[ClusterError](), Deadline.within(NODES_S)
        progress = partial(_told_if_possible, progress)

        def attempt(take_away: Callable[[], _T]) -> _T | None:
            try:
                return take_away()
            except ClusterError as error:
                failures.append(error)
                return None

        attempt(lambda: self._reach.end(lease.lease_id))
        attempt(lambda: node_holds.free(self.node_pools, lease.lease_id, deadline=nodes, progress=progress))
        deadline = Deadline.within(RELEASE_S)
        gone_at = attempt(
            lambda: self._leases.release(str(lease.namespace), lease.lease_id, deadline=deadline, progress=progress)
        )
        if failures:
            raise failures[0]
        return gone_at

    def _end_quietly(self, lease: Lease, progress: Progress) -> None:
        """As `_end`, where another error is on its way or nobody is left to catch one: the reaper does what is left."""
        try:
            self._end(lease, progress)
        except ClusterError as error:
            _told_if_possible(progress, f"the stack of {lease.lab} could not be released; the reaper will: {error}")

    def reap(self) -> list[Reaped]:
        now, deadline = datetime.now(UTC), Deadline.within(ASK_S)
        # What a lease holds before the leases: it was begun after its lease, so one without a lease has lost it.
        marked, pools = self._reach.marked(), self.node_pools.pools()
        try:
            reaped = self._leases.reap(now=now, deadline=deadline)
            good = self._leases.good(now=now, deadline=deadline)
        except ClusterError:
            # Money runs on while the API server can't be asked: what is over by its own tag's time goes all the same.
            node_holds.reap(self.node_pools, pools, good=None, now=now, deadline=Deadline.within(TICK_S))
            raise
        for lease_id, found in marked.items():
            if lease_id not in good:
                processes.end(found)
        nodes = node_holds.reap(self.node_pools, pools, good=set(good), now=now, deadline=Deadline.within(TICK_S))
        return [*reaped, *nodes]

    # --- What steps do to a stack that is up ---

    def stop(self, session: Session, component: Component) -> None:
        deadline = Deadline.within(RELEASE_S)
        self._helm(session.namespace).scale(component.name, 0, deadline=deadline, progress=_silent)
        ReleasePods(self._api, session.namespace, component.name).wait_until_gone(deadline)

    def start(
        self, session: Session, component: Component, overrides: list[Overrides], *, restart: bool, progress: Progress
    ) -> list[Phase]:
        lease, requested_at = self._held(session).lease, datetime.now(UTC)
        around = self._surroundings(lease, sku=session.sku, gpus=session.gpus, time_scale=session.time_scale)
        release = kube_stack.release_of(component, overrides, around)
        deadline = Deadline.within(READY_S)
        with kept(lambda: self._renew(lease)):
            # `stop` has taken the pods away; the release gives the number again, and then waits for them.
            self._install(release, around, deadline, progress)
            _, phases = self._reached(release, session.namespace, requested_at, None)
        if component.kind != "vllm":
            return phases
        phases.append(self._first_token(session.model_copy(update={"model": release.arguments[0]})))
        self._wait_for_scrape(session, after=phases[-1].started_at, progress=progress)
        took_s = sum(phase.duration_s for phase in phases)
        progress(f"{component.name} is up again after {took_s:.0f} s ({session.provenance})")
        return phases

    def log_lines(self, session: Session, component: str) -> list[dict[str, Any]]:
        pods, deadline = ReleasePods(self._api, session.namespace, component), Deadline.within(ASK_S)
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
        namespace, deadline = str(lease.namespace), Deadline.within(ASK_S)
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
        deadline = Deadline.within(NODES_S)
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
        known = kube_api.resources_of(self._api, "monitoring.coreos.com/v1", deadline=Deadline.within(ASK_S))
        return any(one["kind"] == "ServiceMonitor" for one in known)

    def _labels(self, lease: Lease) -> dict[str, str]:
        """What every object of the lease carries. Raises `ClusterError` when the lease is gone."""
        held = self._leases.read(str(lease.namespace), deadline=Deadline.within(ASK_S))
        if held is None or held.lease.lease_id != lease.lease_id:
            raise LeaseLostError(f"the lease on {lease.namespace} is gone: its stack was released or reaped meanwhile")
        return ownership.labels_within(held.labels)

    def _record(self, sessions: list[Session]) -> None:
        session = sessions[-1]
        self._leases.put_sessions(
            session.namespace,
            sessions,
            labels=self._labels(self._held(session).lease),
            deadline=Deadline.within(ASK_S),
        )

    def _recorded(self, lease: Lease) -> list[Session]:
        return self._leases.sessions(str(lease.namespace), deadline=Deadline.within(ASK_S))

    def _live(self, lab: str) -> Held | None:
        """The lab's lease, if it is good; for a run that took one itself, no other than that."""
        good = self._leases.good(now=datetime.now(UTC), deadline=Deadline.within(ASK_S))
        taken = self._taken.get(lab)
        return next(
            (held for lease_id, held in good.items() if held.lease.lab == lab and taken in (None, lease_id)), None
        )

    def _held(self, session: Session) -> Held:
        """The lease of a session. Raises `ClusterError` when it is gone."""
        held = self._leases.read(session.namespace, deadline=Deadline.within(ASK_S))
        if held is None or held.terminating or held.lease.lease_id != _lease_id(session):
            raise LeaseLostError(f"the lease of {session.lab} is gone: its stack was released or reaped meanwhile")
        return held

    def _reachable(self, session: Session) -> Session:
        """The session with addresses that can be used here instead of those within the cluster."""

        def here(address: str | None) -> str | None:
            return address and self._reach.url(address, lease_id=_lease_id(session))

        up = session.refusal is None
        endpoints = [
            one.model_copy(update={"base_url": here(one.base_url) if up else one.base_url}) for one in session.endpoints
        ]
        return session.model_copy(
            update={"endpoints": endpoints, "prometheus_url": here(session.prometheus_url) or session.prometheus_url}
        )

    # --- What is asked ---

    @property
    def _api(self) -> ApiClient:
        if self._client is None:
            kubeconfig = Path(self.kubeconfig) if self.kubeconfig else None
            self._client = kube_api.connect(kubeconfig, self.context)
        return self._client

    @property
    def _leases(self) -> NamespaceLeases:
        return NamespaceLeases(self._api)

    def _helm(self, namespace: str) -> HelmReleases:
        kubeconfig = Path(self.kubeconfig) if self.kubeconfig else None
        return HelmReleases(self._api, kubeconfig=kubeconfig, context=self.context, namespace=namespace)

    @property
    def _reach(self) -> ClusterReach:
        state_dir = Path(self.data_dir) / "state" / self.target
        kubeconfig = Path(self.kubeconfig) if self.kubeconfig else None
        return ClusterReach(kubeconfig, self.context, cast(Reach, self.reach), state_dir)

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


def _lease_id(session: Session) -> str:
    """A lease's id begins the id of each of its sessions."""
    return session.session_id.partition(".")[0]


def _told(progress: Progress, variant: str, line: str) -> None:
    progress(f"{variant}: {line}")


def _told_if_possible(progress: Progress, line: str) -> None:
    """A run's log on a full disk takes no more lines. That must not be why its nodes run on."""
    with contextlib.suppress(Exception):
        progress(line)


def _silent(line: str) -> None:
    """For what nobody waits for."""
