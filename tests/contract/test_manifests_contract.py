"""What an API server and a scheduler make of the manifests of an `apply` step."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab_pipelines.catalog.steps import ApplyStep
from resources import kube_api, manifests
from resources.kube_api import Deadline
from resources.manifests import Manifest
from tests.support import contract
from tests.support.contract import LABELS, WITHIN_S, Place, pod, quota

pytestmark = pytest.mark.cluster

NOWHERE = {"nodeSelector": contract.NOWHERE}


def step(name: str, *, pods: list[dict[str, str]]) -> ApplyStep:
    return ApplyStep.model_validate(
        {
            "kind": "apply",
            "name": name,
            "manifests": "helm-values/of-the-test.yaml",
            "pods": pods,
            "within_s": WITHIN_S,
        }
    )


def test_an_object_lands_in_the_labs_namespace_with_its_labels_and_our_field_manager(place: Place) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "labels": {"own": "yes"}}}
    assert place.apply(config) is None
    stored = place.read("configmaps", "notes")
    assert stored["metadata"]["namespace"] == place.namespace
    assert stored["metadata"]["labels"] == {"own": "yes", **LABELS}
    managers = {(one["manager"], one["operation"]) for one in stored["metadata"]["managedFields"]}
    assert managers == {(manifests.FIELD_MANAGER, "Apply")}


def test_applying_the_same_file_twice_changes_nothing(place: Place) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes"}, "data": {"a": "b"}}
    assert place.apply(config) is None
    once = place.read("configmaps", "notes")
    assert place.apply(config) is None
    assert place.read("configmaps", "notes")["metadata"]["resourceVersion"] == once["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    ("resources", "refusal"),
    [
        (
            {"limits": {"nvidia.com/gpu": "0.5"}},
            r"^Pod refused: 422 Invalid: .*limits\[nvidia\.com/gpu\].*\"500m\": must be an integer",
        ),
        (
            {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}},
            r"^Pod refused: 422 Invalid: .*\"1\": must be equal to nvidia\.com/gpu limit of 2",
        ),
        ({"requests": {"nvidia.com/gpu": "1"}}, r"^Pod refused: 422 Invalid: .*Limit must be set for non overcommit"),
    ],
)
def test_gpus_are_whole_and_their_requests_equal_their_limits(
    place: Place, resources: dict[str, Any], refusal: str
) -> None:
    said = place.apply(pod("refused", resources))
    assert said is not None and re.search(refusal, said), said


def test_a_quota_counts_as_soon_as_it_is_applied_and_refuses_by_name_and_number(place: Place) -> None:
    assert place.apply(quota("two-gpus", **{"requests.nvidia.com/gpu": "2"})) is None
    two = pod("two", {"limits": {"nvidia.com/gpu": "2"}}, **NOWHERE)
    third = pod("third", {"limits": {"nvidia.com/gpu": "1"}}, **NOWHERE)
    # The first pod has no node and never will: what is asked for counts, not what runs.
    assert place.apply(two) is None
    assert place.apply(third) == (
        'Pod third: 403 Forbidden: pods "third" is forbidden: exceeded quota: two-gpus, '
        "requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
    )


def test_a_quota_on_memory_wants_it_stated(place: Place) -> None:
    assert place.apply(quota("memory", **{"limits.memory": "1Gi", "requests.memory": "1Gi"})) is None
    assert place.apply(pod("silent")) == (
        'Pod silent: 403 Forbidden: pods "silent" is forbidden: failed quota: memory: '
        "must specify limits.memory for: idle; requests.memory for: idle"
    )


def test_a_field_that_kubernetes_does_not_know_is_refused_by_its_name(place: Place) -> None:
    misspelt = pod("misspelt", tolerationz=[])
    said = place.apply(misspelt)
    assert said is not None and "500" in said and ".spec.tolerationz: field not declared in schema" in said


def test_the_first_refusal_ends_the_file_and_what_came_before_it_stays(place: Place) -> None:
    before, after = ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in "ab")
    assert place.apply(before, pod("half", {"limits": {"nvidia.com/gpu": "0.5"}}), after)
    assert place.read("configmaps", "a")
    with pytest.raises(kube_api.RefusedError, match="404"):
        place.read("configmaps", "b")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (pod("nowhere", **NOWHERE), "didn't match Pod's node affinity/selector"),
        # More than any node has, so that the test holds on a cluster with GPUs too.
        (pod("many-gpus", {"limits": {"nvidia.com/gpu": "4096"}}), r"Insufficient nvidia\.com/gpu"),
    ],
    ids=["affinity", "gpus"],
)
def test_a_pod_stays_pending_with_the_schedulers_own_words(place: Place, manifest: Manifest, reason: str) -> None:
    name = manifest["metadata"]["name"]
    asked = step("pending", pods=[{"name": name, "phase": "Pending", "reason": reason}])
    assert place.apply(manifest) is None
    pods = manifests.watch_pods(
        place.api_client, asked.pods, namespace=place.namespace, labels=LABELS, deadline=Deadline.within(WITHIN_S)
    )
    judged = manifests.judge(asked, manifests.ApplyOutcome(accepted=True, message=None, pods=pods))
    assert judged.ok, judged.message
    assert "nodes are available" in judged.message


def test_a_jobs_pod_carries_the_labels_and_is_known_by_the_jobs_name(place: Place) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job-nowhere"},
        "spec": {"backoffLimit": 0, "template": {"spec": {**pod("x", **NOWHERE)["spec"], "restartPolicy": "Never"}}},
    }
    asked = step("job", pods=[{"name": "job-nowhere", "phase": "Pending", "reason": "node affinity"}])
    assert place.apply(job) is None
    pods = manifests.watch_pods(
        place.api_client, asked.pods, namespace=place.namespace, labels=LABELS, deadline=Deadline.within(WITHIN_S)
    )
    [found] = pods
    assert found.name.startswith("job-nowhere-") and found.phase == "Pending"
    assert place.read("pods", found.name)["metadata"]["labels"].items() >= LABELS.items()


def test_delete_removes_what_carries_the_labels_with_all_that_it_owns_and_nothing_else(place: Place) -> None:
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job-nowhere"},
        "spec": {"template": {"spec": {**pod("x", **NOWHERE)["spec"], "restartPolicy": "Never"}}},
    }
    assert place.apply(mine, job) is None
    deadline = Deadline.within(WITHIN_S)
    others = {**LABELS, "run-id": "another"}
    assert (
        manifests.apply(place.api_client, [other], namespace=place.namespace, labels=others, deadline=deadline) is None
    )

    def delete() -> list[str]:
        return manifests.delete(
            place.api_client, [mine, other, job], namespace=place.namespace, labels=LABELS, deadline=deadline
        )

    assert delete() == ["jobs/job-nowhere", "configmaps/mine"]
    assert place.read("configmaps", "other")
    left = kube_api.request(
        place.api_client, "GET", f"/api/v1/namespaces/{place.namespace}/pods", deadline=Deadline.within(WITHIN_S)
    )
    assert left["items"] == []
    assert delete() == []
