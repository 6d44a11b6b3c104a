"""L06 as people run it: the plain command, the modelled server, every table filled, every claim checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_pipelines.catalog.loader import load_catalog
from resources.contract import contract
from resources.warehouse import Warehouse
from tests.support.main_command import Place, prepared, processes_of, start
from tests.support.rows.runs import NOT_BY_RUNS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with prepared(tmp_path_factory.mktemp("l06")) as place:
        yield place


@pytest.fixture(scope="module")
def finished(place: Place) -> tuple[Warehouse, str]:
    """The warehouse after one successful run at pace smoke, and what the command printed."""
    run = start(place, pace="smoke")
    assert run.wait() == 0, run.output()
    return Warehouse(data_dir=str(place.data_dir)), run.output()


def test_every_table_has_rows_and_every_row_says_what_it_is(finished: tuple[Warehouse, str]) -> None:
    warehouse, _ = finished
    # The lab collects no logs, and draws no reclaims.
    for table in contract(Path(warehouse.schema_dir)).keys() - {"log_lines", "capacity_spells"} - NOT_BY_RUNS:
        said = warehouse.query(f"SELECT DISTINCT lab, target, engine, provenance, pace, time_scale FROM {table}")
        assert said == [
            {
                "lab": "L06",
                "target": "local",
                "engine": "modelled-vllm",
                "provenance": "modelled",
                "pace": "smoke",
                "time_scale": 40.0,
            }
        ], table


def test_every_measure_of_the_spec_has_a_value_in_every_stage(finished: tuple[Warehouse, str]) -> None:
    warehouse, _ = finished
    spec = load_catalog().spec("L06")
    found = warehouse.query("SELECT measure, users, status, gap_reason FROM metric_summaries")
    assert {row["measure"] for row in found} == {measure.name for measure in spec.measures}
    assert {row["users"] for row in found} == {1, 4}
    # At forty stack seconds a second a stage sees about ten scrapes, so that a busy machine may lose a rate.
    gaps = [row for row in found if row["status"] == "gap"]
    assert len(gaps) <= len(found) // 4, gaps


def test_client_and_server_saw_the_same_and_tokens_are_exact(finished: tuple[Warehouse, str]) -> None:
    warehouse, _ = finished
    for total in warehouse.query("SELECT * FROM counter_totals"):
        assert total["server_total"] == pytest.approx(total["client_total"], rel=0.02, abs=total["client_unknown"])
    [tokens] = warehouse.query(
        "SELECT min(input_tokens) AS least_in, max(input_tokens) AS most_in, min(output_tokens) AS least_out, "
        "max(output_tokens) AS most_out, count(*) AS n FROM requests WHERE outcome = 'ok'"
    )
    assert tokens["n"] >= 3 + 4
    assert (tokens["least_in"], tokens["most_in"]) == (512, 512)
    assert (tokens["least_out"], tokens["most_out"]) == (256, 256)


def test_the_cold_start_is_a_timeline_and_the_money_adds_up(finished: tuple[Warehouse, str]) -> None:
    warehouse, _ = finished
    events = warehouse.query("SELECT kind, name, outcome FROM events ORDER BY ended_at, started_at")
    phases = [event["name"] for event in events if event["kind"] == "cold_start"]
    assert phases == ["node_ready", "driver_ready", "image_pulled", "model_loaded", "engine_ready", "first_token"]
    assert events[-1] == {"kind": "load", "name": "ramp", "outcome": "ok"}
    [sums] = warehouse.query(
        "SELECT sum(ListCost) AS parts, (SELECT usd FROM finops_sheet WHERE stage IS NULL) AS total FROM cost_records"
    )
    assert sums["parts"] == sums["total"] > 0


def test_the_stack_is_gone_and_its_lease_too(finished: tuple[Warehouse, str], place: Place) -> None:
    assert place.lease() is None
    assert processes_of(place) == []


def test_the_report_and_the_read_model_are_there(finished: tuple[Warehouse, str], place: Place) -> None:
    _, output = finished
    page = place.data_dir / "report" / "year_in_numbers.html"
    assert str(page) in output
    assert "Load Test Contract" in page.read_text(encoding="utf-8")
    assert place.snapshot.exists()


def test_progress_is_shown_while_it_runs(finished: tuple[Warehouse, str]) -> None:
    _, output = finished
    for line in (
        "cold start: node_ready",
        "is ready after a cold start",
        "stage 1/2",
        "stage 2/2",
        "the stack is released",
    ):
        assert line in output


def test_a_second_run_adds_rows_and_changes_none(finished: tuple[Warehouse, str], place: Place) -> None:
    warehouse, _ = finished
    before = {path: path.read_bytes() for path in (place.data_dir / "lake").rglob("*.parquet")}
    run = start(place, pace="smoke")
    assert run.wait() == 0, run.output()
    assert {path: path.read_bytes() for path in before} == before
    [runs] = warehouse.query("SELECT count(DISTINCT run_id) AS n FROM stack_sessions")
    assert runs["n"] == 2


@pytest.mark.parametrize(
    ("lab", "environ", "said"),
    [
        ("L07", {}, "L07 can't run on target local. It asks a real API server and a real scheduler"),
        ("L78", {}, "L78 (The Year in Numbers) can't run: it is not complete. Missing in"),
        ("L06", {"LABS_PACE": "warp"}, "L06 has no pace 'warp'; it has: full, short, smoke (set LABS_PACE)"),
        (
            "L06",
            {"LABS_TARGET": "aks"},
            "--target aks needs to know the cluster: set AZURE_SUBSCRIPTION_ID, LABS_AKS_RESOURCE",
        ),
        ("L06", {"LABS_REGION": "mars"}, "no price of Standard_NC4as_T4_v3 in region 'mars'"),
    ],
)
def test_a_run_that_cannot_be_fails_at_once_and_says_why(
    place: Place, lab: str, environ: dict[str, str], said: str
) -> None:
    run = start(place, pace="smoke", lab=lab, environ=environ)
    assert run.wait() == 1
    assert said in run.output()
    assert processes_of(place) == []


def test_the_command_line_of_the_engine_is_on_record(finished: tuple[Warehouse, str]) -> None:
    warehouse, _ = finished
    [session] = warehouse.query("SELECT engine_args FROM stack_sessions WHERE state = 'closed' LIMIT 1")
    assert json.loads(session["engine_args"])[0] == "microsoft/Phi-3-mini-4k-instruct"
