"""Load in a cluster, on the double: Jobs whose pods are real Locust processes, their records back through a lake."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import resources.load_cluster
from lab_pipelines.build import build_defs
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.deployment import REPO_ROOT, ClusterSettings, Deployment, DeploymentError
from lab_pipelines.rows.load import request_rows
from resources import kube_api
from resources.cluster import Lease
from resources.kube_api import Deadline
from resources.kube_leases import NamespaceLeases
from resources.kube_reach import Service
from resources.load_cluster import ClusterLoadGenerator
from resources.load_generator import LoadError, LoadPlan, LoadResult
from resources.load_incoming import FOLDER
from resources.load_locust import LocustLoadGenerator
from resources.warehouse import Warehouse
from tests.support.kube.statuses import waiting
from tests.support.kube_api import KubeApi
from tests.support.lab_cluster import IMAGE as LAB_IMAGE
from tests.support.lab_cluster import lab_cluster
from tests.support.load_pods import LoadPods
from tests.support.locust_runs import completions, plan, stage
from tests.support.main_command import prepared, start
from tests.support.sessions import session
from tests.support.sse_server import SseServer, completion
from tests.support.warehouses import warehouse_in

SERVICE = "http://vllm.lab-06.svc:80"
IMAGE = "registry.example/lab-pipelines:1"
PHI_3 = "microsoft/Phi-3-mini-4k-instruct"


class Statuses(dict[str, list[dict[str, Any]]]):
    """By the role of a Job's pods: a load's name isn't known before it runs."""

    def get(self, name: str, default: Any = None) -> Any:
        return next((found for role, found in self.items() if name.endswith(f"-{role}")), default)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def double() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api


def lease_on(api: KubeApi, folder: Path) -> Lease:
    """Take L06's lease; what the load then leaves is whatever there is beside it."""
    with kube_api.connect(api.kubeconfig(folder)) as client:
        spec = load_catalog().spec("L06")
        lease = NamespaceLeases(client).take(spec, "run-1", hold=None, deadline=Deadline.within(10))
    return lease


def generator(folder: Path, **changes: Any) -> ClusterLoadGenerator:
    fields: dict[str, Any] = {
        "lake_url": f"file://{folder}/lake",
        "image": IMAGE,
        "kubeconfig": str(folder / "kubeconfig"),
        "workers": 2,
    }
    return ClusterLoadGenerator(**{**fields, **changes})


def plays(api: KubeApi, folder: Path, root: str) -> LoadPods:
    pods = LoadPods(api, folder / "pods", lambda service: root)
    api.plays(pods.start, image=IMAGE)
    return pods


def run(load: LoadPlan, folder: Path, lines: list[str] | None = None, **changes: Any) -> LoadResult:
    said = [] if lines is None else lines
    return generator(folder, **changes).run(load, workdir=folder / "work", environ={}, progress=said.append)


def left(api: KubeApi, folder: Path) -> list[str]:
    """What a load has left behind, in the cluster and in the lake."""
    found = [f"{resource}/{name}" for resource, namespace, name in api.stored() if namespace == "lab-06"]
    return found + [path.name for path in (folder / "lake").rglob("*") if path.name != FOLDER]


def waits_for_the_end_of(pods: LoadPods) -> None:
    for process in pods.processes.values():
        process.wait(30)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The root of a modelled vLLM server."""
    folder = tmp_path_factory.mktemp("engine")
    announce = folder / "server.json"
    options = ["--gpu", "T4", "--time-scale", "20", "--cold-start-time-scale", "5000"]
    options += ["--announce", str(announce), "--log", str(folder / "server.jsonl")]
    command = [sys.executable, "-m", "lab_pipelines.engine.serve", *options, "--", PHI_3, "--dtype", "half"]
    process = subprocess.Popen(command, cwd=REPO_ROOT)
    try:
        deadline = time.monotonic() + 60
        while not announce.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads(announce.read_text())["base_url"].removesuffix("/v1")
    finally:
        process.terminate()
        process.wait(30)


def test_two_workers_in_the_cluster_bring_back_rows_like_those_of_a_load_from_here(
    double: KubeApi, tmp_path: Path, engine: str
) -> None:
    lease_on(double, tmp_path)
    pods, lines = plays(double, tmp_path, engine), list[str]()
    load = plan(f"{SERVICE}/v1", stage(0, 2, min_requests=6), stage(1, 5, min_requests=20), model=PHI_3)
    result = run(load, tmp_path, lines)
    waits_for_the_end_of(pods)

    assert {record.worker for record in result.requests} == {"worker-0", "worker-1"}
    assert len({record.user_index for record in result.requests}) == 5
    assert [record.users for record in result.stages] == [2, 5]
    assert all(record.client_cpu_share is not None and record.client_cpu_share > 0 for record in result.stages)
    for record in result.stages:  # what each pod told of itself came with its records
        assert record.busiest_cpu_share is not None and record.client_cpu_share is not None
        assert 0 < record.busiest_cpu_share < record.client_cpu_share
        assert record.event_loop_lag_p99_s is not None and record.event_loop_probes > 5
    assert all(request.client_lag_s is not None for request in result.requests)
    ends = [line for line in lines if line.startswith("stage") and "ended" in line]
    assert [line.split(" · ")[0] for line in ends] == ["stage 1/2", "stage 2/2"]
    assert "stage 2/2" in (tmp_path / "work" / "locust.log").read_text()
    assert left(double, tmp_path) == []

    here = LocustLoadGenerator(processes=2).run(
        load.model_copy(update={"base_url": f"{engine}/v1"}),
        workdir=tmp_path / "here",
        environ={},
        progress=lines.append,
    )
    up, warehouse = session(model=PHI_3), warehouse_in(tmp_path)
    kinds = []
    for run_id, one in (("there", result), ("here", here)):
        table = [{**row, "run_id": run_id} for row in request_rows(up, load, one)]
        warehouse.publish("requests", table, target="local", lab="L06", run_id=run_id)
        good = [row for row in table if row["outcome"] == "ok"]
        kinds.append([{column: type(value) for column, value in row.items()} for row in good])
        assert {row["output_tokens"] for row in good} == {8}
    assert all(kind == kinds[1][0] for kind in kinds[0])


def test_a_lab_whose_base_url_is_none_of_the_clusters_is_told_where_else_load_can_run(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"http://127.0.0.1:9/v1 is no service of the cluster.* set LABS_LOAD=here"):
        run(plan("http://127.0.0.1:9/v1", stage(0, 1)), tmp_path)


def test_a_worker_that_fails_ends_the_load_with_its_own_last_words(double: KubeApi, tmp_path: Path) -> None:
    lease_on(double, tmp_path)
    pods = plays(double, tmp_path, "http://127.0.0.1:9")
    load = plan(f"{SERVICE}/v1", stage(0, 1), shapes=[completions().model_copy(update={"input_tokens": 100})])
    with pytest.raises(LoadError, match=r"load-\w+-(master|worker)-\w+ is Failed: Error, exit code 1") as error:
        run(load, tmp_path, workers=1)
    assert "has 512 tokens, but the plan's input_tokens is 100" in str(error.value)
    assert left(double, tmp_path) == []
    waits_for_the_end_of(pods)


def test_an_interrupt_takes_the_jobs_away_and_ends_their_pods(double: KubeApi, tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(line: str) -> None:
        if line.startswith("stage 1/2"):
            assert len(pods.processes) == 2
            raise Interrupted

    lease_on(double, tmp_path)
    with SseServer(completion(itl_s=0.005)) as server:
        pods = plays(double, tmp_path, server.base_url.removesuffix("/v1"))
        load = plan(f"{SERVICE}/v1", stage(0, 1), stage(1, 1, hold_s=120, max_s=120))
        with pytest.raises(Interrupted):
            generator(tmp_path, workers=1).run(load, workdir=tmp_path / "work", environ={}, progress=interrupt)
        assert left(double, tmp_path) == []
        waits_for_the_end_of(pods)
    assert left(double, tmp_path) == []  # a pod that was told to end brings nothing


def test_pods_that_have_no_node_in_time_say_what_the_scheduler_said(
    double: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.load_cluster, "START_S", 1.5)
    double.make_node("gpu-0", gpus=1, taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}])
    lease_on(double, tmp_path)
    with pytest.raises(LoadError, match=r"did not start within 2 s: .*untolerated taint"):
        run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path)
    assert left(double, tmp_path) == []


def test_an_image_that_can_t_be_pulled_is_not_waited_for(tmp_path: Path) -> None:
    no_image = waiting("ImagePullBackOff", 'Back-off pulling image "registry.example/lab-pipelines:1"')
    with KubeApi(Statuses(worker=[no_image])) as api:
        lease_on(api, tmp_path)
        with pytest.raises(LoadError, match=r"-worker-\w+ is Pending: ImagePullBackOff: Back-off pulling image"):
            run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path)
        assert left(api, tmp_path) == []


def test_an_evicted_pod_fails_the_load_with_the_kubelets_reason(tmp_path: Path) -> None:
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    with KubeApi(Statuses(master=[evicted])) as api:
        lease_on(api, tmp_path)
        with pytest.raises(LoadError, match=r"-master-\w+ is Failed: The node was low on resource: memory"):
            run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path)
        assert left(api, tmp_path) == []


def test_pods_that_a_quota_refuses_are_told_of_by_their_job(
    double: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.load_cluster, "START_S", 1.5)
    lease_on(double, tmp_path)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "guard", "namespace": "lab-06"}}
    double.seed({**quota, "spec": {"hard": {"pods": "0"}}})
    with pytest.raises(LoadError, match=r"did not start.*exceeded quota: guard"):
        run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path)
    assert left(double, tmp_path) == ["resourcequotas/guard"]


def test_a_pod_that_ends_well_without_bringing_records_is_named(double: KubeApi, tmp_path: Path) -> None:
    lease_on(double, tmp_path)
    with pytest.raises(
        LoadError, match=r"the records of load-\w+-master-\w+, load-.* are not in file://.*LABS_LAKE_URL"
    ):
        run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path)
    assert left(double, tmp_path) == []


def test_what_the_lake_asks_for_comes_to_the_pods_as_a_secret_by_reference(double: KubeApi, tmp_path: Path) -> None:
    lease = lease_on(double, tmp_path)
    kept = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lake-writer", "namespace": "lab-secrets"}}
    double.seed({**kept, "type": "Opaque", "data": {"AZURE_STORAGE_SAS_TOKEN": "b3Blbi1zZXNhbWU="}})
    lines = list[str]()
    with pytest.raises(LoadError) as error:
        run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path, lines, secret="lake-writer", secrets_namespace="lab-secrets")
    copied = double.read("secrets", "lab-06", "lake-writer")
    assert copied is not None and copied["metadata"]["labels"]["lab-pipelines-lease"] == lease.lease_id
    jobs = [seen.body for seen in double.requests("PATCH", "/jobs/") if seen.body is not None]
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
    assert [one["envFrom"] for one in containers] == [[{"secretRef": {"name": "lake-writer"}}]] * 2
    written = "".join([*lines, str(error.value), *(json.dumps(job) for job in jobs)])
    assert "open-sesame" not in written and "b3Blbi1zZXNhbWU" not in written


def test_an_api_server_that_fails_for_a_while_does_not_cost_the_load(double: KubeApi, tmp_path: Path) -> None:
    """The Jobs run on without it."""
    lease_on(double, tmp_path)
    double.answer("GET", "/jobs\\?", status=500, message="etcdserver: leader changed", times=2)
    with SseServer(completion(itl_s=0.005)) as server:
        pods, lines = plays(double, tmp_path, server.base_url.removesuffix("/v1")), list[str]()
        result = run(plan(f"{SERVICE}/v1", stage(0, 1, min_requests=3)), tmp_path, lines, workers=1)
        waits_for_the_end_of(pods)
    assert {record.outcome for record in result.requests} <= {"ok", "cut"}
    assert any("leader changed" in line for line in lines)
    assert left(double, tmp_path) == []


def test_a_lease_that_is_gone_is_found_out_before_anything_is_made(double: KubeApi, tmp_path: Path) -> None:
    double.kubeconfig(tmp_path)
    double.make_namespace("lab-06")
    with pytest.raises(LoadError, match="the lease on lab-06 is gone"):
        run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path)
    assert left(double, tmp_path) == []


def test_a_lake_that_this_process_can_t_use_is_found_out_before_anything_is_made(
    double: KubeApi, tmp_path: Path
) -> None:
    lease_on(double, tmp_path)
    with pytest.raises(LoadError, match=r"the lake nowhere://lake can't be reached: Protocol not known"):
        run(plan(f"{SERVICE}/v1", stage(0, 1)), tmp_path, lake_url="nowhere://lake")
    assert double.requests("PATCH", "/jobs/") == []


@pytest.mark.slow
def test_l06_runs_in_a_cluster_with_its_load_inside(tmp_path: Path) -> None:
    """The assets are the same; where the load's pods reach the engine is the cluster's own address of it."""
    with prepared(tmp_path / "place") as place, lab_cluster(tmp_path) as cluster:

        def root_of(service: Service) -> str:
            asked = cluster.api.asked(f"/api/v1/namespaces/{service.namespace}/services/{service.name}")
            address = cluster.api.address(asked, service.port)
            assert address is not None
            return f"http://{address[0]}:{address[1]}"

        pods = LoadPods(cluster.api, tmp_path / "load-pods", root_of)
        cluster.api.plays(pods.start, image=LAB_IMAGE)
        lake_url = f"file://{tmp_path}/lake"
        settings = {"LABS_LAKE_URL": lake_url, "LABS_LOAD": "in-cluster", "LABS_LOAD_WORKERS": "2"}
        done = start(place, pace="smoke", environ=cluster.environ(**settings))
        assert done.wait() == 0, done.output()
        warehouse = Warehouse(data_dir=str(place.data_dir), lake_url=lake_url)
        requests = warehouse.query("SELECT * FROM requests WHERE lab = 'L06'")
        assert {row["worker"] for row in requests} == {"worker-0", "worker-1"}
        assert {row["target"] for row in requests} == {"kubernetes"}
        whole = [row for row in requests if row["in_stage"] and row["outcome"] == "ok"]
        assert whole
        # A machine that plays a whole cluster may make its pods late; then their own records say so.
        late = {row["stage"] for row in warehouse.query("SELECT stage FROM client_faults")}
        assert {row["valid"] == (row["stage"] not in late) for row in whole} == {True}
        judged = warehouse.query("SELECT DISTINCT quantity FROM client_errors WHERE value IS NOT NULL")
        assert len(judged) == 7
        assert "load-" in done.output() and "stage 1/" in done.output()
        assert [key for key in cluster.api.stored() if "lab-06" in key] == []
        assert [path for path in (tmp_path / "lake" / FOLDER).rglob("*") if path.is_file()] == []


def test_load_in_the_cluster_without_a_lake_is_refused_as_definitions_are_built() -> None:
    settings = Deployment(target="kubernetes", cluster=ClusterSettings(load="in-cluster"))
    with pytest.raises(DeploymentError, match=r"LABS_LOAD=in-cluster .* set LABS_LAKE_URL .* or LABS_LOAD=here"):
        build_defs(target="kubernetes", deployment=settings)
