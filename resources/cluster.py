"""The contract of a cluster: put a lab's stack somewhere, hold it under a lease, and take it away again.

Belongs here: the abstract `Cluster` and the records that every implementation speaks of.
Doesn't belong here: processes (cluster_loopback.py, cluster_local.py), Kubernetes or Azure.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from dagster import ConfigurableResource
from pydantic import BaseModel, ConfigDict

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.prices import Priority
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component, ComponentKind, Variant
from lab_pipelines.catalog.steps import ApplyStep
from lab_pipelines.deployment import Target
from lab_pipelines.provenance import Provenance
from lab_pipelines.turns import visit_name

RENEW_EVERY_S = 30.0
"""Between two renewals of a lease while its stack is only held; wall seconds, a fraction of any lease."""

Progress = Callable[[str], None]
"""Receives one line, fit for a person, whenever something worth knowing has happened."""

ColdStartPhase = Literal[
    "node_requested", "node_ready", "driver_ready", "image_pulled", "model_loaded", "engine_ready", "first_token"
]
"""`node_requested`: until an autoscaler has ordered the node that a pod waits for."""
MilestoneName = Literal[
    "requested",
    "scaled_out",
    "node_created",
    "node_ready",
    "scheduled",
    "image_pulled",
    "started",
    "model_loaded",
    "ready",
    "first_token",
]
"""Moments of a cold start, in their order. A phase ends at some of them (kube_timeline.py)."""


class ClusterError(RuntimeError):
    """The stack can't be had as asked. The message says what was tried, what was seen, and what to do."""


class LeaseHeldError(ClusterError):
    """Another live run holds the lab."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StackOrder(Record):
    """What a run asks a cluster for."""

    spec: LabSpec
    variant: Variant
    trial: int = 1
    """The turn in which the variant is walked, from 1."""
    run_id: str
    pace_name: str
    pace: Pace
    hold: timedelta | None
    """How long the stack may outlive the process that asked for it; None: not at all."""

    @property
    def visit(self) -> str:
        """What names of files, folders and sessions call this variant in this turn."""
        return visit_name(self.variant.id, self.trial)


class Lease(Record):
    """The right of one run to hold a lab's namespace and nodes until `expires_at`."""

    lease_id: str
    lab: str
    run_id: str
    owner: str
    """Who holds it, in a form that tells a dead owner from a live one."""
    expires_at: datetime
    namespace: str | None = None
    """None: the target has no namespaces."""


class Phase(Record):
    """One phase of a cold start. `duration_s` is in stack seconds, the timestamps are wall clock."""

    name: ColdStartPhase
    started_at: datetime
    ended_at: datetime
    duration_s: float


class Milestone(Record):
    """One moment of a cold start that somebody stamped: the wall clock's time, and whose stamp it is."""

    name: MilestoneName
    at: datetime
    source: str


class Endpoint(Record):
    """One component of a stack that is up, and how to reach it."""

    component: str
    kind: ComponentKind
    base_url: str | None
    """An engine's OpenAI base URL, ending in /v1; an HTTP server's root; Alertmanager's root for `monitoring`."""
    metrics_url: str | None
    gpu_metrics_url: str | None
    """Of the exporter that watches its GPUs, where it has one."""
    log: str | None
    """Where its structured log lines are: a file of JSON lines on this machine, or a LogQL selector."""
    cluster_url: str | None = None
    """What `base_url` is for the pods of its own cluster; None: it is in none."""


class Amounts(Record):
    """So much of each resource of a node; None: unknown."""

    gpus: float | None = None
    cpus: float | None = None
    memory_bytes: float | None = None


class HeldNode(Record):
    """A node that a session holds, or several identical ones that it holds alone."""

    node: str | None = None
    """Its name; None: it has none, or there are several."""
    nodes: int = 1
    """0: the session held none."""
    pool: str | None = None
    sku: str | None
    """None: a machine whose price nobody knows."""
    priority: Priority
    held_from: datetime
    held_until: datetime
    exclusive: bool = True
    """No other session may hold it. Else all that follows is known, but for usage."""
    capacity: Amounts = Amounts()
    requested: Amounts = Amounts()
    """By the session's pods on it."""
    used: Amounts = Amounts()
    """Mean over the time held."""

    def held_to(self, end: datetime, *, asked_at: datetime) -> HeldNode:
        """The node as it was held to the session's end, unless it was gone before `asked_at`, when it was asked for."""
        return self if self.held_until < asked_at else self.model_copy(update={"held_until": max(end, asked_at)})


class NodeSeen(Record):
    """A node on which a session's pods were when its stack had come up; others may have pods there, too."""

    node: str
    pool: str | None
    priority: Priority
    capacity: Amounts
    """What can be asked of it."""
    requested: Amounts
    """By the session's pods."""


class Session(Record):
    """A stack that is up, and everything that a later asset needs to know of it."""

    session_id: str
    lab: str
    variant: str
    trial: int = 1
    """The turn in which the variant is walked, from 1."""
    run_id: str
    target: Target
    engine: str
    provenance: Provenance
    pace: str
    time_scale: float
    cold_start_time_scale: float
    namespace: str
    model: str | None
    """None: the stack has no engine."""
    sku: str | None
    nodes: int
    gpus: int = 0
    """GPUs that the engine uses on each node."""
    priority: Priority = "on_demand"
    """How its nodes are rented."""
    pool: str | None = None
    """The node pool that its lease has for itself; None: it has none."""
    nodes_seen: list[NodeSeen] = []
    """Where its pods are, on a target on which labs share nodes."""
    endpoints: list[Endpoint]
    prometheus_url: str
    metric_selector: str
    """What `$selector` stands for in this session's PromQL."""
    engine_args: list[str]
    spec_digest: str
    values_digest: str
    requested_at: datetime
    ready_at: datetime
    phases: list[Phase]
    """Empty for an engine that was already running."""
    milestones: list[Milestone] = []
    """What was stamped on the way, in order; empty where phases are all that is known."""
    cut_noticed_s: float = 0.0
    """Wall seconds for which the engine may go on with a stream after its client has left, since the way between them
    has more than one connection."""
    refusal: str | None = None
    """What the engine said when it would not start: nothing is up but what watches it. None: the stack is up."""
    model_range: str | None = None
    """"inside", or "outside: …" with the reason, of the range in which the engine model was compared with public
    measurements (lab_pipelines/engine/trust.py). None: no engine is modelled."""
    cost_labels: dict[str, str] = {}
    """The labels that the lab's objects carry, so that a bill can be split by them."""
    model_range_users: int | None = None
    """The largest concurrency of that range."""

    @property
    def visit(self) -> str:
        """What names of files, folders and sessions call this variant in this turn."""
        return visit_name(self.variant, self.trial)

    def endpoint(self, component: str) -> Endpoint:
        """The component's endpoint. Raises `ClusterError`."""
        for endpoint in self.endpoints:
            if endpoint.component == component:
                return endpoint
        raise ClusterError(f"{self.lab} has no component {component!r} that is up")


class PodOutcome(Record):
    """What became of one pod of a manifest. `reason` is the scheduler's or the container's message, if there is one."""

    name: str
    phase: str
    reason: str | None


class ApplyOutcome(Record):
    """What the API server and the scheduler made of a manifest. `message` is the API server's refusal."""

    accepted: bool
    message: str | None
    pods: list[PodOutcome]


class Reaped(Record):
    """One lease that the reaper ended, and what it removed."""

    lease_id: str
    lab: str
    run_id: str
    reason: str
    removed: list[str]
    trouble: str | None = None
    """Why it is still there, and left to the next time. None: it is gone, or on its way."""


class Cluster(ConfigurableResource, ABC):
    """Places where a lab's stack can live. Every method may be called from another process than the last one."""

    def check(self) -> None:
        """Raise `ClusterError` where nothing could be deployed now, whatever the lab, with what to install or set."""

    def priced_sku(self, spec: LabSpec, variant: Variant) -> str | None:
        """The machine type that a session of the variant will have; None where its price is nobody's to know."""
        return spec.nodes_of(variant).sku

    @abstractmethod
    def deploy(self, order: StackOrder, *, progress: Progress) -> Session:
        """Take the lease, bring the stack up, wait until it answers, and return it.

        Reaps what dead runs left behind first. Raises `LeaseHeldError`, or `ClusterError` after having removed whatever
        it had started.
        """

    @abstractmethod
    def switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        """Bring the stack up in another variant, under the same lease, after taking down the engine of `session`.

        A session of its own, with an id of its own; `session` ends when it begins. An engine that refuses to start is
        a result: the new session then carries its `refusal`. Raises `ClusterError` for whatever else goes wrong.
        """

    @abstractmethod
    def attach(self, lab: str) -> Session:
        """The lab's live session, the newest of its lease. Raises `ClusterError` when there is none."""

    @abstractmethod
    def sessions(self, lab: str) -> list[Session]:
        """Every session of the lab's lease so far, one per variant and turn, oldest first.

        Raises `ClusterError` as `attach`.
        """

    def held_nodes(self, session: Session, *, until: datetime) -> list[HeldNode]:
        """The nodes that the session has held up to `until`, which is its end.

        Asked once for each session of a lease, before the lease is released. Here: the session's own nodes, all of the
        time, which nobody else may hold. Raises `ClusterError`.
        """
        return [
            HeldNode(
                nodes=session.nodes,
                pool=session.pool,
                sku=session.sku,
                priority=session.priority,
                held_from=session.requested_at,
                held_until=until,
            )
        ]

    def now(self) -> datetime:
        """The time on the stack's own clock, which stamps everything that happens to it: the wall clock's."""
        return datetime.now(UTC)

    @abstractmethod
    def marker(self, lab: str) -> dict[str, str]:
        """Environment for a process that works for the lab's lease, so that the reaper finds it too."""

    @abstractmethod
    def run_folder(self, run_id: str, lab: str) -> Path:
        """Where a run keeps logs and raw files, on the machine that runs the asset."""

    @abstractmethod
    def renew(self, session: Session) -> None:
        """Extend the session's lease. Long work calls it again and again."""

    @abstractmethod
    def leases(self) -> list[Lease]:
        """Every lease there is on this target, good or not, by lab. Raises `ClusterError` when it can't be asked."""

    @abstractmethod
    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        """Take the lab's stack away and end its lease; the time when all was gone, or None if nothing was there.

        With `run_id`, only if that run holds it: nobody's next run must lose its stack to the last one's end.
        Idempotent: safe after a failure at any point, and on a lab that was never deployed.
        """

    @abstractmethod
    def reap(self) -> list[Reaped]:
        """Remove whatever belongs to expired leases or dead owners. Never touches what isn't ours."""

    # What steps do to a stack that is up. A target that can't do one of them says so with `ClusterError`; no spec that
    # needs it names that target.

    def idle(self, session: Session, seconds: float) -> None:
        """Hold the stack under its lease for so many stack seconds while nothing is asked of it."""
        until = time.monotonic() + seconds / session.time_scale
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, RENEW_EVERY_S))
            self.renew(session)

    @abstractmethod
    def stop(self, session: Session, component: Component) -> None:
        """Take one component down, its endpoint kept for `start`."""

    @abstractmethod
    def start(
        self, session: Session, component: Component, overrides: list[Overrides], *, restart: bool, progress: Progress
    ) -> list[Phase]:
        """Bring a stopped component up again at its endpoint, its values with `overrides`; an engine's cold start.

        `restart` counts as one: the next life of the same pod, not a new one.
        """

    @abstractmethod
    def log_lines(self, session: Session, component: str) -> list[dict[str, Any]]:
        """The component's structured log lines of this session, oldest first.

        Each has `ts`, Unix time in seconds, its own fields, and its text as `line`.
        """

    @abstractmethod
    def apply(self, session: Session, step: ApplyStep, *, progress: Progress) -> ApplyOutcome:
        """Apply the step's manifests to the lab's namespace; watch its pods until they are as expected or time ends."""

    @contextmanager
    def released_on_error(self, lab: str) -> Iterator[None]:
        """Release the lab's stack when the block fails or is interrupted; the error goes on its way.

        Only the stack that is up as the block begins: a run that has lost its lease, because its machine was asleep,
        fails, and by then another run may hold the lab.
        """
        held = next((lease for lease in self.leases() if lease.lab == lab), None)
        try:
            yield
        except BaseException:  # Dagster's interrupt is not an Exception, and it must not leave a stack behind
            if held is not None:
                self.release(lab, run_id=held.run_id)
            raise
