"""What can go wrong between us and an API server: each ends in time, in one line that says what to do.

Against the double alone, which can be told to fail. What holds on every cluster: tests/contract.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.steps import ApplyStep
from resources import kube_api, manifests
from resources.cluster import ApplyOutcome, ClusterError
from resources.kube_api import Deadline
from tests.support.kube.statuses import RUNNING, ended, unschedulable, waiting
from tests.support.kube_api import KubeApi

NAMESPACE = "lab-07"
LABELS = {"lab": "l07", "run-id": "run-1"}
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
NO_GPU = unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def double() -> Iterator[KubeApi]:
    with KubeApi() as api:
        api.make_namespace(NAMESPACE)
        yield api


def pod(name: str) -> manifests.Manifest:
    containers = [{"name": "idle", "image": "registry.k8s.io/pause:3.10.1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}


def step_for(folder: Path, text: str, **fields: Any) -> ApplyStep:
    """A step whose manifest is `text`, below `folder`."""
    path = folder / "helm-values" / "step.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    asked = {"kind": "apply", "name": "a-step", "manifests": "helm-values/step.yaml", "within_s": 20.0, **fields}
    return ApplyStep.model_validate(asked)


def carry_out(double: KubeApi, folder: Path, step: ApplyStep) -> ApplyOutcome:
    with kube_api.connect(double.kubeconfig(folder)) as api_client:
        return manifests.carry_out(
            api_client,
            step,
            root=folder,
            environ={},
            namespace=NAMESPACE,
            labels=LABELS,
            progress=lambda line: None,
        )


def apply(double: KubeApi, folder: Path, *objects: manifests.Manifest, within_s: float = 20.0) -> str | None:
    with kube_api.connect(double.kubeconfig(folder)) as api_client:
        deadline = Deadline.within(within_s)
        return manifests.apply(api_client, objects, namespace=NAMESPACE, labels=LABELS, deadline=deadline)


POD = """
apiVersion: v1
kind: Pod
metadata: {name: gpu}
spec:
  containers: [{name: idle, image: "registry.k8s.io/pause:3.10.1"}]
"""


# --- The connection ---


def test_no_kubeconfig_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"^kubeconfig .*/absent can't be used: .*get-contexts") as raised:
        kube_api.connect(tmp_path / "absent")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "kind: Config"])
def test_a_file_that_is_no_kubeconfig_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ClusterError, match=r"^kubeconfig .*/kubeconfig can't be used: "):
        kube_api.connect(path)


def test_a_context_that_the_kubeconfig_lacks_is_refused_by_its_name(double: KubeApi, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"can't be used: .*production"):
        kube_api.connect(double.kubeconfig(tmp_path), context="production")


def test_a_cluster_where_nobody_listens_is_said_to_be_out_of_reach_at_once(double: KubeApi, tmp_path: Path) -> None:
    path = double.kubeconfig(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    path.write_text(path.read_text(encoding="utf-8").replace(double.url, f"http://127.0.0.1:{port}"), encoding="utf-8")
    with pytest.raises(
        ClusterError, match=rf"http://127\.0\.0\.1:{port} can't be reached .*refused.*is the cluster up"
    ):
        kube_api.connect(path)


def test_a_server_that_never_answers_is_given_up_after_the_read_timeout(
    double: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_api, "READ_TIMEOUT_S", 1.0)
    double.silent = True
    with pytest.raises(ClusterError, match=r"can't be reached \(ReadTimeoutError"):
        kube_api.connect(double.kubeconfig(tmp_path))
    assert len(double.seen) == 1, "a request that timed out must not be sent again in silence"


def test_something_else_than_an_api_server_is_recognised(double: KubeApi, tmp_path: Path) -> None:
    double.answer("GET", "^/version$", status=404, message="page not found")
    with pytest.raises(ClusterError, match="does not answer like a Kubernetes API server: 404"):
        kube_api.connect(double.kubeconfig(tmp_path))


def test_the_users_token_is_sent(double: KubeApi, tmp_path: Path) -> None:
    double.answer("GET", "^/version$", status=401, message="Unauthorized", reason="Unauthorized")
    with pytest.raises(ClusterError, match=r"does not know who asks \(401 Unauthorized\); sign in"):
        kube_api.connect(double.kubeconfig(tmp_path))


# --- Applying ---


def test_no_permission_is_no_refusal_of_the_manifest(double: KubeApi, tmp_path: Path) -> None:
    # Both are 403. Taken for a refusal, a missing role would confirm any lab that expects one.
    message = (
        'pods "gpu" is forbidden: User "ada" cannot patch resource "pods" in API group "" in the namespace "lab-07"'
    )
    double.answer("PATCH", PODS, status=403, message=message, reason="Forbidden")
    with pytest.raises(ClusterError, match=r'does not allow it: .*User "ada" cannot patch.*ask for a role'):
        apply(double, tmp_path, pod("gpu"))


def test_a_namespace_that_is_not_there_is_named(double: KubeApi, tmp_path: Path) -> None:
    with (
        kube_api.connect(double.kubeconfig(tmp_path)) as api_client,
        pytest.raises(ClusterError, match=r"lab-99.*first"),
    ):
        manifests.apply(api_client, [pod("gpu")], namespace="lab-99", labels=LABELS, deadline=Deadline.within(5))


@pytest.mark.parametrize(
    ("version", "kind", "message"),
    [
        (
            "external-secrets.io/v1",
            "ExternalSecret",
            "the cluster has no external-secrets.io/v1 ExternalSecret; install",
        ),
        ("v1", "Pot", "the cluster has no v1 Pot"),
        ("v1", "Namespace", "belongs to the whole cluster"),
    ],
)
def test_a_kind_that_the_cluster_lacks_or_a_lab_may_not_touch_is_named(
    double: KubeApi, tmp_path: Path, version: str, kind: str, message: str
) -> None:
    with pytest.raises(ClusterError, match=f"^{kind} x: {message}"):
        apply(double, tmp_path, {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}})
    assert not double.requests("PATCH", "")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "too many requests, please try again later"),
        (503, "apiserver is shutting down"),
        (409, 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'),
        (403, 'pods "gpu" is forbidden: status unknown for quota: q, resources: requests.memory'),
        (
            403,
            'pods "gpu" is forbidden: error looking up service account: serviceaccount "default" not found',
        ),
    ],
)
def test_what_is_true_for_a_moment_only_is_tried_again(
    double: KubeApi, tmp_path: Path, status: int, message: str
) -> None:
    double.answer("PATCH", PODS, status=status, message=message, times=2)
    assert apply(double, tmp_path, pod("gpu")) is None
    assert len(double.requests("PATCH", PODS)) == 3


def test_an_overloaded_servers_own_pause_is_kept(double: KubeApi, tmp_path: Path) -> None:
    double.answer("PATCH", PODS, status=429, message="slow down", headers={"Retry-After": "1"})
    began = time.monotonic()
    assert apply(double, tmp_path, pod("gpu")) is None
    assert time.monotonic() - began >= 1.0


def test_a_pause_beyond_the_deadline_is_not_waited_for(double: KubeApi, tmp_path: Path) -> None:
    double.answer("PATCH", PODS, status=503, message="down for a while", headers={"Retry-After": "3600"})
    with pytest.raises(ClusterError, match=r"503 .*down for a while"):
        apply(double, tmp_path, pod("gpu"), within_s=2.0)


def test_an_error_of_the_server_is_no_refusal_of_the_manifest(double: KubeApi, tmp_path: Path) -> None:
    double.answer("PATCH", PODS, status=500, message="etcdserver: request timed out", reason="InternalError")
    with pytest.raises(ClusterError, match="500 InternalError: etcdserver: request timed out"):
        apply(double, tmp_path, pod("gpu"))


def test_a_quota_is_waited_for_until_it_counts(double: KubeApi, tmp_path: Path) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "2"}},
    }
    assert apply(double, tmp_path, quota) is None
    assert len(double.requests("GET", "/resourcequotas/q$")) == 2  # the double counts after it was asked once


def test_discovery_is_asked_once_for_each_api_version(double: KubeApi, tmp_path: Path) -> None:
    assert apply(double, tmp_path, pod("a"), pod("b"), pod("c")) is None
    assert len(double.requests("GET", "^/api/v1$")) == 1


# --- Watching ---


def test_a_whole_step_waits_through_a_pods_changes(double: KubeApi, tmp_path: Path) -> None:
    double.decisions = {"gpu": [NO_GPU, waiting("ErrImagePull", "registry is away"), RUNNING]}
    step = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Running"}])
    outcome = carry_out(double, tmp_path, step)
    assert manifests.judge(step, outcome) == (True, "accepted as expected: gpu is Running")
    [patch] = double.requests("PATCH", PODS)
    assert patch.body["metadata"] == {"name": "gpu", "namespace": NAMESPACE, "labels": LABELS}
    assert patch.query == {"fieldManager": "lab-pipelines", "force": "true", "fieldValidation": "Strict"}


@pytest.mark.parametrize("at_once", [True, False], ids=["as-the-answer", "as-an-event"])
def test_a_history_that_the_server_has_forgotten_is_listed_again(
    double: KubeApi, tmp_path: Path, at_once: bool
) -> None:
    double.decisions = {"gpu": [NO_GPU]}
    if at_once:
        double.answer("GET", "watch=true", status=410, message="too old resource version", reason="Expired")
    else:
        double.expire_next_watch()
    step = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Running"}], within_s=2.0)
    outcome = carry_out(double, tmp_path, step)
    assert [(one.name, one.phase) for one in outcome.pods] == [("gpu", "Pending")]
    assert len([one for one in double.requests("GET", PODS) if "watch" in one.query]) >= 2


def test_a_watch_that_may_not_be_had_is_an_error(double: KubeApi, tmp_path: Path) -> None:
    message = 'pods is forbidden: User "ada" cannot watch resource "pods" in API group "" in the namespace "lab-07"'
    double.answer("GET", "watch=true", status=403, message=message, reason="Forbidden")
    double.decisions = {"gpu": [NO_GPU]}
    step = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Running"}])
    with pytest.raises(ClusterError, match="cannot watch"):
        carry_out(double, tmp_path, step)


def test_the_deadline_ends_a_wait_and_the_scheduler_is_quoted(double: KubeApi, tmp_path: Path) -> None:
    double.decisions = {"gpu": [NO_GPU]}
    step = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Running"}], within_s=1.5)
    judged = manifests.judge(step, carry_out(double, tmp_path, step))
    assert judged == (
        False,
        "after 1.5 s pod gpu is Pending, but must be Running: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    )


def test_a_pod_that_has_ended_otherwise_is_not_waited_for(double: KubeApi, tmp_path: Path) -> None:
    double.decisions = {"gpu": [ended(1, "credentials in the environment: HF_TOKEN")]}
    step = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Succeeded"}], within_s=250.0)
    judged = manifests.judge(step, carry_out(double, tmp_path, step))
    assert not judged.ok
    assert "is Failed, but must be Succeeded: Error, exit code 1: credentials in the environment" in judged.message


def test_a_pod_that_runs_but_should_have_waited_is_not_waited_for(double: KubeApi, tmp_path: Path) -> None:
    step = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Pending", "reason": "taint"}], within_s=250.0)
    assert "is Running, but must be Pending" in manifests.judge(step, carry_out(double, tmp_path, step)).message


def test_a_pod_that_never_appears_is_said_to_be_absent(double: KubeApi, tmp_path: Path) -> None:
    step = step_for(tmp_path, POD, pods=[{"name": "other", "phase": "Running"}], within_s=1.0)
    outcome = carry_out(double, tmp_path, step)
    assert [(one.name, one.phase) for one in outcome.pods] == [("other", manifests.ABSENT)]


def test_pods_of_a_namespace_that_was_taken_away_are_not_waited_for(double: KubeApi, tmp_path: Path) -> None:
    """A run that was cut learns of it at once, and not when its step's time is over."""
    expected = step_for(tmp_path, POD, pods=[{"name": "gpu", "phase": "Running"}]).pods
    with (
        kube_api.connect(double.kubeconfig(tmp_path)) as api_client,
        pytest.raises(ClusterError, match=r"namespace lab-99 is taken away: .* released or reaped meanwhile"),
    ):
        deadline = Deadline.within(2.0)
        manifests.watch_pods(api_client, expected, namespace="lab-99", labels=LABELS, deadline=deadline)


def test_a_refused_file_is_an_outcome_and_its_pods_are_not_waited_for(double: KubeApi, tmp_path: Path) -> None:
    half = POD.replace("containers: [{", 'containers: [{resources: {limits: {nvidia.com/gpu: "0.5"}}, ')
    step = step_for(tmp_path, half, expect="rejected", reason="422 Invalid: .*must be an integer")
    outcome = carry_out(double, tmp_path, step)
    assert not outcome.accepted and outcome.pods == []
    assert manifests.judge(step, outcome).ok


# --- Removing ---


def test_what_does_not_go_is_named_at_the_deadline(double: KubeApi, tmp_path: Path) -> None:
    with kube_api.connect(double.kubeconfig(tmp_path)) as api_client:
        deadline = Deadline.within(1.0)
        assert (
            manifests.apply(api_client, [pod("stuck")], namespace=NAMESPACE, labels=LABELS, deadline=deadline) is None
        )
        double.answer("DELETE", PODS, status=200, message="as if", times=1)
        with pytest.raises(ClusterError, match=r"/pods: still there after being deleted: stuck; see their finalizers"):
            manifests.delete(api_client, [pod("x")], namespace=NAMESPACE, labels=LABELS, deadline=deadline)
