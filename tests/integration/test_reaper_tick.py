"""A tick of the reaper is short: what can't be done now is left to the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources import kube_deadlines, ownership
from resources.cluster_kubernetes import KubernetesCluster
from tests.support.azure_arm import AzureArm
from tests.support.azure_pools import pools_of
from tests.support.kube_api import KubeApi


def test_a_tick_does_not_wait_for_an_operation_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(kube_deadlines, "TICK_S", 0.3)
    with KubeApi() as api, AzureArm() as arm:
        api.kubeconfig(tmp_path)
        mine = {ownership.POOL_TAG: ownership.POOL_TAG_VALUE, ownership.LEASE_LABEL: "of-a-dead-run", "lab": "l07"}
        arm.add("t4", count=2, tags=mine)
        arm.add("foreign", tags={"team": "search"}, count=1)
        arm.begin_operation("foreign", steps=10**9)
        cluster = KubernetesCluster(
            node_pools=pools_of(arm), data_dir=str(tmp_path), target="aks", kubeconfig=str(tmp_path / "kubeconfig")
        )
        [kept] = cluster.reap()
        assert kept.removed == [] and kept.trouble is not None and "another" in kept.trouble.lower()
        assert arm.counts()["t4"] == 2

        arm.end_operations()
        assert [one.removed for one in cluster.reap()] == [["2 nodes of pool t4"]]
        arm.end_operations()
        assert arm.counts() == {"t4": 0, "foreign": 1}
