"""The modelled scheduler, in the words of a real one.

The messages were given by a control plane of Kubernetes 1.36.2 (API server, scheduler, controllers) for the manifests
of L07 and L08, with one node with a T4 and its taint, and one without.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.rehearsal.control_plane import ControlPlane, apply_all, node_of
from lab_pipelines.rehearsal.scheduler import Node, NotModelledError, Placed, Unschedulable, place
from resources.manifests import read_manifests

Json = dict[str, Any]

T4, PLAIN = "Standard_NC4as_T4_v3", "Standard_D4s_v5"
NO_VICTIM = (
    "no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)
AFFINITY = f"0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. {NO_VICTIM}"
TAINT = (
    "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s). "
    f"{NO_VICTIM}"
)
NEIGHBOUR = (
    "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
    f"1 node(s) didn't match pod anti-affinity rules. {NO_VICTIM}"
)
NO_GPU = f"0/2 nodes are available: 2 Insufficient nvidia.com/gpu. {NO_VICTIM}"


def node(sku: str, name: str | None = None) -> Node:
    return node_of(name or sku.lower(), sku, load_prices().sku(sku))


NODES = [node(PLAIN), node(T4)]


def pod(name: str, *, gpus: int = 0, tolerates: bool = True, **spec: Any) -> Json:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    tolerations = [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}] if tolerates else []
    container = {"name": "idle", "image": "pause", "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "tolerations": tolerations, **spec},
    }


def required(operator: str, key: str, **values: Any) -> Json:
    expression = {"key": key, "operator": operator, **values}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


@pytest.mark.parametrize(
    ("lab", "before", "file", "said"),
    [
        ("lab07", ["first-gpu"], "second-gpu", NO_GPU),
        ("lab08", [], "wrong-affinity", AFFINITY),
        ("lab08", [], "no-toleration", TAINT),
        ("lab08", [], "affinity-forgives-no-taint", TAINT),
        ("lab08", [], "selector-against-affinity", AFFINITY),
        ("lab08", ["one-per-node"], "other-per-node", NEIGHBOUR),
    ],
)
def test_a_pod_without_a_node_hears_what_a_real_scheduler_said(
    lab: str, before: list[str], file: str, said: str
) -> None:
    plane = ControlPlane(lab, NODES)
    for name in (*before, file):
        manifests = read_manifests(REPO_ROOT / f"helm-values/{lab}/manifests/{name}.yaml", {})
        assert apply_all(plane, manifests, at_s=0.0) is None
    [last] = [one for one in plane.pods(at_s=60.0) if one["metadata"]["name"] == file]
    assert last["status"]["phase"] == "Pending"
    assert last["status"]["conditions"][0]["message"] == said


def test_a_preference_is_weighed_only_among_the_nodes_that_are_left() -> None:
    wish = {"weight": 1, "preference": {"matchExpressions": [{"key": "node.kubernetes.io/instance-type",
                                                               "operator": "In", "values": [T4]}]}}  # fmt: skip
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    assert place(pod("wants", affinity=affinity), NODES, []) == NODES[1]
    assert place(pod("may-not", affinity=affinity, tolerates=False), NODES, []) == NODES[0]


@pytest.mark.parametrize(
    ("operator", "values", "finds"),
    [("In", [T4], True), ("NotIn", [PLAIN], True), ("Exists", None, True), ("DoesNotExist", None, False)],
)
def test_an_expression_means_what_its_operator_says(operator: str, values: list[str] | None, finds: bool) -> None:
    given_values = {} if values is None else {"values": values}
    affinity = required(operator, "node.kubernetes.io/instance-type", **given_values)
    found = place(pod("picky", gpus=1, affinity=affinity), NODES, [])
    assert (found == NODES[1]) is finds


def test_a_neighbour_that_was_there_first_keeps_others_away() -> None:
    apart = [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "new"}}}]
    first = pod("first", affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}})
    new = pod("new")
    new["metadata"]["labels"] = {"app": "new"}
    refused = place(new, NODES[1:], [Placed(first, NODES[1])])
    assert isinstance(refused, Unschedulable)
    assert "1 node(s) didn't satisfy existing pods anti-affinity rules" in refused.message


def test_what_is_not_modelled_is_refused_by_name() -> None:
    strange: list[tuple[Json, str]] = [
        ({"affinity": {"podAffinity": {}}}, "spec.affinity.podAffinity"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "spec.topologySpreadConstraints"),
        ({"affinity": required("Gt", "cores", values=["4"])}, "operator Gt"),
    ]
    for spec, field in strange:
        with pytest.raises(NotModelledError, match=field):
            place(pod("strange", **spec), NODES, [])
    with pytest.raises(NotModelledError, match="kind Deployment"):
        apply_all(ControlPlane("lab", NODES), [{"kind": "Deployment", "metadata": {"name": "d"}}], at_s=0.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20), st.integers(0, 3))
def test_no_gpu_is_given_twice_and_no_taint_is_overlooked(asks: list[tuple[int, bool]], gpu_nodes: int) -> None:
    nodes = [node(PLAIN), *(node(T4, f"gpu-{number}") for number in range(gpu_nodes))]
    placed: list[Placed] = []
    for number, (gpus, tolerates) in enumerate(asks):
        one = pod(f"p{number}", gpus=gpus, tolerates=tolerates)
        where = place(one, nodes, placed)
        if isinstance(where, Unschedulable):
            full = sum(other.pod["spec"]["containers"][0]["resources"]["limits"] != {} for other in placed) == gpu_nodes
            assert gpus > 1 or (gpus == 1 and (full or not tolerates))
            assert f"0/{len(nodes)} nodes are available" in where.message
        else:
            assert tolerates or not where.taints
            placed.append(Placed(one, where))
    on_gpu_nodes = [one.node.name for one in placed if one.pod["spec"]["containers"][0]["resources"]["limits"]]
    assert len(on_gpu_nodes) == len(set(on_gpu_nodes))
