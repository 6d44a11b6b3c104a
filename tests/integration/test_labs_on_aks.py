"""A lab on the target `aks`, through Dagster, against doubles of a cluster and of Azure: its node comes and goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import AssetSelection, DagsterInstance

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.prices import StalePriceError
from lab_pipelines.deployment import ClusterSettings, Deployment
from resources.cluster_kubernetes import KubernetesCluster
from resources.ownership import LEASE_LABEL, POOL_TAG, POOL_TAG_VALUE
from resources.warehouse import Warehouse
from tests.support.azure_arm import AzureArm
from tests.support.azure_pools import pools_of
from tests.support.kube.kubelet import Delays
from tests.support.lab_cluster import lab_cluster
from tests.support.retail_prices import refresh_prices


@pytest.mark.slow
def test_l07_gets_its_node_for_as_long_as_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    data_dir = tmp_path / "data"
    delays = Delays(schedule_s=0.2, pull_s=0.5, start_s=0.5, ready_s=0.2)
    with lab_cluster(tmp_path, delays=delays) as around, AzureArm() as arm:
        arm.add("t4", count=0, tags={POOL_TAG: POOL_TAG_VALUE})
        arm.add("foreign", count=3, tags={"team": "search"})
        kubeconfig = around.folder / "kubeconfig"
        cluster = KubernetesCluster(
            node_pools=pools_of(arm),
            data_dir=str(data_dir),
            target="aks",
            kubeconfig=str(kubeconfig),
            engine="modelled",
            prometheus_url=around.prometheus_url,
        )
        named = ClusterSettings(kubeconfig=kubeconfig, subscription_id="s", resource_group="g", aks_cluster="c")
        defs = build_defs(
            target="aks",
            deployment=Deployment(data_dir=data_dir, cluster=named),
            resource_overrides={"cluster": cluster, "node_pools": pools_of(arm)},
        )
        job = defs.get_implicit_global_asset_job_def()
        lab = AssetSelection.groups("lab").resolve(defs.resolve_asset_graph())
        with DagsterInstance.ephemeral() as instance:
            # The committed prices are of no known day: nothing is rented for them.
            refused = job.execute_in_process(
                partition_key="L07", instance=instance, asset_selection=list(lab), raise_on_error=False
            )
            [failure] = [event for event in refused.all_node_events if event.is_step_failure]
            error = failure.step_failure_data.error
            assert error is not None and error.cause is not None and error.cause.cls_name == StalePriceError.__name__
            assert not [seen for seen in arm.seen if seen.method == "PUT"]
            refresh_prices(data_dir, monkeypatch)
            assert job.execute_in_process(partition_key="L07", instance=instance, asset_selection=list(lab)).success

        pools = {pool.name: pool for pool in pools_of(arm).pools()}
        assert (pools["t4"].count, pools["foreign"].count) == (0, 3)
        assert (
            LEASE_LABEL not in pools["t4"].tags and pools["t4"].tags["lab"] == "l07"
        )  # what is billed later is its own
    warehouse = Warehouse(data_dir=str(data_dir))
    reached = warehouse.query("SELECT name, detail FROM events WHERE kind = 'milestone' ORDER BY started_at")
    assert [row["name"] for row in reached] == ["requested", "scaled_out"]
    [session] = warehouse.query("SELECT * FROM stack_sessions WHERE state = 'closed'")
    assert (session["target"], session["engine"], session["provenance"]) == ("aks", "none", "measured")
    assert session["node_ready_s"] == session["cold_start_s"] > 0
    [held] = warehouse.query("FROM node_time")
    assert (held["pool"], held["nodes"], held["priority"], held["exclusive"]) == ("t4", 1, "on_demand", True)
    assert (held["held_from"], held["held_until"]) == (session["requested_at"], session["released_at"])
    assert {row["x_pool"] for row in warehouse.query("FROM cost_current")} == {"t4"}
