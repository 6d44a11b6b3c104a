"""The year's table: a row for each of the 78 labs, each result compared with the baseline of its own place."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest

from lab_pipelines.baseline import current
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.page import render_html, render_markdown
from lab_pipelines.report.read import Report, read_report
from lab_pipelines.report.wording import GAP
from lab_pipelines.report.year import YearRow, references_of, year_rows
from tests.support.rows import lab_run, publish_run, warehouse_in

NOW = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)
AKS = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0, "pace": "full"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """L06 and L11 on AKS, L11 half as fast; L11 on local, too, where the baseline is a pinned one."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("year"))
    publish_run(warehouse, lab_run(users=(1, 4), run_id="a", session_id="a", **AKS))
    publish_run(warehouse, lab_run(users=(1, 4), slower=2.0, lab="L11", run_id="b", session_id="b", **AKS))
    publish_run(warehouse, lab_run(users=(1, 4), priced=False, lab="L11", run_id="c", session_id="c"))
    return read_report(warehouse, load_catalog(), now=NOW)


@pytest.fixture(scope="module")
def rows(report: Report) -> dict[str, YearRow]:
    return {row.lab.id: row for row in year_rows(report.labs, report.year, report.references)}


def test_every_lab_of_the_year_has_a_row_with_its_question(report: Report, rows: dict[str, YearRow]) -> None:
    html = render_html(report)
    assert list(rows) == [f"L{number:02}" for number in range(1, 79)]
    table = html[html.index('<table class="year">') : html.index("</table>", html.index('<table class="year">'))]
    assert table.count("<tbody") == 78
    assert table.count('class="none"') == 76
    assert rows["L78"].lab.question in unescape(table)
    assert ("written, not run yet" in table, "outlined" in table) == (True, True)


def test_a_result_is_compared_with_the_baseline_of_its_own_place(rows: dict[str, YearRow]) -> None:
    measured, modelled = rows["L11"].lines
    assert (measured.row["target"], modelled.row["target"]) == ("aks", "local")
    assert measured.throughput == pytest.approx(0.5, rel=0.05), "against L06 on AKS"
    assert measured.price == pytest.approx(2.0, rel=0.05)
    pinned = current("L06", "local")
    assert pinned is not None
    fastest = max(s["output_tokens_per_s"] for s in pinned.content["variants"]["baseline"]["stages"])
    assert modelled.throughput == pytest.approx(modelled.row["output_tokens_per_s"] / fastest)
    assert modelled.price is None, "without a price there is nothing to compare"


def test_the_page_says_what_each_place_is_compared_with(report: Report) -> None:
    assert "not pinned" in report.references["aks"].source
    assert re.search(r"pinned \d{4}-\d\d-\d\d", report.references["local"].source)
    assert report.references["local"].source in render_html(report).replace("&#39;", "'")


def test_unknown_money_is_said_and_no_zero(report: Report) -> None:
    text = render_markdown(report)
    assert "| L11 The KV Cache Budget | local | modelled | 1 confirmed |" in text
    assert re.search(rf"\| L11 .* local .* {GAP} \| no price known \|", text)


def test_without_any_baseline_nothing_is_compared(tmp_path: Path) -> None:
    publish_run(warehouse := warehouse_in(tmp_path), lab_run(lab="L11", **AKS))
    found = read_report(warehouse, load_catalog(), now=NOW)
    row = next(row for row in year_rows(found.labs, found.year, references_of(found.year, {})) if row.lines)
    assert (row.lines[0].throughput, row.lines[0].price) == (None, None)
