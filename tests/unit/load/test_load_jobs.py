"""A load as objects of a cluster: what is written, how many workers, and what Jobs and pods say of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipelines.deployment import MOST_LOAD_WORKERS
from resources.kube_namespace import MOST_PODS
from resources.load_generator import LoadPlan, StagePlan
from resources.load_jobs import ClusterLoad, Look, look, master_job, rest_of, workers_for
from resources.manifests import placed
from tests.support.kube.statuses import RUNNING, ended, unschedulable, waiting
from tests.support.kube_types import mistakes
from tests.support.locust_runs import completions, plan, stage

GOLDEN = Path(__file__).parents[2] / "data" / "load-jobs.yaml"
LABELS = {"lab": "l06", "run-id": "run-1", "lab-pipelines-lease": "lease-1"}


def load(**changes: Any) -> ClusterLoad:
    fields: dict[str, Any] = {
        "load_id": "0a1b2c3d4e",
        "plan": plan("http://vllm.lab-06.svc:80/v1", stage(0, 8, max_s=100.0), stage(1, 300, max_s=200.5)),
        "workers": 2,
        "image": "registry.example/lab-pipelines:1",
        "lake_url": "abfss://lake@labs.dfs.core.windows.net/lake",
        "incoming": "_load_incoming/1795874400-0a1b2c3d4e",
        "secret": "lake-writer",
    }
    return ClusterLoad(**{**fields, **changes})


def objects(one: ClusterLoad) -> list[dict[str, Any]]:
    made = [master_job(one), *rest_of(one, namespace="lab-06", master_uid="uid-of-the-master")]
    return [placed(manifest, namespace="lab-06", labels=LABELS) for manifest in made]


def pod_specs(one: ClusterLoad) -> list[dict[str, Any]]:
    return [made["spec"]["template"]["spec"] for made in objects(one) if made["kind"] == "Job"]


def test_the_objects_of_a_load_are_those_on_record() -> None:
    """Write them anew with: python -m tests.unit.load.test_load_jobs"""
    assert objects(load()) == list(yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8")))


def test_the_objects_have_no_field_that_kubernetes_lacks() -> None:
    assert [mistake for made in objects(load()) for mistake in mistakes(made)] == []


def test_the_pods_are_within_the_restricted_level() -> None:
    """The fields that https://kubernetes.io/docs/concepts/security/pod-security-standards asks for at `restricted`."""
    for spec in pod_specs(load()):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all(volume.keys() & {"configMap", "emptyDir"} for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_no_pod_of_a_load_can_go_to_a_tainted_node_or_asks_for_a_gpu_or_a_token() -> None:
    for spec in pod_specs(load()):
        assert "tolerations" not in spec
        assert spec["automountServiceAccountToken"] is False
        [container] = spec["containers"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_the_pods_own_deadline_leaves_time_for_the_start_every_stage_and_the_records() -> None:
    [deadline, same] = [made["spec"]["activeDeadlineSeconds"] for made in objects(load()) if made["kind"] == "Job"]
    assert deadline == same == 600 + 301 + 180


def test_without_a_secret_the_pods_have_no_environment_but_their_own_name() -> None:
    for spec in pod_specs(load(secret=None)):
        assert "envFrom" not in spec["containers"][0]
        assert [one["name"] for one in spec["containers"][0]["env"]] == ["POD_NAME", "HOME", "TMPDIR"]


def at_a_rate(per_s: float) -> LoadPlan:
    one = StagePlan(stage=0, users=None, per_wall_s=per_s, hold_wall_s=1.0, min_requests=1, max_hold_wall_s=2.0)
    return plan("http://vllm.lab-06.svc:80/v1", one, profile="rate", max_in_flight=9, shapes=[completions()])


def at_a_changing_rate(*points: tuple[float, float]) -> LoadPlan:
    plain = at_a_rate(160.0)
    stage = plain.stages[0].model_copy(update={"points": list(points)})
    return plain.model_copy(update={"profile": "rate_profile", "stages": [stage]})


@pytest.mark.parametrize(
    ("of", "workers"),
    [
        (plan("http://a.b.svc:80/v1", stage(0, 1)), 1),
        (plan("http://a.b.svc:80/v1", stage(0, 200), stage(1, 1)), 1),
        (plan("http://a.b.svc:80/v1", stage(0, 1), stage(1, 201)), 2),
        (plan("http://a.b.svc:80/v1", stage(0, 100_000)), 8),
        (at_a_rate(0.5), 1),
        (at_a_rate(100.0), 1),
        (at_a_rate(250.0), 3),
        (at_a_changing_rate((0.0, 10.0), (50.0, 310.0)), 4),
    ],
)
def test_workers_follow_from_the_largest_stage(of: LoadPlan, workers: int) -> None:
    assert workers_for(of) == workers


def test_the_most_workers_leave_room_for_a_stack_in_its_namespaces_quota() -> None:
    assert MOST_LOAD_WORKERS + 1 < MOST_PODS


def pod(name: str, status: Mapping[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": status}


def job(**condition: str) -> dict[str, Any]:
    return {"metadata": {"name": "load-1-worker"}, "status": {"conditions": [condition] if condition else []}}


DONE = ended(0, "")
DEADLINE = job(type="Failed", status="True", reason="DeadlineExceeded", message="Job was active longer than allowed")


@pytest.mark.parametrize(
    ("jobs", "statuses", "seen"),
    [
        ([], [], Look("starting", "0 of 3 pods are there")),
        ([job()], [RUNNING, RUNNING], Look("starting", "2 of 3 pods are there")),
        (
            [job()],
            [RUNNING, RUNNING, unschedulable("0/1 nodes are available: 1 Insufficient cpu.")],
            Look("starting", "pod-2 is Pending: 0/1 nodes are available: 1 Insufficient cpu."),
        ),
        (
            [job()],
            [RUNNING, RUNNING, waiting("CreateContainerConfigError", 'secret "lake-writer" not found')],
            Look("starting", 'pod-2 is Pending: CreateContainerConfigError: secret "lake-writer" not found'),
        ),
        ([job()], [RUNNING, RUNNING, RUNNING], Look("running")),
        ([job()], [RUNNING, DONE, DONE], Look("running")),
        ([job()], [DONE, DONE, DONE], Look("done")),
        ([job()], [RUNNING, RUNNING, ended(3, "")], Look("failed", "pod-2 is Failed: Error, exit code 3")),
        (
            [DEADLINE],
            [],
            Look("failed", "Job load-1-worker: DeadlineExceeded: Job was active longer than allowed"),
        ),
        (
            [job(type="Failed", status="True", reason="BackoffLimitExceeded", message="no second try")],
            [RUNNING, RUNNING, ended(137, "")],
            Look("failed", "pod-2 is Failed: Error, exit code 137"),
        ),
        (
            [job(type="Complete", status="True")],
            [RUNNING, RUNNING, waiting("InvalidImageName", "couldn't parse image name")],
            Look("failed", "pod-2 is Pending: InvalidImageName: couldn't parse image name"),
        ),
    ],
)
def test_a_load_is_as_its_jobs_and_pods_say(
    jobs: list[dict[str, Any]], statuses: list[dict[str, Any]], seen: Look
) -> None:
    assert look(load(), jobs, [pod(f"pod-{number}", status) for number, status in enumerate(statuses)]) == seen


if __name__ == "__main__":
    GOLDEN.write_text(yaml.safe_dump_all(objects(load()), sort_keys=False, width=120), encoding="utf-8")
