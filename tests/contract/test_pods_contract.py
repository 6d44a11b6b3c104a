"""What schedules, makes, counts and evicts pods, on nodes of the test's own that kwok only pretends to have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resources.kube_api import RefusedError
from tests.support import contract
from tests.support.contract import IMAGE, Place, is_ready, on, pod, quota, until, workload

pytestmark = pytest.mark.cluster

MakeNode = Callable[..., dict[str, str]]


def why_pending(place: Place, name: str) -> str:
    """The scheduler's words for a pod that it can't place."""

    def said() -> str | None:
        conditions = place.read("pods", name)["status"].get("conditions") or []
        return next((one["message"] for one in conditions if one["type"] == "PodScheduled" and "message" in one), None)

    return until(said, f"the scheduler says why {name} is Pending") or ""


def becomes_ready(place: Place, name: str) -> Any:
    until(lambda: is_ready(place.read("pods", name)), f"{name} is Ready")
    return place.read("pods", name)


def apps(place: Place, plural: str, name: str) -> Any:
    return place.ask("GET", f"/apis/apps/v1/namespaces/{place.namespace}/{plural}/{name}")


# --- The scheduler ---


def test_a_pod_on_a_node_of_its_choice_gets_ready_and_every_step_is_stamped(place: Place, make_node: MakeNode) -> None:
    node = make_node()
    assert place.apply(pod("a", **on(node))) is None
    found = becomes_ready(place, "a")
    assert found["spec"]["nodeName"] == node["labs.example/node"] and found["status"]["phase"] == "Running"
    stamped = {
        one["type"]: one["lastTransitionTime"] for one in found["status"]["conditions"] if one["status"] == "True"
    }
    assert {"PodScheduled", "Initialized", "ContainersReady", "Ready"} <= stamped.keys()
    assert found["metadata"]["creationTimestamp"] <= stamped["PodScheduled"] <= stamped["Ready"]
    [container] = found["status"]["containerStatuses"]
    assert container["state"]["running"]["startedAt"]

    def scheduled() -> list[Any]:
        query = {"fieldSelector": "involvedObject.name=a,reason=Scheduled"}
        return place.ask("GET", "events", query=query)["items"]

    [event] = until(scheduled, "the scheduler's event is there")
    assert event["message"] == f"Successfully assigned {place.namespace}/a to {node['labs.example/node']}"


def test_a_taint_turns_away_whoever_does_not_tolerate_it(place: Place, make_node: MakeNode) -> None:
    node = make_node()
    assert place.apply(pod("a", nodeSelector=node)) is None
    assert "1 node(s) had untolerated taint(s)" in why_pending(place, "a")


def test_gpus_are_given_to_one_pod_each_and_the_next_waits_for_one_to_come_free(
    place: Place, make_node: MakeNode
) -> None:
    node = make_node(**{"nvidia.com/gpu": "1"})
    one_gpu = {"limits": {"nvidia.com/gpu": "1"}}
    assert place.apply(pod("first", one_gpu, **on(node))) is None
    becomes_ready(place, "first")
    assert place.apply(pod("second", one_gpu, **on(node))) is None
    assert "1 Insufficient nvidia.com/gpu" in why_pending(place, "second")
    place.ask("DELETE", "pods/first")
    assert becomes_ready(place, "second")["spec"]["nodeName"] == node["labs.example/node"]


def test_a_pod_that_waits_is_placed_once_its_node_comes(place: Place, make_node: MakeNode) -> None:
    # As it is when a pool at zero scales out: the pod was there first.
    assert (
        place.apply(
            pod(
                "early", {"limits": {"nvidia.com/gpu": "1"}}, **on({"type": "kwok", "labs.example/of": place.namespace})
            )
        )
        is None
    )
    assert "nodes are available" in why_pending(place, "early")
    node = make_node(**{"nvidia.com/gpu": "1"})
    label = {"metadata": {"labels": {"labs.example/of": place.namespace}}}
    place.ask("PATCH", f"/api/v1/nodes/{node['labs.example/node']}", label, content_type="application/merge-patch+json")
    assert becomes_ready(place, "early")["spec"]["nodeName"] == node["labs.example/node"]


# --- Controllers ---


def test_a_deployment_counts_its_pods_and_makes_anew_what_is_deleted(place: Place, make_node: MakeNode) -> None:
    assert place.apply(workload("Deployment", "a", make_node(), replicas=2)) is None
    until(lambda: apps(place, "deployments", "a")["status"].get("availableReplicas") == 2, "both pods are available")
    status = apps(place, "deployments", "a")["status"]
    assert (status["replicas"], status["updatedReplicas"], status["observedGeneration"]) == (2, 2, 1)
    conditions = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert conditions["Available"] == ("True", "MinimumReplicasAvailable")
    assert conditions["Progressing"] == ("True", "NewReplicaSetAvailable")
    gone = place.pods(app="a")[0]["metadata"]["name"]
    place.ask("DELETE", f"pods/{gone}")
    until(lambda: apps(place, "deployments", "a")["status"].get("availableReplicas") == 2, "a third pod is available")
    until(lambda: gone not in [one["metadata"]["name"] for one in place.pods(app="a")], "the deleted one is gone")


def test_a_deployment_that_recreates_never_has_two_generations_of_pods(place: Place, make_node: MakeNode) -> None:
    node = make_node(**{"nvidia.com/gpu": "1"})
    first = workload("Deployment", "a", node, replicas=1, strategy={"type": "Recreate"})
    first["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    assert place.apply(first) is None
    until(lambda: apps(place, "deployments", "a")["status"].get("availableReplicas") == 1, "the first is available")
    [before] = place.pods(app="a")
    first["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "N", "value": "2"}]
    assert place.apply(first) is None

    def replaced() -> bool:
        found = [one for one in place.pods(app="a") if is_ready(one)]
        return [one["metadata"]["uid"] for one in found] not in ([], [before["metadata"]["uid"]])

    # With one GPU a second pod beside the first would wait for ever.
    until(replaced, "the second has the GPU")


def test_a_stateful_sets_pods_have_numbers(place: Place, make_node: MakeNode) -> None:
    assert place.apply(workload("StatefulSet", "a", make_node(), replicas=2, serviceName="a")) is None
    until(lambda: apps(place, "statefulsets", "a")["status"].get("readyReplicas") == 2, "both pods are ready")
    assert sorted(one["metadata"]["name"] for one in place.pods(app="a")) == ["a-0", "a-1"]


def test_a_job_is_complete_once_its_pod_has_succeeded(place: Place, make_node: MakeNode) -> None:
    spec = {**pod("x")["spec"], **on(make_node()), "restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }
    assert place.apply(job) is None

    def conditions() -> set[str]:
        status = place.ask("GET", f"/apis/batch/v1/namespaces/{place.namespace}/jobs/once").get("status") or {}
        return {one["type"] for one in status.get("conditions") or [] if one["status"] == "True"}

    until(lambda: "Complete" in conditions(), "the job is complete")
    status = place.ask("GET", f"/apis/batch/v1/namespaces/{place.namespace}/jobs/once")["status"]
    assert status["succeeded"] == 1 and status["completionTime"] >= status["startTime"]
    [found] = place.pods(**{"batch.kubernetes.io/job-name": "once"})
    assert found["status"]["phase"] == "Succeeded"


def test_a_deployment_whose_pods_a_quota_refuses_says_so(place: Place, make_node: MakeNode) -> None:
    assert place.apply(quota("one", pods="1"), workload("Deployment", "a", make_node(), replicas=2)) is None

    def failure() -> str | None:
        conditions = apps(place, "deployments", "a").get("status", {}).get("conditions") or []
        return next((one["message"] for one in conditions if one["type"] == "ReplicaFailure"), None)

    said = until(failure, "the deployment says why")
    assert said and "exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1" in said


# --- Eviction ---


def evict(place: Place, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": place.namespace}}
    # An eviction that must wait is answered 429, which is asked again until the deadline.
    place.ask("POST", f"pods/{name}/eviction", body, deadline=contract.Deadline.within(2.0))


def budget(place: Place, minimum: int) -> dict[str, Any]:
    spec = {"minAvailable": minimum, "selector": {"matchLabels": {"app": "a"}}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept"}, "spec": spec}


def test_a_disruption_budget_keeps_its_pods_from_eviction_and_not_from_deletion(
    place: Place, make_node: MakeNode
) -> None:
    assert place.apply(workload("Deployment", "a", make_node(), replicas=2), budget(place, 2)) is None
    until(lambda: apps(place, "deployments", "a")["status"].get("availableReplicas") == 2, "both pods are available")
    name = place.pods(app="a")[0]["metadata"]["name"]
    with pytest.raises(RefusedError, match="429 TooManyRequests: Cannot evict pod as it would violate"):
        evict(place, name)
    place.ask("DELETE", f"pods/{name}")
    until(lambda: name not in [one["metadata"]["name"] for one in place.pods(app="a")], "the deleted pod is gone")


def test_a_pending_pod_can_be_evicted_whatever_its_budget_says(place: Place) -> None:
    waiting = pod("a", nodeSelector=contract.NOWHERE)
    waiting["metadata"]["labels"] = {"app": "a"}
    assert place.apply(waiting, budget(place, 1)) is None
    why_pending(place, "a")
    evict(place, "a")
    until(lambda: not place.pods(app="a"), "the evicted pod is gone")


def test_the_image_of_a_pod_is_in_its_status(place: Place, make_node: MakeNode) -> None:
    assert place.apply(pod("a", **on(make_node()))) is None
    assert becomes_ready(place, "a")["status"]["containerStatuses"][0]["image"] == IMAGE
