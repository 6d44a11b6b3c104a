"""Node pools whose nodes come and go: the life of each node, and a cluster autoscaler that decides about it.

Belongs here: pure state in virtual time, and the account of every node-second. Doesn't belong here: which node a pod
gets (scheduler.py), the objects and when a pod runs (control_plane.py), what a lab asks for (lab_nodes.py).

As kubernetes/autoscaler decides (cluster-autoscaler/FAQ.md): every scan it looks for pods that neither a node nor one
that is on its way could take, and orders nodes of the first pool whose new node could; a node that was empty at every
scan for long enough goes. A request beyond the quota fails as a whole, and its pool is left alone for a while.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.engine.tables import Fact
from lab_pipelines.rehearsal.scheduler import Node, Placed, Unschedulable, place, refusals

Json = dict[str, Any]

GPU = "nvidia.com/gpu"
NodeState = Literal["requested", "starting", "empty", "used", "removing"]
"""requested: paid for, and not yet in the cluster. starting: Ready, without its GPUs. removing: ordered away."""


class AutoscalerTimes(BaseModel):
    """autoscaler.yaml, all in seconds."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    scan_interval_s: Fact
    unneeded_s: Fact
    delay_after_add_s: Fact
    first_backoff_s: Fact
    longest_backoff_s: Fact
    backoff_reset_s: Fact
    removal_s: Fact
    small_image_s: Fact


@cache
def autoscaler_times() -> AutoscalerTimes:
    return read_model(Path(__file__).parent / "autoscaler.yaml", AutoscalerTimes)


class NodeStart(NamedTuple):
    """From the order to a node that is Ready, and from there to its GPUs; 0 for a machine without one."""

    ready_s: float
    driver_s: float


@dataclass(frozen=True)
class Pool:
    """A pool between `minimum` and `maximum` nodes; its first `minimum` nodes are there from the beginning."""

    name: str
    machine: Node
    """What a usable node of it looks like; a node's name takes the place of its own."""
    minimum: int
    maximum: int
    start_of: Callable[[str], NodeStart]
    """Of a node, by its name: the same name, the same start."""
    pull_s_of: Callable[[str, str], float]
    """How long a node, by its name, pulls an image that it lacks."""
    vcpus: int
    """Of one node."""
    quota_vcpus: int | None = None
    """That the subscription may use of the machine's family. None: no limit."""


class Spell(NamedTuple):
    """A node in one state. `until_s` is infinite while it lasts."""

    state: NodeState
    from_s: float
    until_s: float


@dataclass
class PoolNode:
    """One node from its order to its end."""

    node: Node
    """As it is once it is usable."""
    pool: Pool
    requested_s: float
    ready_s: float
    usable_s: float
    spells: list[Spell]
    empty_since_s: float | None = None
    """The first scan of those in a row that found it usable and empty."""
    gone_s: float = math.inf
    images: dict[str, float] = field(default_factory=dict)
    """When each image is there. One is pulled after the other, as kubelets do unless told otherwise."""

    def image_there_s(self, image: str, at_s: float) -> float:
        """When a pod that is placed now finds its image: the first one pulls it, whoever comes later doesn't."""
        if image not in self.images:
            begins_s = max([at_s, *self.images.values()])
            self.images[image] = begins_s + self.pool.pull_s_of(self.node.name, image)
        return max(at_s, self.images[image])

    @property
    def state(self) -> NodeState:
        return self.spells[-1].state

    def seen(self) -> Node | None:
        """What a scheduler may use of it now."""
        if self.state == "starting":
            return replace(self.node, allocatable={k: v for k, v in self.node.allocatable.items() if k != GPU})
        return self.node if self.state in ("empty", "used") else None

    def turn(self, state: NodeState, at_s: float) -> None:
        """Begin another spell. A state of no duration leaves none."""
        if state == self.state:
            return
        last = self.spells.pop()
        if last.from_s < at_s:
            self.spells.append(last._replace(until_s=at_s))
        if self.spells and self.spells[-1].state == state:
            self.spells[-1] = self.spells[-1]._replace(until_s=math.inf)
        else:
            self.spells.append(Spell(state, at_s, math.inf))


class Said(NamedTuple):
    """An event of the autoscaler about a pod, or about a pool (`pod` is None), as `kubectl get events` shows it."""

    at_s: float
    pod: str | None
    reason: Literal["TriggeredScaleUp", "NotTriggerScaleUp", "FailedToScaleUpGroup", "ScaleDownEmpty"]
    message: str


@dataclass
class _Growth:
    """How a pool has fared."""

    ordered: int = 0
    """Nodes ever; their names are never used again."""
    backoff_s: float = 0.0
    backoff_until_s: float = -math.inf
    failed_s: float = -math.inf


@dataclass
class NodePools:
    """The pools of one cluster from `start_s` on, and its autoscaler, whose first scan is at `first_scan_s`.

    Whoever has it lets time pass: `pass_to` at every `next_change_s`, and no earlier than before. What happens hangs on
    those moments alone, not on who looks in between.
    """

    pools: Sequence[Pool]
    start_s: float
    first_scan_s: float
    times: AutoscalerTimes = field(default_factory=autoscaler_times)
    nodes: list[PoolNode] = field(default_factory=list)
    """All that ever were, in the order of their orders."""
    said: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._growth = {pool.name: _Growth() for pool in self.pools}
        self._next_scan_s = self.first_scan_s
        self._added_s = -math.inf
        for pool in self.pools:
            for _ in range(pool.minimum):
                self._order(pool, self.start_s, NodeStart(0.0, 0.0))
        self.pass_to(self.start_s)

    def alive(self) -> list[PoolNode]:
        """All that are paid for now."""
        return [one for one in self.nodes if one.spells[-1].until_s == math.inf]

    def registered(self) -> list[PoolNode]:
        """All that the cluster knows of now, those included that are on their way out."""
        return [one for one in self.alive() if one.state != "requested"]

    def schedulable(self) -> list[Node]:
        """As a scheduler sees them now."""
        return [node for one in self.alive() if (node := one.seen()) is not None]

    def named(self, name: str) -> PoolNode | None:
        return next((one for one in self.nodes if one.node.name == name), None)

    def node_seconds(self, until_s: float) -> dict[NodeState, float]:
        """Seconds of all nodes up to a time that has come, by their state: all that is paid for, each second once."""
        spent: defaultdict[NodeState, float] = defaultdict(float)
        for state, from_s, to_s in (spell for one in self.nodes for spell in one.spells):
            spent[state] += max(0.0, min(to_s, until_s) - from_s)
        return spent

    def next_change_s(self) -> float:
        """When a node changes by itself, or the autoscaler scans."""
        return min([self._next_scan_s, *(_next_turn_s(one) for one in self.alive())])

    def pass_to(self, at_s: float) -> None:
        """Let nodes change that do so by now."""
        for one in self.alive():
            if one.state == "requested" and one.ready_s <= at_s:
                one.turn("starting", one.ready_s)
            if one.state == "starting" and one.usable_s <= at_s:
                one.turn("empty", one.usable_s)
            if one.state == "removing" and one.gone_s <= at_s:
                one.spells[-1] = one.spells[-1]._replace(until_s=one.gone_s)

    def occupy(self, names: set[str], at_s: float) -> None:
        """Say which nodes have a pod on them that has not ended."""
        for one in self.alive():
            if one.state in ("empty", "used"):
                one.turn("used" if one.node.name in names else "empty", at_s)
                if one.state == "used":
                    one.empty_since_s = None

    def scan_if_due(
        self, at_s: float, waiting: Sequence[Json], placed: Sequence[Placed], fixed: Sequence[Node]
    ) -> None:
        """The autoscaler's look at the pods without a node, in their order, and at the nodes without a pod.

        `placed` are the pods that have not ended, `fixed` the nodes of no pool.
        """
        if at_s < self._next_scan_s:
            return
        self._next_scan_s += self.times.scan_interval_s.value
        coming = [one.node for one in self.alive() if one.state != "removing"]
        assumed, helpless = list(placed), list[Json]()
        for pod in waiting:
            where = place(pod, [*fixed, *coming], assumed)
            if isinstance(where, Unschedulable):
                helpless.append(pod)
            else:
                assumed.append(Placed(pod, where))
        if helpless:
            self._grow(helpless, at_s)
        self._shrink(at_s)

    def _grow(self, helpless: Sequence[Json], at_s: float) -> None:
        able = (pool for pod in helpless for pool in self.pools if not self._why_not(pool, pod, at_s))
        if (pool := next(able, None)) is None:
            for pod in helpless:
                self._decline(pod, at_s)
            return
        growth, before = self._growth[pool.name], self._size(pool)
        made, assumed, helped = list[Node](), list[Placed](), list[str]()
        for pod in helpless:
            where = place(pod, made, assumed) if made else None
            if not isinstance(where, Node):
                if before + len(made) >= pool.maximum or refusals(pod, pool.machine, []):
                    continue  # its turn comes at a later scan
                where = _copy(pool.machine, f"new-{len(made)}")
                made.append(where)
            assumed.append(Placed(pod, where))
            helped.append(pod["metadata"]["name"])
        after, quota = before + len(made), pool.quota_vcpus
        if quota is not None and after * pool.vcpus > quota:
            said = (
                "Operation could not be completed as it results in exceeding approved cores quota. Current Limit: "
                f"{quota}, Current Usage: {before * pool.vcpus}, Additional Required: {len(made) * pool.vcpus}"
            )
            self._back_off(growth, at_s)
            self.said.append(Said(at_s, None, "FailedToScaleUpGroup", f"Scale-up failed for group {pool.name}: {said}"))
            return
        for _ in made:
            self._order(pool, at_s, None)
        self._added_s, growth.backoff_s = at_s, 0.0
        message = f"pod triggered scale-up: [{{{pool.name} {before}->{after} (max: {pool.maximum})}}]"
        self.said += [Said(at_s, name, "TriggeredScaleUp", message) for name in helped]

    def _back_off(self, growth: _Growth, at_s: float) -> None:
        first_s, longest_s = self.times.first_backoff_s.value, self.times.longest_backoff_s.value
        forgotten = at_s - growth.failed_s > self.times.backoff_reset_s.value
        growth.backoff_s = first_s if forgotten or not growth.backoff_s else min(2 * growth.backoff_s, longest_s)
        growth.backoff_until_s, growth.failed_s = at_s + growth.backoff_s, at_s

    def _decline(self, pod: Json, at_s: float) -> None:
        """Say why no pool grows for it, unless that was the last thing said of it."""
        counted = Counter(reason for pool in self.pools for reason in self._why_not(pool, pod, at_s))
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
        name, message = pod["metadata"]["name"], f"pod didn't trigger scale-up: {listed}"
        if self.last_word(name) != message:
            self.said.append(Said(at_s, name, "NotTriggerScaleUp", message))

    def last_word(self, pod: str) -> str | None:
        """What the autoscaler said of a pod last."""
        return next((one.message for one in reversed(self.said) if one.pod == pod), None)

    def _why_not(self, pool: Pool, pod: Json, at_s: float) -> list[str]:
        """Why the pool doesn't grow for the pod; empty if it can."""
        if self._size(pool) >= pool.maximum:
            return ["max node group size reached"]
        if at_s < self._growth[pool.name].backoff_until_s:
            return ["in backoff after failed scale-up"]
        return refusals(pod, pool.machine, [])

    def _shrink(self, at_s: float) -> None:
        for one in self.alive():
            if one.state != "empty":
                one.empty_since_s = None
                continue
            if one.empty_since_s is None:
                one.empty_since_s = at_s
            long_enough = at_s - one.empty_since_s >= self.times.unneeded_s.value
            calm = at_s - self._added_s >= self.times.delay_after_add_s.value
            if long_enough and calm and self._size(one.pool) > one.pool.minimum:
                one.turn("removing", at_s)
                one.gone_s = at_s + self.times.removal_s.value
                message = f"Scale-down: removing empty node {one.node.name}"
                self.said.append(Said(at_s, None, "ScaleDownEmpty", message))

    def _size(self, pool: Pool) -> int:
        """Nodes that it has or has ordered. Those on their way out don't count: the pool's size is without them."""
        return sum(one.pool is pool and one.state != "removing" for one in self.alive())

    def _order(self, pool: Pool, at_s: float, start: NodeStart | None) -> None:
        growth = self._growth[pool.name]
        name = f"{pool.name}-{growth.ordered}"
        growth.ordered += 1
        start = pool.start_of(name) if start is None else start
        ready_s = at_s + start.ready_s
        self.nodes.append(
            PoolNode(
                node=_copy(pool.machine, name),
                pool=pool,
                requested_s=at_s,
                ready_s=ready_s,
                usable_s=ready_s + start.driver_s,
                spells=[Spell("requested", at_s, math.inf)],
            )
        )


def _copy(machine: Node, name: str) -> Node:
    return replace(machine, name=name, labels={**machine.labels, "kubernetes.io/hostname": name})


def _next_turn_s(one: PoolNode) -> float:
    match one.state:
        case "requested":
            return one.ready_s
        case "starting":
            return one.usable_s
        case _:
            return one.gone_s
