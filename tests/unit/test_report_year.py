"""The year's table: a row for each of the 78 labs, each result compared with the baseline of its own place."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest

from lab_pipelines.baseline import current
from lab_pipelines.baseline_rows import publish_baselines
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.chapters import chapters
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.page import prose, render_year
from lab_pipelines.report.read import Report, read_report
from lab_pipelines.report.wording import GAP
from lab_pipelines.report.year import YearRow, main_finding, year_rows
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)
AKS = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0, "pace": "full"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """L06 and L11 on AKS, L11 half as fast; L11 on local, too, where the baseline is a pinned one."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("year"))
    publish_baselines(warehouse)
    publish_run(warehouse, lab_run(users=(1, 4), run_id="a", session_id="a", **AKS))
    publish_run(warehouse, lab_run(users=(1, 4), slower=2.0, lab="L11", run_id="b", session_id="b", **AKS))
    publish_run(warehouse, lab_run(users=(1, 4), priced=False, lab="L11", run_id="c", session_id="c"))
    return read_report(warehouse, load_catalog(), now=NOW)


@pytest.fixture(scope="module")
def rows(report: Report) -> dict[str, dict[str, YearRow]]:
    """By target and lab."""
    return {chapter.target: {row.lab.id: row for row in chapter.year} for chapter in chapters(report)}


def test_every_target_has_a_row_for_every_lab_of_the_year_with_its_question(
    report: Report, rows: dict[str, dict[str, YearRow]]
) -> None:
    html = render_year(report)
    tables = re.findall(r'<table class="year">.*?</table>', html, re.DOTALL)
    assert list(rows) == ["aks", "local"] and len(tables) == 2
    for of_target, table, empty in zip(rows.values(), tables, (76, 77), strict=True):
        assert list(of_target) == [f"L{number:02}" for number in range(1, 79)]
        assert (table.count("<tbody"), table.count('class="none"')) == (78, empty)
        assert of_target["L78"].lab.question in unescape(table)
        assert "search width <code>ef</code> gives" in table and "`" not in table
        assert ("written, not run yet" in table, "outlined" in table) == (True, True)
    assert "not run here" in tables[1], "L06 was run on AKS alone"


def test_what_a_spec_has_in_backticks_is_code_and_the_rest_stays_text() -> None:
    assert prose("`a<b>` & c, `d`") == "<code>a&lt;b&gt;</code> &amp; c, <code>d</code>"
    assert prose("one ` alone <i>") == "one ` alone &lt;i&gt;"


def test_no_table_of_the_year_tells_of_two_targets(report: Report) -> None:
    assert all(
        {line.row["target"] for row in chapter.year for line in row.lines} == {chapter.target}
        for chapter in chapters(report)
    )


def test_a_result_is_compared_with_the_baseline_of_its_own_place(
    report: Report, rows: dict[str, dict[str, YearRow]]
) -> None:
    (measured,), (modelled,) = rows["aks"]["L11"].lines, rows["local"]["L11"].lines
    assert measured.throughput == pytest.approx(0.5, rel=0.05), "against L06 on AKS"
    assert measured.price == pytest.approx(2.0, rel=0.05)
    pinned = current("L06", "local")
    assert pinned is not None
    fastest = max(s["output_tokens_per_s"] for s in pinned.content["variants"]["baseline"]["stages"])
    (speed,) = (r for r in report.peaks if (r["target"], r["quantity"]) == ("local", "output_tokens_per_s"))
    assert speed["baseline_value"] == fastest
    assert modelled.throughput == pytest.approx(speed["value"] / fastest)
    assert modelled.price is None, "without a price there is nothing to compare"


def test_the_claim_that_a_spec_names_first_speaks_for_its_lab() -> None:
    catalog = load_catalog()
    first, second = catalog.spec("L11").findings[:2]
    place = {"lab": "L11", "target": "aks", "provenance": "measured"}
    told = [
        place | {"finding": second.id, "recorded_at": NOW, "verdict": "refuted"},
        place | {"finding": first.id, "recorded_at": NOW - timedelta(days=2), "verdict": "refuted"},
        place | {"finding": first.id, "recorded_at": NOW - timedelta(days=1), "verdict": "confirmed"},
        place | {"finding": first.id, "recorded_at": NOW, "verdict": "inconclusive", "target": "local"},
    ]
    found = main_finding(catalog.lab("L11"), place, told)
    assert found is not None and (found["finding"], found["verdict"]) == (first.id, "confirmed")
    assert main_finding(catalog.lab("L11"), place | {"provenance": "modelled"}, told) is None
    assert main_finding(None, place, told) is not None, "results outlive a lab that was withdrawn"


def test_the_page_says_what_each_place_is_compared_with(report: Report) -> None:
    aks, local = chapters(report)
    assert aks.compared_with == "L06's newest run there, not pinned (a)"
    assert re.fullmatch(r"L06's baseline 0001\.json, pinned \d{4}-\d\d-\d\d", local.compared_with)
    html = unescape(render_year(report))
    assert f"The comparison is with {local.compared_with}." in html and aks.compared_with in html


def test_a_measured_result_is_not_set_against_a_modelled_baseline(tmp_path: Path) -> None:
    publish_baselines(warehouse := warehouse_in(tmp_path))
    publish_run(warehouse, lab_run(lab="L11", engine="external", provenance="measured", time_scale=1.0))
    (chapter,) = chapters(read_report(warehouse, load_catalog(), now=NOW))
    (line,) = next(row.lines for row in chapter.year if row.lab.id == "L11")
    assert (line.throughput, line.price, chapter.compared_with) == (None, None, "")


def test_unknown_money_is_said_and_no_zero(report: Report) -> None:
    text = render_markdown(report)
    local = text[text.index("## On target local") :]
    assert "| L11 The KV Cache Budget | modelled | confirmed: 1.10, interval 1.05 to 1.15 | 1 confirmed |" in local
    assert re.search(rf"\| L11 .* {GAP} \| no price known \|", local)


def test_without_any_baseline_nothing_is_compared(tmp_path: Path) -> None:
    publish_run(warehouse := warehouse_in(tmp_path), lab_run(lab="L11", **AKS))
    found = read_report(warehouse, load_catalog(), now=NOW)
    rows = year_rows(found.labs, found.year, found.peaks, [])
    row = next(row for row in rows if row.lines)
    assert (row.lines[0].throughput, row.lines[0].price) == (None, None)
