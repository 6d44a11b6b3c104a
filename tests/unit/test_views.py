"""The views and example questions over real rows in a real lake: right numbers, gaps as gaps, targets kept apart."""

from __future__ import annotations

import random
import re
import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab_pipelines.deployment import REPO_ROOT
from resources.warehouse import Warehouse, open_snapshot
from tests.support.rows.common import Row
from tests.support.rows.load import failed_request_row, request_row, stage_row
from tests.support.rows.measures import gap_row
from tests.support.rows.money import billed
from tests.support.rows.results import finding_row
from tests.support.rows.runs import get_run, lab_run, variants_run
from tests.support.rows.sessions import COLD_START_S, session_row
from tests.support.warehouses import publish_run, warehouse_in

VIEWS = sorted((REPO_ROOT / "warehouse" / "views").glob("*.sql"))
QUERIES = sorted((REPO_ROOT / "warehouse" / "queries").glob("*.sql"))
ANY_LAB = [path for path in QUERIES if path.stem not in ("right_sizing", "idle_alert", "spot_mixes")]
"""Those that ask of any lab: the others ask of all labs together, or of months that were drawn."""
WHERE = ("target", "pace", "provenance", "time_scale")


LATER = stage_row()["recorded_at"] + timedelta(days=1)


def rehearsal(**columns: Any) -> Row:
    """The columns of a rehearsal's rows."""
    return {
        **{"target": "rehearsal", "run_id": "rehearsal", "session_id": "rehearsed", "time_scale": 1.0},
        **columns,
    }


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_in(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = warehouse_in(tmp_path_factory.mktemp("one_run"))
    publish_run(warehouse, lab_run(users=(1, 4, 8)))
    return warehouse


@pytest.fixture(scope="module")
def rehearsed_run(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A run at pace `short`, and its rehearsal, which forecast it a tenth too slow."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("rehearsed_run"))
    publish_run(warehouse, lab_run(users=(1, 4, 8), requests_per_stage=80))
    publish_run(warehouse, lab_run(users=(1, 4, 8), requests_per_stage=80, slower=1.1, **rehearsal()))
    return warehouse


def stages(warehouse: Warehouse) -> list[Row]:
    return warehouse.query("SELECT * FROM stage_table ORDER BY session_id, stage")


def publish(warehouse: Warehouse, table: str, rows: list[Row]) -> None:
    publish_run(warehouse, {table: rows})


def test_quantiles_are_those_of_the_valid_requests_of_the_stage(warehouse: Warehouse) -> None:
    dice = random.Random(7)
    requests = []
    for number in range(101):
        offsets = np.cumsum([dice.uniform(0.2, 4.0), *(dice.uniform(0.02, 0.2) for _ in range(9))]).tolist()
        requests.append(
            request_row(request_id=f"r{number}", ttft_s=offsets[0], event_offsets_s=offsets, tpot_s=offsets[1])
        )
    # Neither a failure, nor a request that a stage's end cut in two, may move a quantile.
    cut = request_row(request_id="cut", ttft_s=900.0, in_stage=False, valid=False, invalid_reasons=["cut"])
    publish(warehouse, "requests", [*requests, failed_request_row(request_id="failed"), cut])
    publish(warehouse, "load_stages", [stage_row()])

    (stage,) = stages(warehouse)
    ttft = [row["ttft_s"] for row in requests]
    gaps = np.concatenate([np.diff(row["event_offsets_s"]) for row in requests])
    assert stage["ttft_n"] == 101
    for column, expected in {
        "ttft_p50_s": np.quantile(ttft, 0.5),
        "ttft_p95_s": np.quantile(ttft, 0.95),
        "ttft_p99_s": np.quantile(ttft, 0.99),
        "itl_p50_s": np.quantile(gaps, 0.5),
        "itl_p95_s": np.quantile(gaps, 0.95),
        "tpot_p50_s": np.quantile([row["tpot_s"] for row in requests], 0.5),
    }.items():
        assert stage[column] == pytest.approx(expected, rel=1e-4), column  # offsets are stored as 32-bit floats


@pytest.mark.parametrize(
    ("requests", "p95", "p99"), [(71, False, False), (72, True, False), (367, True, False), (368, True, True)]
)
def test_a_quantile_is_marked_as_supported_from_the_sample_size_that_bounds_it(
    warehouse: Warehouse, requests: int, p95: bool, p99: bool
) -> None:
    publish(warehouse, "load_stages", [stage_row()])
    publish(warehouse, "requests", [request_row(request_id=f"r{n}") for n in range(requests)])
    (stage,) = stages(warehouse)
    assert (stage["ttft_p95_supported"], stage["ttft_p99_supported"]) == (p95, p99)


def test_a_stage_knows_its_throughput_its_errors_its_measures_and_its_cost(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1, 32))
    last = tables["load_stages"][1]
    last["requests_ok"] = last["requests_in_stage"] - 8
    publish_run(warehouse, tables)
    _, stage = stages(warehouse)
    sheet = {row["stage"]: row for row in tables["finops_sheet"]}
    assert stage["output_tokens_per_s"] == pytest.approx(last["output_tokens"] / last["duration_s"])
    assert stage["error_rate"] == pytest.approx(8 / last["requests_in_stage"])
    assert stage["queue_depth"] == 8.0
    assert stage["kv_cache_usage"] == 1.0
    assert stage["usd_per_1k_tokens"] == pytest.approx(sheet[1]["usd_per_1k_tokens"])
    assert stage["usd_per_1k_output_tokens"] == pytest.approx(sheet[1]["usd_per_1k_output_tokens"])
    assert stage["preemptions"] is None, "this run did not ask for preemptions"


def test_what_is_not_known_is_null_and_never_zero(warehouse: Warehouse) -> None:
    publish(warehouse, "load_stages", [stage_row(requests_in_stage=0, requests_ok=0, output_tokens=0)])
    publish(warehouse, "metric_summaries", [gap_row(measure="queue_depth"), gap_row(measure="kv_cache_usage")])
    publish(warehouse, "requests", [failed_request_row()])
    (stage,) = stages(warehouse)
    unknown = [
        "error_rate", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "itl_p50_s", "itl_p95_s", "tpot_p50_s",
        "queue_depth", "kv_cache_usage", "gpu_utilisation", "usd_per_1k_tokens", "usd_per_1k_output_tokens",
    ]  # fmt: skip
    assert {column: stage[column] for column in unknown} == dict.fromkeys(unknown)
    assert stage["ttft_n"] == 0
    assert stage["ttft_p95_supported"] is False
    assert stage["ttft_p99_supported"] is False


def test_two_runs_of_one_lab_don_t_mix(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4), requests_per_stage=24))
    publish_run(warehouse, lab_run(users=(1, 4), requests_per_stage=48, run_id="second", session_id="session-2"))
    assert [row["ttft_n"] for row in stages(warehouse)] == [24, 24, 48, 48]


def test_the_latest_run_is_the_newest_one_of_each_kind(warehouse: Warehouse) -> None:
    at = stage_row()["recorded_at"]
    for number, columns in enumerate(
        [
            {"run_id": "measured", "engine": "external", "provenance": "measured", "time_scale": 1.0, "pace": "full"},
            {"run_id": "old"},
            {"run_id": "new"},
            {"run_id": "smoke", "pace": "smoke"},
            {"run_id": "modelled-full", "pace": "full", "time_scale": 1.0},
        ]
    ):
        recorded = {"recorded_at": at + timedelta(hours=number), "session_id": columns["run_id"]}
        publish(warehouse, "load_stages", [stage_row(**recorded, **columns)])
    latest = warehouse.query("SELECT run_id, session_id FROM latest_run ORDER BY run_id")
    assert [row["run_id"] for row in latest] == ["measured", "modelled-full", "new", "smoke"]
    assert all(row["run_id"] == row["session_id"] for row in latest)


def test_a_rehearsal_s_date_does_not_make_it_older_or_newer(warehouse: Warehouse) -> None:
    """A rehearsal's clock shows the lab's date, so the second one of a lab may "start" before the first."""
    first, second = (stage_row(**rehearsal(run_id=name, session_id=name)) for name in ("first", "second"))
    second |= {"recorded_at": first["recorded_at"] + timedelta(minutes=1)}
    second |= {name: second[name] - timedelta(days=30) for name in ("started_at", "ended_at")}
    publish(warehouse, "load_stages", [first])
    publish(warehouse, "load_stages", [second])
    assert [row["session_id"] for row in warehouse.query("FROM latest_run")] == ["second"]


def test_a_run_has_a_line_for_each_variant_in_the_order_in_which_they_were_walked(warehouse: Warehouse) -> None:
    publish_run(warehouse, variants_run({"wide": 1.0, "narrow": 2.0}, refused={"huge": "No memory"}))
    overview = warehouse.query("FROM run_overview ORDER BY position")
    assert [(row["position"], row["variant"], row["refusal"]) for row in overview] == [
        (1, "wide", None),
        (2, "narrow", None),
        (3, "huge", "No memory"),
    ]
    assert all(row["latest"] for row in overview)
    wide, narrow, huge = overview
    assert wide["output_tokens_per_s_max"] == pytest.approx(2 * narrow["output_tokens_per_s_max"], rel=0.01)
    assert (huge["stages"], huge["output_tokens_per_s_max"], huge["cold_start_s"]) == (None, None, 73.0)


def test_a_variant_that_comes_up_again_takes_the_place_of_its_refusal_and_of_nothing_else(warehouse: Warehouse) -> None:
    publish_run(warehouse, variants_run({"wide": 1.0}, refused={"huge": "No memory"}))
    again = variants_run({"huge": 1.0}, run_id="again", session_id="again", recorded_at=LATER)
    publish_run(warehouse, again)
    latest = warehouse.query("SELECT variant, session_id FROM latest_run ORDER BY variant")
    assert [(row["variant"], row["session_id"]) for row in latest] == [("huge", "again.huge"), ("wide", "walk.wide")]


def turns_run(turns: int, **columns: Any) -> dict[str, list[Row]]:
    """One run that walks a variant several times, each turn slower than the one before."""
    tables: dict[str, list[Row]] = {}
    columns = {"run_id": "turns-run"} | columns
    for trial in range(1, turns + 1):
        own = columns | {"trial": trial, "session_id": f"{columns['run_id']}.T{trial}"}
        for table, found in lab_run(users=(1, 4), slower=float(trial), **own).items():
            tables.setdefault(table, []).extend(found)
    return tables


def test_of_several_turns_the_last_one_speaks_and_the_run_is_as_new_as_its_newest_row(warehouse: Warehouse) -> None:
    tables = turns_run(3)
    tables["findings"] = [row | {"recorded_at": LATER} for row in tables["findings"][:1]]  # told with the first turn
    publish_run(warehouse, tables)
    between = LATER - timedelta(minutes=1)
    publish_run(warehouse, lab_run(users=(1, 4), run_id="between", session_id="between", recorded_at=between))
    [latest] = warehouse.query("FROM latest_run")
    assert (latest["run_id"], latest["trial"], latest["turns"]) == ("turns-run", 3, 3)
    overview = warehouse.query("FROM run_overview WHERE run_id = 'turns-run' ORDER BY trial")
    assert [(row["trial"], row["turns"], row["latest"]) for row in overview] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]


def test_a_turn_is_compared_with_the_same_turn_of_the_rehearsal_or_the_nearest(warehouse: Warehouse) -> None:
    publish_run(warehouse, turns_run(2, **rehearsal(run_id="rehearsed")))
    publish_run(warehouse, turns_run(3, run_id="real"))
    pairs = warehouse.query("SELECT DISTINCT session_id, forecast_session_id FROM forecast_vs_measured ORDER BY ALL")
    assert [tuple(row.values()) for row in pairs] == [
        ("real.T1", "rehearsed.T1"),
        ("real.T2", "rehearsed.T2"),
        ("real.T3", "rehearsed.T2"),
    ]


def test_a_lab_without_load_speaks_by_the_claims_it_tested(warehouse: Warehouse) -> None:
    where = {"lab": "L07", "engine": "none"}
    publish_run(warehouse, {"stack_sessions": [session_row(**where)], "findings": [finding_row(**where)]})
    (overview,) = warehouse.query("FROM run_overview")
    assert (overview["latest"], overview["confirmed"], overview["stages"]) == (True, 1, None)
    assert overview["started_at"] == session_row()["requested_at"]


def test_a_cold_start_is_one_chain_of_phases_however_often_the_session_was_written(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run())
    phases = warehouse.query("SELECT * FROM cold_start_timeline ORDER BY position")
    assert {row["phase"]: row["duration_s"] for row in phases} == COLD_START_S
    ends = [0.0, *(row["starts_at_s"] + row["duration_s"] for row in phases)]
    assert [row["starts_at_s"] for row in phases] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(phases[0]["cold_start_s"])
    assert sum(row["share"] for row in phases) == pytest.approx(1.0)


def test_a_phase_that_did_not_happen_has_no_row(warehouse: Warehouse) -> None:
    tables = lab_run()
    for row in tables["stack_sessions"]:
        row |= {"driver_ready_s": None, "cold_start_s": row["cold_start_s"] - row["driver_ready_s"]}
    publish_run(warehouse, tables)
    phases = warehouse.query("SELECT * FROM cold_start_timeline ORDER BY position")
    assert [row["phase"] for row in phases] == [name for name in COLD_START_S if name != "driver_ready"]
    assert phases[1]["starts_at_s"] == pytest.approx(COLD_START_S["node_ready"])


def test_a_session_s_parts_sum_to_its_cost_to_the_last_digit(warehouse: Warehouse) -> None:
    tables = lab_run()
    publish_run(warehouse, tables)
    parts = warehouse.query("SELECT * FROM session_cost")
    assert {row["part"] for row in parts} == {row["x_part"] for row in tables["cost_records"]}
    assert sum(row["usd"] for row in parts) == sum(row["ListCost"] for row in tables["cost_records"])
    assert sum(row["share_of_node_time"] for row in parts) == pytest.approx(1.0)


def test_a_part_with_one_unpriced_record_has_no_price(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(priced=False))
    parts = warehouse.query("SELECT part, usd, node_hours FROM session_cost")
    assert parts
    assert all(row["usd"] is None and row["node_hours"] > Decimal(0) for row in parts)


def test_a_bill_stands_beside_the_estimate_and_is_not_added_to_it(warehouse: Warehouse) -> None:
    tables = lab_run()
    estimated = tables["cost_records"]
    bill = [billed(row, row["ListCost"] * 2) for row in estimated]
    publish_run(warehouse, tables | {"cost_records": [*estimated, *bill]})
    states = {
        row["state"]: row["usd"]
        for row in warehouse.query("SELECT state, sum(usd) AS usd FROM session_cost GROUP BY state")
    }
    assert states["billed"] == 2 * states["estimated"]
    assert states["estimated"] == sum(row["ListCost"] for row in estimated)


def test_every_kind_of_gap_is_listed_with_its_reason(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,), priced=False)
    for row in tables["requests"]:
        row |= {"valid": False, "invalid_reasons": ["outcome: timeout"], "outcome": "timeout"}
    publish_run(warehouse, tables)
    gaps = {row["measure"]: row for row in warehouse.query("SELECT * FROM metric_gaps")}
    assert gaps.keys() == {"gpu_power", "ttft", "usd"}
    assert gaps["gpu_power"]["reason"] == "no such series"
    assert f"outcome: timeout ({len(tables['requests'])})" in gaps["ttft"]["reason"]
    assert gaps["usd"]["stage"] is None
    assert "no price" in gaps["usd"]["reason"]


def test_a_run_s_overview_sums_its_stages_and_tells_whether_it_is_the_latest(warehouse: Warehouse) -> None:
    old, new = lab_run(users=(1, 4)), lab_run(users=(1, 4), run_id="new", session_id="session-2")
    for row in [*new["load_stages"], *new["findings"]]:
        row["recorded_at"] += timedelta(hours=1)
    publish_run(warehouse, old)
    publish_run(warehouse, new)
    first, second = warehouse.query("SELECT * FROM run_overview ORDER BY recorded_at")
    assert (first["latest"], second["latest"]) == (False, True)
    assert first["requests"] == sum(row["requests_in_stage"] for row in old["load_stages"])
    assert first["output_tokens"] == sum(row["output_tokens"] for row in old["load_stages"])
    assert first["usd"] == next(row["usd"] for row in old["finops_sheet"] if row["stage"] is None)
    assert (first["confirmed"], first["refuted"], first["measures_with_gaps"]) == (1, 0, 1)


def test_plain_gets_at_a_rate_have_latencies_and_no_tokens(warehouse: Warehouse) -> None:
    publish_run(warehouse, get_run(offered=(2.5, 8.0)))
    slow, fast = stages(warehouse)
    assert [(s["load"], s["profile"], s["request_kind"], s["users"]) for s in (slow, fast)] == [
        ("2.5/s", "rate", "http", None),
        ("8/s", "rate", "http", None),
    ]
    assert (slow["requests_per_s"], slow["error_rate"]) == (pytest.approx(2.5), pytest.approx(0.05))
    assert (slow["e2e_p50_s"], slow["e2e_p99_s"]) == (pytest.approx(0.0125), pytest.approx(0.0125))
    assert (slow["e2e_p95_supported"], slow["e2e_p99_supported"]) == (False, False)
    of_tokens = ["output_tokens_per_s", "ttft_p50_s", "itl_p50_s", "usd_per_1k_tokens", "usd_per_1k_output_tokens"]
    assert {column: slow[column] for column in of_tokens} == dict.fromkeys(of_tokens)


def test_tokens_that_nobody_asked_for_are_no_gap(warehouse: Warehouse) -> None:
    publish_run(warehouse, get_run())
    (gap,) = warehouse.query("SELECT * FROM metric_gaps")
    assert (gap["measure"], gap["load"], gap["users"]) == ("request_rate", "8/s", None)
    (overview,) = warehouse.query("FROM run_overview")
    assert (overview["users_max"], overview["offered_per_s_max"], overview["output_tokens_per_s_max"]) == (
        None,
        8,
        None,
    )


def test_a_stage_without_any_answer_in_time_is_a_gap(warehouse: Warehouse) -> None:
    tables = get_run(offered=(2.0,))
    for row in tables["requests"]:
        row |= {"e2e_s": None, "valid": False, "invalid_reasons": ["outcome: timeout"], "outcome": "timeout"}
    publish_run(warehouse, tables)
    (gap,) = warehouse.query("SELECT * FROM metric_gaps")
    assert (gap["measure"], gap["load"]) == ("latency", "2/s")
    assert "outcome: timeout (40)" in gap["reason"]


@pytest.mark.parametrize(
    ("columns", "load"),
    [
        ({"users": 1}, "1 user"),
        ({"users": 8, "profile": "constant"}, "8 users"),
        ({"users": 64, "profile": "burst"}, "burst of 64"),
        ({"users": None, "profile": "rate", "offered_per_s": 0.75}, "0.75/s"),
        ({"users": None, "profile": "rate_profile", "offered_per_s": 2.0 / 3}, "mean 0.667/s"),
        ({"users": None, "profile": "trace", "offered_per_s": 1.9876, "clipped_requests": 3}, "trace, 1.99/s"),
        ({"users": 4, "profile": None, "request_kind": None}, "4 users"),
    ],
)
def test_a_stage_says_in_words_what_was_applied(warehouse: Warehouse, columns: Row, load: str) -> None:
    publish(warehouse, "load_stages", [stage_row(**columns)])
    assert [row["load"] for row in stages(warehouse)] == [load]


def test_a_file_from_before_there_were_profiles_is_a_ramp_of_completions(warehouse: Warehouse, tmp_path: Path) -> None:
    """The schema of the first release, which knew neither profiles nor rates, nor plain GETs."""
    later = {
        "load_stages": ["profile", "request_kind", "offered_per_s", "clipped_requests", "model_range"],
        "requests": ["shape", "path"],
    }
    former = tmp_path / "schema"
    shutil.copytree(warehouse.schema_dir, former)
    for table, columns in later.items():
        ddl = (former / f"{table}.sql").read_text(encoding="utf-8")
        kept = [line for line in ddl.splitlines() if not re.match(rf" +(CHECK \(\(users|{'|'.join(columns)})\b", line)]
        text = "\n".join(kept).replace("client_cpu_share DOUBLE,", "client_cpu_share DOUBLE")
        (former / f"{table}.sql").write_text(text, encoding="utf-8")
    tables = lab_run(users=(1, 4))
    for table, columns in later.items():
        tables[table] = [{name: row[name] for name in row if name not in columns} for row in tables[table]]
    publish_run(warehouse_in(tmp_path, schema_dir=str(former)), tables)

    assert [(s["load"], s["profile"], s["request_kind"]) for s in stages(warehouse)] == [
        ("1 user", "ramp", "completion"),
        ("4 users", "ramp", "completion"),
    ]
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert snapshot.execute("SELECT load FROM stage_table ORDER BY stage").fetchall() == [("1 user",), ("4 users",)]


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_every_example_question_stands_a_lab_without_users_or_tokens(tmp_path: Path, path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, get_run())
    answer = warehouse.query(path.read_text(encoding="utf-8"))
    elsewhere = {"cheapest_stage", "throughput_by_users", "users_within_ttft_2s", "findings", "cold_start"}
    elsewhere |= {"right_sizing", "forecast_error"}  # of one lab alone, and of a run that was rehearsed
    elsewhere |= {"spot_mixes"}  # of a lab that draws reclaims
    assert bool(answer) == (path.stem not in elsewhere)


@pytest.mark.parametrize(
    "path", [path for path in VIEWS if "CREATE VIEW" in path.read_text(encoding="utf-8")], ids=lambda path: path.stem
)
def test_every_view_tells_target_pace_provenance_and_clock(empty: Warehouse, path: Path) -> None:
    name = path.stem.split("_", 1)[1]
    # FOCUS calls a column of one's own x_….
    columns = {row["column_name"].removeprefix("x_") for row in empty.query(f"DESCRIBE {name}")}
    of_a_session = {*WHERE, "lab", "variant", "engine", "run_id", "session_id"}
    assert columns >= ({"target", "provenance", "usage_date"} if name.startswith("bill_") else of_a_session)


@pytest.mark.parametrize("path", [*VIEWS, *QUERIES], ids=lambda path: path.stem)
def test_every_file_opens_with_the_question_that_it_answers(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("-- ")
    assert "?" in first


@pytest.mark.parametrize("path", ANY_LAB, ids=lambda path: path.stem)
def test_every_example_question_has_an_answer_that_tells_its_target(
    one_run: Warehouse, rehearsed_run: Warehouse, path: Path
) -> None:
    warehouse = rehearsed_run if path.stem == "forecast_error" else one_run
    answer = warehouse.query(path.read_text(encoding="utf-8"))
    assert answer
    assert all(row["lab"] == "L06" and row["target"] == "local" and row["pace"] == "short" for row in answer)


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_every_example_question_can_be_asked_of_an_empty_warehouse(empty: Warehouse, path: Path) -> None:
    assert empty.query(path.read_text(encoding="utf-8")) == []


def test_the_snapshot_for_people_answers_as_the_lake_does(one_run: Warehouse) -> None:
    columns = ", ".join(c for c in stages(one_run)[0] if c != "started_at")
    question = f"SELECT {columns} FROM stage_table ORDER BY stage"
    with open_snapshot(one_run.rebuild()) as snapshot:
        assert snapshot.execute(question).fetchall() == [tuple(row.values()) for row in one_run.query(question)]


def test_throughput_is_compared_within_a_run_only(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    publish_run(warehouse, lab_run(users=(1, 4), run_id="b", session_id="session-2", pace="smoke"))
    answer = warehouse.query((REPO_ROOT / "warehouse/queries/throughput_by_users.sql").read_text(encoding="utf-8"))
    ratios = {(row["pace"], row["users"]): row["times_the_stage_before"] for row in answer}
    assert ratios[("short", 1)] is None
    assert ratios[("smoke", 1)] is None
    assert ratios[("short", 4)] == ratios[("smoke", 4)] > 3


# Forecast against measured


def forecast(warehouse: Warehouse, where: str = "true") -> list[Row]:
    return warehouse.query(f"FROM forecast_vs_measured WHERE {where} ORDER BY quantity, step, stage")


def test_a_forecast_stands_beside_what_came_of_it_and_the_error_is_relative_to_that(rehearsed_run: Warehouse) -> None:
    rows = forecast(rehearsed_run, "quantity = 'ttft_p50_s'")
    assert [row["users"] for row in rows] == [1, 4, 8]
    for row in rows:
        assert row["measured"] == pytest.approx(0.3 + 0.02 * row["users"])
        assert row["forecast"] == pytest.approx(1.1 * row["measured"])
        assert row["error"] == pytest.approx(0.1)
        assert (row["target"], row["run_id"], row["forecast_run_id"]) == ("local", lab_run_id(), "rehearsal")
        assert (row["provenance"], row["forecast_provenance"]) == ("modelled", "modelled")
        assert row["comparison"] == "model against model"
    quantities = {row["quantity"] for row in forecast(rehearsed_run, "step IS NOT NULL")}
    assert quantities == {
        *("output_tokens_per_s", "ttft_p50_s", "ttft_p95_s", "tpot_p50_s", "e2e_p50_s", "usd_per_1k_tokens"),
        "duration_s",
    }
    assert {row["quantity"] for row in forecast(rehearsed_run, "step IS NULL")} == {"cold_start_s", "duration_s", "usd"}


def lab_run_id() -> str:
    return stage_row()["run_id"]


def test_rehearsals_are_never_compared_with_one_another_nor_runs_with_runs(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    publish_run(warehouse, lab_run(users=(1,), run_id="second", session_id="second"))
    assert forecast(warehouse) == []
    rehearsals = warehouse_in(Path(warehouse.data_dir).parent / "rehearsals")
    publish_run(rehearsals, lab_run(users=(1,), **rehearsal()))
    publish_run(rehearsals, lab_run(users=(1,), **rehearsal(run_id="again", session_id="again")))
    assert forecast(rehearsals) == []


def test_the_newest_rehearsal_counts_whether_before_or_after_but_one_of_the_same_pace_first(
    warehouse: Warehouse,
) -> None:
    publish_run(warehouse, lab_run(users=(1,), recorded_at=LATER))
    at = LATER - timedelta(days=1)
    for name, pace, recorded_at in [
        ("older", "short", at - timedelta(days=1)),
        ("newer", "short", at + timedelta(days=2)),
        ("newest-full", "full", at + timedelta(days=3)),
    ]:
        which = rehearsal(run_id=name, session_id=name, pace=pace, recorded_at=recorded_at)
        publish_run(warehouse, lab_run(users=(1,), **which))
    assert {row["forecast_run_id"] for row in forecast(warehouse)} == {"newer"}


def test_durations_and_sums_of_money_of_another_pace_are_not_compared(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    publish_run(warehouse, lab_run(users=(1,), **rehearsal(pace="full")))
    quantities = {row["quantity"] for row in forecast(warehouse)}
    assert "ttft_p50_s" in quantities and "cold_start_s" in quantities
    assert not quantities & {"duration_s", "usd"}


def test_stages_meet_by_their_load_where_a_pace_left_some_out(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(4, 8)))
    publish_run(warehouse, lab_run(users=(1, 4, 8, 16), **rehearsal()))
    rows = forecast(warehouse, "quantity = 'ttft_p50_s'")
    assert [(row["users"], row["error"]) for row in rows] == [(4, pytest.approx(0)), (8, pytest.approx(0))]


def test_a_load_that_a_step_applies_twice_is_compared_once_each(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 8, 1)))
    publish_run(warehouse, lab_run(users=(1, 8, 1), **rehearsal()))
    assert [row["stage"] for row in forecast(warehouse, "quantity = 'ttft_p50_s'")] == [0, 1, 2]


def test_variants_meet_their_own_forecast(warehouse: Warehouse) -> None:
    publish_run(warehouse, variants_run({"a": 1.0, "b": 2.0}, users=(4,)))
    publish_run(warehouse, variants_run({"a": 1.0, "b": 3.0}, users=(4,), **rehearsal()))
    errors = {row["variant"]: row["error"] for row in forecast(warehouse, "quantity = 'ttft_p50_s'")}
    assert errors == {"a": pytest.approx(0), "b": pytest.approx(0.5)}


def test_a_real_run_is_a_measurement_and_a_missing_number_no_error(warehouse: Warehouse) -> None:
    real: Row = {"engine": "external", "provenance": "measured", "time_scale": 1.0, "pace": "full"}
    publish_run(warehouse, lab_run(users=(1,), priced=False, **real))
    publish_run(warehouse, lab_run(users=(1,), **rehearsal(pace="full")))
    rows = {row["quantity"]: row for row in forecast(warehouse)}
    assert {row["comparison"] for row in rows.values()} == {"model against measurement"}
    assert rows["usd"]["measured"] is None and rows["usd"]["error"] is None
    assert rows["usd"]["forecast"] is not None


def test_the_tracked_error_leaves_out_quantiles_of_too_few_requests(
    rehearsed_run: Warehouse, warehouse: Warehouse
) -> None:
    question = (REPO_ROOT / "warehouse" / "queries" / "forecast_error.sql").read_text(encoding="utf-8")
    tracked = {row["quantity"]: row for row in rehearsed_run.query(question)}
    assert tracked["ttft_p95_s"]["compared"] == 3
    assert tracked["ttft_p50_s"]["median_abs_error"] == pytest.approx(0.1, abs=1e-4)
    publish_run(warehouse, lab_run(users=(1,)))
    publish_run(warehouse, lab_run(users=(1,), **rehearsal()))
    assert "ttft_p95_s" not in {row["quantity"] for row in warehouse.query(question)}
