"""No credential is in anything that a run writes: rows, databases, logs, metadata, errors, objects of the cluster.

Known secrets are wherever a run can get at some; the lab then runs to its end, and into failures whose other side
repeats what it was sent. Then everything that was written is searched, cell by cell.
"""

from __future__ import annotations

import base64
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lab_pipelines.deployment import Deployment, DeploymentError
from resources.cluster import ClusterError
from tests.support.azure_arm import AzureArm
from tests.support.azure_pools import pools_of
from tests.support.copied_catalog import copied_catalog
from tests.support.kube.kubelet import PodCrashedError, PodProcess
from tests.support.lab_cluster import IMAGE, LabCluster, lab_cluster
from tests.support.main_command import Place, Run, prepared, start
from tests.support.planted import found_in, leaks, leaks_in_cluster

pytestmark = pytest.mark.slow

KUBE_TOKEN = "kubetoken-5f0c1d6e7a8b9c"
CLIENT_KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKc"
AZURE_SECRET = "azsecret~Qx8vT2mN4kL6jH1g"
AZURE_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJsYWJzIn0.c2lnbmF0dXJlLW9mLWxhYnM"
HF_TOKEN = "hf_WqZpLrTnKdVbXcMsYgJhFtRe"
PASSWORD = "p4ssw0rd-of-the-database"
SECRETS = {
    "kubeconfig's token": KUBE_TOKEN,
    "client certificate's key": CLIENT_KEY,
    "Azure client secret": AZURE_SECRET,
    "Azure token": AZURE_TOKEN,
    "Hugging Face token": HF_TOKEN,
    "a Secret's password": PASSWORD,
}
ENVIRON = {
    "AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_KEY_VAULT": "vault",
    "AZURE_CLIENT_SECRET": AZURE_SECRET,
    "AZURE_ACCESS_TOKEN": AZURE_TOKEN,
    "HF_TOKEN": HF_TOKEN,
    "LABS_SECRETS_NAMESPACE": "secrets",
}  # fmt: skip
FOR_SECRETS = frozenset({("secrets", "huggingface"), ("lab-06", "huggingface")})
"""Where secrets belong: where a person keeps them, and the copy for the lab's pods."""
HELMS_OWN = ("lab-06", "sh.helm.release.v1.vllm.v1")
"""Helm itself notes an API server's refusal, word for word, in its own Secret, which goes with the namespace."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with prepared(tmp_path / "place") as place:
        yield place


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LabCluster]:
    (tmp_path / "cluster").mkdir()
    with lab_cluster(tmp_path / "cluster") as cluster:
        path = cluster.api.kubeconfig(cluster.folder, token=KUBE_TOKEN)
        config = yaml.safe_load(path.read_text())
        pem = f"-----BEGIN PRIVATE KEY-----\n{CLIENT_KEY}\n-----END PRIVATE KEY-----\n"
        config["users"][0]["user"]["client-key-data"] = base64.b64encode(pem.encode()).decode()
        path.write_text(yaml.safe_dump(config))
        cluster.api.make_namespace("secrets")
        data = {"token": HF_TOKEN, "password": PASSWORD}
        cluster.api.seed(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"namespace": "secrets", "name": "huggingface"},
                "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
            }
        )
        yield cluster


def run(place: Place, cluster: LabCluster) -> Run:
    # At the pace `smoke` itself, 40 stack seconds per second, what a cut stream's server makes until it notices, behind
    # a port-forward, is more than client and Prometheus may disagree by.
    catalog = place.folder / "catalog"
    copied_catalog(catalog, labs=["L06"], smoke={"time_scale": 10.0, "hold_s": 40.0})
    environ = cluster.environ(**ENVIRON, TEST_CATALOG_DIR=str(catalog))
    return start(place, pace="smoke", lab="L06", definitions="tests.support.two_labs_definitions", environ=environ)


def assert_nothing_leaked(
    place: Place, cluster: LabCluster, *, but_for: frozenset[tuple[str, str]] = FOR_SECRETS
) -> None:
    assert leaks(place.folder, SECRETS) == []
    assert leaks_in_cluster(cluster.api.store, SECRETS, but_for=but_for) == []


def test_a_run_that_goes_well_writes_no_secret_and_one_on_purpose_is_found(
    place: Place, cluster: LabCluster, tmp_path: Path
) -> None:
    done = run(place, cluster)
    assert done.wait() == 0, done.output()
    # The secrets were really used: the API server saw the token, and the lab's namespace had its copy.
    copied = [change for change in cluster.api.store.history if change.key == ("secrets", "lab-06", "huggingface")]
    assert copied and base64.b64decode(copied[0].after["data"]["token"]).decode() == HF_TOKEN
    assert list(place.data_dir.rglob("*.parquet")) and list(place.home.rglob("*.db")) and place.snapshot.exists()
    assert list(place.data_dir.rglob("*.html")), "there is no report to search"
    assert_nothing_leaked(place, cluster)

    for number, plant in enumerate((in_a_row, in_the_read_model, in_the_event_log, in_a_log, in_base64)):
        copy = tmp_path / str(number)
        shutil.copytree(place.folder, copy, symlinks=True)
        plant(copy, HF_TOKEN)
        assert {line.rpartition(": ")[2] for line in leaks(copy, SECRETS)} == {"Hugging Face token"}, plant.__name__


def in_a_row(folder: Path, secret: str) -> None:
    path = next((folder / "data" / "lake" / "events").rglob("*.parquet"))
    table = pq.ParquetFile(path).read()
    at = table.schema.get_field_index("name")
    changed = pa.array([f"said {secret} once", *table.column("name").to_pylist()[1:]], table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), changed), path, compression="zstd")


def in_the_read_model(folder: Path, secret: str) -> None:
    with duckdb.connect(str(folder / "data" / "labs.duckdb")) as connection:
        connection.execute("CREATE TABLE planted AS SELECT ? AS said", [f"said {secret} once"])


def in_the_event_log(folder: Path, secret: str) -> None:
    path = next((folder / "dagster").rglob("*.db"))
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE planted (said TEXT)")
        connection.execute("INSERT INTO planted VALUES (?)", [f"said {secret} once"])


def in_a_log(folder: Path, secret: str) -> None:
    (folder / "data" / "runs" / "planted.log").write_text(f"GET / Authorization: Bearer {secret}\n")


def in_base64(folder: Path, secret: str) -> None:
    (folder / "data" / "planted.json").write_text(base64.b64encode(f"a secret: {secret}!".encode()).decode())


def everything() -> str:
    """As an error page that repeats a request, its headers and what it can see of a Secret."""
    data = base64.b64encode(PASSWORD.encode()).decode()
    return (
        f"request failed: Authorization: Bearer {KUBE_TOKEN}; "
        f'body: {{"data": {{"password": "{data}", "token": "{HF_TOKEN}"}}}}; '
        f"client_secret={AZURE_SECRET} password={PASSWORD} {AZURE_TOKEN}"
    )


def unauthorised(cluster: LabCluster) -> None:
    cluster.api.answer("PATCH", "/networkpolicies/", status=401, message=everything(), reason="Unauthorized", times=99)


def forbidden(cluster: LabCluster) -> None:
    said = f'User "labs" cannot patch resource "secrets": {everything()}'
    cluster.api.answer("PATCH", "/secrets/huggingface", status=403, message=said, reason="Forbidden", times=99)


def refused(cluster: LabCluster) -> None:
    cluster.api.answer("PATCH", "/deployments/", status=422, message=everything(), reason="Invalid", times=99)


def broken(cluster: LabCluster) -> None:
    cluster.api.answer("PATCH", "/configmaps/lab-session", status=500, message=everything(), times=99)


def crashing(cluster: LabCluster) -> None:
    def crash(pod: dict[str, Any]) -> PodProcess:
        environ = f"HF_TOKEN={HF_TOKEN}\nDB_PASSWORD={PASSWORD}\n"
        raise PodCrashedError(1, f"{environ}ValueError: token {HF_TOKEN} is not valid\n")

    cluster.api.kubelet._starts.clear()
    cluster.api.plays(crash, image=IMAGE)
    cluster.api.plays(cluster.start_prometheus, image="labs.example/prometheus")


@pytest.mark.parametrize("fails", [unauthorised, forbidden, refused, broken, crashing], ids=lambda one: one.__name__)
def test_a_run_that_fails_says_why_without_what_the_other_side_repeats(
    place: Place, cluster: LabCluster, fails: Callable[[LabCluster], None]
) -> None:
    fails(cluster)
    done = run(place, cluster)
    assert done.wait() == 1, done.output()
    assert "Error" in done.output()
    assert_nothing_leaked(place, cluster, but_for=FOR_SECRETS | {HELMS_OWN} if fails is refused else FOR_SECRETS)


@pytest.mark.parametrize("status", [400, 401, 403, 409, 500])
def test_azure_repeats_what_it_was_sent_and_no_error_has_it(status: int) -> None:
    with AzureArm(token=AZURE_TOKEN) as arm:
        arm.add("t4")
        arm.fault("GET", "/agentPools", status=status, code="Refused", message=everything(), times=99)
        with pytest.raises(ClusterError) as error:
            pools_of(arm).pools()
        assert str(status) in str(error.value)
        assert found_in(str(error.value), SECRETS) == []


@pytest.mark.parametrize("name", ["LABS_PROMETHEUS_URL", "LABS_LOKI_URL", "LABS_OPENAI_BASE_URL"])
@pytest.mark.parametrize("scheme", ["https://", ""])
def test_a_url_with_credentials_is_refused_without_being_repeated(name: str, scheme: str) -> None:
    secret = PASSWORD
    with pytest.raises(DeploymentError, match=name) as error:
        Deployment.from_env(
            {
                "LABS_TARGET": "kubernetes" if "LOKI" in name else "local",
                name: f"{scheme}labs:{secret}@metrics.example/v1",
            }
        )
    assert secret not in str(error.value)
