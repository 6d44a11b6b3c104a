"""The budget guard on the target `aks`, through Dagster, against doubles of a cluster and of Azure: a lab that is over
its budget is refused, and a running one is cut, its node gone and its run left out of the lab's results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetSelection,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    SkipReason,
    build_sensor_context,
)

from lab_pipelines.build import build_defs
from lab_pipelines.deployment import ClusterSettings, Deployment
from lab_pipelines.sensors.budget_guard import budget_guard
from resources.cluster_kubernetes import KubernetesCluster
from resources.node_pools import NodePools
from resources.ownership import LEASE_LABEL, POOL_TAG, POOL_TAG_VALUE
from resources.warehouse import Warehouse
from tests.support.azure_arm import AzureArm
from tests.support.azure_pools import pools_of
from tests.support.kube.kubelet import Delays
from tests.support.lab_cluster import lab_cluster
from tests.support.retail_prices import refresh_prices

LAB = "L07"
WITHIN_S = 60.0


@dataclass
class World:
    """The doubles, and the code location over them."""

    defs: Definitions
    pools: NodePools
    warehouse: Warehouse
    budgets: Path

    def run(self) -> ExecuteInProcessResult:
        job = self.defs.get_implicit_global_asset_job_def()
        assets = AssetSelection.groups("lab").resolve(self.defs.resolve_asset_graph())
        with DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                partition_key=LAB, instance=instance, asset_selection=list(assets), raise_on_error=False
            )

    def tick(self) -> str:
        assert self.defs.resources is not None
        names = ("labs", "cluster", "node_pools", "billing", "budget_guard", "warehouse")
        resources: dict[str, Any] = {name: self.defs.resources[name] for name in names}
        with DagsterInstance.ephemeral() as instance, build_sensor_context(instance, resources=resources) as context:
            said = budget_guard(context)
        assert isinstance(said, SkipReason) and said.skip_message is not None
        return said.skip_message

    def latest(self) -> list[str]:
        return [row["run_id"] for row in self.warehouse.query("SELECT run_id FROM latest_run WHERE lab = ?", [LAB])]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    data_dir, budgets = tmp_path / "data", tmp_path / "budgets.yaml"
    budgets.write_text("{}", encoding="utf-8")
    refresh_prices(data_dir, monkeypatch)
    delays = Delays(schedule_s=0.2, pull_s=0.5, start_s=0.5, ready_s=0.2)
    with lab_cluster(tmp_path, delays=delays) as around, AzureArm() as arm:
        arm.add("t4", count=0, tags={POOL_TAG: POOL_TAG_VALUE})
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
        settings = Deployment(data_dir=data_dir, cluster=named, budget_guard="cut", budgets=budgets)
        overrides = {"cluster": cluster, "node_pools": pools_of(arm)}
        defs = build_defs(target="aks", deployment=settings, resource_overrides=overrides)
        yield World(defs, pools_of(arm), Warehouse(data_dir=str(data_dir)), budgets)


def failure_of(result: ExecuteInProcessResult) -> str:
    [failed, *_] = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    described = failed.step_failure_data.user_failure_data
    assert error is not None
    return f"{failed.step_key}: {described.description if described else error.message}"


@pytest.mark.slow
def test_a_lab_over_its_budget_is_cut_then_refused_and_counts_for_nothing_but_its_cost(world: World) -> None:
    assert world.run().success
    [finished] = world.latest()

    ended = list[ExecuteInProcessResult]()
    running = threading.Thread(target=lambda: ended.append(world.run()))
    running.start()
    deadline = time.monotonic() + WITHIN_S
    opened = f"SELECT run_id FROM stack_sessions WHERE state = 'open' AND run_id <> '{finished}'"
    while not (up := world.warehouse.query(opened)):
        assert time.monotonic() < deadline and running.is_alive(), "the second run did not come up"
        time.sleep(0.05)  # another thread's row tells of no event
    assert world.pools.pool("t4").count == 1
    world.budgets.write_text("labs: {L07: 0.000001}", encoding="utf-8")
    assert world.tick().startswith("cut: L07; L07: cut, ok → cut: ")
    running.join(WITHIN_S)

    pool, [cut] = world.pools.pool("t4"), up
    assert (pool.count, LEASE_LABEL in pool.tags) == (0, False)
    assert failure_of(ended[0]).startswith(
        "load_run: the budget guard has cut this run, for the budget of L07: ok → cut: "
    )
    assert [row["run_id"] for row in world.warehouse.query("SELECT run_id FROM run_marks")] == [cut["run_id"]]
    assert world.latest() == [finished]
    [held] = world.warehouse.query(f"FROM node_time WHERE run_id = '{cut['run_id']}'")
    [over] = world.warehouse.query(f"FROM stack_sessions WHERE run_id = '{cut['run_id']}' AND state = 'closed'")
    assert (held["pool"], held["nodes"], held["priority"], held["exclusive"]) == ("t4", 1, "on_demand", True)
    assert (held["held_from"], held["held_until"]) == (over["requested_at"], over["released_at"])
    assert {row["x_pool"] for row in world.warehouse.query("FROM cost_current")} == {"t4"}
    paid = {row["run_id"]: row["usd"] for row in world.warehouse.query(
        "SELECT run_id, sum(usd) AS usd FROM session_cost GROUP BY run_id"
    )}  # fmt: skip
    assert set(paid) == {finished, cut["run_id"]} and min(paid.values()) > 0

    refused = failure_of(world.run())
    assert refused.startswith("deployed_stack: L07 gets no GPU, for the budget of L07: ")
    assert "Raise labs: L07 in " in refused
    assert world.pools.pool("t4").count == 0
    decided = world.warehouse.query("SELECT action, outcome, of_lab FROM budget_decisions ORDER BY recorded_at")
    assert [tuple(row.values()) for row in decided] == [
        ("tell", None, None),
        ("cut", "asked", LAB),
        ("cut", "done", LAB),
        ("refuse", "done", LAB),
    ]
