"""The sheet of a session, from the warehouse's rows: what was useful, the bill in its place, and no drift."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.report.sheet_table import sheet_markdown
from lab_pipelines.session_sheets import bring_up_to_date, gpus_of, publish_anew, session_sheet
from resources.snapshot import open_snapshot
from resources.warehouse import Warehouse
from tests.support.rows.load import failed_request_row
from tests.support.rows.money import billed
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

REPORT_COST = Path(__file__).parents[2] / "lab_pipelines" / "report" / "sql" / "cost.sql"
Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


def closed(tables: Tables) -> dict[str, Any]:
    return tables["stack_sessions"][-1]


def publish_bill(warehouse: Warehouse, tables: Tables, factor: str, *, hours: int, **columns: Any) -> None:
    """A bill of so many times the estimate, written `hours` after it."""
    rows = [
        billed(row, row["ListCost"] * Decimal(factor), recorded_at=row["recorded_at"] + timedelta(hours=hours))
        | columns
        for row in tables["cost_records"]
    ]
    where = {name: rows[0][name] for name in ("target", "lab", "run_id")}
    warehouse.publish("cost_records", rows, **where, part=f"billed-{hours}")


def test_what_is_read_from_the_warehouse_is_what_happened(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1, 4))
    publish_run(warehouse, {name: rows for name, rows in tables.items() if name != "finops_sheet"})
    rows = session_sheet(warehouse, closed(tables), state="estimated", objective=INTERACTIVE)
    for row, expected in zip(rows, tables["finops_sheet"], strict=True):
        exact = {name: value for name, value in expected.items() if not isinstance(value, float)} | {
            "recorded_at": None
        }
        assert {**{name: row[name] for name in exact}, "recorded_at": None} == exact
        close = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {name: row[name] for name in close} == pytest.approx(close, rel=1e-4)  # offsets are 32-bit floats
    assert "whole session" in sheet_markdown(rows)


@pytest.mark.parametrize(
    ("objective", "useful"),
    [
        (Slo(ttft_s=0.38), 24),  # those of the first stage take 0.32 s, those of the second 0.38
        (Slo(ttft_s=0.37), 0),
        (Slo(ttft_s=2.0, tpot_s=0.001), 0),
        (Slo(e2e_s=100.0), 24),
        (Slo(e2e_s=5.0), 0),
    ],
)
def test_useful_is_who_kept_every_bound(warehouse: Warehouse, objective: Slo, useful: int) -> None:
    tables = lab_run(users=(4,))
    publish_run(warehouse, {name: rows for name, rows in tables.items() if name != "finops_sheet"})
    _, whole = session_sheet(warehouse, closed(tables), state="estimated", objective=objective)
    assert (whole["useful_requests"], whole["requests"]) == (useful, 24)
    assert whole["useful_output_tokens"] == useful * 256


def test_neither_a_failure_nor_a_request_of_two_stages_is_useful(warehouse: Warehouse) -> None:
    tables = lab_run(users=(4,))
    requests = tables["requests"]
    requests[0] |= {"in_stage": False}
    failed = failed_request_row()
    requests[1] |= {name: failed[name] for name in ("outcome", "ttft_s", "e2e_s", "tpot_s", "output_tokens")}
    requests[2] |= {"ttft_s": None, "tpot_s": None}
    publish_run(warehouse, {name: rows for name, rows in tables.items() if name != "finops_sheet"})
    stage, _ = session_sheet(warehouse, closed(tables), state="estimated", objective=INTERACTIVE)
    assert stage["useful_requests"] == 21
    assert stage["useful_input_tokens"] <= stage["input_tokens"]
    assert stage["useful_output_tokens"] <= stage["output_tokens"]


def test_one_token_has_no_time_per_token_and_keeps_that_bound(warehouse: Warehouse) -> None:
    tables = lab_run(users=(4,))
    for row in tables["requests"]:
        row |= {"tpot_s": None, "output_tokens": 1}
    publish_run(warehouse, {name: rows for name, rows in tables.items() if name != "finops_sheet"})
    stage, _ = session_sheet(warehouse, closed(tables), state="estimated", objective=INTERACTIVE)
    assert stage["useful_requests"] == 24


def everywhere(warehouse: Warehouse) -> dict[str, Any]:
    """A session's dollars, wherever they are told."""
    [[lake]] = _rows(warehouse, "SELECT sum(usd) FROM session_cost GROUP BY state ORDER BY state LIMIT 1")
    [[sheet]] = _rows(warehouse, "SELECT usd FROM sheet_current WHERE stage IS NULL")
    [[overview]] = _rows(warehouse, "SELECT usd FROM run_overview")
    report = sum(row["usd"] for row in warehouse.query(REPORT_COST.read_text(encoding="utf-8")))
    with open_snapshot(warehouse.rebuild()) as snapshot:
        [(copy,)] = snapshot.execute("SELECT usd FROM sheet_current WHERE stage IS NULL").fetchall()
    return {"lake": lake, "sheet": sheet, "overview": overview, "report": report, "snapshot": copy}


def _rows(warehouse: Warehouse, sql: str) -> list[list[Any]]:
    return [list(row.values()) for row in warehouse.query(sql)]


def test_lake_sheet_and_report_tell_the_same_dollars_before_and_after_the_bill(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1, 4))
    publish_run(warehouse, tables)
    estimate = sum(row["ListCost"] for row in tables["cost_records"])
    assert set(everywhere(warehouse).values()) == {estimate}

    publish_bill(warehouse, tables, "2", hours=24, x_bill_state="provisional")
    rows = publish_anew(warehouse, [closed(tables)], state="billed", part="billed-1")
    bill = sum(row["ListCost"] * Decimal("2") for row in tables["cost_records"])
    assert set(everywhere(warehouse).values()) == {bill}
    assert {(row["state"], row["bill_state"]) for row in rows} == {("billed", "provisional")}
    assert {row["slo_ttft_s"] for row in rows} == {2.0}, "the objective of the estimate's sheet"

    publish_bill(warehouse, tables, "3", hours=48)
    publish_anew(warehouse, [closed(tables)], state="billed", part="billed-2")
    changed = sum(row["ListCost"] * Decimal("3") for row in tables["cost_records"])
    assert set(everywhere(warehouse).values()) == {changed}
    assert [row["bill_state"] for row in warehouse.query("FROM sheet_current WHERE stage IS NULL")] == ["settled"]
    assert len(warehouse.query("FROM finops_sheet")) == 3 * len(tables["finops_sheet"]), "nothing was edited"
    [priced] = warehouse.query("SELECT usd_per_1k_tokens FROM stage_table WHERE stage = 0")
    assert priced["usd_per_1k_tokens"] == pytest.approx(tables["finops_sheet"][0]["usd_per_1k_tokens"] * 3)


def test_another_split_of_the_same_node_time_takes_the_first_one_s_place(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1, 4))
    publish_run(warehouse, tables)
    again = [
        row | {"recorded_at": row["recorded_at"] + timedelta(hours=1), "ListCost": row["ListCost"] * 2}
        for row in tables["cost_records"]
    ]
    where = {name: again[0][name] for name in ("target", "lab", "run_id")}
    warehouse.publish("cost_records", again, **where, part="estimated-2")
    rows = publish_anew(warehouse, [closed(tables)], state="estimated", part="estimated-2")
    assert {row["state"] for row in rows} == {"estimated"}
    assert set(everywhere(warehouse).values()) == {sum(row["ListCost"] for row in again)}


def test_a_sheet_of_former_costs_that_was_written_after_the_new_ones_is_made_anew(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,))
    publish_run(warehouse, tables)
    where = {name: tables["cost_records"][0][name] for name in ("target", "lab", "run_id")}
    begin = tables["finops_sheet"][0]["recorded_at"]
    again = [
        row | {"recorded_at": begin + timedelta(seconds=1), "ListCost": row["ListCost"] * 2}
        for row in tables["cost_records"]
    ]
    late = [row | {"recorded_at": begin + timedelta(seconds=2)} for row in tables["finops_sheet"]]
    warehouse.publish("cost_records", again, **where, part="estimated-2")
    warehouse.publish("finops_sheet", late, **where, part="estimated-late")
    assert bring_up_to_date(warehouse, target=where["target"], now=begin + timedelta(hours=1)) == 1
    assert set(everywhere(warehouse).values()) == {sum(row["ListCost"] for row in again)}
    assert bring_up_to_date(warehouse, target=where["target"], now=begin + timedelta(hours=2)) == 0


def test_a_sheet_without_a_price_is_up_to_date_until_there_is_one(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,))
    unknown = dict.fromkeys(("ListCost", "ListUnitPrice", "x_priority", "x_price_low", "x_price_high"))
    priced, tables["cost_records"] = tables["cost_records"], [row | unknown for row in tables["cost_records"]]
    publish_run(warehouse, tables)
    target, begin = priced[0]["target"], priced[0]["recorded_at"]
    assert bring_up_to_date(warehouse, target=target, now=begin) == 1, "the sheet knows a price"
    assert bring_up_to_date(warehouse, target=target, now=begin + timedelta(hours=1)) == 0
    where = {name: priced[0][name] for name in ("target", "lab", "run_id")}
    later = [row | {"recorded_at": begin + timedelta(hours=1)} for row in priced]
    warehouse.publish("cost_records", later, **where, part="estimated-2")
    assert bring_up_to_date(warehouse, target=target, now=begin + timedelta(hours=2)) == 1
    assert bring_up_to_date(warehouse, target=target, now=begin + timedelta(hours=3)) == 0


def test_a_bill_in_another_currency_leaves_the_estimate_in_its_place(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,))
    publish_run(warehouse, tables)
    euros = {"BillingCurrency": "EUR", "x_billed_usd": None, "x_delta_usd": None}
    publish_bill(warehouse, tables, "2", hours=24, **euros)
    publish_anew(warehouse, [closed(tables)], state="billed", part="billed-1")
    [whole] = warehouse.query("FROM sheet_current WHERE stage IS NULL")
    assert (whole["state"], whole["usd"]) == ("estimated", sum(row["ListCost"] for row in tables["cost_records"]))
    report = warehouse.query(REPORT_COST.read_text(encoding="utf-8"))
    assert sum(row["usd"] for row in report) == whole["usd"]


def test_a_session_without_a_bill_or_an_estimate_s_sheet_is_left_out(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,))
    publish_run(warehouse, {name: rows for name, rows in tables.items() if name != "finops_sheet"})
    assert publish_anew(warehouse, [closed(tables)], state="billed", part="billed-1") == []
    publish_bill(warehouse, tables, "2", hours=24)
    assert publish_anew(warehouse, [closed(tables)], state="billed", part="billed-1") == []
    assert warehouse.query("FROM finops_sheet") == []


def test_a_sheet_from_before_the_states_counts_as_an_estimate(warehouse: Warehouse) -> None:
    tables = lab_run(users=(1,))
    for row in tables["finops_sheet"]:
        row |= {"state": None, "usd_low": None, "usd_high": None}
    publish_run(warehouse, tables)
    assert {row["state"] for row in warehouse.query("FROM sheet_current")} == {"estimated"}


def test_files_from_before_it_knew_more_than_totals_are_read_as_estimates(warehouse: Warehouse, tmp_path: Path) -> None:
    former = tmp_path / "schema"
    shutil.copytree(warehouse.schema_dir, former)
    ddl = (former / "finops_sheet.sql").read_text(encoding="utf-8")
    kept, later = ddl.split("    idle_share      DOUBLE,")
    (former / "finops_sheet.sql").write_text(f"{kept}    idle_share      DOUBLE\n);\n", encoding="utf-8")
    added = re.findall(r"^    ([a-z0-9_]+) +[A-Z]", later, flags=re.MULTILINE)
    tables = lab_run(users=(1, 4))
    tables["finops_sheet"] = [
        {name: value for name, value in row.items() if name not in added} for row in tables["finops_sheet"]
    ]
    publish_run(warehouse_in(tmp_path, schema_dir=str(former)), tables)
    publish_run(warehouse, lab_run(users=(1, 4), run_id="later", session_id="later"))
    old, new = warehouse.query("FROM sheet_current WHERE stage IS NULL ORDER BY session_id = 'later'")
    assert (old["state"], old["usd"], old["useful_requests"]) == ("estimated", new["usd"], None)
    [row] = warehouse.query("FROM reference_sheet WHERE quantity = 'usd' AND run_id <> 'later' AND step IS NULL")
    assert (row["value"], row["trials"], row["values_digest"]) == (pytest.approx(float(old["usd"])), 1, None)


def test_the_gpus_of_a_machine_are_those_that_are_paid_for() -> None:
    assert gpus_of("Standard_NC64as_T4_v3") == 4
    assert gpus_of("unheard-of") is None
    assert gpus_of(None) is None
