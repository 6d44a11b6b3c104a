"""Node pools of an AKS cluster, through Azure Resource Manager.

Belongs here: asking for agent pools, sending one, and waiting for what Azure makes of it. Doesn't belong here: what is
in one (agent_pools.py), the client and its requests (azure_session.py), what a refusal means (azure_errors.py), or
whether to scale (node_pools.py, sensors).

A PUT replaces a whole pool: everything that was read is sent back. It carries the ETag of what the decision was made
on, so that nobody else's change is undone. Azure answers before the nodes come or go; the operation that brings it
about is watched under our own deadline, since the SDK's poller has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import PrivateAttr

from lab_pipelines.deployment import ClusterSettings, DeploymentError
from resources import agent_pools, azure_session
from resources.azure_errors import Said, explained, retry_after_s, said_by
from resources.azure_session import RETRY_S, TRIES, AzureError, RefusedError, UnansweredError
from resources.cluster import Progress
from resources.kube_api import Deadline
from resources.node_pools import NodePool, NodePools, PoolChangedError, PoolError, Scaled

if TYPE_CHECKING:
    from azure.mgmt.containerservice import ContainerServiceClient
    from azure.mgmt.containerservice.models import AgentPool

READ_WITHIN_S = 60.0
"""For a list or a pool. A thousand pools are some ten requests."""

_T = TypeVar("_T")


class _Operation(NamedTuple):
    """What brings a change about, as Azure's answer to the PUT names it."""

    status_url: str | None
    """`Azure-AsyncOperation`: answers with status, times and error."""
    location: str | None
    """Answers 202 until it is done. Neither of the two: the pool's own state tells."""
    requested_at: datetime
    wait_s: float = 0.0


class _Progress(NamedTuple):
    """How far an operation is."""

    status: str
    wait_s: float = 0.0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: Said | None = None

    @property
    def ended(self) -> bool:
        return self.status.lower() in agent_pools.ENDED


class AzureNodePools(NodePools):
    """The agent pools of one AKS cluster. Methods raise `AzureError`, too: no SDK, sign-in, right or such cluster."""

    subscription_id: str
    resource_group: str
    cluster: str
    base_url: str | None = None
    """Resource Manager's address; None: that of the SDK's cloud (`AZURE_SDK_CLOUD_CONF`; else the public one)."""
    retry_s: float = RETRY_S
    """The shortest time between two requests for the same thing."""

    _client: ContainerServiceClient | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: ClusterSettings) -> AzureNodePools:
        """The pools of the cluster that the settings name. Raises `DeploymentError` that names what isn't set."""
        wanted = {
            "AZURE_SUBSCRIPTION_ID": settings.subscription_id,
            "LABS_AKS_RESOURCE_GROUP": settings.resource_group,
            "LABS_AKS_CLUSTER": settings.aks_cluster,
        }
        if missing := [name for name, value in wanted.items() if not value]:
            raise DeploymentError(
                f"--target aks needs to know the cluster: set {', '.join(missing)} (`az aks list --output table` shows "
                "yours; docs/aks.md)"
            )
        subscription_id, resource_group, cluster = (str(value) for value in wanted.values())
        return cls(subscription_id=subscription_id, resource_group=resource_group, cluster=cluster)

    def connect(self) -> ContainerServiceClient:
        """A new client. A method, so that a subclass can sign in in another way."""
        return azure_session.container_service(self.subscription_id, base_url=self.base_url)

    @property
    def client(self) -> ContainerServiceClient:
        if self._client is None:
            self._client = self.connect()
        return self._client

    def pools(self) -> list[NodePool]:
        try:
            listed = self._ask(
                lambda **limits: list(self.client.agent_pools.list(self.resource_group, self.cluster, **limits)),
                f"node pools of {self.cluster}",
                Deadline.within(READ_WITHIN_S),
            )
        except RefusedError as refused:
            raise PoolError(f"node pools of {self.cluster}: {explained(refused.said)}") from None
        return [agent_pools.record(one) for one in listed]

    def pool(self, name: str) -> NodePool:
        return agent_pools.record(self._read(name, Deadline.within(READ_WITHIN_S)))

    def scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> Scaled:
        before, operation = self._begin(pool, count, tags, deadline, progress)
        if operation is None:
            now = datetime.now(UTC)
            return Scaled(pool=pool.name, before=before, after=count, requested_at=now, done_at=now)
        reached = self._wait(pool, operation, f"{before} → {count} nodes", deadline)
        after = agent_pools.record(self._read(pool.name, deadline)).count
        if after != count:
            raise PoolChangedError(
                f"{pool.name}: asked for {count} nodes, and somebody changed that to {after} meanwhile"
            )
        scaled = Scaled(
            pool=pool.name,
            before=before,
            after=after,
            requested_at=reached.started_at or operation.requested_at,
            done_at=reached.ended_at or datetime.now(UTC),
        )
        progress(f"{pool.name}: {after} nodes after {(scaled.done_at - scaled.requested_at).total_seconds():.0f} s")
        return scaled

    def begin_scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> datetime:
        _, operation = self._begin(pool, count, tags, deadline, progress)
        return operation.requested_at if operation else datetime.now(UTC)

    def _begin(
        self, pool: NodePool, count: int, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> tuple[int, _Operation | None]:
        """The number of nodes before, and what Azure does about it; None: the pool is as asked for already."""
        agent_pools.refuse(pool, count)
        agent_pool = self._settled(pool, deadline, progress)
        found = agent_pools.record(agent_pool)
        if agent_pools.is_as_asked(found, count, tags) and found.state == "Succeeded":
            return found.count, None
        agent_pools.refuse(found, count)
        if found.autoscaled:
            least, most = agent_pools.autoscaler_range(agent_pool)
            progress(
                f"{pool.name}: its autoscaler ({least} to {most} nodes) is turned off, as Azure takes no count while "
                f"it is on; afterwards: az aks nodepool update --enable-cluster-autoscaler --min-count {least} "
                f"--max-count {most}"
            )
        agent_pools.rewrite(agent_pool, count, tags)
        progress(f"{pool.name}: {found.count} → {count} nodes asked for")
        return found.count, self._put(found, agent_pool, count, tags, deadline, progress)

    def _settled(self, pool: NodePool, deadline: Deadline, progress: Progress) -> AgentPool:
        """The pool as it is now, once nothing changes it. Raises `PoolChangedError` for another one than `pool`."""
        said_so = False
        while True:
            agent_pool = self._read(pool.name, deadline)
            found = agent_pools.record(agent_pool)
            if not agent_pools.same(pool, found):
                raise PoolChangedError(
                    f"{pool.name} has changed since it was read ({pool.count} nodes, {pool.state}; now {found.count}, "
                    f"{found.state}): decide anew"
                )
            if agent_pools.at_rest(found):
                return agent_pool
            if not said_so:
                progress(f"{pool.name}: waiting for an operation of somebody else ({found.state}) to end")
                said_so = True
            self._sleep(0, deadline, lambda state=found.state: _still_busy(pool.name, f"it is {state}"))

    def _put(
        self,
        found: NodePool,
        agent_pool: AgentPool,
        count: int,
        tags: Mapping[str, str | None],
        deadline: Deadline,
        progress: Progress,
    ) -> _Operation:
        """Send the pool, and again where Azure allows. After an answer that was lost, look whether it was taken."""
        from azure.core import MatchConditions

        failed, said_so = 0, False
        while True:
            requested_at = datetime.now(UTC)
            try:
                headers = self._ask(
                    lambda **limits: self.client.agent_pools.begin_create_or_update(
                        self.resource_group,
                        self.cluster,
                        found.name,
                        agent_pool,
                        etag=found.etag,
                        match_condition=MatchConditions.IfNotModified if found.etag else None,
                        polling=False,
                        cls=_headers,
                        **limits,
                    ).result(),
                    found.name,
                    deadline,
                    tries=1,
                )
                wait_s = retry_after_s(headers.get("Retry-After"))
                return _Operation(headers.get("Azure-AsyncOperation"), headers.get("Location"), requested_at, wait_s)
            except RefusedError as refused:
                if failed and refused.said.kind in ("busy", "changed") and self._taken(found, count, tags, deadline):
                    return _Operation(None, None, requested_at)
                if refused.said.kind == "changed":
                    raise PoolChangedError(f"{found.name} was changed by somebody else just now: decide anew") from None
                if refused.said.kind != "busy":
                    raise PoolError(f"{found.name}: {explained(refused.said, spot=found.spot)}") from None
                if not said_so:
                    progress(
                        f"{found.name}: waiting for another operation on the cluster to end: {refused.said.message}"
                    )
                    said_so = True
                message = refused.said.message
                self._sleep(refused.wait_s, deadline, lambda message=message: _still_busy(found.name, message))
            except UnansweredError as error:
                failed += 1
                if self._taken(found, count, tags, deadline):
                    return _Operation(None, None, requested_at)
                if failed >= TRIES:
                    raise
                self._sleep(0, deadline, lambda error=error: error)

    def _taken(self, found: NodePool, count: int, tags: Mapping[str, str | None], deadline: Deadline) -> bool:
        """Whether the pool has changed into what was asked for."""
        now = agent_pools.record(self._read(found.name, deadline))
        return now.etag != found.etag and agent_pools.is_as_asked(now, count, tags)

    def _wait(self, pool: NodePool, operation: _Operation, change: str, deadline: Deadline) -> _Progress:
        """Follow the operation to its end. Raises `PoolError` if that isn't a success, or too late."""
        wait_s = operation.wait_s
        while True:
            self._sleep(
                wait_s,
                deadline,
                lambda: PoolError(
                    f"{pool.name}: Azure is still at it ({change}) when the time is over. It goes on; once the lease "
                    "in the pool's tags has ended, the reaper brings it back to zero"
                ),
            )
            try:
                reached = self._progress(pool.name, operation, deadline)
            except UnansweredError:
                raise
            except (RefusedError, AzureError):
                if not (operation.status_url or operation.location):
                    raise
                # Azure forgets what ended long ago, and a role for this cluster alone may not read its operations.
                operation = operation._replace(status_url=None, location=None)
                continue
            if reached.ended:
                break
            wait_s = reached.wait_s
        if reached.status.lower() == "succeeded":
            return reached
        if reached.status.lower() == "canceled":
            raise PoolChangedError(f"{pool.name}: {change} was cancelled by a later operation of somebody else")
        why = explained(reached.error, spot=pool.spot) if reached.error else "Azure doesn't say here; its portal may"
        raise PoolError(f"{pool.name}: {change} failed: {why}")

    def _progress(self, name: str, operation: _Operation, deadline: Deadline) -> _Progress:
        if url := operation.status_url:
            answer, headers, _ = self._get(url, name, deadline)
            error = answer.get("error")
            return _Progress(
                status=str(answer.get("status", "unknown")),
                wait_s=retry_after_s(headers.get("Retry-After")),
                started_at=_time(answer.get("startTime")),
                ended_at=_time(answer.get("endTime")),
                error=said_by(0, error) if error else None,
            )
        if url := operation.location:
            _, headers, status = self._get(url, name, deadline)
            if status == 202:
                return _Progress("InProgress", retry_after_s(headers.get("Retry-After")))
        # Done, or nothing else tells: the pool knows whether it went well.
        return _Progress(agent_pools.record(self._read(name, deadline)).state)

    def _get(self, url: str, name: str, deadline: Deadline) -> tuple[Mapping[str, Any], Mapping[str, str], int]:
        """(body, headers, status) of an operation's own address."""
        from azure.core.rest import HttpRequest

        def call(**limits: Any) -> tuple[Mapping[str, Any], Mapping[str, str], int]:
            response = self.client.send_request(HttpRequest("GET", url), stream=False, **limits)
            response.raise_for_status()
            body = response.json() if response.content else {}
            return body if isinstance(body, dict) else {}, response.headers, response.status_code

        return self._ask(call, name, deadline)

    def _read(self, name: str, deadline: Deadline) -> AgentPool:
        try:
            return self._ask(
                lambda **limits: self.client.agent_pools.get(self.resource_group, self.cluster, name, **limits),
                f"node pool {name}",
                deadline,
            )
        except RefusedError as refused:
            raise PoolError(f"node pool {name}: {explained(refused.said)}") from None

    def _ask(self, call: Callable[..., _T], what: str, deadline: Deadline, *, tries: int = TRIES) -> _T:
        return azure_session.ask(call, what=what, deadline=deadline, tries=tries, retry_s=self.retry_s)

    def _sleep(self, wait_s: float, deadline: Deadline, late: Callable[[], Exception]) -> None:
        """Leave Azure alone for `wait_s`. Raises `late()` when that is longer than there is time."""
        wait_s = max(wait_s, self.retry_s)
        if wait_s > deadline.remaining_s:
            raise late() from None
        time.sleep(wait_s)


def _headers(pipeline_response: Any, *_: Any) -> Mapping[str, str]:
    return pipeline_response.http_response.headers


def _still_busy(name: str, what: str) -> PoolError:
    return PoolError(
        f"{name} can't be changed: {what}, still when the time is over. Wait for that operation, or end it: "
        "az aks nodepool operation-abort"
    )


def _time(text: object) -> datetime | None:
    """A time of Azure's, with up to seven digits of a second; None without one."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
