"""The sensors as Dagster evaluates them, on an instance of their own: what they decide, do, record and say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    Definitions,
    Failure,
    JobDefinition,
    RunStatusSensorDefinition,
    SensorResult,
    SkipReason,
    asset,
    build_sensor_context,
    define_asset_job,
    in_process_executor,
    materialize,
)
from dagster._core.definitions.run_status_sensor_definition import RunStatusSensorCursor

from lab_pipelines.build import build_defs
from lab_pipelines.gpu_policy import NO_SIGNAL, ColdStart, History, Signal
from lab_pipelines.hooks import release_on_failure
from lab_pipelines.partitions import lab_partitions
from lab_pipelines.sensors.gpu_scale_to_zero import Memory, gpu_scale_to_zero, learn, remembered
from lab_pipelines.sensors.reaper import reaper
from lab_pipelines.sensors.run_status import release_after_cancel, release_after_failure
from resources.billing import PriceSheetBilling
from resources.cluster import Lease
from resources.decision_log import DecisionLog
from resources.gpu_switch import GpuSwitch
from resources.labs import Labs
from resources.node_pools import NodePool, NodePools, NoNodePools
from resources.ownership import BY_HAND, EXPIRES_LABEL, LEASE_LABEL, RUN_LABEL
from resources.warehouse import Warehouse
from tests.support.node_pools import T4, FilePools, LeasedCluster, node_pool
from tests.support.pool_signals import BUSY, QUIET, FileSignals
from tests.support.rows.sessions import session_row

A100 = "Standard_NC24ads_A100_v4"


class Place:
    """Pools, leases and signals of one test, and the sensor over them."""

    def __init__(self, folder: Path) -> None:
        self.pools = FilePools(folder=str(folder))
        self.signals = FileSignals(folder=str(folder))
        self.cluster = LeasedCluster(data_dir=str(folder))
        self.warehouse = Warehouse(data_dir=str(folder / "data"))
        self.switch = GpuSwitch(data_dir=str(folder / "data"), mode="on")
        self.cursor: str | None = None
        self.instance = DagsterInstance.ephemeral()

    def idle_for(self, seconds: float, *names: str, count: int = 1) -> None:
        """The sensor has watched these pools, idle for so long, and is to look again now."""
        now = datetime.now(UTC)
        seen = History(
            seen_at=now - timedelta(seconds=60),
            count=count,
            idle_since=now - timedelta(seconds=seconds),
            changed_at=now - timedelta(days=1),
        )
        self.cursor = Memory(histories=dict.fromkeys(names, seen)).model_dump_json()

    def tick(self) -> str:
        """One evaluation; what it says. The cursor goes on to the next."""
        context = build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={
                "labs": Labs(target="aks"),
                "cluster": self.cluster,
                "node_pools": self.pools,
                "pool_signals": self.signals,
                "billing": PriceSheetBilling(),
                "gpu_switch": self.switch,
                "warehouse": self.warehouse,
            },
        )
        result = gpu_scale_to_zero(context)
        if isinstance(result, SensorResult):
            assert result.skip_reason is not None and result.skip_reason.skip_message is not None
            self.cursor = result.cursor
            return result.skip_reason.skip_message
        assert isinstance(result, SkipReason) and result.skip_message is not None
        return result.skip_message

    def rows(self) -> list[dict[str, Any]]:
        DecisionLog(self.warehouse, "aks").publish(now=datetime.now(UTC), at_once=True)
        return self.warehouse.query("SELECT * FROM gpu_decisions ORDER BY tick_at, pool, recorded_at")

    def scaled(self) -> list[str]:
        return [call for call in self.pools.calls() if call.startswith("scale")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def lease(lab: str = "L06", *, lease_id: str = "1e4a", minutes: float = 15, run_id: str = "run-1") -> Lease:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    return Lease(lease_id=lease_id, lab=lab, run_id=run_id, owner="host/1:1", expires_at=until)


def leased(pool: NodePool, *, lease_id: str = "1e4a", minutes: float = -1, run_id: str = "run-1") -> NodePool:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    tags = {LEASE_LABEL: lease_id, RUN_LABEL: run_id, EXPIRES_LABEL: str(int(until.timestamp())), "lab": "l06"}
    return pool.model_copy(update={"tags": {**pool.tags, **tags}})


# gpu_scale_to_zero


def test_a_forgotten_pool_goes_to_zero_and_its_row_tells_every_input_and_the_prior_size(place: Place) -> None:
    place.pools.put(node_pool(count=2), node_pool("sys", mode="System", tags={}))
    place.signals.put({"t4": (replace(QUIET, reporting=0, expected=0), replace(QUIET, reporting=2, expected=2))})
    place.idle_for(3600, "t4", count=2)
    assert place.tick() == "1 pool of ours: brought to zero: t4"
    assert [pool.count for pool in place.pools.read()] == [0, 1]
    asked, done = place.rows()
    assert (asked["outcome"], done["outcome"], done["detail"]) == ("asked", "done", "2 nodes before, none now")
    for row in (asked, done):
        assert (row["nodes"], row["action"], row["rule"], row["switch"]) == (2, "scale_to_zero", "idle", "on")
        assert (row["requests"], row["utilisation_percent"], row["held_by"]) == (0.0, 0.0, [])
        assert (row["lab"], row["target"], row["vm_size"]) == ("all", "aks", T4)
        assert float(row["usd_per_h"]) == 2 * 0.526
        assert 3600 <= row["idle_for_s"] < 3700
        assert row["cold_start_source"].startswith("assumed")


def test_by_itself_the_sensor_only_says_what_it_would_do(place: Place) -> None:
    assert GpuSwitch(data_dir="unused").mode == "dry-run"
    place.switch = GpuSwitch(data_dir=place.warehouse.data_dir)
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(3600, "t4")
    assert place.tick() == "1 pool of ours: would bring to zero (dry run): t4"
    assert place.scaled() == []
    [row] = place.rows()
    assert (row["action"], row["outcome"], row["switch"]) == ("scale_to_zero", "dry-run", "dry-run")


def test_idle_time_is_counted_from_tick_to_tick(place: Place) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(500, "t4")
    assert place.tick() == "1 pool of ours: kept: 1 not idle long enough"
    memory = remembered(place.cursor)
    assert (datetime.now(UTC) - (memory.histories["t4"].idle_since or datetime.now(UTC))).total_seconds() >= 500
    place.signals.put({"t4": (BUSY, QUIET)})
    assert place.tick() == "1 pool of ours: kept: 1 in use"
    assert len(remembered(place.cursor).histories["t4"].gaps_s) == 1


def test_a_sensor_without_memory_begins_to_count_now(place: Place) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    for cursor in (None, "nonsense", '{"histories": 1}'):
        place.cursor = cursor
        assert place.tick() == "1 pool of ours: kept: 1 not idle long enough"


@pytest.mark.parametrize("missing", ["answer", "pool", "requests", "utilisation"])
def test_what_the_monitoring_does_not_tell_keeps_a_pool(place: Place, missing: str) -> None:
    place.pools.put(node_pool())
    if missing != "answer":
        told: dict[str, dict[str, tuple[Signal, Signal]]] = {
            "pool": {},
            "requests": {"t4": (NO_SIGNAL, QUIET)},
            "utilisation": {"t4": (QUIET, NO_SIGNAL)},
        }
        place.signals.put(told[missing])
    place.idle_for(3600, "t4")
    assert place.tick() == "1 pool of ours: kept: 1 signal missing"
    assert place.scaled() == []
    [row] = place.rows()
    assert (row["signals_gap"] is not None) == (missing == "answer")
    assert remembered(place.cursor).histories["t4"].idle_since is None


def test_a_lease_on_the_pool_keeps_it_and_for_nodes_given_by_hand_the_time_on_its_tag(place: Place) -> None:
    by_hand = leased(node_pool("by-tag"), lease_id="other", minutes=5, run_id=f"{BY_HAND}-me")
    place.pools.put(leased(node_pool("by-lease")), by_hand)
    place.cluster.put(lease())
    place.signals.put({"by-lease": (QUIET, QUIET), "by-tag": (QUIET, QUIET)})
    place.idle_for(3600, "by-lease", "by-tag")
    assert place.tick() == "2 pools of ours: kept: 2 leased"
    assert [row["held_by"] for row in place.rows()] == [["L06"], [BY_HAND]]


def test_leases_that_can_t_be_read_end_the_tick_before_anything_is_decided(place: Place, tmp_path: Path) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(3600, "t4")
    (tmp_path / "unreachable").touch()
    with pytest.raises(Exception, match="can't be reached"):
        place.tick()
    assert place.scaled() == []


def test_pools_of_others_are_not_even_looked_at(place: Place) -> None:
    place.pools.put(node_pool(tags={"team": "search"}))
    assert place.tick() == "this target has no node pool of ours"
    assert place.pools.calls() == ["pools"]
    assert place.rows() == []


def test_a_tick_acts_on_two_pools_at_most_the_dearest_first(place: Place) -> None:
    place.pools.put(node_pool("a"), node_pool("b", vm_size=A100), node_pool("c"), node_pool("d", vm_size=A100))
    place.signals.put(dict.fromkeys("abcd", (QUIET, QUIET)))
    place.idle_for(3600, *"abcd")
    assert place.tick() == "4 pools of ours: brought to zero: b, d; kept: 2 tick full"
    assert place.scaled() == ["scale b 1->0", "scale d 1->0"]
    assert place.tick() == "4 pools of ours: brought to zero: a, c; kept: 2 at zero"


class Meddling(FilePools):
    """Between being listed and being looked at again, the pool is given another node by somebody."""

    def pool(self, name: str) -> NodePool:
        self.touch(name, count=3)
        return super().pool(name)


class Racing(FilePools):
    """Between being looked at again and being written, the pool is given another node by somebody."""

    def pool(self, name: str) -> NodePool:
        found = super().pool(name)
        self.touch(name, count=3)
        return found


@pytest.mark.parametrize(
    ("kind", "said"), [(Meddling, "another than a moment ago"), (Racing, "changed since it was read")]
)
def test_a_pool_that_somebody_changes_meanwhile_is_left_to_them(place: Place, kind: type[FilePools], said: str) -> None:
    place.pools = kind(folder=place.pools.folder)
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(3600, "t4")
    place.tick()
    assert place.pools.read()[0].count == 3
    assert place.rows()[-1]["outcome"] == "failed"
    assert said in place.rows()[-1]["detail"]
    assert place.tick() == "1 pool of ours: kept: 1 cooling down"


class LateLease(LeasedCluster):
    """A run takes the lease after the sensor has listed the leases."""

    def leases(self) -> list[Lease]:
        found = super().leases()
        self.put(lease())
        return found


def test_a_lease_that_is_taken_meanwhile_is_respected(place: Place) -> None:
    place.cluster = LateLease(data_dir=place.cluster.data_dir)
    place.pools.put(leased(node_pool()))
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(3600, "t4")
    place.tick()
    assert place.scaled() == []
    assert place.rows()[-1]["detail"].startswith("not any more: L06 holds it until")


def test_a_pause_works_at_once_and_until_it_is_taken_back(place: Place) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(3600, "t4")
    place.switch.pause("moving the cluster")
    assert "moving the cluster" in place.tick()
    assert place.pools.calls() == []
    assert place.switch.resume()
    assert not place.switch.resume()
    assert place.tick() == "1 pool of ours: brought to zero: t4"


def test_a_policy_that_can_t_be_read_decides_nothing(place: Place, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("idle_for_s: soon\n", encoding="utf-8")
    place.switch = GpuSwitch(data_dir=place.warehouse.data_dir, mode="on", policy_file=str(tmp_path / "policy.yaml"))
    assert "policy.yaml:1: idle_for_s" in place.tick()
    assert place.pools.calls() == []


def test_a_record_that_can_t_be_written_stops_the_action(place: Place, tmp_path: Path) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (QUIET, QUIET)})
    place.idle_for(3600, "t4")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "state").touch()  # a file where the folder should be
    with pytest.raises(Exception, match="state"):
        place.tick()
    assert place.scaled() == []


def test_measured_cold_starts_are_learnt_once_an_hour(place: Place) -> None:
    now = datetime.now(UTC)
    times = [600.0, 700.0, 1100.0]
    for number, seconds in enumerate(times):
        run_id = f"run-{number}"
        row = session_row(target="aks", run_id=run_id, cold_start_s=seconds, session_id=run_id)
        place.warehouse.publish("stack_sessions", [row], target="aks", lab="L06", run_id=run_id)
    memory = learn(Memory(), place.warehouse, target="aks", now=now)
    assert memory.cold_starts == {T4: ColdStart(700.0, "median of the last 3 sessions")}
    assert learn(memory, place.warehouse, target="local", now=now + timedelta(minutes=59)) is memory
    assert learn(memory, place.warehouse, target="local", now=now + timedelta(minutes=61)).cold_starts == {}


def test_decisions_of_an_hour_become_one_file_of_the_lake(place: Place) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (BUSY, BUSY)})
    for _ in range(3):
        place.tick()
    assert place.warehouse.query("SELECT count(*) AS n FROM gpu_decisions") == [{"n": 0}]
    log = DecisionLog(place.warehouse, "aks")
    assert log.publish(now=datetime.now(UTC) + timedelta(minutes=61)) == 3
    assert log.publish(now=datetime.now(UTC) + timedelta(minutes=61)) == 0
    assert place.warehouse.query("SELECT count(DISTINCT run_id) AS files, count(*) AS n FROM gpu_decisions") == [
        {"files": 1, "n": 3}
    ]


def test_a_batch_that_was_published_but_not_removed_is_published_once(place: Place) -> None:
    place.pools.put(node_pool())
    place.signals.put({"t4": (BUSY, BUSY)})
    place.tick()
    [batch] = (Path(place.warehouse.data_dir) / "state").rglob("*.jsonl")
    content = batch.read_bytes()
    assert len(place.rows()) == 1
    batch.write_bytes(content + b'{"lab": "all", "tar')  # a second writer was killed within its line
    assert len(place.rows()) == 1
    assert not batch.exists()


# reaper


def reap(place: Place) -> str:
    result = reaper(build_sensor_context(instance=place.instance, resources={"cluster": place.cluster}))
    assert isinstance(result, SkipReason) and result.skip_message is not None
    return result.skip_message


def test_the_reaper_ends_what_is_over_gives_its_nodes_back_and_says_so(place: Place) -> None:
    place.cluster.put(lease(minutes=-1), lease("L11", lease_id="good"))
    place.pools.put(
        leased(node_pool("over", count=2)),
        leased(node_pool("held"), lease_id="good"),
        leased(node_pool("tagged", etag="7"), lease_id="gone", minutes=30),
        node_pool("unleased"),
        leased(node_pool("others", tags={})),
    )
    said = reap(place)
    ended = "L06: its lease expired; L06: its lease 1e4a has ended; L06: its lease gone has ended"
    assert said.startswith(f"reaped 3 leases: {ended}")
    assert said.endswith("1 lease left: L11")
    assert {pool.name: pool.count for pool in place.pools.read()} == {
        "over": 0, "held": 1, "tagged": 0, "unleased": 1, "others": 1,
    }  # fmt: skip
    [over, *_] = place.pools.read()
    assert over.tags == {"lab-pipelines": "managed", "lab": "l06"}
    assert reap(place) == "nothing to reap; 1 lease left: L11"


@pytest.mark.parametrize("said", ["", "soon", "99999999999"])
def test_a_tag_that_is_no_time_or_too_far_ahead_holds_nothing(place: Place, said: str) -> None:
    place.pools.put(node_pool(tags={"lab-pipelines": "managed", EXPIRES_LABEL: said}))
    reap(place)
    assert place.pools.read()[0].count == 0


def test_one_pool_that_refuses_does_not_hold_up_the_next(place: Place) -> None:
    place.pools = Racing(folder=place.pools.folder)
    refusing = leased(node_pool("a", mode="User"))
    place.pools.put(refusing, leased(node_pool("b")))
    place.pools.touch("a", etag="9")

    class Stale(FilePools):
        def pools(self) -> list[NodePool]:
            return [refusing, *super().pools()[1:]]

    class Seeing(LeasedCluster):
        def node_pools(self) -> NodePools:
            return Stale(folder=self.data_dir)

    place.cluster = Seeing(data_dir=place.cluster.data_dir)
    said = reap(place)
    assert "L06: its lease 1e4a has ended, but it is still there; L06: its lease 1e4a has ended;" in said
    assert [pool.count for pool in place.pools.read()] == [1, 0]


def test_on_this_machine_the_reaper_clears_a_lease_whose_run_is_dead(tmp_path: Path) -> None:
    from resources.cluster_local import LocalCluster
    from resources.leases import LeaseBook, LeaseFile

    cluster = LocalCluster(data_dir=str(tmp_path))
    book = LeaseBook(tmp_path / "state")
    with book.locked():
        book.write(LeaseFile(lease=lease().model_copy(update={"owner": "1:1.00"})))
    resources = {"cluster": cluster, "node_pools": NoNodePools()}
    result = reaper(build_sensor_context(instance=DagsterInstance.ephemeral(), resources=resources))
    assert isinstance(result, SkipReason)
    assert result.skip_message == "reaped 1 lease: L06: its run (process 1) is dead; 0 leases left"
    assert cluster.leases() == []


# The code location


@pytest.mark.parametrize("target", ["local", "rehearsal"])
def test_every_target_has_the_sensors_the_job_and_a_switch_that_is_safe(target: Any) -> None:
    defs = build_defs(target=target)
    Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    running = {one.name for one in repository.sensor_defs if one.default_status.value == "RUNNING"}
    assert running == {
        *("reaper", "gpu_scale_to_zero", "budget_guard"),
        *("release_after_failure", "release_after_cancel"),
    }
    assert "lab" in repository.job_names
    assert defs.resources is not None
    assert defs.resources["gpu_switch"].mode == "dry-run"
    assert defs.resources["budget_guard"].mode == "refuse"
    assert not defs.resources["budget_guard"].budgets().limited


# After a run


@asset(partitions_def=lab_partitions)
def breaks() -> None:
    raise Failure("as it should")


def tick_after(status_sensor: RunStatusSensorDefinition, instance: DagsterInstance, place: Place) -> list[str]:
    """What the sensor says of the runs that ended since it was started."""
    context = build_sensor_context(
        instance=instance,
        cursor=RunStatusSensorCursor(record_id=-1).to_json(),
        repository_def=Definitions(assets=[breaks]).get_repository_def(),
        resources={"cluster": place.cluster, "node_pools": place.pools},
    )
    data = status_sensor.evaluate_tick(context)
    reactions = data.dagster_run_reactions or []
    assert all(reaction.error is None for reaction in reactions), reactions
    return [reaction.dagster_run.run_id for reaction in reactions if reaction.dagster_run]


def test_a_failed_run_s_lease_and_nodes_are_released_and_nobody_else_s(place: Place) -> None:
    with DagsterInstance.ephemeral() as instance:
        run = materialize([breaks], partition_key="L06", instance=instance, raise_on_error=False)
        place.cluster.put(lease(run_id=run.run_id), lease("L11", lease_id="other", run_id="another"))
        place.pools.put(
            leased(node_pool("its"), minutes=30, run_id=run.run_id),
            leased(node_pool("other"), minutes=30, run_id="another"),
        )
        assert tick_after(release_after_cancel, instance, place) == []
        assert len(place.cluster.leases()) == 2
        assert tick_after(release_after_failure, instance, place) == [run.run_id]
        assert [one.lab for one in place.cluster.leases()] == ["L11"]
        assert [pool.count for pool in place.pools.read()] == [0, 1]
        assert tick_after(release_after_failure, instance, place) == [run.run_id], "and again, to no effect"


def test_a_cancelled_run_s_lease_is_released(place: Place) -> None:
    with DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(lab_job(place))
        instance.report_run_canceled(run)
        place.cluster.put(lease(run_id=run.run_id))
        place.pools.put()
        assert tick_after(release_after_failure, instance, place) == []
        assert tick_after(release_after_cancel, instance, place) == [run.run_id]
        assert place.cluster.leases() == []


def lab_job(place: Place) -> JobDefinition:
    job = define_asset_job("lab", selection=[breaks], hooks={release_on_failure}, executor_def=in_process_executor)
    resources = {"cluster": place.cluster, "node_pools": place.pools}
    return Definitions(assets=[breaks], jobs=[job], resources=resources).resolve_job_def("lab")


def test_the_job_s_hook_releases_as_soon_as_a_step_has_failed(place: Place) -> None:
    run_id = "11111111-1111-1111-1111-111111111111"
    place.cluster.put(lease(run_id=run_id))
    place.pools.put()
    with DagsterInstance.ephemeral() as instance:
        ended = lab_job(place).execute_in_process(
            instance=instance, run_id=run_id, partition_key="L06", raise_on_error=False
        )
    assert not ended.success
    assert place.cluster.leases() == []
