"""The leases of the targets `kubernetes` and `aks`, and the sessions and nodes that they hold.

Belongs here: where the cluster is, whose stack is up in it, and how a lease ends: released by its holder, or reaped.
Doesn't belong here: bringing a stack up under a lease (cluster_kubernetes.py), the namespace that a lease is
(kube_leases.py), nodes (node_holds.py), ways into the cluster (kube_reach.py).

Nothing of a lease is on record outside of the cluster itself, so any process that may ask it can attach, release or
reap. What this machine adds are port-forwards, which carry the lease's mark and end with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import PrivateAttr

from lab_pipelines.deployment import ClusterSettings, Reach
from resources import kube_api, kube_deadlines, kube_nodes, node_holds, ownership, processes
from resources.cluster import Amounts, Cluster, ClusterError, HeldNode, Lease, Progress, Reaped, Session
from resources.kube_api import Deadline
from resources.kube_leases import Held, LeaseLostError, NamespaceLeases
from resources.kube_reach import ClusterReach
from resources.node_pools import NodePools
from resources.ownership import LEASE_TTL

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

RENEW_EVERY_S = 20.0
"""Progress comes every second; a renewal reads the namespace."""

_T = TypeVar("_T")


class KubernetesLeases(Cluster):
    """The part of a cluster's target that knows leases; a namespace is one."""

    node_pools: NodePools
    data_dir: str
    target: str = "kubernetes"
    kubeconfig: str | None = None
    context: str | None = None
    reach: str = ClusterSettings.reach

    _renewed: dict[str, float] = PrivateAttr(default_factory=dict)
    _taken: dict[str, str] = PrivateAttr(default_factory=dict)
    """The leases that this process took itself, by lab."""
    _client: Any = PrivateAttr(default=None)
    """An `ApiClient`, once it was needed."""

    # --- What is up ---

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

    def leases(self) -> list[Lease]:
        return sorted(
            (held.lease for held in self._leases.all(deadline=Deadline.within(kube_deadlines.ASK_S))),
            key=lambda one: one.lab,
        )

    # --- A lease's life ---

    def renew(self, session: Session) -> None:
        lease_id = _lease_id(session)
        now = time.monotonic()
        since_s = now - self._renewed.get(lease_id, -RENEW_EVERY_S)
        if since_s < RENEW_EVERY_S:
            return
        try:
            self._leases.renew(session.namespace, lease_id, deadline=Deadline.within(kube_deadlines.ASK_S))
            self._renewed[lease_id] = now
        except LeaseLostError:
            raise
        except ClusterError:
            # An hour of load must not end with an API server's bad minute, as long as the lease outlasts it.
            if since_s > LEASE_TTL.total_seconds() / 2:
                raise

    def _renew(self, lease: Lease) -> None:
        self._leases.renew(str(lease.namespace), lease.lease_id, deadline=Deadline.within(kube_deadlines.ASK_S))

    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        held = next(
            (one for one in self._leases.all(deadline=Deadline.within(kube_deadlines.ASK_S)) if one.lease.lab == lab),
            None,
        )
        if held is None or run_id not in (None, held.lease.run_id):
            return None
        return self._end(held.lease, silent)

    def _end(self, lease: Lease, progress: Progress) -> datetime | None:
        """Take away what the lease holds: nodes first, since they cost money; the namespace, which is the lease, last.

        What fails doesn't keep the rest from being taken away. Raises the first failure.
        """
        failures, nodes = list[ClusterError](), Deadline.within(kube_deadlines.NODES_S)
        progress = partial(_told_if_possible, progress)

        def attempt(take_away: Callable[[], _T]) -> _T | None:
            try:
                return take_away()
            except ClusterError as error:
                failures.append(error)
                return None

        attempt(lambda: self._reach.end(lease.lease_id))
        attempt(lambda: node_holds.free(self.node_pools, lease.lease_id, deadline=nodes, progress=progress))
        deadline = Deadline.within(kube_deadlines.RELEASE_S)
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
        now, deadline = datetime.now(UTC), Deadline.within(kube_deadlines.ASK_S)
        # What a lease holds before the leases: it was begun after its lease, so one without a lease has lost it.
        marked, pools = self._reach.marked(), self.node_pools.pools()
        try:
            reaped = self._leases.reap(now=now, deadline=deadline)
            good = self._leases.good(now=now, deadline=deadline)
        except ClusterError:
            # Money runs on while the API server can't be asked: what is over by its own tag's time goes all the same.
            node_holds.reap(self.node_pools, pools, good=None, now=now, deadline=Deadline.within(kube_deadlines.TICK_S))
            raise
        for lease_id, found in marked.items():
            if lease_id not in good:
                processes.end(found)
        nodes = node_holds.reap(
            self.node_pools, pools, good=set(good), now=now, deadline=Deadline.within(kube_deadlines.TICK_S)
        )
        return [*reaped, *nodes]

    # --- Parts ---

    def _record(self, sessions: list[Session]) -> None:
        session = sessions[-1]
        self._leases.put_sessions(
            session.namespace,
            sessions,
            labels=self._labels(self._held(session).lease),
            deadline=Deadline.within(kube_deadlines.ASK_S),
        )

    def _recorded(self, lease: Lease) -> list[Session]:
        return self._leases.sessions(str(lease.namespace), deadline=Deadline.within(kube_deadlines.ASK_S))

    def _live(self, lab: str) -> Held | None:
        """The lab's lease, if it is good; for a run that took one itself, no other than that."""
        good = self._leases.good(now=datetime.now(UTC), deadline=Deadline.within(kube_deadlines.ASK_S))
        taken = self._taken.get(lab)
        return next(
            (held for lease_id, held in good.items() if held.lease.lab == lab and taken in (None, lease_id)), None
        )

    def _held(self, session: Session) -> Held:
        """The lease of a session. Raises `ClusterError` when it is gone."""
        held = self._leases.read(session.namespace, deadline=Deadline.within(kube_deadlines.ASK_S))
        if held is None or held.terminating or held.lease.lease_id != _lease_id(session):
            raise LeaseLostError(f"the lease of {session.lab} is gone: its stack was released or reaped meanwhile")
        return held

    def _labels(self, lease: Lease) -> dict[str, str]:
        """What every object of the lease carries. Raises `ClusterError` when the lease is gone."""
        held = self._leases.read(str(lease.namespace), deadline=Deadline.within(kube_deadlines.ASK_S))
        if held is None or held.lease.lease_id != lease.lease_id:
            raise LeaseLostError(f"the lease on {lease.namespace} is gone: its stack was released or reaped meanwhile")
        return ownership.labels_within(held.labels)

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

    @property
    def _reach(self) -> ClusterReach:
        state_dir = Path(self.data_dir) / "state" / self.target
        kubeconfig = Path(self.kubeconfig) if self.kubeconfig else None
        return ClusterReach(kubeconfig, self.context, cast(Reach, self.reach), state_dir)


def _lease_id(session: Session) -> str:
    """A lease's id begins the id of each of its sessions."""
    return session.session_id.partition(".")[0]


def _told_if_possible(progress: Progress, line: str) -> None:
    """A run's log on a full disk takes no more lines. That must not be why its nodes run on."""
    with contextlib.suppress(Exception):
        progress(line)


def silent(line: str) -> None:
    """For what nobody waits for."""
