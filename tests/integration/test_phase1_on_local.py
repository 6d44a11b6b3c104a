"""Phase 1's labs as people run them on this machine, at their quickest pace: steps, measures and findings agree.

L06 has a module of its own (test_l06_on_local.py). L07 to L10 need a scheduler (tests/contract/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.steps import FireAlertStep
from resources.warehouse import Warehouse
from tests.support.main_command import Place, prepared, processes_of, start

LABS = ("L01", "L02", "L03", "L04", "L05")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with prepared(tmp_path_factory.mktemp("phase1")) as place:
        yield place


@pytest.fixture(scope="module")
def warehouse(place: Place) -> Warehouse:
    """What one run of each lab, one after the other, has left."""
    for lab in LABS:
        run = start(place, pace="smoke", lab=lab)
        assert run.wait() == 0, run.output()
        assert processes_of(place) == [], lab
    return Warehouse(data_dir=str(place.data_dir))


@cache
def spec_of(lab: str) -> LabSpec:
    return load_catalog().spec(lab)


def asked(warehouse: Warehouse, sql: str, lab: str) -> list[dict[str, Any]]:
    return warehouse.query(sql, [lab])


@pytest.mark.parametrize("lab", LABS)
def test_every_step_is_an_event_in_the_specs_order_and_ended_as_expected(warehouse: Warehouse, lab: str) -> None:
    events = asked(
        warehouse,
        "SELECT * FROM events WHERE lab = ? AND kind NOT IN ('cold_start', 'deploy') "
        "ORDER BY started_at, ended_at DESC",
        lab,
    )
    steps = spec_of(lab).flat_steps
    assert [event["name"] for event in events] == [step.name for step in steps]
    assert [event["kind"] for event in events] == [step.kind for step in steps]
    assert {event["name"]: event["detail"] for event in events if event["outcome"] != "ok"} == {}
    assert all(event["started_at"] <= event["ended_at"] for event in events)


@pytest.mark.parametrize("lab", LABS)
def test_every_measure_has_a_value_or_a_gap_with_its_reason(warehouse: Warehouse, lab: str) -> None:
    spec = spec_of(lab)
    found = asked(warehouse, "SELECT * FROM metric_summaries WHERE lab = ?", lab)
    assert {row["measure"] for row in found} == {measure.name for measure in spec.measures}
    sql = {measure.name for measure in spec.measures if measure.sql}
    assert [row for row in found if row["measure"] in sql and row["status"] != "ok"] == []
    # At forty stack seconds a second a stage sees about ten scrapes, so that a busy machine may lose a rate.
    gaps = [row for row in found if row["status"] == "gap"]
    assert len(gaps) <= len(found) // 4, gaps


@pytest.mark.parametrize("lab", LABS)
def test_every_finding_is_judged_on_the_labs_own_rows(warehouse: Warehouse, lab: str) -> None:
    spec = spec_of(lab)
    verdicts = {row["finding"]: row for row in asked(warehouse, "SELECT * FROM findings WHERE lab = ?", lab)}
    assert verdicts.keys() == {finding.id for finding in spec.findings}
    for finding in spec.findings:
        if finding.kind == "outcomes":  # the others depend on how quick the machine is
            assert verdicts[finding.id]["verdict"] == "confirmed", verdicts[finding.id]


@pytest.mark.parametrize("lab", LABS)
def test_a_stack_without_an_engine_is_measured_and_every_other_is_modelled(warehouse: Warehouse, lab: str) -> None:
    [session] = asked(warehouse, "SELECT * FROM stack_sessions WHERE lab = ? AND state = 'closed'", lab)
    engine = spec_of(lab).stack.of_kind("vllm")
    assert (session["model"] is None) == (engine is None)
    scaled = session["time_scale"] != 1
    assert session["provenance"] == ("modelled" if engine or scaled else "measured")
    assert session["engine"] == ("modelled-vllm" if engine else "none")


@pytest.mark.parametrize("lab", LABS)
def test_the_parts_of_the_cost_add_up_and_nothing_is_free(warehouse: Warehouse, lab: str) -> None:
    [cost] = asked(warehouse, "SELECT sum(usd) AS usd, sum(node_hours) AS hours FROM session_cost WHERE lab = ?", lab)
    assert cost["usd"] > 0
    assert cost["hours"] > 0


def test_the_log_alone_tells_the_latency_that_the_histogram_tells(warehouse: Warehouse) -> None:
    findings = asked(warehouse, "SELECT * FROM findings WHERE lab = ? AND finding LIKE 'log-%-agrees'", "L04")
    assert [row["verdict"] for row in findings] == ["confirmed", "confirmed"]
    # Both are the engine's own stamps, written twice: they differ by rounding, not by a per cent.
    assert all(row["effect"] < 1e-4 for row in findings)
    requests = asked(warehouse, "SELECT * FROM log_requests WHERE lab = ?", "L04")
    assert all(row["request_id"] and row["model"] for row in requests)


def test_a_restart_is_a_cold_start_without_the_node_and_its_counters_begin_again(warehouse: Warehouse) -> None:
    phases = asked(warehouse, "SELECT name, detail FROM events WHERE lab = ? AND kind = 'cold_start'", "L05")
    again = [phase["name"] for phase in phases if phase["detail"]]
    assert json.loads(next(phase["detail"] for phase in phases if phase["detail"])) == {"step": "warm-restart"}
    assert again == ["model_loaded", "engine_ready", "first_token"]
    assert {"node_ready", "driver_ready", "image_pulled"} <= {phase["name"] for phase in phases if not phase["detail"]}
    totals = asked(warehouse, "SELECT * FROM counter_totals WHERE lab = ?", "L05")
    assert {total["step"] for total in totals} == {"first-load", "after-restart"}
    for total in totals:
        assert total["server_total"] == pytest.approx(total["client_total"], rel=0.02, abs=total["client_unknown"])


def test_each_alert_went_from_its_cause_over_pending_and_firing_to_the_receiver(warehouse: Warehouse) -> None:
    events = asked(warehouse, "SELECT * FROM events WHERE lab = ? AND kind = 'fire_alert'", "L03")
    fired = {step.alert for step in spec_of("L03").flat_steps if isinstance(step, FireAlertStep)}
    assert len(fired) >= 5
    assert {json.loads(event["detail"])["alert"] for event in events} == fired
    for event in events:
        detail = json.loads(event["detail"])
        assert 0 < detail["pending_at_s"] <= detail["firing_at_s"] <= detail["notified_at_s"], detail
