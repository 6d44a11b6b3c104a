"""Labs on the target `kubernetes`, by the main command, against the double of a cluster with real servers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.lake import contract
from resources.ownership import LEASE_LABEL, MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL
from resources.warehouse import Warehouse
from tests.support import rbac
from tests.support.kube.kubelet import Delays
from tests.support.lab_cluster import T4, LabCluster, lab_cluster
from tests.support.main_command import Place, Run, prepared, processes_of, start
from tests.support.rows.runs import NOT_BY_RUNS

TWICE = {"LABS_VARIANT": "on", "LABS_TURNS": "2"}
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


def test_l06_has_the_same_rows_as_on_this_machine(place: Place, cluster: LabCluster) -> None:
    _, warehouse = finished(place, cluster, "L06", "smoke")
    for table in contract(Path(warehouse.schema_dir)).keys() - {"log_lines", "capacity_spells"} - NOT_BY_RUNS:
        said = warehouse.query(f"SELECT DISTINCT target, engine, provenance, pace FROM {table} WHERE lab = 'L06'")
        assert [tuple(row.values()) for row in said] == [("kubernetes", "modelled-vllm", "modelled", "smoke")], table
    # The modelled server needs no GPU: its pod is on another machine, and what it stands for is the lab's own node.
    [held] = warehouse.query("FROM node_time WHERE lab = 'L06'")
    assert (held["node"], held["nodes"], held["sku"], held["exclusive"]) == (None, 1, T4, True)
    [cost] = warehouse.query("SELECT sum(PricingQuantity) AS hours FROM cost_current WHERE lab = 'L06'")
    assert float(cost["hours"]) * 3600 == pytest.approx(held["cold_start_s"] + held["held_s"], abs=1e-3)
    assert_nothing_is_left(place, cluster, "L06")


def test_l05_restarts_its_engine_in_the_cluster_and_knows_where_the_time_went(
    place: Place, cluster: LabCluster
) -> None:
    _, warehouse = finished(place, cluster, "L05", "smoke")
    steps = warehouse.query(
        "SELECT name, outcome FROM events WHERE lab = 'L05' AND kind NOT IN ('cold_start', 'milestone')"
    )
    assert {row["outcome"] for row in steps} == {"ok"}, steps

    reached = warehouse.query(
        "SELECT name, started_at FROM events WHERE lab = 'L05' AND kind = 'milestone' ORDER BY 2, 1"
    )
    assert {row["name"] for row in reached} == {
        "requested", "scheduled", "image_pulled", "started", "model_loaded", "ready", "first_token"
    }  # fmt: skip
    [session] = warehouse.query("SELECT * FROM stack_sessions WHERE lab = 'L05' AND state = 'closed'")
    assert session["model_loaded_s"] > 100 and session["engine_ready_s"] > 190  # played by the server, in its own time
    assert session["node_ready_s"] is None  # the node was there
    again = warehouse.query(
        "SELECT name FROM events WHERE lab = 'L05' AND kind = 'cold_start' AND detail IS NOT NULL ORDER BY started_at"
    )
    assert [row["name"] for row in again] == ["image_pulled", "model_loaded", "engine_ready", "first_token"]
    assert_nothing_is_left(place, cluster, "L05")


def test_l11_walks_its_variants_as_upgrades_of_one_release(place: Place, cluster: LabCluster) -> None:
    _, warehouse = finished(place, cluster, "L11", "smoke")
    sessions = warehouse.query(
        "SELECT variant, session_id, values_digest FROM stack_sessions WHERE lab = 'L11' AND state = 'closed'"
        " ORDER BY requested_at"
    )
    assert [row["variant"] for row in sessions] == ["gmu-0.70", "gmu-0.85", "gmu-0.95"]
    assert len({row["values_digest"] for row in sessions}) == 3
    blocks = warehouse.query(
        "SELECT variant, max(value) AS n FROM metric_summaries WHERE lab = 'L11' AND measure = 'kv_blocks' GROUP BY ALL"
        " ORDER BY n"
    )
    assert [row["variant"] for row in blocks] == ["gmu-0.70", "gmu-0.85", "gmu-0.95"]
    assert_nothing_is_left(place, cluster, "L11")


def test_a_second_turn_of_one_variant_has_an_engine_that_has_seen_nothing(place: Place, cluster: LabCluster) -> None:
    """An upgrade to the very same values would leave its pod as it is, with all that its caches hold."""
    run = start(place, pace="smoke", lab="L17", environ={**cluster.environ(), **IDS, **TWICE})
    assert run.wait() == 0, run.output()
    warehouse = Warehouse(data_dir=str(place.data_dir))
    first, second = warehouse.query(
        "SELECT * FROM stack_sessions WHERE lab = 'L17' AND state = 'closed' ORDER BY requested_at"
    )
    assert [(row["variant"], row["trial"]) for row in (first, second)] == [("on", 1), ("on", 2)]
    assert first["values_digest"] == second["values_digest"]
    assert second["session_id"] == f"{first['session_id']}.on.T2"
    assert second["model_loaded_s"] > 0 and second["engine_ready_s"] > 0
    # Its phases are those of a pod that was not there before.
    phases = warehouse.query(
        "SELECT name, started_at, ended_at FROM events WHERE kind = 'cold_start' AND session_id = ? ORDER BY ended_at",
        [second["session_id"]],
    )
    assert {row["name"] for row in phases} >= {"model_loaded", "engine_ready", "first_token"}
    assert min(row["ended_at"] for row in phases) > second["requested_at"]
    loaded = next(row for row in phases if row["name"] == "model_loaded")
    assert loaded["started_at"] >= second["requested_at"] and loaded["ended_at"] > loaded["started_at"]
    assert_nothing_is_left(place, cluster, "L17")


def test_whatever_these_runs_asked_of_the_cluster_the_run_account_may(place: Place, cluster: LabCluster) -> None:
    asked = {rbac.asked(one.method, one.path, one.query) for one in cluster.api.seen if one not in cluster.before}
    may = rbac.granted(rbac.roles()["lab-runs"])
    assert {right for right in asked if right is not None} <= may, asked - may - {None}


def test_every_object_that_a_run_made_itself_says_whose_it_is(cluster: LabCluster) -> None:
    written = [one for one in cluster.api.seen if one.method == "PATCH" and one.query.get("fieldManager") == MANAGED_BY]
    whole = [one.body for one in written if one.content_type == "application/apply-patch+yaml"]
    assert {one["kind"] for one in whole} >= {"NetworkPolicy", "ResourceQuota", "Pod", "Job", "ConfigMap"}
    for one in whole:
        labels = one["metadata"]["labels"]
        assert labels[MANAGED_BY_LABEL] == MANAGED_BY, one
        assert labels.keys() >= {"lab", "phase", "cost-center", RUN_LABEL, LEASE_LABEL}, one


def assert_nothing_is_left(place: Place, cluster: LabCluster, lab: str) -> None:
    namespace = f"lab-{lab[1:]}"
    assert [key for key in cluster.api.stored() if namespace in key] == []
    assert processes_of(place) == []
