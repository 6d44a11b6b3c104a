"""A stage whose client was over its error budget becomes a wrong number nowhere, and each place says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assets import checks
from assets.findings import judge
from lab_pipelines.baseline import BaselineError, pin
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.client_errors import told
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.session_sheets import session_sheet
from resources.warehouse import Warehouse
from tests.support.rows.common import RUN_ID
from tests.support.rows.load import over_budget
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import spell_row
from tests.support.warehouses import publish_run, warehouse_in
from tests.unit.test_baseline import run as run_to_pin
from tests.unit.test_checks import verdict

SPEC = load_catalog().spec("L06")
REASON = "event-loop lag p99 84 ms > 50 ms"
REPORT_SQL = REPO_ROOT / "lab_pipelines" / "report" / "sql" / "client_errors.sql"
HONESTY = REPO_ROOT / "warehouse" / "queries" / "client_honesty.sql"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


def published(warehouse: Warehouse, *, over: int | None, users: tuple[int, ...] = (1, 16, 32)) -> dict[str, Any]:
    """A ramp to 32 users; in the stage `over`, if any, the client was over budget."""
    tables = lab_run(users=users, requests_per_stage=80)
    if over is not None:
        assert over_budget(tables, over) == REASON
    publish_run(warehouse, tables)
    return tables


def with_finding(**fields: Any) -> LabSpec:
    finding = {"id": "claim", "claim": "a claim", **fields}
    content = SPEC.model_dump(mode="json") | {"findings": [finding]}
    return LabSpec.model_validate(content)


def judged(warehouse: Warehouse, tables: dict[str, Any], **fields: Any) -> dict[str, Any]:
    [row] = judge(with_finding(**fields), [tables["stack_sessions"][1]], warehouse)
    return row


def test_its_requests_are_neither_useful_nor_useless(warehouse: Warehouse) -> None:
    published(warehouse, over=1)
    session = warehouse.query("SELECT * FROM stack_sessions WHERE state = 'closed'")[0]
    sheet = session_sheet(warehouse, session, state="estimated", objective=SPEC.objective)
    unknown = {row["stage"]: row["useful_requests"] is None for row in sheet}
    assert unknown == {0: False, 1: True, 2: False, None: True}
    asked = {"session_id": session["session_id"], "step": "ramp"}
    for measure in ("goodput_2s_80ms", "useful_share"):
        sql = (REPO_ROOT / "warehouse" / "measures" / f"{measure}.sql").read_text(encoding="utf-8")
        values = [next(iter(warehouse.query(sql, asked | {"stage": n})[0].values())) for n in range(3)]
        assert values[0] > 0 and values[1] is None and values[2] is not None, measure


def test_a_mix_of_nodes_is_not_weighed_by_it(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,))
    rate = {"users": None, "offered_per_s": 2.4, "profile": "rate"}
    tables["load_stages"][0].update(rate)
    for row in tables["requests"]:
        row["users"] = None
    tables["requests"][0].update(outcome="timeout", valid=False, invalid_reasons=["outcome: timeout"])
    tables["capacity_spells"] = [spell_row(on_demand_nodes=1, spot_nodes=0, on_demand_up=1, spot_up=0, spot_starting=0)]
    publish_run(warehouse, tables)
    p99 = (REPO_ROOT / "warehouse" / "measures" / "mix_ttft_p99.sql").read_text(encoding="utf-8")
    asked = {"session_id": tables["stack_sessions"][0]["session_id"]}
    assert warehouse.query(p99, asked)[0]["s"] > 0
    [sound] = warehouse.query("SELECT served_share FROM capacity_results")
    assert sound["served_share"] > 0.9
    over = warehouse_in(Path(warehouse.data_dir) / "over")
    over_budget(tables, 0)
    publish_run(over, tables)
    assert over.query("SELECT served_share FROM capacity_results") == [{"served_share": None}]
    assert over.query(p99, asked)[0]["s"] is None, "the one that timed out got a first token, too"


def test_its_latencies_are_unknown_its_throughput_stands_and_both_say_why(warehouse: Warehouse) -> None:
    published(warehouse, over=2)
    *others, over = warehouse.query("SELECT * FROM stage_table ORDER BY stage")
    assert over["client_fault"] == REASON
    columns = [name for name in over if name.startswith(("ttft_p", "itl_", "tpot_", "e2e_")) and name.endswith("_s")]
    assert len(columns) > 6 and {over[name] for name in columns} == {None}
    assert over["output_tokens_per_s"] > 0 and not over["ttft_p95_supported"]
    assert [stage["client_fault"] for stage in others] == [None, None]
    assert all(stage["ttft_p50_s"] > 0 for stage in others)
    [gap] = warehouse.query("SELECT * FROM metric_gaps WHERE measure = 'ttft'")
    assert gap["stage"] == 2 and f"client over its error budget: {REASON} (96)" in gap["reason"]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "ratio", "quantity": "throughput", "numerator": {"load": 32}, "denominator": {"load": 16}},
        {"kind": "ratio", "quantity": "ttft_p50", "numerator": {"load": 16}, "denominator": {"load": 32}},
    ],
    ids=["throughput", "ttft"],
)
def test_a_finding_on_it_is_inconclusive_for_that_reason_and_would_have_been_decided(
    warehouse: Warehouse, tmp_path: Path, fields: dict[str, Any]
) -> None:
    claim = {**fields, "comparison": "below", "threshold": 10.0}
    sound = warehouse_in(tmp_path / "sound")
    assert judged(sound, published(sound, over=None), **claim)["verdict"] == "confirmed"
    row = judged(warehouse, published(warehouse, over=2), **claim)
    assert row["verdict"] == "inconclusive"
    assert row["reason"] == f"ramp 32 users: client over its error budget: {REASON}"


def test_a_finding_on_other_stages_is_decided_all_the_same(warehouse: Warehouse) -> None:
    claim = {"kind": "ratio", "quantity": "throughput", "numerator": {"load": 16}, "denominator": {"load": 1}}
    row = judged(warehouse, published(warehouse, over=2), **claim, comparison="above", threshold=1.1)
    assert row["verdict"] == "confirmed"


def test_a_claim_over_all_loads_rests_on_it_too(warehouse: Warehouse) -> None:
    tables = published(warehouse, over=1, users=(1, 4, 8, 16, 32))
    row = judged(warehouse, tables, kind="monotone", quantity="throughput", comparison="above", threshold=0.9)
    assert row["verdict"] == "inconclusive"
    assert row["reason"].endswith(f"1 → 4, 4 → 8; ramp 4 users: client over its error budget: {REASON}")


def test_a_claim_on_a_servers_own_measure_is_judged_on_that(warehouse: Warehouse) -> None:
    tables = published(warehouse, over=2)
    row = judged(warehouse, tables, kind="bound", measure="queue_depth", comparison="below", threshold=100.0)
    assert row["verdict"] == "confirmed"


def test_a_run_with_it_is_not_pinned_as_a_baseline(warehouse: Warehouse, tmp_path: Path) -> None:
    tables = run_to_pin()
    over_budget(tables, 2)
    publish_run(warehouse, tables)
    with pytest.raises(BaselineError, match=rf"stage 2 of ramp \(8 users\): the load generator was over .*{REASON}"):
        pin(warehouse, SPEC, target="local", directory=tmp_path / "baselines")


def test_the_check_warns_names_the_stage_and_stops_nothing(tmp_path: Path) -> None:
    tables = lab_run()
    over_budget(tables, 1)
    passed, said = verdict(tmp_path, checks.client_is_within_its_error_budget, tables, blocks=False)
    assert not passed and said == f"baseline, ramp at 4 users: {REASON}"


def test_the_check_of_a_sound_run_says_how_far_off_the_client_was(tmp_path: Path) -> None:
    passed, said = verdict(tmp_path, checks.client_is_within_its_error_budget, lab_run(), blocks=False)
    assert (passed, said) == (True, "event-loop lag p99 3 ms of 50 ms")


def test_the_check_of_a_rehearsal_says_that_there_was_no_client(tmp_path: Path) -> None:
    tables = lab_run()
    for row in tables["client_errors"]:
        row.update(value=None, within=None, n=0, reason="rehearsed: no client took part")
    passed, said = verdict(tmp_path, checks.client_is_within_its_error_budget, tables, blocks=False)
    assert (passed, said) == (True, "rehearsed: no client took part")


def test_the_report_has_the_worst_of_each_run_and_says_it_in_a_sentence(warehouse: Warehouse, tmp_path: Path) -> None:
    published(warehouse, over=1)
    answer = warehouse.query(REPORT_SQL.read_text(encoding="utf-8"))
    [row] = answer
    assert (row["value"], row["allowed"], row["over"], row["judged"], row["stages"]) == (0.084, 0.05, 1, 3, 3)
    assert row["reason"] == REASON
    said = (
        "The client's own error: event-loop lag p99 84 ms of 50 ms; over budget: event-loop lag p99 in 1 of 3 stages."
    )
    assert told(answer) == said
    sound = warehouse_in(tmp_path / "sound")
    published(sound, over=None)
    answer = sound.query(REPORT_SQL.read_text(encoding="utf-8"))
    assert told(answer) == "The client's own error: event-loop lag p99 3 ms of 50 ms; within budget."
    assert told([]) == "The client's own error: not known (nobody kept count)."
    rehearsed = [answer[0] | {"value": None, "judged": 0, "reason": "rehearsed: no client took part"}]
    assert told(rehearsed) == "The client's own error: not known (rehearsed: no client took part)."


def test_the_question_shows_the_clients_errors_and_the_counters_side_by_side(warehouse: Warehouse) -> None:
    published(warehouse, over=1)
    answer = warehouse.query(HONESTY.read_text(encoding="utf-8"))
    assert {row["quantity"] for row in answer} == {"event_loop_lag_p99", "prometheus_output_tokens"}
    [over] = [row for row in answer if row["within"] is False]
    assert (over["value"], over["allowed"], over["unit"], over["reason"]) == (84.0, 50.0, "wall ms", REASON)


def test_it_is_no_extreme_of_the_year_and_no_sign_of_a_regression(warehouse: Warehouse) -> None:
    published(warehouse, over=1)
    sql = REPO_ROOT / "lab_pipelines"
    stages = warehouse.query(
        (sql / "regression_stages.sql").read_text(encoding="utf-8"), {"lab": "L06", "target": "local"}
    )
    compared = ("output_tokens_per_s", "ttft_p50_s", "tpot_p50_s", "e2e_p50_s", "usd_per_1k_tokens")
    told = {stage["stage"]: {name for name in compared if stage[name] is not None} for stage in stages}
    assert told[1] == set() and "output_tokens_per_s" in told[0] & told[2]
    dearest = "SELECT max(usd_per_1k_tokens) FILTER (client_fault IS NULL) FROM stage_table"
    extremes = warehouse.query((sql / "report" / "sql" / "extremes.sql").read_text(encoding="utf-8"))
    assert "16 users" not in {row["load"] for row in extremes}
    assert [row["value"] for row in extremes if row["superlative"].startswith("dearest")] == [
        value for row in warehouse.query(dearest) for value in row.values() if value is not None
    ]


def test_its_distance_from_the_baseline_is_unknown_and_says_why(warehouse: Warehouse) -> None:
    published(warehouse, over=2)
    later = lab_run(users=(1, 16, 32), requests_per_stage=80)
    over_budget(later, 1)
    for table in later.values():
        for row in table:
            row.update(lab="L07", run_id="later", session_id="later")
    publish_run(warehouse, later)
    deltas = warehouse.query(
        "SELECT stage, comparison, value, comparable, reason FROM baseline_deltas "
        "WHERE lab = 'L07' AND quantity = 'output_tokens_per_s' ORDER BY comparison DESC, stage"
    )
    assert [(row["comparison"], row["stage"], row["comparable"]) for row in deltas] == [
        ("same load", 0, True), ("same load", 1, False), ("same load", 2, False), ("peak", 2, True)
    ]  # fmt: skip
    assert deltas[1]["value"] is None
    assert deltas[1]["reason"] == f"client over its error budget: {REASON}"
    assert deltas[2]["reason"] == "the baseline does not know it"


@pytest.mark.parametrize(("over", "users"), [(None, 16.0), (0, None), (1, None), (2, 16.0)])
def test_from_where_on_a_machine_is_cheaper_is_unknown_behind_it(
    warehouse: Warehouse, over: int | None, users: float | None
) -> None:
    for variant, tokens in (("t4", (100, 100, 100)), ("a100", (100, 800, 900))):
        tables = lab_run(users=(1, 16, 32), variant=variant, session_id=variant)
        for stage, output_tokens in zip(tables["load_stages"], tokens, strict=True):
            stage.update(output_tokens=output_tokens, duration_s=10.0)
        if over is not None and variant == "a100":
            over_budget(tables, over)
        for table, published in tables.items():
            warehouse.publish(table, published, target="local", lab="L06", run_id=RUN_ID, part=variant)
    [answer] = warehouse.query(
        (REPO_ROOT / "warehouse" / "measures" / "users_where_a100_is_cheaper.sql").read_text(encoding="utf-8"),
        {"run_id": RUN_ID},
    )
    assert list(answer.values()) == [users]


def test_a_run_from_before_is_shown_as_not_judged(warehouse: Warehouse) -> None:
    tables = lab_run()
    del tables["client_errors"]
    publish_run(warehouse, tables)
    answer = warehouse.query(HONESTY.read_text(encoding="utf-8"))
    assert {row["reason"] for row in answer if row["quantity"] is None} == {"recorded before client errors were kept"}
    assert {stage["client_fault"] for stage in warehouse.query("SELECT * FROM stage_table")} == {None}
