"""Whole runs in a cluster that are killed or interrupted, by the main command: what the fault matrix tells of short
ones holds for these, with Dagster, Locust and Prometheus in them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from resources.cluster_kubernetes import KubernetesCluster
from resources.node_pools import NoNodePools
from tests.support.kube.kubelet import Delays
from tests.support.lab_cluster import LabCluster, lab_cluster
from tests.support.main_command import Place, Run, lease_of, prepared, processes_of, start

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(300)]

IDS = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_KEY_VAULT": "vault"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with prepared(tmp_path / "place") as place:
        yield place


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LabCluster]:
    (tmp_path / "cluster").mkdir()
    with lab_cluster(tmp_path / "cluster", delays=Delays(start_s=0.2)) as cluster:
        yield cluster


def reaper(place: Place, cluster: LabCluster) -> KubernetesCluster:
    return KubernetesCluster(
        node_pools=NoNodePools(), data_dir=str(place.data_dir), kubeconfig=str(cluster.folder / "kubeconfig")
    )


def ours(cluster: LabCluster, namespace: str) -> list[tuple[str, str, str]]:
    return [key for key in cluster.api.stored() if namespace in key]


def wait_for(run: Run, seen: Callable[[], bool]) -> None:
    run.wait_for(lambda: True if seen() else None)


def assert_one_tick_is_enough(place: Place, cluster: LabCluster, namespace: str) -> None:
    """Nothing in the cluster and, once Dagster's own watchers of a dead run have noticed, nothing on this machine."""
    assert f"namespaces/{namespace}" in [name for one in reaper(place, cluster).reap() for name in one.removed]
    gone = psutil.wait_procs([one for one in processes_of(place) if lease_of(one) is None], timeout=20)
    assert gone[1] == [] and processes_of(place) == []
    with cluster.api.store.changed:
        assert cluster.api.store.changed.wait_for(lambda: ours(cluster, namespace) == [], timeout=10)


def test_a_run_that_is_killed_while_the_scheduler_is_asked_is_cleared_by_one_tick(
    place: Place, cluster: LabCluster
) -> None:
    killed: list[str] = []

    def kill(method: str, path: str) -> None:
        if method == "PATCH" and "/pods/second-gpu" in path and not killed:
            killed.append(path)
            os.kill(run.process.pid, signal.SIGKILL)

    cluster.api.on_request = kill
    run = start(place, pace="full", lab="L07", environ={**cluster.environ(), **IDS})
    assert run.wait() == -signal.SIGKILL, run.output()
    assert killed and ("pods", "lab-07", "first-gpu") in cluster.api.stored()
    assert_one_tick_is_enough(place, cluster, "lab-07")


def under_load(place: Place) -> bool:
    """Whether Locust's first process works for the run; Dagster's own have no lease."""
    return any("locust" in " ".join(one.cmdline()) for one in processes_of(place) if lease_of(one) is not None)


def test_a_run_that_is_killed_under_load_leaves_what_one_tick_clears(place: Place, cluster: LabCluster) -> None:
    run = start(place, pace="short", lab="L06", environ={**cluster.environ(), **IDS})
    wait_for(run, lambda: bool(ours(cluster, "lab-06")) and under_load(place))
    run.process.kill()
    run.wait()
    assert [one for one in processes_of(place) if lease_of(one) is not None], "load and forwards outlive the run"
    assert_one_tick_is_enough(place, cluster, "lab-06")


def test_a_run_that_is_cancelled_under_load_clears_up_itself(place: Place, cluster: LabCluster) -> None:
    run = start(place, pace="short", lab="L06", environ={**cluster.environ(), **IDS})
    wait_for(run, lambda: bool(ours(cluster, "lab-06")) and under_load(place))
    run.process.send_signal(signal.SIGINT)
    assert run.wait() != 0
    assert ours(cluster, "lab-06") == []
    assert [one for one in processes_of(place) if lease_of(one) is not None] == []
    assert reaper(place, cluster).reap() == []
