"""The views and example questions over real rows in a real lake: right numbers, gaps as gaps, targets kept apart."""

from __future__ import annotations

import random
import re
import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from lab_pipelines.deployment import REPO_ROOT
from resources.warehouse import Warehouse, open_snapshot
from tests.support.rows import (
    COLD_START_S,
    Row,
    failed_request_row,
    gap_row,
    get_run,
    lab_run,
    publish_run,
    request_row,
    stage_row,
    warehouse_in,
)

VIEWS = sorted((REPO_ROOT / "warehouse" / "views").glob("*.sql"))
QUERIES = sorted((REPO_ROOT / "warehouse" / "queries").glob("*.sql"))
WHERE = ("target", "pace", "provenance", "time_scale")


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
    at = stage_row()["started_at"]
    for number, columns in enumerate(
        [
            {"run_id": "measured", "engine": "external", "provenance": "measured", "time_scale": 1.0, "pace": "full"},
            {"run_id": "old"},
            {"run_id": "new"},
            {"run_id": "smoke", "pace": "smoke"},
            {"run_id": "modelled-full", "pace": "full", "time_scale": 1.0},
        ]
    ):
        started = {"started_at": at + timedelta(hours=number), "session_id": columns["run_id"]}
        publish(warehouse, "load_stages", [stage_row(**started, **columns)])
    latest = warehouse.query("SELECT run_id, session_id FROM latest_run ORDER BY run_id")
    assert [row["run_id"] for row in latest] == ["measured", "modelled-full", "new", "smoke"]
    assert all(row["run_id"] == row["session_id"] for row in latest)


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
    billed = [row | {"x_state": "billed", "ListCost": row["ListCost"] * 2} for row in estimated]
    publish_run(warehouse, tables | {"cost_records": [*estimated, *billed]})
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
    for row in new["load_stages"]:
        row |= {"started_at": row["started_at"] + timedelta(hours=1), "ended_at": row["ended_at"] + timedelta(hours=1)}
    publish_run(warehouse, old)
    publish_run(warehouse, new)
    first, second = warehouse.query("SELECT * FROM run_overview ORDER BY started_at")
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
        ({"users": 4, "profile": None, "request_kind": None}, "4 users"),
    ],
)
def test_a_stage_says_in_words_what_was_applied(warehouse: Warehouse, columns: Row, load: str) -> None:
    publish(warehouse, "load_stages", [stage_row(**columns)])
    assert [row["load"] for row in stages(warehouse)] == [load]


def test_a_file_from_before_there_were_profiles_is_a_ramp_of_completions(warehouse: Warehouse, tmp_path: Path) -> None:
    """The schema of the first release, which knew neither profiles nor rates, nor plain GETs."""
    later = {"load_stages": ["profile", "request_kind", "offered_per_s"], "requests": ["shape", "path"]}
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
    about_tokens = {"cheapest_stage", "throughput_by_users", "users_within_ttft_2s", "findings", "cold_start"}
    assert bool(answer) == (path.stem not in about_tokens)


@pytest.mark.parametrize("path", VIEWS, ids=lambda path: path.stem)
def test_every_view_tells_target_pace_provenance_and_clock(empty: Warehouse, path: Path) -> None:
    name = path.stem.split("_", 1)[1]
    columns = {row["column_name"] for row in empty.query(f"DESCRIBE {name}")}
    assert columns >= {*WHERE, "lab", "variant", "engine", "run_id", "session_id"}


@pytest.mark.parametrize("path", [*VIEWS, *QUERIES], ids=lambda path: path.stem)
def test_every_file_opens_with_the_question_that_it_answers(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("-- ")
    assert "?" in first


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_every_example_question_has_an_answer_that_tells_its_target(one_run: Warehouse, path: Path) -> None:
    answer = one_run.query(path.read_text(encoding="utf-8"))
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
