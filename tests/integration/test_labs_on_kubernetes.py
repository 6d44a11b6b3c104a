"""Labs on the target `kubernetes`, by the main command, against the double of a cluster with real servers behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resources.warehouse import Warehouse
from tests.support.kube.kubelet import Delays
from tests.support.lab_cluster import LabCluster, lab_cluster
from tests.support.main_command import Place, Run, prepared, processes_of, start

IDS = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_KEY_VAULT": "vault"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with prepared(tmp_path_factory.mktemp("kubernetes")) as place:
        yield place


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    # As slow as to be seen: what a pod does within one scrape, no measure can tell of.
    delays = Delays(schedule_s=0.2, pull_s=0.5, start_s=0.5, ready_s=0.2)
    with lab_cluster(tmp_path_factory.mktemp("cluster"), delays=delays) as cluster:
        yield cluster


def finished(place: Place, cluster: LabCluster, lab: str, pace: str) -> tuple[Run, Warehouse]:
    run = start(place, pace=pace, lab=lab, environ={**cluster.environ(), **IDS})
    assert run.wait() == 0, run.output()
    return run, Warehouse(data_dir=str(place.data_dir))


@pytest.mark.parametrize("lab", ["L07", "L08", "L10"])
def test_a_lab_about_the_control_plane_finds_what_it_claims(place: Place, cluster: LabCluster, lab: str) -> None:
    _, warehouse = finished(place, cluster, lab, "full")
    findings = warehouse.query("SELECT * FROM findings WHERE lab = ?", [lab])
    assert findings and {row["verdict"] for row in findings} == {"confirmed"}, findings
    assert {(row["target"], row["provenance"]) for row in findings} == {("kubernetes", "measured")}
    assert_nothing_is_left(place, cluster, lab)


def assert_nothing_is_left(place: Place, cluster: LabCluster, lab: str) -> None:
    namespace = f"lab-{lab[1:]}"
    assert [key for key in cluster.api.stored() if namespace in key] == []
    assert processes_of(place) == []
