"""What can go wrong between Helm and an API server or a chart's repository: each ends in time, in one line.

Against the double alone, which can be told to fail. What holds on every cluster: tests/contract/test_helm_contract.py.
"""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import pytest

from lab_pipelines.catalog.stack import Chart
from lab_pipelines.deployment import REPO_ROOT
from resources import helm, helm_sdk, kube_api
from resources.cluster import ClusterError
from resources.helm import Applied, HelmReleases
from resources.helm_sdk import ReleaseError
from resources.kube_api import Deadline
from tests.support.kube.kubelet import PodCrashedError, PodProcess
from tests.support.kube_api import KubeApi

CHART = REPO_ROOT / "tests/data/charts/pause"
IMAGE = "registry.k8s.io/pause"
NAMESPACE = "lab-05"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def double() -> Iterator[KubeApi]:
    with KubeApi() as api:
        api.make_namespace(NAMESPACE)
        yield api


@pytest.fixture
def releases(double: KubeApi, tmp_path: Path) -> Iterator[HelmReleases]:
    kubeconfig = double.kubeconfig(tmp_path)
    with kube_api.connect(kubeconfig) as api_client:
        yield HelmReleases(api_client, kubeconfig=kubeconfig, context="double", namespace=NAMESPACE)


def apply(
    releases: HelmReleases,
    values: Mapping[str, Any] | None = None,
    *,
    chart: Chart | Path = CHART,
    within_s: float = 30.0,
    told: list[str] | None = None,
) -> Applied:
    return releases.apply(
        "rest",
        chart,
        values or {},
        labels={"lab": "l05"},
        deadline=Deadline.within(within_s),
        progress=(told if told is not None else []).append,
    )


def statuses(releases: HelmReleases) -> list[str]:
    return [one.status for one in releases.history("rest", deadline=Deadline.within(20))]


def test_an_api_server_that_fails_halfway_leaves_nothing_of_an_installation(
    double: KubeApi, releases: HelmReleases
) -> None:
    double.answer("PATCH", DEPLOYMENTS, status=500, message="etcdserver: request timed out", times=5)
    with pytest.raises(ReleaseError, match=r"can't be installed: .*etcdserver: .*\(it was removed\)$") as raised:
        apply(releases)
    assert "\n" not in str(raised.value)
    assert statuses(releases) == []
    assert [key for key in double.stored() if key[1] == NAMESPACE] == []


def test_an_api_server_that_fails_halfway_leaves_the_former_revision_of_an_upgrade(
    double: KubeApi, releases: HelmReleases
) -> None:
    apply(releases)
    double.answer("PATCH", DEPLOYMENTS, status=403, message="not now", reason="Forbidden")
    with pytest.raises(ReleaseError, match=r"can't be upgraded: .*\(it was rolled back to revision 1\)$"):
        apply(releases, {"replicas": 2})
    assert statuses(releases) == ["superseded", "failed", "deployed"]
    found = double.read("deployments.apps", NAMESPACE, "rest")
    assert found is not None and found["spec"]["replicas"] == 1


def test_a_failure_that_can_not_be_taken_back_says_both(double: KubeApi, releases: HelmReleases) -> None:
    double.answer("PATCH", DEPLOYMENTS, status=403, message="not now", reason="Forbidden")
    double.answer("DELETE", "", status=403, message="nor this", reason="Forbidden", times=100)
    with pytest.raises(ReleaseError, match=r"not now.*\(it could not be taken back: .*failed to delete release"):
        apply(releases)


def test_a_server_that_stops_answering_is_given_up_at_the_deadline(
    double: KubeApi, releases: HelmReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helm, "TAKE_BACK_S", 1.0)
    monkeypatch.setattr(helm_sdk, "LAST_WORDS_S", 0.2)
    apply(releases)
    double.silent = True
    with pytest.raises(ClusterError, match="Helm did not end in time"):
        apply(releases, within_s=1.0)


def test_a_cluster_where_nobody_listens_is_said_to_be_out_of_reach(tmp_path: Path) -> None:
    with KubeApi() as api:
        kubeconfig = api.kubeconfig(tmp_path)
        api_client = kube_api.connect(kubeconfig)
    with api_client, pytest.raises(ClusterError, match=r"refused; is the cluster up"):
        apply(HelmReleases(api_client, kubeconfig=kubeconfig, context=None, namespace=NAMESPACE))


def test_a_context_that_the_kubeconfig_lacks_is_one_line(double: KubeApi, tmp_path: Path) -> None:
    kubeconfig = double.kubeconfig(tmp_path)
    with kube_api.connect(kubeconfig) as api_client:
        elsewhere = HelmReleases(api_client, kubeconfig=kubeconfig, context="production", namespace=NAMESPACE)
        with pytest.raises(ClusterError, match="production") as raised:
            apply(elsewhere)
    assert "\n" not in str(raised.value)


def test_an_engine_that_keeps_failing_is_not_waited_for_and_its_last_words_are_told(
    double: KubeApi, releases: HelmReleases
) -> None:
    def start(pod: dict[str, Any]) -> PodProcess:
        raise PodCrashedError(1, "loading\nValueError: max_num_seqs: 0 is too small\nHF_TOKEN=hf_abcdefgh12\n")

    double.plays(start, image=IMAGE)
    with pytest.raises(ReleaseError, match=r"will not get ready: .*container idle failed \d times") as raised:
        apply(releases, within_s=250.0)
    said = str(raised.value)
    assert (
        "its log ends: loading | ValueError: max_num_seqs: 0 is too small | HF_TOKEN=[hidden] (it was removed)" in said
    )
    assert "hf_abcdefgh12" not in repr(raised.value.troubles)


def test_a_pod_that_starts_slowly_is_waited_for_and_the_lease_kept_alive(
    double: KubeApi, releases: HelmReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helm, "LOOK_S", 0.01)
    go, looks, told = threading.Event(), [], list[str]()

    def start(pod: dict[str, Any]) -> PodProcess:
        go.wait()
        return PodProcess()

    def alive() -> None:
        looks.append(1)
        if len(looks) == 5:
            go.set()

    double.plays(start, image=IMAGE)
    deadline = Deadline.within(60)
    releases.apply("rest", CHART, {}, labels={}, deadline=deadline, progress=told.append, alive=alive)
    assert len(looks) >= 5
    assert "rest: waiting for Deployment rest: 0 of 1 pods are ready" in told


def test_an_interrupt_ends_helm_and_is_passed_on(
    double: KubeApi, releases: HelmReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def progress(line: str) -> None:
        if "waiting for" in line:
            raise KeyboardInterrupt

    double.make_node("too-small", cpu="0")
    with pytest.raises(KeyboardInterrupt):
        releases.apply(
            "rest", CHART, {"nodeSelector": {"a": "b"}}, labels={}, deadline=Deadline.within(60), progress=progress
        )
    assert statuses(releases) == ["deployed"], "what an interrupted run leaves, its lease's end removes"


def test_without_the_sdk_one_line_says_what_to_install(
    double: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "helm_python", None)
    with kube_api.connect(double.kubeconfig(tmp_path)) as api_client, pytest.raises(ClusterError, match="extra aks"):
        HelmReleases(api_client, kubeconfig=None, context=None, namespace=NAMESPACE)


# --- Charts of a repository ---


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "repository"
    folder.mkdir()
    helm_python.package(CHART, destination=folder)
    helm_python.repo_index_generate(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pinned(repository: str, version: str = "0.1.0") -> Chart:
    return Chart(name="pause", repository=repository, version=version, values="helm-values/lab05/vllm.yaml")


def test_a_chart_of_a_repository_is_fetched_once_and_renders_to_the_folders_digest(
    releases: HelmReleases, repository: str
) -> None:
    first = apply(releases, chart=pinned(repository))
    second = apply(releases, chart=pinned(repository))
    assert first.manifest_digest == second.manifest_digest == apply(releases, chart=CHART).manifest_digest
    assert first.release.chart == "pause-0.1.0"


def test_a_version_that_a_repository_lacks_is_named_with_the_repository(
    releases: HelmReleases, repository: str
) -> None:
    with pytest.raises(ReleaseError, match=rf"^chart pause 9\.9\.9 of {repository} can't be had: ") as raised:
        apply(releases, chart=pinned(repository, "9.9.9"))
    assert "\n" not in str(raised.value)
