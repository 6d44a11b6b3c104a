"""The values for Dagster's chart: known to it, without a secret, and a run's Job as Dagster itself would make it."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance, JobDefinition, in_process_executor
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import create_run_for_test, instance_for_test

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.charts import check_values, load_chart
from lab_pipelines.deployment import REPO_ROOT, Deployment
from tests.support import rbac

VALUES_FILE = REPO_ROOT / "deploy" / "dagster" / "values.yaml"
VALUES: dict[str, Any] = yaml.safe_load(VALUES_FILE.read_text(encoding="utf-8"))
CHART = load_chart("dagster", "1.13.27", REPO_ROOT / "tests" / "data" / "charts")
LOCATION: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]


def environment() -> dict[str, str]:
    return {one["name"]: one["value"] for one in LOCATION["env"]}


def test_every_value_is_one_that_the_chart_knows_and_of_its_type() -> None:
    assert check_values(CHART, VALUES) == []
    assert check_values(CHART, {"runLauncher": {"config": {"k8sRunLauncher": {"imagePullPolicies": "Always"}}}})


def test_the_chart_is_of_the_version_that_the_lock_has() -> None:
    lock = (REPO_ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8")
    for package in ("dagster", "dagster-webserver"):
        assert f"\n{package}=={CHART.version} " in lock
    assert f"`dagster` {CHART.version}" in VALUES_FILE.read_text(encoding="utf-8")


def test_no_value_is_a_secret_and_the_databases_is_referred_to() -> None:
    text = VALUES_FILE.read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|token|secret|key)\w*: *[\"']?[a-z0-9+/=]{12,}[\"']?$", _without(text), re.M)
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert VALUES["global"]["postgresqlSecretName"] == "dagster-postgresql-secret"
    assert "postgresqlPassword" not in VALUES["postgresql"]


def _without(text: str) -> str:
    return text.replace("postgresqlSecretName: dagster-postgresql-secret", "")


def test_the_databases_driver_is_one_that_the_image_has() -> None:
    import sqlalchemy
    from dagster_postgres.utils import get_conn_string

    database = VALUES["postgresql"]
    url = get_conn_string(
        username=database["postgresqlUsername"],
        password="of-the-test",
        hostname=database["postgresqlHost"],
        db_name=database["postgresqlDatabase"],
        port=str(database["service"]["port"]),
        params=database["postgresqlParams"],
        scheme=database["postgresqlScheme"],
    )
    assert sqlalchemy.create_engine(url).dialect.driver == "psycopg2"  # importing it is what fails otherwise
    assert "\npsycopg2-binary==" in (REPO_ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8")


def test_the_code_locations_environment_is_one_that_the_project_reads() -> None:
    deployment = Deployment.from_env(environment())
    assert deployment.target == "aks"
    assert deployment.cluster.image == f"{LOCATION['image']['repository']}:{LOCATION['image']['tag']}"
    assert deployment.cluster.load == "here"
    assert LOCATION["dagsterApiGrpcArgs"] == ["--module-name", "lab_pipelines.definitions"]


def test_the_budgets_are_in_a_configmap_that_every_pod_has_and_the_page_makes() -> None:
    deployment = Deployment.from_env(environment())
    assert deployment.budgets is not None and deployment.budget_guard == "refuse"
    run = LAUNCHER["runK8sConfig"]
    pods = [VALUES["dagsterDaemon"], LOCATION]
    pods.append({**run["podSpecConfig"], "volumeMounts": run["containerConfig"]["volumeMounts"]})
    page = (REPO_ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for pod in pods:
        [mount] = [one for one in pod["volumeMounts"] if one["mountPath"] == str(deployment.budgets.parent)]
        assert "subPath" not in mount, "it would never follow a change"
        [volume] = [one for one in pod["volumes"] if one["name"] == mount["name"]]
        name = volume["configMap"]["name"]
        assert f"create configmap {name} --namespace dagster --from-file={deployment.budgets.name}=" in page
    assert run["containerConfig"]["env"] == LOCATION["env"], "runs refuse by the same budgets"


def test_every_account_that_the_values_name_is_made_by_our_files() -> None:
    accounts = {one["metadata"]["name"] for one in rbac.objects() if one["kind"] == "ServiceAccount"}
    named = {
        VALUES["serviceAccount"]["name"],
        VALUES["dagster-user-deployments"]["serviceAccount"]["name"],
        LAUNCHER["runK8sConfig"]["podSpecConfig"]["serviceAccountName"],
    }
    assert named == accounts == {"dagster", "lab-sensors", "lab-runs"}
    assert VALUES["rbacEnabled"] is VALUES["dagster-user-deployments"]["rbacEnabled"] is False


class _Jobs(BaseHTTPRequestHandler):
    """The one endpoint that a launch needs: a Job that is asked for is made."""

    made: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.made.append({"path": self.path, **body})
        answer = json.dumps(body).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A kubeconfig of an API server that makes Jobs, and the Jobs."""
    made: list[dict[str, Any]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Jobs,), {"made": made}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        yield path, made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def launcher_config(kubeconfig: Path) -> dict[str, Any]:
    """`run_launcher` of dagster.yaml, as the chart's template dagsterYaml.runLauncher.k8s makes it of the values."""
    run = LAUNCHER["runK8sConfig"]
    return {
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "job_namespace": "dagster",
        "image_pull_policy": LAUNCHER["imagePullPolicy"],
        "service_account_name": VALUES["serviceAccount"]["name"],
        "dagster_home": "/opt/dagster/dagster_home",
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "fail_pod_on_run_failure": LAUNCHER["failPodOnRunFailure"],
        "run_k8s_config": {
            "container_config": run["containerConfig"],
            "pod_spec_config": run["podSpecConfig"],
            "pod_template_spec_metadata": run["podTemplateSpecMetadata"],
            "job_spec_config": run["jobSpecConfig"],
        },
    }


def test_a_run_is_a_job_with_the_rights_limits_and_end_that_a_lab_needs(tmp_path: Path) -> None:
    with cluster(tmp_path) as (kubeconfig, made):
        launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher_config(kubeconfig)}
        with instance_for_test(overrides={"run_launcher": launcher}) as instance:
            launch(instance)
    assert len(made) == 1
    job = made[0]
    assert job["path"].startswith("/apis/batch/v1/namespaces/dagster/jobs")
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (0, 86400)
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "lab-pipelines"
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "lab-runs"
    assert spec["terminationGracePeriodSeconds"] == 180
    assert spec["securityContext"]["runAsNonRoot"] is True
    (container,) = spec["containers"]
    assert container["image"] == "lab-pipelines:0.1.0"
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "2Gi"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    environ = {one["name"]: one for one in container["env"]}
    assert environ["LABS_TARGET"]["value"] == "aks"
    assert environ["DAGSTER_PG_PASSWORD"]["valueFrom"]["secretKeyRef"]["name"] == "dagster-postgresql-secret"
    mounts = [mount for mount in container["volumeMounts"] if "subPath" not in mount]
    assert {mount["mountPath"] for mount in mounts if not mount.get("readOnly")} == {"/var/lib/lab-pipelines", "/tmp"}
    assert {mount["mountPath"] for mount in mounts if mount.get("readOnly")} == {"/etc/lab-pipelines"}
    assert LOCATION["includeConfigInLaunchedRuns"] == {"enabled": False}


def launch(instance: DagsterInstance) -> None:
    repository = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=ModuleCodePointer("lab_pipelines.definitions", "defs", "/app"),
        container_image="lab-pipelines:0.1.0",
        entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
        # None: includeConfigInLaunchedRuns is off, so the code location has nothing to say about its runs.
        container_context=None,
    )
    run = create_run_for_test(
        instance, job_name="__ASSET_JOB", job_code_origin=JobPythonOrigin("__ASSET_JOB", repository)
    )
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))


def executor_of(deployment: Deployment) -> object:
    job = build_defs(target="local", deployment=deployment).resolve_implicit_global_asset_job_def()
    assert isinstance(job, JobDefinition)
    return job.executor_def


def test_a_run_is_one_process_unless_the_deployment_wants_a_pod_for_each_step() -> None:
    from dagster_k8s import k8s_job_executor

    assert executor_of(Deployment()) is in_process_executor
    assert executor_of(Deployment(executor="k8s")) is k8s_job_executor


def test_the_instance_is_monitored_pooled_and_silent() -> None:
    daemon = VALUES["dagsterDaemon"]
    local = yaml.safe_load((REPO_ROOT / "deploy" / "local" / "dagster.yaml").read_text(encoding="utf-8"))
    assert daemon["runMonitoring"]["maxResumeRunAttempts"] == local["run_monitoring"]["max_resume_run_attempts"] == 0
    slots = local["run_monitoring"]["free_slots_after_run_end_seconds"]
    assert daemon["runMonitoring"]["freeSlotsAfterRunEndSeconds"] == slots
    pools = local["concurrency"]["pools"]
    assert VALUES["concurrency"]["pools"] == {
        "granularity": pools["granularity"],
        "defaultLimit": pools["default_limit"],
    }
    # The chart refuses a limit in both places, and takes it from here.
    assert "maxConcurrentRuns" not in daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert VALUES["telemetry"]["enabled"] is local["telemetry"]["enabled"] is False
    assert VALUES["retention"]["enabled"] is True
