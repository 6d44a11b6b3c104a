"""The views and measures of the labs about cost, on rows with plain answers: idle time, alerts, namespaces, mixes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.slo import INTERACTIVE
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.session_sheets import session_sheet
from resources.warehouse import Warehouse
from tests.support.rows.common import REQUESTED_AT, RUN_ID, Row, shared
from tests.support.rows.load import request_row, stage_row
from tests.support.rows.measures import sample_row
from tests.support.rows.money import bill_share_row, billed
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import COLD_START_S, session_row, spell_row
from tests.support.warehouses import publish_run, warehouse_in

READY_AT = session_row()["ready_at"]
SCALE = 5.0
WARM_AFTER_S = COLD_START_S["first_token"]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


def measure(warehouse: Warehouse, name: str, **parameters: Any) -> float | None:
    sql = (REPO_ROOT / "warehouse" / "measures" / f"{name}.sql").read_text(encoding="utf-8")
    [answer] = warehouse.query(sql, parameters)
    return next(iter(answer.values()))


def gap(warehouse: Warehouse, name: str, **parameters: Any) -> str:
    sql = (REPO_ROOT / "warehouse" / "measures" / f"{name}.sql").read_text(encoding="utf-8")
    [answer] = warehouse.query(sql, parameters)
    assert next(iter(answer.values())) is None
    return answer["gap"]


def at(stack_s: float) -> Any:
    """So many stack seconds after the session was warm."""
    return READY_AT + timedelta(seconds=(WARM_AFTER_S + stack_s) / SCALE)


def idle_session(
    busy: Sequence[tuple[float, float]], released: float, *, stages: Sequence[tuple[float, float]] = (), **columns: Any
) -> dict[str, list[Row]]:
    """A session that had requests in flight between the given stack seconds, without cost records."""
    session = session_row(released_at=at(released), held_s=released + WARM_AFTER_S) | columns
    requests = [
        request_row(request_id=f"r{n}", sent_at=at(start), scheduled_at=at(start)) | {"finished_at": at(end)} | columns
        for n, (start, end) in enumerate(busy)
    ]
    windows = [
        stage_row(stage=n, started_at=at(start), ended_at=at(end)) | columns for n, (start, end) in enumerate(stages)
    ]
    tables = {"stack_sessions": [session], "requests": requests, "load_stages": windows}
    return {name: rows for name, rows in tables.items() if rows}


def intervals(warehouse: Warehouse) -> list[tuple[str, float]]:
    found = warehouse.query("SELECT kind, duration_s FROM idle_intervals ORDER BY started_at, kind")
    return [(row["kind"], round(row["duration_s"], 3)) for row in found]


# Idle intervals


def test_idle_time_lies_around_the_requests_and_is_told_by_where(warehouse: Warehouse) -> None:
    busy = [(100, 150), (120, 200), (230, 300), (900, 1000)]
    publish_run(warehouse, idle_session(busy, 3000, stages=[(100, 300), (900, 1000)]))
    assert intervals(warehouse) == [
        ("cold_start", round(sum(COLD_START_S.values()), 3)),
        ("before_load", 100.0),
        ("in_stage", 30.0),
        ("between_loads", 600.0),
        ("after_load", 2000.0),
    ]


def test_a_session_without_requests_was_held_for_something_else(warehouse: Warehouse) -> None:
    publish_run(warehouse, idle_session([], 500))
    assert intervals(warehouse)[1:] == [("no_load", 500.0)]


def test_a_request_that_outlives_the_session_leaves_no_idle_end_and_an_open_session_has_none(
    warehouse: Warehouse,
) -> None:
    publish_run(warehouse, idle_session([(0, 700)], 500))
    opened = session_row(session_id="open", run_id="open", state="open", released_at=None, held_s=None)
    publish_run(warehouse, {"stack_sessions": [opened]})
    assert intervals(warehouse) == [("cold_start", round(sum(COLD_START_S.values()), 3))]


def test_the_intervals_add_up_to_the_idle_part_of_the_cost(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run())
    [view] = warehouse.query(
        "SELECT sum(node_hours) AS hours, sum(usd) AS usd FROM idle_intervals WHERE kind <> 'cold_start'"
    )
    [cost] = warehouse.query("SELECT node_hours, usd FROM session_cost WHERE part = 'idle'")
    assert view["hours"] == pytest.approx(float(cost["node_hours"]), abs=2e-9)
    assert view["usd"] == pytest.approx(float(cost["usd"]), abs=2e-9)


def test_gpu_samples_count_only_where_they_cover_the_interval_and_missing_ones_are_not_idleness(
    warehouse: Warehouse,
) -> None:
    tables = idle_session([(0, 10)], 1210)

    def sampled(session: str, seconds: Sequence[float], value: float) -> list[Row]:
        return [
            sample_row(measure="gpu_utilisation", unit="percent", sampled_at=at(10 + s), value=value)
            | {"session_id": session}
            for s in seconds
        ]

    every = [float(s) for s in range(0, 1201, 30)]
    for session, seconds, value in [
        ("none", [], 0.0),
        ("at-its-start", [0.0, 20.0], 97.0),
        ("in-parts", [70.0, 300.0], 0.0),
        ("idle", every, 0.4),
        ("busy", every, 60.0),
    ]:
        rows = {name: [row | {"session_id": session} for row in rows] for name, rows in tables.items() if rows}
        samples = sampled(session, seconds, value)
        publish_run(
            warehouse,
            {
                name: [row | {"run_id": session} for row in found]
                for name, found in {**rows, "metric_samples": samples}.items()
                if found
            },
        )
    found = warehouse.query(
        "SELECT session_id, signals, gpu_below_percent AS below, alarms, saved_gpu_hours AS saved, "
        "unknown_hours AS unknown FROM idle_alerts WHERE after_min = 15"
    )
    alarms = {(row["session_id"], row["below"]): row for row in found}
    idle_h = 1200 / 3600
    for session in ("none", "at-its-start", "in-parts", "idle", "busy"):
        alone = alarms[session, None]
        assert (alone["alarms"], alone["unknown"]) == (1, 0)
        assert alone["saved"] == pytest.approx(300 / 3600)
    for session in ("none", "at-its-start", "in-parts"):
        assert alarms[session, 1]["alarms"] == 0
        assert alarms[session, 1]["unknown"] == pytest.approx(idle_h)
    assert (alarms["idle", 1]["alarms"], alarms["idle", 1]["unknown"]) == (1, 0)
    assert (alarms["busy", 1]["alarms"], alarms["busy", 5]["alarms"], alarms["busy", 1]["unknown"]) == (0, 0, 0)


# Alerts


def test_an_alert_saves_what_follows_it_and_an_alarm_before_the_next_load_is_false(warehouse: Warehouse) -> None:
    publish_run(warehouse, idle_session([(400, 500), (1500, 1600)], 5200))
    found = {row["after_min"]: row for row in warehouse.query("SELECT * FROM idle_alerts WHERE signals = 'requests'")}
    # Idle: 400 s before, 1000 s between, 3600 s after. The cold start takes 640.5 s.
    assert {minutes: round(row["saved_gpu_hours"] * 3600) for minutes, row in found.items()} == {
        5: 3300,
        15: 2700,
        30: 1800,
        60: 0,
    }
    assert {minutes: (row["alarms"], row["false_alarms"], row["cold_starts"]) for minutes, row in found.items()} == {
        5: (3, 2, 1),
        15: (2, 1, 0),
        30: (1, 0, 0),
        60: (1, 0, 0),
    }


def test_the_measures_of_idleness_look_at_prior_labs_on_the_same_target_and_at_enough_of_them(
    warehouse: Warehouse,
) -> None:
    for number in range(20):
        publish_run(warehouse, lab_run(lab="L06", run_id=f"run-{number}", session_id=f"s{number}"))
        if number == 18:
            assert "19 sessions" in gap(warehouse, "idle_saved_share_15_min", target="local")
    publish_run(warehouse, lab_run(lab="L72", run_id="own", session_id="own"))
    publish_run(warehouse, lab_run(target="rehearsal", run_id="r", session_id="r"))
    [one] = warehouse.query(
        "SELECT sum(gpu_hours) AS h, sum(usd) AS usd FROM idle_intervals "
        "WHERE session_id = 's0' AND kind <> 'cold_start'"
    )
    assert measure(warehouse, "idle_gpu_hours", target="local") == pytest.approx(20 * one["h"])
    assert measure(warehouse, "idle_usd", target="local") == pytest.approx(20 * one["usd"])
    parts = ("idle_usd_between", "idle_usd_after")
    assert sum(measure(warehouse, name, target="local") or 0 for name in parts) == pytest.approx(20 * one["usd"])
    assert measure(warehouse, "idle_usd_cold_start", target="local") == pytest.approx(
        20 * sum(COLD_START_S.values()) / 3600 * 0.526
    )
    assert measure(warehouse, "idle_saved_share_15_min", target="local") == 0.0
    assert measure(warehouse, "idle_unknown_share", target="local") == pytest.approx(1.0)
    assert measure(warehouse, "idle_gpu_hours", target="aks") == 0.0
    assert "no lab before L72" in gap(warehouse, "idle_usd", target="aks")


# Namespaces


def test_a_namespace_s_cost_has_its_labels_and_compares_only_what_was_billed(warehouse: Warehouse) -> None:
    first, second = lab_run(), lab_run(run_id="b", session_id="session-2")
    publish_run(warehouse, first)
    publish_run(warehouse, second)
    later = REQUESTED_AT + timedelta(days=2)
    bills = [
        billed(row, (row["ListCost"] * Decimal("1.1")).quantize(Decimal("1e-9")), recorded_at=later)
        for row in first["cost_records"]
    ]
    warehouse.publish("cost_records", bills, target="local", lab="L06", run_id=RUN_ID, part="billed")
    sql = (REPO_ROOT / "warehouse" / "queries" / "cost_by_namespace.sql").read_text(encoding="utf-8")
    [row] = warehouse.query(sql)
    assert (row["namespace"], row["cost_center"], row["phase"]) == ("lab-06", "llm-serving-labs", "1")
    assert row["runs"] == 2
    assert row["delta_percent"] == pytest.approx(10.0, abs=0.01)
    usd = sum(one["ListCost"] for run in (first, second) for one in run["cost_records"])
    assert float(row["usd_estimated"]) == pytest.approx(float(usd), abs=1e-4)
    assert measure(warehouse, "bill_difference_percent", target="local") == pytest.approx(10.0, abs=0.01)
    assert measure(warehouse, "labs_priced", target="local") == 1.0
    assert measure(warehouse, "hours_without_cost", target="local") == 0.0
    assert "no session on target aks" in gap(warehouse, "bill_difference_percent", target="aks")


def test_runs_that_did_not_record_their_gpus_are_a_gap_and_no_zero(warehouse: Warehouse) -> None:
    run = lab_run()
    for row in run["stack_sessions"]:
        row["gpus"] = None
    publish_run(warehouse, run)
    for name in ("idle_gpu_hours", "idle_usd", "idle_usd_cold_start", "idle_unknown_share"):
        assert "did not record their GPUs" in gap(warehouse, name, target="local"), name
    waste = warehouse.query((REPO_ROOT / "warehouse" / "queries" / "idle_waste.sql").read_text(encoding="utf-8"))
    assert waste and all(row["gpu_hours"] is None and row["usd"] > 0 for row in waste)


def test_idle_time_is_charged_as_the_session_was(warehouse: Warehouse) -> None:
    """Half a share of a node: half the hours, half the dollars."""
    run = lab_run()
    for row in run["cost_records"]:
        row |= {name: row[name] / 2 for name in ("PricingQuantity", "ListCost")}
    halved = [
        row | {"PricingQuantity": round(row["PricingQuantity"], 9), "ListCost": round(row["ListCost"], 9)}
        for row in run["cost_records"]
    ]
    publish_run(warehouse, run | {"cost_records": halved})
    [idle] = warehouse.query(
        "SELECT sum(usd) AS usd, sum(node_hours) AS h FROM idle_intervals WHERE kind <> 'cold_start'"
    )
    parts = [row for row in halved if row["x_part"] == "idle"]
    assert idle["usd"] == pytest.approx(float(sum(row["ListCost"] for row in parts)), rel=1e-3)
    assert idle["h"] == pytest.approx(float(sum(row["PricingQuantity"] for row in parts)), rel=1e-3)


def test_a_session_with_node_time_of_no_known_price_has_no_estimate_and_no_delta(warehouse: Warehouse) -> None:
    """A part of a sum must not pass for it, beside a bill that is whole."""
    first, second = lab_run(), lab_run(run_id="b", session_id="session-2")
    estimates = first["cost_records"]
    usd, bill = sum(row["ListCost"] for row in estimates), Decimal(len(estimates))
    later = REQUESTED_AT + timedelta(days=2)
    bills = [[billed(row, Decimal(1), recorded_at=later) for row in run["cost_records"]] for run in (first, second)]
    second["cost_records"][0] |= dict.fromkeys(("ListCost", "ListUnitPrice", "x_price_low", "x_price_high"))
    for run, rows in zip((first, second), bills, strict=True):
        run["cost_records"] += rows
        publish_run(warehouse, run)
    sql = (REPO_ROOT / "warehouse" / "queries" / "estimate_against_bill.sql").read_text(encoding="utf-8")
    columns = ("estimated_usd", "billed_usd", "delta_usd")
    found = {row["session_id"]: tuple(row[column] for column in columns) for row in warehouse.query(sql)}
    assert found.pop("session-2") == (None, bill, None)
    assert list(found.values()) == [(usd, bill, bill - usd)]


def test_money_of_the_bill_that_no_rule_could_place_is_told_and_no_bill_is_no_zero(warehouse: Warehouse) -> None:
    assert "no bill on target aks was reconciled" in gap(warehouse, "usd_not_placed", target="aks")
    placed = bill_share_row(session_id="session-1", reason=None, cost=Decimal(3), cost_usd=Decimal(3))
    publish_run(warehouse, {"bill_shares": [placed, bill_share_row()]})
    assert measure(warehouse, "usd_not_placed", target="aks") == pytest.approx(0.40)
    later = bill_share_row()["recorded_at"] + timedelta(days=1)
    in_euro = bill_share_row(run_id="bill-2", recorded_at=later, currency="EUR", cost_usd=None)
    publish_run(warehouse, {"bill_shares": [in_euro]})
    assert "not in dollars" in gap(warehouse, "usd_not_placed", target="aks")


def test_hours_without_a_price_or_a_record_are_counted_and_not_free(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(priced=False))
    lost = session_row(session_id="lost", run_id="lost", cold_start_s=1800.0, held_s=1800.0)
    publish_run(warehouse, {"stack_sessions": [lost]})
    [hours] = warehouse.query("SELECT sum(node_hours) AS h FROM session_cost")
    assert measure(warehouse, "hours_without_cost", target="local") == pytest.approx(float(hours["h"]) + 1.0)
    assert warehouse.query("SELECT usd_estimated FROM namespace_cost") == [{"usd_estimated": None}]
    assert "no session" in gap(warehouse, "year_efficiency", target="local")


def publish_with_sheet(warehouse: Warehouse, run: dict[str, list[Row]]) -> list[Row]:
    """Publish a run whose requests were changed, with the sheet that follows from them; the sheet."""
    publish_run(warehouse, {table: rows for table, rows in run.items() if table != "finops_sheet"})
    [_, session] = run["stack_sessions"]
    made = session_sheet(warehouse, session, state="estimated", objective=INTERACTIVE)
    publish_run(warehouse, {"finops_sheet": made})
    return made


def test_the_money_of_a_stage_is_paid_by_its_useful_tokens(warehouse: Warehouse) -> None:
    """In a stage of 1 user every request meets the objective; half of them are made too slow."""
    run = lab_run(users=(1,))
    for index, request in enumerate(run["requests"]):
        if index % 2:
            request["ttft_s"] = 2.5
    made = publish_with_sheet(warehouse, run)
    where = {"session_id": "session-1", "step": "ramp", "stage": 0}
    [sheet] = [row for row in made if row["stage"] == 0]
    assert measure(warehouse, "useful_share", **where) == pytest.approx(0.5)
    assert measure(warehouse, "usd_per_1k_useful_output_tokens", **where) == pytest.approx(
        2 * sheet["usd_per_1k_output_tokens"]
    )
    assert measure(warehouse, "usd_per_request", **where) == pytest.approx(sheet["usd_per_request"])
    assert measure(warehouse, "usd_per_idle_gpu_hour", session_id="session-1") == pytest.approx(0.526)
    efficiency = measure(warehouse, "cost_efficiency", session_id="session-1")
    assert efficiency is not None
    in_use = measure(warehouse, "usd_per_gpu_hour_in_use", session_id="session-1")
    assert in_use == pytest.approx(0.526 / efficiency, rel=1e-6)


def test_a_stage_without_a_useful_token_has_no_price_for_one(warehouse: Warehouse) -> None:
    run = lab_run(users=(1,))
    for request in run["requests"]:
        request["ttft_s"] = 2.5
    publish_with_sheet(warehouse, run)
    where = {"session_id": "session-1", "step": "ramp", "stage": 0}
    assert measure(warehouse, "useful_share", **where) == 0.0
    assert gap(warehouse, "usd_per_1k_useful_output_tokens", **where) == "no request of the stage met the objective"


# Mixes of nodes


def mixed(spells: Sequence[Row], slow: dict[float, int], **columns: Any) -> dict[str, list[Row]]:
    """A session with a stage of ten requests at each rate, of which so many are too slow, and a pool's spells."""
    stages, requests = [], []
    for number, (rate, late) in enumerate(slow.items()):
        stages.append(
            stage_row(step="share", profile="rate", stage=number, users=None, offered_per_s=rate, output_tokens=2560)
        )
        requests += [
            request_row(
                step="share", stage=number, users=None, request_id=f"{rate}-{n}", ttft_s=9.0 if n < late else 0.4
            )
            for n in range(10)
        ]
    tables = {"load_stages": stages, "requests": requests, "capacity_spells": list(spells)}
    return {name: [row | columns for row in rows] for name, rows in tables.items()}


RATES = {0.6: 0, 0.8: 1, 1.2: 5, 2.4: 10}
"""2.4 per second on four, three, two and one replica, and how many of ten requests are then too slow."""


def pool(*spells: tuple[int, float, int, int], **columns: Any) -> list[Row]:
    """Spells of (month, hours, Spot up, Spot starting) of one on-demand and three Spot nodes, one after the other."""
    rows, now = [], 0.0
    for month, hours, up, starting in spells:
        rows.append(
            spell_row(month=month, started_h=now, hours=hours, spot_nodes=3, spot_up=up, spot_starting=starting)
            | columns
        )
        now += hours
    return rows


def result(warehouse: Warehouse) -> Row:
    [row] = warehouse.query("FROM capacity_results")
    return row


def test_what_a_mix_serves_is_what_its_replicas_serve_weighed_by_time(warehouse: Warehouse) -> None:
    spells = pool((0, 600, 3, 0), (0, 100, 1, 0), (0, 30, 1, 2), (1, 730, 3, 0))
    publish_run(warehouse, mixed(spells, RATES))
    row = result(warehouse)
    first = (600 + 130 * 0.5) / 730
    assert row["served_share"] == pytest.approx((first + 1) / 2)
    reach = 12.706 * abs(1 - first) / 2  # Student's t of two months
    assert row["served_share_low"] == pytest.approx((first + 1) / 2 - reach)
    assert row["served_share_high"] == 1.0
    assert row["worst_hour_share"] == pytest.approx(0.5)
    assert row["replicas_needed"] == 4
    assert row["minutes_below_capacity"] == pytest.approx(130 * 60 / 2)
    # A node that waits for capacity is not paid for, one that starts is.
    spot_h = 600 * 3 + 100 + 30 * 3 + 730 * 3
    assert row["on_demand_nodes_paid"] == pytest.approx(1)
    assert row["spot_nodes_paid"] == pytest.approx(spot_h / 1460)
    assert row["usd_per_hour"] == pytest.approx(0.526 + spot_h / 1460 * 0.0627)


def test_the_worst_hour_is_a_clock_hour_and_takes_a_spell_by_its_part(warehouse: Warehouse) -> None:
    spells = pool((0, 10.5, 3, 0), (0, 0.25, 0, 3), (0, 719.25, 3, 0), (1, 730, 3, 0))
    publish_run(warehouse, mixed(spells, RATES))
    # From 10:30 to 10:45 one replica is left, which serves nothing in time.
    assert result(warehouse)["worst_hour_share"] == pytest.approx(0.75)


def test_where_no_replica_is_up_nothing_is_served(warehouse: Warehouse) -> None:
    alone = {"on_demand_nodes": 0, "on_demand_up": 0, "on_demand_usd": None}
    publish_run(warehouse, mixed(pool((0, 365, 3, 0), (0, 365, 0, 0), (1, 730, 3, 0), **alone), {0.8: 0}))
    row = result(warehouse)
    assert row["served_share"] == pytest.approx(0.75)
    assert row["spot_availability"] == pytest.approx(0.75)
    assert row["usd_per_hour"] == pytest.approx(0.75 * 3 * 0.0627)
    where = {"session_id": "session-1"}
    assert "never got a first token" in gap(warehouse, "mix_ttft_p99", **where)


def test_a_rate_without_a_stage_and_a_price_that_is_not_known_are_gaps(warehouse: Warehouse) -> None:
    publish_run(warehouse, mixed(pool((0, 700, 3, 0), (0, 30, 2, 0), (1, 730, 3, 0), spot_usd=None), {0.6: 0}))
    row = result(warehouse)
    assert row["served_share"] is row["served_share_low"] is row["served_share_high"] is None
    assert row["worst_hour_share"] is None
    assert row["usd_per_hour"] is None
    assert row["usd_per_1k_output_tokens"] is None
    where = {"session_id": "session-1"}
    assert "has no stage" in gap(warehouse, "mix_served_share", **where)
    assert gap(warehouse, "mix_usd_per_hour", **where) == "a price is not known"


def test_the_p99_of_the_mixture_weighs_each_state_by_its_time(warehouse: Warehouse) -> None:
    where = {"session_id": "session-1"}
    publish_run(warehouse, mixed(pool((0, 729, 3, 0), (0, 1, 1, 0), (1, 730, 3, 0)), RATES))
    # One hour of 1460 in which half of the requests wait nine seconds is less than a hundredth.
    assert measure(warehouse, "mix_ttft_p99", **where) == pytest.approx(0.4)


def test_the_hybrid_is_compared_with_the_other_mixes_of_its_run(warehouse: Warehouse) -> None:
    def walked(variant: str, spells: Sequence[Row]) -> None:
        own = {"variant": variant, "session_id": variant}
        tables = mixed(spells, RATES, **own)
        for table, rows in tables.items():
            where = {"target": "local", "lab": "L06", "run_id": RUN_ID}
            warehouse.publish(table, rows, **where, part=variant)

    all_up = {"on_demand_nodes": 4, "on_demand_up": 4, "spot_nodes": 0, "spot_usd": None}
    walked("on-demand", [row | all_up for row in pool((0, 730, 0, 0), (1, 730, 0, 0))])
    assert "not walked" in gap(warehouse, "mix_cost_hybrid_over_on_demand", run_id=RUN_ID)
    walked("hybrid-80", pool((0, 730, 2, 1), (1, 730, 3, 0)))
    hybrid = 0.526 + 3 * 0.0627
    ratio = measure(warehouse, "mix_cost_hybrid_over_on_demand", run_id=RUN_ID)
    assert ratio == pytest.approx(hybrid / (4 * 0.526))
    # Three of four serve nine tenths: half the time a tenth is lost, five points in all.
    per_point = measure(warehouse, "mix_usd_per_point_of_on_demand", run_id=RUN_ID)
    assert per_point == pytest.approx(730 * (4 * 0.526 - hybrid) / 5)
    assert "serves no more" in gap(warehouse, "mix_usd_per_point_of_hybrid", run_id=RUN_ID)


def test_a_drawn_month_is_never_called_measured(warehouse: Warehouse) -> None:
    from resources.warehouse import WarehouseError

    spell = spell_row(engine="vllm", time_scale=1.0, provenance="measured")
    with pytest.raises(WarehouseError, match="provenance = 'modelled'"):
        warehouse.publish("capacity_spells", [spell], **{k: shared()[k] for k in ("target", "lab", "run_id")})
