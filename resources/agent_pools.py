"""An agent pool of AKS as the SDK has it: read as a `NodePool`, compared with one, and changed. Pure.

Doesn't belong here: sending or fetching one (node_pools_azure.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from resources.node_pools import STOPPED, USER_MODE, NodePool, PoolError
from resources.ownership import POOL_TAG, POOL_TAG_VALUE

if TYPE_CHECKING:
    from azure.mgmt.containerservice.models import AgentPool

ENDED = {"succeeded", "failed", "canceled"}
"""Ends of an operation, in lower case; also the states of a pool that none is changing."""


def record(agent_pool: AgentPool) -> NodePool:
    """An agent pool as the contract has it. Raises `PoolError` for an answer that is none."""
    properties = agent_pool.properties
    if properties is None or not agent_pool.name:
        raise PoolError("Azure's answer has a node pool without a name or properties")
    stopped = properties.power_state is not None and properties.power_state.code == STOPPED
    return NodePool(
        name=agent_pool.name,
        vm_size=properties.vm_size or "",
        mode=properties.mode or USER_MODE,
        count=properties.count or 0,
        autoscaled=bool(properties.enable_auto_scaling),
        spot=(properties.scale_set_priority or "").lower() == "spot",
        tags=dict(properties.tags or {}),
        labels=dict(properties.node_labels or {}),
        taints=list(properties.node_taints or []),
        state=STOPPED if stopped else properties.provisioning_state or "unknown",
        etag=properties.e_tag,
    )


def autoscaler_range(agent_pool: AgentPool) -> tuple[int | None, int | None]:
    """The least and most nodes that its autoscaler may give it."""
    properties = agent_pool.properties
    return (properties.min_count, properties.max_count) if properties else (None, None)


def rewrite(agent_pool: AgentPool, count: int, tags: Mapping[str, str | None]) -> None:
    """Change what was read into what is sent. Everything else of it, also what this SDK doesn't know, stays."""
    properties = agent_pool.properties
    assert properties is not None  # `record` has refused it
    properties.count = count
    if properties.enable_auto_scaling:
        properties.enable_auto_scaling = False
        properties.min_count = properties.max_count = None
    properties.tags = tagged(properties.tags or {}, tags)


def tagged(before: Mapping[str, str], tags: Mapping[str, str | None]) -> dict[str, str]:
    """Tags with changes; None removes one. To Azure, names that differ in case alone are the same tag."""
    changed = {name.lower() for name in tags}
    kept = {name: value for name, value in before.items() if name.lower() not in changed}
    return kept | {name: value for name, value in tags.items() if value is not None}


def refuse(pool: NodePool, count: int) -> None:
    """Raise `PoolError` for what no pool of this name may have done to it."""
    if not pool.ours:
        raise PoolError(
            f"{pool.name} isn't ours and stays as it is; if labs may scale it, give it the tag "
            f"{POOL_TAG}={POOL_TAG_VALUE}"
        )
    if count == 0 and pool.mode != USER_MODE:
        raise PoolError(f"{pool.name} is a {pool.mode} pool, which Azure keeps above zero; labs need a User pool")
    if pool.state == STOPPED:
        raise PoolError(f"{pool.name} is stopped, and takes no count; start it first: az aks nodepool start")


def at_rest(pool: NodePool) -> bool:
    """Whether no operation is changing it."""
    return pool.state.lower() in ENDED | {STOPPED.lower()}


def same(read: NodePool, found: NodePool) -> bool:
    """Whether the pool is still as it was read. One that was read in the middle of an operation gets another ETag when
    that ends; without one, its fields have to tell."""
    if read.etag == found.etag and read.etag is not None:
        return True
    if read.etag is not None and at_rest(read):
        return False
    neither = {"etag", "state"}
    return read.model_dump(exclude=neither) == found.model_dump(exclude=neither)


def is_as_asked(pool: NodePool, count: int, tags: Mapping[str, str | None]) -> bool:
    """Whether there is nothing left to ask for."""
    return pool.count == count and not pool.autoscaled and tagged(pool.tags, tags) == pool.tags
