"""Labs of Phase 1 that need no load generator's peculiarities, in rehearsal: sensors, logs, restarts, the scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.steps import ApplyStep
from resources.cluster import ClusterError, StackOrder
from resources.cluster_rehearsal import RehearsalCluster
from resources.warehouse import Warehouse
from tests.support.rehearsals import rehearsed

A_JOB = "helm-values/lab10/manifests/account-without-label.yaml"
LABS = ("L02", "L04", "L05", "L07", "L08")


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Warehouse]:
    return {lab: rehearsed(lab, tmp_path_factory.mktemp(lab)) for lab in LABS}


def quiet(line: str) -> None:
    """Whoever wants to hear of progress."""


def one(warehouse: Warehouse, sql: str, *parameters: Any) -> dict[str, Any]:
    [row] = warehouse.query(sql, list(parameters))
    return row


@pytest.mark.parametrize("lab", LABS)
def test_every_finding_is_judged_and_every_row_says_that_it_is_modelled(
    lab: str, warehouses: dict[str, Warehouse]
) -> None:
    warehouse = warehouses[lab]
    findings = warehouse.query("SELECT finding, verdict FROM findings ORDER BY finding")
    expected = {finding.id: "confirmed" for finding in load_catalog().spec(lab).findings}
    assert {row["finding"]: row["verdict"] for row in findings} == expected
    for table in ("stack_sessions", "events", "metric_summaries", "findings", "cost_records"):
        [row] = warehouse.query(f"SELECT count(*) AS n, count_if(provenance <> 'modelled') AS other FROM {table}")
        assert row["n"] > 0 and row["other"] == 0, table


def test_log_and_metrics_count_the_same_requests(warehouses: dict[str, Warehouse]) -> None:
    values = {
        row["measure"]: row["value"] for row in warehouses["L04"].query("SELECT measure, value FROM metric_summaries")
    }
    assert values["requests_log"] == values["requests_metrics"] > 0
    assert values["ttft_mean_log"] == pytest.approx(values["ttft_mean_metrics"], rel=1e-6)
    assert values["e2e_mean_log"] == pytest.approx(values["e2e_mean_metrics"], rel=1e-6)


@pytest.mark.parametrize("lab", ["L07", "L08"])
def test_every_pod_ends_where_the_lab_expects_it_and_the_node_is_paid_for(
    lab: str, warehouses: dict[str, Warehouse]
) -> None:
    warehouse, spec = warehouses[lab], load_catalog().spec(lab)
    applied = warehouse.query("SELECT name, outcome, detail FROM events WHERE kind = 'apply' ORDER BY started_at")
    assert [row["name"] for row in applied] == [step.name for step in spec.steps if isinstance(step, ApplyStep)]
    assert {row["outcome"] for row in applied} == {"ok"}
    pods = [pod for row in applied for pod in json.loads(row["detail"])["pods"]]
    assert {pod["phase"] for pod in pods} == {"Pending", "Running"}
    cold = warehouse.query("SELECT name FROM events WHERE kind = 'cold_start' ORDER BY started_at")
    assert [row["name"] for row in cold] == ["node_ready", "driver_ready"]
    assert one(warehouse, 'SELECT sum("ListCost")::DOUBLE AS usd FROM cost_records')["usd"] > 0


def test_a_restart_takes_as_long_whenever_it_is_rehearsed(warehouses: dict[str, Warehouse], tmp_path: Path) -> None:
    asked = "SELECT name, started_at, duration_s FROM events WHERE kind = 'cold_start' ORDER BY started_at"
    phases = warehouses["L05"].query(asked)
    assert [row["name"] for row in phases].count("engine_ready") == 2
    assert rehearsed("L05", tmp_path).query(asked) == phases


def test_what_precedes_the_engine_is_a_share_of_the_same_cold_start(warehouses: dict[str, Warehouse]) -> None:
    phases = {
        row["phase"]: row["share"]
        for row in warehouses["L05"].query("SELECT phase, share FROM cold_start_timeline WHERE lab = 'L05'")
    }
    share = one(warehouses["L05"], "SELECT value FROM metric_summaries WHERE measure = 'before_engine_share'")["value"]
    assert share == pytest.approx(phases["node_ready"] + phases["driver_ready"] + phases["image_pulled"])


def test_a_kind_of_object_without_a_model_is_refused_with_its_file(tmp_path: Path) -> None:
    spec = load_catalog().spec("L07")
    step = ApplyStep(kind="apply", name="job", manifests=A_JOB)
    cluster = RehearsalCluster(data_dir=str(tmp_path / "data"))
    pace_name, pace = spec.pace(None, "rehearsal")
    order = StackOrder(spec=spec, variant=spec.variants[0], run_id="run-1", pace_name=pace_name, pace=pace, hold=None)
    session = cluster.deploy(order, progress=quiet)
    try:
        with pytest.raises(ClusterError, match=f"{A_JOB}: a rehearsal has no model of kind"):
            cluster.apply(session, step, progress=quiet)
    finally:
        cluster.release("L07")
