"""`labs gpu`, `teardown`, `reap` and `ci-guard` as people and CI call them, over pools and leases in files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, job, op
from typer.testing import CliRunner, Result

from lab_pipelines import build
from lab_pipelines.cli import app
from lab_pipelines.deployment import REPO_ROOT, Deployment
from resources.billing import PriceSheetBilling
from resources.cluster import Lease
from resources.cluster_local import LocalCluster
from resources.decision_log import DecisionLog
from resources.leases import LeaseBook, LeaseFile
from resources.ownership import EXPIRES_LABEL, LEASE_LABEL, RUN_LABEL
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment, refused
from tests.support.node_pools import T4, FilePools, LeasedCluster, node_pool
from tests.support.rows.decisions import gpu_decision_row
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

Labs = Callable[..., Result]


@pytest.fixture
def pools(tmp_path: Path) -> FilePools:
    return FilePools(folder=str(tmp_path))


@pytest.fixture
def cluster(tmp_path: Path) -> LeasedCluster:
    return LeasedCluster(data_dir=str(tmp_path))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


@pytest.fixture
def labs(
    pools: FilePools, cluster: LeasedCluster, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Labs:
    """The command line with an `aks` target whose pools and leases are files."""
    own_environment(monkeypatch, warehouse.data_dir)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "no-instance"))

    def get_resources(settings: Deployment) -> dict[str, object]:
        return {
            "cluster": cluster,
            "node_pools": pools,
            "billing": PriceSheetBilling(region=settings.region),
            "gpu_switch": build.gpu_switch(settings),
            "budget_guard": build.budget_guard(settings),
        }

    monkeypatch.setitem(build.RESOURCES, "aks", get_resources)
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


def held(name: str, lab: str = "L06", *, lease_id: str = "1e4a", run_id: str = "run-1", minutes: float = 15, **fields):
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    tags = {"lab-pipelines": "managed", "lab": lab.lower(), LEASE_LABEL: lease_id, RUN_LABEL: run_id}
    return node_pool(name, tags={**tags, EXPIRES_LABEL: str(int(until.timestamp()))}, **fields)


def lease(lab: str = "L06", *, lease_id: str = "1e4a", run_id: str = "run-1", minutes: float = 15) -> Lease:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    return Lease(lease_id=lease_id, lab=lab, run_id=run_id, owner="host/1:1", expires_at=until)


def counts(pools: FilePools) -> dict[str, int]:
    return {pool.name: pool.count for pool in pools.read()}


# labs gpu status


def test_status_shows_every_pool_who_holds_it_what_it_costs_and_what_the_sensor_said(
    labs: Labs, pools: FilePools, cluster: LeasedCluster, warehouse: Warehouse
) -> None:
    pools.put(held("t4", count=2), node_pool("a100", vm_size="Standard_NC24ads_A100_v4", count=1, spot=True),
              node_pool("sys", mode="System", vm_size="Standard_D4s_v5", tags={}))  # fmt: skip
    cluster.put(lease())
    now = datetime.now(UTC)
    DecisionLog(warehouse, "aks").append([gpu_decision_row(pool="t4", target="aks", tick_at=now)], now=now)
    result = labs("gpu", "status", "--target", "aks")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "L06" in lines["t4"] and "1.052" in lines["t4"] and "(0 min ago)" in lines["t4"]
    assert "nobody" in lines["a100"] and "0.444" in lines["a100"] and "spot" in lines["a100"]
    assert " no " in lines["sys"]
    assert "pools of ours cost 1.496 USD/h by list price; the sensor is dry-run" in result.stdout
    shown = json.loads(labs("gpu", "status", "--target", "aks", "--json").stdout)
    assert [(one["pool"], one["held_by"]) for one in shown["pools"]] == [("t4", ["L06"]), ("a100", []), ("sys", [])]


@pytest.mark.parametrize(
    "command", [["status"], ["down", "--all-ours"], ["down", "t4"], ["up", T4]], ids=" ".join
)  # fmt: skip
@pytest.mark.parametrize("target", ["local", "rehearsal"])
def test_a_target_without_pools_is_one_line_that_names_one_with(labs: Labs, command: list[str], target: str) -> None:
    message = refused(labs("gpu", *command, "--target", target), 1)
    assert message == f"labs: target {target} has no node pools; use --target aks\n"


def test_a_cluster_that_can_t_be_reached_is_one_line(labs: Labs, pools: FilePools, tmp_path: Path) -> None:
    pools.put(node_pool())
    (tmp_path / "unreachable").touch()
    assert refused(labs("gpu", "status", "--target", "aks"), 1) == "labs: the API server can't be reached\n"


# labs gpu down


def test_one_pool_is_brought_to_zero(labs: Labs, pools: FilePools) -> None:
    pools.put(node_pool("t4", count=3), node_pool("other"))
    result = labs("gpu", "down", "t4", "--target", "aks")
    assert result.exit_code == 0, result.output
    assert "pool t4 went from 3 to 0 nodes" in result.stdout
    assert counts(pools) == {"t4": 0, "other": 1}


def test_all_of_ours_that_nobody_holds(labs: Labs, pools: FilePools, cluster: LeasedCluster) -> None:
    cluster.put(lease())
    pools.put(node_pool("idle"), held("held"), node_pool("foreign", tags={}), node_pool("zero", count=0))
    dry = labs("gpu", "down", "--all-ours", "--dry-run", "--target", "aks")
    assert "idle: would go from 1 to 0 nodes" in dry.stdout
    assert counts(pools)["idle"] == 1
    result = labs("gpu", "down", "--all-ours", "--target", "aks")
    assert result.exit_code == 0
    assert "held: kept; L06 holds it until" in result.stdout
    assert counts(pools) == {"idle": 0, "held": 1, "foreign": 1, "zero": 0}


def test_a_pool_that_is_not_ours_unknown_or_held_is_refused(
    labs: Labs, pools: FilePools, cluster: LeasedCluster
) -> None:
    cluster.put(lease())
    pools.put(node_pool("foreign", tags={}), held("held"))
    assert "isn't ours" in refused(labs("gpu", "down", "foreign", "--target", "aks"), 1)
    assert "the cluster has: foreign, held" in refused(labs("gpu", "down", "nope", "--target", "aks"), 2)
    assert labs("gpu", "down", "held", "--target", "aks").exit_code == 1
    assert counts(pools) == {"foreign": 1, "held": 1}
    assert "--all-ours" in refused(labs("gpu", "down", "--target", "aks"), 2)


# labs gpu up


def test_nodes_that_are_given_by_hand_have_an_end_that_the_reaper_knows(labs: Labs, pools: FilePools) -> None:
    pools.put(node_pool("t4", count=0))
    result = labs("gpu", "up", T4, "--nodes", "2", "--for", "90m", "--target", "aks")
    assert result.exit_code == 0, result.output
    assert "pool t4 went from 0 to 2 nodes, until" in result.stdout
    [pool] = pools.read()
    until = datetime.fromtimestamp(int(pool.tags[EXPIRES_LABEL]), UTC) - datetime.now(UTC)
    assert timedelta(minutes=89) < until <= timedelta(minutes=90)
    assert "nothing to reap" in labs("reap", "--target", "aks").stdout
    pools.touch("t4", tags={**pool.tags, EXPIRES_LABEL: str(int(datetime.now(UTC).timestamp()) - 1)})
    assert "2 nodes of pool t4" in labs("reap", "--target", "aks").stdout
    assert counts(pools) == {"t4": 0}


def test_what_was_given_by_hand_can_be_given_longer_and_taken_back(labs: Labs, pools: FilePools) -> None:
    pools.put(node_pool("t4", count=0))
    for length in ("1h", "2h"):
        assert labs("gpu", "up", T4, "--for", length, "--target", "aks").exit_code == 0
    assert labs("gpu", "down", "--all-ours", "--target", "aks").exit_code == 0
    assert counts(pools) == {"t4": 1}, "somebody may be at work on it"
    assert labs("gpu", "down", "t4", "--target", "aks").exit_code == 0
    assert counts(pools) == {"t4": 0}


@pytest.mark.parametrize("length", ["soon", "25h", "30s"])
def test_a_length_that_is_none_too_long_or_too_short_is_refused(labs: Labs, pools: FilePools, length: str) -> None:
    pools.put(node_pool())
    assert "--for" in refused(labs("gpu", "up", T4, "--for", length, "--target", "aks"), 2)


def test_a_pool_that_a_lab_holds_is_not_given_to_another(labs: Labs, pools: FilePools, cluster: LeasedCluster) -> None:
    cluster.put(lease())
    pools.put(held("t4"))
    assert "held by L06" in refused(labs("gpu", "up", T4, "--target", "aks"), 1)
    assert "no pool of ours has machines Standard_NV" in refused(
        labs("gpu", "up", "Standard_NV36ads_A10_v5", "--target", "aks"), 1
    )


# labs gpu pause, resume


def test_the_sensor_is_paused_with_a_reason_and_taken_up_again(labs: Labs, pools: FilePools) -> None:
    pools.put()
    assert labs("gpu", "pause", "moving the cluster", "--target", "aks").exit_code == 0
    assert "the sensor is off (labs gpu pause" in labs("gpu", "status", "--target", "aks").stdout
    assert "the sensor is dry-run" in labs("gpu", "resume", "--target", "aks").stdout
    assert "it was not paused" in labs("gpu", "resume", "--target", "aks").stdout


def test_a_wrong_switch_is_named_with_its_remedy(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_GPU_SENSOR", "maybe")
    assert "LABS_GPU_SENSOR='maybe' is not known; set one of: off, dry-run, on" in refused(labs("gpu", "resume"), 2)


# labs gpu replay


def test_a_replay_says_what_it_walked_that_it_is_modelled_and_what_came_of_it(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    result = labs("gpu", "replay")
    assert result.exit_code == 0, result.output
    assert "target local · sessions of labs · modelled" in result.stdout
    assert "0 labs killed but for their leases" in result.stdout


def test_a_replay_of_the_sensor_s_own_rows_with_a_hasty_policy_names_the_labs_it_kills(
    labs: Labs, warehouse: Warehouse, tmp_path: Path
) -> None:
    start = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    idle = {"requests": 0.0, "utilisation_percent": 0.0, "idle_for_s": 60.0, "expected_idle_s": 60.0, "target": "aks"}
    rows = [gpu_decision_row(tick_at=start + timedelta(minutes=n), **idle) for n in range(60)]
    warehouse.publish("gpu_decisions", rows, target="aks", lab="all", run_id=rows[0]["run_id"])
    text = (REPO_ROOT / "lab_pipelines" / "gpu_policy.yaml").read_text(encoding="utf-8")
    hasty = tmp_path / "hasty.yaml"
    hasty.write_text(text.replace("idle_for_s: 600", "idle_for_s: 60").replace("cooldown_s: 900", "cooldown_s: 0"))
    shown = json.loads(labs("gpu", "replay", "--policy", str(hasty), "--target", "aks", "--json").stdout)
    assert shown["source"] == "the sensor's own looks"
    [pool] = shown["pools"]
    assert [one["lab"] for one in pool["killed"]] == ["L06"]
    assert pool["net_saved_usd"] > 0
    assert "L06 at 2026-11-24 12:" in labs("gpu", "replay", "--policy", str(hasty), "--target", "aks").stdout


def test_a_replay_without_history_or_with_a_wrong_policy_says_so(labs: Labs, tmp_path: Path) -> None:
    assert "nothing to replay on target local" in refused(labs("gpu", "replay"), 1)
    (tmp_path / "p.yaml").write_text("idle_for_s: soon\n")
    assert "p.yaml:1: idle_for_s" in refused(labs("gpu", "replay", "--policy", str(tmp_path / "p.yaml")), 1)


# labs teardown


def test_a_lab_s_stack_and_its_nodes_go_after_a_question(labs: Labs, pools: FilePools, cluster: LeasedCluster) -> None:
    cluster.put(lease("L11"), lease("L06", lease_id="other"))
    pools.put(held("a", "L11", count=2), held("b", "L06", lease_id="other"))
    refusal = labs("teardown", "L11", "--target", "aks", input="n\n")
    assert refusal.exit_code == 1
    assert "the stack of run run-1" in refusal.stdout and "2 nodes of pool a" in refusal.stdout
    assert counts(pools) == {"a": 2, "b": 1}
    result = labs("teardown", "L11", "--target", "aks", "--yes")
    assert result.exit_code == 0, result.output
    assert counts(pools) == {"a": 0, "b": 1}
    assert [one.lab for one in cluster.leases()] == ["L06"]
    assert "L11 holds nothing on target aks" in labs("teardown", "L11", "--target", "aks").stdout


def test_an_unknown_lab_is_refused(labs: Labs) -> None:
    assert "there is no lab 'L99'" in refused(labs("teardown", "L99"), 2)


# labs reap


def test_on_this_machine_a_dead_run_s_stack_is_reaped(labs: Labs, warehouse: Warehouse) -> None:
    dead_run(Path(warehouse.data_dir))
    assert "L06 (run run-1): its run (process 1) is dead" in labs("reap").stdout
    assert "nothing to reap" in labs("reap").stdout


def dead_run(data_dir: Path, **fields: object) -> None:
    """A lease on this machine whose process is gone."""
    book = LeaseBook(data_dir / "state")
    with book.locked():
        entry = lease().model_copy(update={"owner": "1:1.00", **fields})
        book.write(LeaseFile(lease=entry, hold=bool(fields.get("hold"))))


# labs ci-guard


@op
def nothing() -> None: ...


@job
def ended() -> None:
    nothing()


@pytest.fixture
def instance(tmp_path: Path, labs: Labs, monkeypatch: pytest.MonkeyPatch) -> DagsterInstance:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((REPO_ROOT / "deploy" / "local" / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return DagsterInstance.from_config(str(home))


def test_with_nothing_left_the_guard_says_so(labs: Labs) -> None:
    result = labs("ci-guard")
    assert (result.exit_code, result.stdout) == (0, "nothing was left behind\n")


def test_what_a_dead_run_left_is_ended_and_the_exit_code_tells(labs: Labs, warehouse: Warehouse) -> None:
    dead_run(Path(warehouse.data_dir))
    assert labs("ci-guard").exit_code == 3
    assert LocalCluster(data_dir=warehouse.data_dir).leases() == []
    assert labs("ci-guard").exit_code == 0


def test_what_an_ended_run_of_this_instance_holds_is_released_and_nobody_else_s(
    labs: Labs, pools: FilePools, cluster: LeasedCluster, instance: DagsterInstance
) -> None:
    with instance:
        done = ended.execute_in_process(instance=instance).run_id
    cluster.put(lease(run_id=done), lease("L11", lease_id="other", run_id="of-somebody"))
    pools.put(held("its", run_id=done), held("other", "L11", lease_id="other", run_id="of-somebody"))
    result = labs("ci-guard", "--target", "aks")
    assert result.exit_code == 3, result.output
    assert f"run {done} had left L06, pool its: released" in result.stdout
    assert counts(pools) == {"its": 0, "other": 1}
    assert labs("ci-guard", "--run", "of-somebody", "--target", "aks").exit_code == 3
    assert cluster.leases() == []


def test_a_killed_run_is_marked_as_failed_and_one_that_goes_on_is_not(labs: Labs, instance: DagsterInstance) -> None:
    with instance:
        runs = {}
        for pid in (2**22 + 1, os.getpid()):
            run = instance.create_run_for_job(ended, status=DagsterRunStatus.STARTED)
            instance.report_engine_event(f"Executing steps in process (pid: {pid})", run)
            runs[pid] = run.run_id
        result = labs("ci-guard")
        assert result.exit_code == 3, result.output
        statuses = {record.dagster_run.run_id: record.dagster_run.status for record in instance.get_run_records()}
    assert {pid: statuses[run_id] for pid, run_id in runs.items()} == {
        2**22 + 1: DagsterRunStatus.FAILURE,
        os.getpid(): DagsterRunStatus.STARTED,
    }
