"""Where a pod may go: a scheduler's filters over declared nodes, and its message when none is left.

Belongs here: the filters of kube-scheduler's default profile that labs about placement meet, in its order, with the
words of a real one (Kubernetes 1.36). Doesn't belong here: whether the pod may exist (admission.py), when it runs
(control_plane.py).

Source of order and rules: https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from lab_pipelines.rehearsal.admission import asked

Json = dict[str, Any]


class NotModelledError(Exception):
    """A pod asks for something that this scheduler doesn't know. The message names its field."""


@dataclass(frozen=True)
class Node:
    """A node that is Ready. `allocatable`: amounts by resource, e.g. `nvidia.com/gpu`."""

    name: str
    labels: Mapping[str, str]
    allocatable: Mapping[str, Decimal]
    taints: Sequence[Mapping[str, str]] = ()


class Placed(NamedTuple):
    """A pod, as the API has it, on its node."""

    pod: Json
    node: Node


class Unschedulable(NamedTuple):
    """No node is left; the message of the pod's PodScheduled condition."""

    message: str


def place(pod: Json, nodes: Sequence[Node], placed: Sequence[Placed]) -> Node | Unschedulable:
    """The node for `pod`, given what the nodes hold. Raises `NotModelledError`."""
    _check(pod["spec"])
    turned_down = {node.name: refusals(pod, node, placed) for node in nodes}
    fitting = [node for node in nodes if not turned_down[node.name]]
    if fitting:
        # The preferred one; of several the emptiest, then the first by name.
        return min(fitting, key=lambda node: (-_preference(pod, node), len(_on(node, placed)), node.name))
    counted = Counter(reason for reasons in turned_down.values() for reason in reasons)
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    none = f"0/{len(nodes)} nodes are available"
    # All pods of a lab have one priority: none is ever evicted for another.
    preemption = (
        f"no new claims to deallocate, preemption: {none}: {len(nodes)} Preemption is not helpful for scheduling."
    )
    return Unschedulable(f"{none}: {reasons}. {preemption}")


def _check(spec: Json) -> None:
    affinity = spec.get("affinity") or {}
    unknown = [f"affinity.{name}" for name in affinity if name not in ("nodeAffinity", "podAntiAffinity")]
    unknown += [name for name in ("topologySpreadConstraints", "nodeName", "resourceClaims") if spec.get(name)]
    if unknown:
        raise NotModelledError(f"spec.{unknown[0]}")


def refusals(pod: Json, node: Node, placed: Sequence[Placed]) -> list[str]:
    """Why the first filter that turns the node down does so; empty if none does. Raises `NotModelledError`."""
    filters = (_taints(pod, node), _affinity(pod, node), _resources(pod, node, placed), _neighbours(pod, node, placed))
    return next((reasons for one in filters if (reasons := list(one))), [])


def _taints(pod: Json, node: Node) -> Iterator[str]:
    tolerations = pod["spec"].get("tolerations") or []
    if any(
        taint["effect"] != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in tolerations)
        for taint in node.taints
    ):
        yield "node(s) had untolerated taint(s)"


def _tolerates(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _affinity(pod: Json, node: Node) -> Iterator[str]:
    """Selector and required affinity must both hold; of the affinity's terms one."""
    wanted = pod["spec"].get("nodeSelector") or {}
    required = _node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = [] if required is None else required["nodeSelectorTerms"]
    if not wanted.items() <= node.labels.items() or (terms and not any(_meets(node.labels, term) for term in terms)):
        yield "node(s) didn't match Pod's node affinity/selector"


def _preference(pod: Json, node: Node) -> int:
    preferred = _node_affinity(pod).get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return sum(one["weight"] for one in preferred if _meets(node.labels, one["preference"]))


def _node_affinity(pod: Json) -> Json:
    return (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}


def _resources(pod: Json, node: Node, placed: Sequence[Placed]) -> Iterator[str]:
    there = _on(node, placed)
    for name in sorted(_requested(pod)):
        free = node.allocatable.get(name, Decimal(0)) - sum(asked(other, f"requests.{name}") for other in there)
        if asked(pod, f"requests.{name}") > free:
            yield f"Insufficient {name}"


def _requested(pod: Json) -> set[str]:
    stated = [container.get("resources") or {} for container in pod["spec"]["containers"]]
    return {name for one in stated for part in ("requests", "limits") for name in one.get(part) or {}}


def _neighbours(pod: Json, node: Node, placed: Sequence[Placed]) -> Iterator[str]:
    """Required anti-affinity, the pod's own and that of those which are there already."""
    if any(_near(term, one, node) and _selects(term, one.pod) for term in _apart(pod) for one in placed):
        yield "node(s) didn't match pod anti-affinity rules"
    elif any(_near(term, one, node) and _selects(term, pod) for one in placed for term in _apart(one.pod)):
        yield "node(s) didn't satisfy existing pods anti-affinity rules"


def _apart(pod: Json) -> list[Json]:
    rules = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    return rules.get("requiredDuringSchedulingIgnoredDuringExecution") or []


def _near(term: Json, other: Placed, node: Node) -> bool:
    """Whether the other pod's node and this one are one place, for the term's topology key."""
    place = node.labels.get(term["topologyKey"])
    return place is not None and other.node.labels.get(term["topologyKey"]) == place


def _selects(term: Json, pod: Json) -> bool:
    labels, selector = pod["metadata"].get("labels") or {}, term.get("labelSelector") or {}
    return (selector.get("matchLabels") or {}).items() <= labels.items() and _meets(labels, selector)


def _meets(labels: Mapping[str, str], term: Json) -> bool:
    """Whether labels meet all `matchExpressions` of a term. Raises `NotModelledError`."""
    if term.get("matchFields"):
        raise NotModelledError("matchFields")
    return all(_holds(labels, one) for one in term.get("matchExpressions") or [])


def _holds(labels: Mapping[str, str], expression: Json) -> bool:
    key = expression["key"]
    match expression["operator"]:
        case "In":
            return labels.get(key) in expression["values"]
        case "NotIn":
            return labels.get(key) not in expression["values"]
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise NotModelledError(f"matchExpressions with the operator {other}")


def _on(node: Node, placed: Sequence[Placed]) -> list[Json]:
    return [one.pod for one in placed if one.node == node]
