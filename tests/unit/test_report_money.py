"""What all labs of a target cost: on the page the sums are the lake's, no modelled dollar meets a measured one, and a
bill stands beside the estimate of the same sessions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.chapters import chapters
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.money import Money
from lab_pipelines.report.page import render_year
from lab_pipelines.report.read import Report, read_report
from resources.warehouse import Warehouse
from tests.support.rows.decisions import run_mark_row
from tests.support.rows.money import billed
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)
AKS = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0, "pace": "full"}
FACTOR = Decimal(2)


def run_of(lab: str, day: int, *, bill: bool, **columns: Any) -> dict[str, list[Any]]:
    """A run that began `day` days later, with its bill or without."""
    own = {"lab": lab, "run_id": f"{lab}-run", "session_id": f"{lab}-session", **columns}
    tables = lab_run(users=(1, 4), **own)
    for row in tables["cost_records"]:
        row |= {name: row[name] + timedelta(days=day) for name in ("ChargePeriodStart", "ChargePeriodEnd")}
    if bill:
        tables["cost_records"] += [billed(row, row["ListCost"] * FACTOR) for row in tables["cost_records"]]
    return tables


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two labs on AKS, one of them billed; one lab on local without a price, one modelled with one."""
    found = warehouse_in(tmp_path_factory.mktemp("money"))
    publish_run(found, run_of("L06", 0, bill=True, **AKS))
    publish_run(found, run_of("L11", 1, bill=False, **AKS))
    publish_run(found, run_of("L07", 0, bill=False))
    publish_run(found, lab_run(users=(1,), priced=False, lab="L08", run_id="L08-run", session_id="L08-session"))
    return found


@pytest.fixture(scope="module")
def report(warehouse: Warehouse) -> Report:
    return read_report(warehouse, load_catalog(), now=NOW)


def money(report: Report, target: str) -> Money:
    (found,) = next(chapter for chapter in chapters(report) if chapter.target == target).money
    return found


def test_the_sum_on_the_page_is_the_lake_s_bill_and_estimate(report: Report, warehouse: Warehouse) -> None:
    rows = report.money["by_lab"]
    on_page = sum(row["usd"] for row in rows if row["target"] == "aks")
    (lake,) = warehouse.query(
        "SELECT sum(BilledCost) AS usd FROM cost_records WHERE target = 'aks' AND x_state = 'billed'"
    )
    (rest,) = warehouse.query("SELECT sum(ListCost) AS usd FROM cost_records WHERE lab = 'L11'")
    assert on_page == lake["usd"] + rest["usd"]


def test_the_bill_is_compared_with_the_estimate_of_the_same_sessions(report: Report) -> None:
    last = report.money["by_day"][-1 if report.money["by_day"][-1]["target"] == "aks" else 1]
    assert last["billed_usd"] == last["estimated_of_billed_usd"] * FACTOR
    assert last["estimated_usd"] > last["estimated_of_billed_usd"]
    assert "+100 % of the estimate" in money(report, "aks").sentence


def test_a_session_without_a_price_is_said_and_costs_nothing_but_a_gap(report: Report) -> None:
    assert "1 session has no price and is not in it" in money(report, "local").sentence
    (unpriced,) = {row["usd"] for row in report.money["by_lab"] if row["lab"] == "L08"}
    assert unpriced is None


def test_estimate_and_bill_over_time_are_drawn_where_there_is_more_than_one_day(report: Report) -> None:
    titles = {target: [picture.title for picture in money(report, target).pictures] for target in ("aks", "local")}
    assert titles["aks"][-1] == "Estimate against bill, USD so far"
    assert titles["local"] == ["Where the money went, USD", "Cheapest 1K tokens, USD"]
    drawn = money(report, "aks").pictures[-1].svg or ""
    assert {"bill", "estimate, billed sessions", "estimate, all sessions"} <= set(re.findall(r">([^<]+)</text>", drawn))


def test_every_picture_is_of_one_target_and_one_provenance(report: Report) -> None:
    html = render_year(report)
    aks, local = html.split('<h2 class="chapter" id="local"')
    assert re.findall(r'aria-label="[^"]*[.] all labs, (.*?)"', aks) == 4 * ["measured · target aks"]
    assert re.findall(r'aria-label="[^"]*[.] all labs, (.*?)"', local) == 3 * ["modelled · target local"]
    assert "Money, measured:" in render_markdown(report)


def test_a_run_that_was_cut_costs_what_it_cost_wherever_money_is_told(tmp_path: Path) -> None:
    """It has costs and no sheet, and is left out of everything else."""
    found = warehouse_in(tmp_path)
    tables = run_of("L06", 0, bill=False, **AKS)
    usd = sum(row["ListCost"] for row in tables["cost_records"])
    publish_run(found, {name: rows for name, rows in tables.items() if name not in ("finops_sheet", "findings")})
    mark = run_mark_row(run_id="L06-run", target="aks", provenance="measured")
    publish_run(found, {"run_marks": [mark]})
    report = read_report(found, load_catalog(), now=NOW)
    assert report.totals[0]["usd"] == sum(row["usd"] for row in report.money["by_lab"]) == usd
    assert [row["usd"] for row in report.year] == [usd]
    assert found.query("SELECT usd, latest FROM run_overview") == [{"usd": usd, "latest": False}]
    assert found.query("SELECT count(*) AS n FROM reference_sheet") == [{"n": 0}]


def test_a_bill_in_another_currency_leaves_the_estimate_in_dollars(tmp_path: Path) -> None:
    found = warehouse_in(tmp_path)
    tables = run_of("L06", 0, bill=False, **AKS)
    usd = sum(row["ListCost"] for row in tables["cost_records"])
    euro = {"BillingCurrency": "EUR", "x_billed_usd": None, "x_delta_usd": None}
    tables["cost_records"] += [billed(row, row["ListCost"], **euro) for row in tables["cost_records"]]
    publish_run(found, tables)
    report = read_report(found, load_catalog(), now=NOW)
    assert sum(row["usd"] for row in report.money["by_lab"]) == report.totals[0]["usd"] == report.year[0]["usd"] == usd


def test_a_warehouse_without_costs_has_no_money_to_show(tmp_path: Path) -> None:
    tables = lab_run(users=(1,))
    publish_run(found := warehouse_in(tmp_path), {name: tables[name] for name in ("stack_sessions", "load_stages")})
    (chapter,) = chapters(read_report(found, load_catalog(), now=NOW))
    assert chapter.money == []
