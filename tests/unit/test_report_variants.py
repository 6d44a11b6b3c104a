"""The report of runs with several variants: side by side, refusals told, figures as the spec asks, forecasts apart."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.measures import Figure
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.report import figures, forecast
from lab_pipelines.report.chapters import chapters, comparisons
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.page import YEAR, render_lab, render_pages, render_phase, render_year
from lab_pipelines.report.read import TROUBLE, Report, Section, read_report, read_sections
from lab_pipelines.report.sheet_table import sheet_markdown
from lab_pipelines.report.stage_table import stage_markdown
from lab_pipelines.report.svg import standalone
from lab_pipelines.report.wording import gap_variants, percent
from tests.support.rows.common import shared
from tests.support.rows.measures import summary_row
from tests.support.rows.results import finding_row
from tests.support.rows.runs import lab_run, variants_run
from tests.support.rows.sessions import event_row, session_row
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MESSAGE = "No available memory for the cache blocks: <-1.02> GiB"
OUTSIDE = "outside: no public measurement was compared with a Tesla T4"
REHEARSAL: dict[str, Any] = {"target": "rehearsal", "time_scale": 1.0, "pace": "full", "run_id": "rehearsed"}


def rehearsed_walk() -> dict[str, list[Any]]:
    """L11 rehearsed in two variants and one that was refused, with blocks as a measure and a ratio as a finding."""
    tables: dict[str, list[Any]] = variants_run(
        {"gmu-0.70": 2.0, "gmu-0.95": 1.0}, refused={"gmu-0.40": MESSAGE}, **REHEARSAL
    )
    for stage in tables["load_stages"]:
        stage["model_range"] = OUTSIDE if stage["users"] > 4 else "inside"
        where = {name: stage[name] for name in (*shared(), "step", "stage", "users")}
        blocks = 900.0 if stage["variant"] == "gmu-0.70" else 2700.0
        what = {"measure": "kv_blocks", "unit": "blocks", "value": blocks}
        tables["metric_summaries"].append(summary_row(**where, **what))
    return tables


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The rehearsal, a local run of the same variants, and a lab without load."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("variants"))
    publish_run(warehouse, rehearsed_walk())
    publish_run(warehouse, variants_run({"gmu-0.70": 1.9, "gmu-0.95": 1.0}, session_id="local"))
    bare = {"lab": "L07", "engine": "none", "run_id": "bare", "session_id": "bare"}
    tables = {
        "stack_sessions": [session_row(**bare, model=None, model_range=None)],
        "events": [event_row(**bare, kind="apply", name="quota", outcome="failed")],
        "findings": [finding_row(**bare)],
    }
    publish_run(warehouse, tables)
    return read_report(warehouse, load_catalog(), now=NOW)


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    """The page of Phase 2, which L11 belongs to."""
    return render_phase(report, 2)


@pytest.fixture
def walk(report: Report) -> Section:
    return next(section for section in report.sections if section.target == "rehearsal")


def drawn(section: Section, **fields: Any) -> str:
    figure = {"id": "f", "title": "A figure", "kind": "line", "x": "load", "y": "output_tokens_per_s"} | fields
    return figures.draw(Figure.model_validate(figure), section).svg or ""


def labels(svg: str) -> set[str]:
    return set(re.findall(r"<text [^>]*>([^<]*)</text>", svg))


def marks(svg: str, kind: str = "symbol") -> list[str]:
    groups = re.findall(rf'class="mark-{kind} role-mark[^"]*".*?</g>', svg, re.DOTALL)
    return [path for group in groups for path in re.findall(r"<path [^>]*>", group)]


# One section for a run, one chapter for a target


def test_a_run_has_one_section_with_its_variants_in_the_order_of_the_walk(report: Report) -> None:
    shown = [(section.target, section.lab, section.names) for section in report.sections]
    assert shown == [
        ("local", "L07", ["baseline"]),
        ("local", "L11", ["gmu-0.70", "gmu-0.95"]),
        ("rehearsal", "L11", ["gmu-0.70", "gmu-0.95", "gmu-0.40"]),
    ]


def test_each_target_has_a_chapter_and_no_picture_of_one_shows_another(html: str) -> None:
    local, rest = html.split('id="rehearsal"', 1)
    rehearsal, _ = rest.split('id="forecast"', 1)
    parts = {"local": local, "rehearsal": rehearsal}
    pictures = {name: re.findall(r'aria-label="([^"]*· target[^"]*)"', part) for name, part in parts.items()}
    of_runs = [label for label in pictures["rehearsal"] if ". all labs" not in label]
    assert len(of_runs) == 4, "two figures of L11's spec (the third is of 32 users), cold start, cost"
    for target, found in pictures.items():
        assert found
        assert all(f"target {target}" in label for label in found)


def test_contents_and_table_lead_to_every_lab_of_every_target(report: Report) -> None:
    pages = render_pages(report)
    assert list(pages) == ["year_in_numbers.html", "phase-1.html", "phase-2.html"]
    links = {name: set(re.findall(r'href="([^"]+)"', html)) for name, html in pages.items()}
    assert {"#local", "#local-labs", "#rehearsal-cost", "#rehearsal-trouble", "#forecast"} <= links[YEAR]
    assert {"phase-1.html#local-L07", "phase-2.html#local-L11", "phase-2.html#rehearsal-L11"} <= links[YEAR]
    assert {"#local-L11", "#rehearsal-L11", "#forecast", YEAR, "phase-1.html"} <= links["phase-2.html"]
    for name, html in pages.items():
        ids = re.findall(r'<[a-z0-9]+ [^>]*\bid="([^"]+)"', html)
        assert len(ids) == len(set(ids))
        for link in links[name]:
            page, _, anchor = link.partition("#")
            there = pages[page or name]
            assert not anchor or f'id="{anchor}"' in there, link


def test_a_lab_has_a_page_of_its_own_that_leads_nowhere_else(report: Report) -> None:
    html = render_lab(report, "L11")
    assert "gmu-0.40" in html and "L07" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
    assert not re.findall(r'href="(?!#)', html)


def test_what_failed_and_what_is_missing_stands_beside_its_reason(report: Report) -> None:
    local, rehearsal = chapters(report)
    names = {chapter.target: [kind.name for kind in chapter.trouble] for chapter in (local, rehearsal)}
    assert names["local"] == ["Steps that failed", "Numbers that are missing"]
    assert names["rehearsal"][0] == "Variants that their engine refused"
    (refused,) = rehearsal.trouble[0].lines
    assert refused[1:3] == ("L11", "gmu-0.40") and "No available memory" in refused[3]
    (failed,) = local.trouble[0].lines
    assert failed[:4] == ("modelled", "L07", "baseline", "quota (apply)")
    assert failed[3] in render_year(report)


def test_a_load_s_variants_stand_below_one_another(walk: Section) -> None:
    lines = [line for line in render_markdown_of(walk).splitlines() if line.startswith("| ")]
    assert lines[0].startswith("| users | variant | requests |")
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines if re.match(r"\| \d+( †)? \| gmu", line)]
    assert cells == [
        ["1", "gmu-0.70"],
        ["1", "gmu-0.95"],
        ["4", "gmu-0.70"],
        ["4", "gmu-0.95"],
        ["8 †", "gmu-0.70"],
        ["8 †", "gmu-0.95"],
    ]


def render_markdown_of(section: Section) -> str:
    rows = (
        "totals",
        "forecast",
        "forecast_error",
        "forecast_summary",
        "year",
        "peaks",
        "prices",
        "extremes",
        "starts",
        "phases",
    )
    return render_markdown(
        Report(
            **{"written_at": NOW, "labs": {}, "sections": [section], **{name: [] for name in rows}},
            money={"by_lab": [], "by_load": [], "by_day": []},
            trouble={name: [] for name in TROUBLE},
        )
    )


def test_a_refused_variant_is_a_result_with_the_engine_s_message(html: str, walk: Section) -> None:
    assert "No available memory for the cache blocks: &lt;-1.02&gt; GiB" in html
    assert "**gmu-0.40** was refused: No available memory" in render_markdown_of(walk)


def test_stages_outside_of_the_model_s_range_are_marked_and_the_reason_is_given(html: str, walk: Section) -> None:
    assert html.count('class="outside"') == 2, "8 users, of two variants"
    assert "gmu-0.70, gmu-0.95: no public measurement was compared with a Tesla T4" in html
    assert "† outside of the range" in render_markdown_of(walk)
    assert "partly outside of what the model was compared with" in drawn(walk)


def test_a_lab_without_load_shows_its_steps_and_its_findings(report: Report) -> None:
    html = render_phase(report, 1)
    section = html[html.index('<h2 id="local-L07"') :]
    assert '<th scope="row" class="text">quota</th>' in section
    assert "confirmed" in section


def test_a_variant_that_a_newer_run_repeated_is_shown_there_alone(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, variants_run({"a": 1.0, "b": 1.0}, users=(1,)))
    newer = {"run_id": "newer", "session_id": "newer", "recorded_at": NOW}
    publish_run(warehouse, variants_run({"b": 1.0}, users=(1,), **newer))
    sections = read_sections(warehouse)
    assert [(s.overview["run_id"], s.names) for s in sections] == [("newer", ["b"]), ("variants-run", ["a"])]
    assert sections[1].overview["repeated"] == ["b"]
    assert {row["variant"] for row in sections[1].stages} == {"a"}


def test_a_gap_of_the_run_as_a_whole_names_no_variant() -> None:
    assert gap_variants({"variants": ["all"]}, ["a", "b"]) == ""
    assert gap_variants({"variants": ["b", "a"]}, ["a", "b"]) == ""
    assert gap_variants({"variants": ["b"]}, ["a", "b"]) == " (b)"


# Figures


def test_a_figure_has_a_line_for_each_variant_and_says_in_its_title_where_it_comes_from(walk: Section) -> None:
    svg = drawn(walk, title="Throughput")
    assert {"Throughput, tokens/s · modelled, rehearsal", "gmu-0.70", "gmu-0.95", "concurrent users"} <= labels(svg)
    assert len(marks(svg)) == 6
    assert len(marks(svg, "line")) == 2


def test_a_scatter_sets_a_measure_against_a_column_at_one_load(walk: Section) -> None:
    svg = drawn(walk, kind="scatter", x="kv_blocks", load=8.0)
    assert len(marks(svg)) == 2
    assert marks(svg, "line") == []
    assert "kv blocks, blocks" in labels(svg)


def test_bars_by_variant_keep_a_place_for_the_one_that_was_refused(walk: Section) -> None:
    svg = drawn(walk, kind="bars", x="variant", y="kv_blocks", load=1.0)
    assert len(marks(svg, "rect")) == 2
    assert {"gmu-0.40", "refused", "900", "2 700".replace(" ", "\N{NARROW NO-BREAK SPACE}")} <= labels(svg)


def test_bars_of_several_loads_name_each_of_them(walk: Section) -> None:
    svg = drawn(walk, kind="bars", x="variant")
    assert len(marks(svg, "rect")) == 6
    assert {"1 user", "4 users", "8 users"} <= labels(svg)


def test_a_line_with_one_load_becomes_bars(walk: Section) -> None:
    svg = drawn(walk, load=4.0)
    assert len(marks(svg, "rect")) == 2
    assert marks(svg) == []


def test_a_gap_breaks_a_figure_s_line_and_a_rough_quantile_is_hollow(walk: Section) -> None:
    for row in walk.stages:
        if row["users"] == 4 and row["variant"] == "gmu-0.70":
            row |= {"ttft_p95_s": None}  # type: ignore[operator]
    svg = drawn(walk, y="ttft_p95_s")
    assert len(marks(svg)) == 5
    assert svg.count('fill="var(--page)"') == 5, "24 requests bound no p95"


def test_a_figure_without_values_says_so_and_draws_nothing(walk: Section) -> None:
    figure = Figure.model_validate({"id": "f", "title": "F", "kind": "line", "x": "load", "y": "never-asked"})
    picture = figures.draw(figure, walk)
    assert picture.svg is None
    assert picture.provenance.startswith("modelled")
    assert figures.draw(figure.model_copy(update={"load": 99.0}), walk).svg is None


def test_every_figure_of_the_year_names_what_there_is() -> None:
    for lab in load_catalog().labs():
        if not isinstance(lab, LabSpec):
            continue
        measures = {measure.name for measure in lab.measures}
        loads = {step.name: step.loads for step in lab.load_steps}
        for figure in lab.figures:
            for axis in (figure.x, figure.y):
                assert axis in {"load", "variant", *figures.COLUMNS, *measures}, (lab.id, figure.id, axis)
            assert figure.step is None or figure.step in loads, (lab.id, figure.id)
            steps = loads.values() if figure.step is None else [loads[figure.step]]
            assert figure.load is None or any(figure.load in step for step in steps), (lab.id, figure.id)


def test_the_columns_that_a_figure_may_name_are_the_view_s(walk: Section) -> None:
    assert figures.COLUMNS.keys() <= walk.stages[0].keys()


# Forecast against measured


def test_a_forecast_of_the_modelled_server_says_that_nothing_was_measured(report: Report, html: str) -> None:
    (comparison,) = comparisons(report)
    assert "local ran the modelled server, so nothing was measured" in html[html.index('id="forecast"') :]
    assert comparison.picture.title == "Forecast against the modelled server"
    ttft = next(row for row in comparison.errors if row["quantity"] == "ttft_p50_s")
    assert (ttft["compared"], ttft["worst_abs_error"]) == (6, pytest.approx(2.0 / 1.9 - 1, abs=1e-4))
    assert ttft["worst_at"].startswith("gmu-0.70")
    assert "| TTFT p50 | 6 |" in render_markdown(report)


def test_a_forecast_of_a_real_run_is_one_against_measurement(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, lab_run(users=(1, 4), slower=1.1, **REHEARSAL, session_id="f"))
    real: dict[str, Any] = {"engine": "external", "provenance": "measured", "time_scale": 1.0, "pace": "full"}
    publish_run(warehouse, lab_run(users=(1, 4), **real))
    (comparison,) = comparisons(read_report(warehouse, load_catalog(), now=NOW))
    assert comparison.picture.title == "Forecast against measured"
    assert forecast.against(comparison.row) == "a rehearsal against what was measured on local"
    svg = comparison.picture.svg or ""
    assert "Forecast against measured · measured, local" in labels(svg)
    assert "forecast on modelled, rehearsal (pace full)" in svg


def test_a_picture_on_its_own_brings_the_page_s_colours(report: Report) -> None:
    (comparison,) = comparisons(report)
    svg = standalone(comparison.picture.svg or "")
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", svg))
    assert used
    assert all(f"{name}:" in svg for name in used)


def test_a_relative_number_is_said_as_a_percentage() -> None:
    assert [percent(0.0312, signed=True), percent(-0.41, signed=True), percent(0.12), percent(None)] == [
        "+3.1 %",
        "-41 %",
        "12 %",
        "\N{EN DASH}",
    ]


def test_a_run_is_shown_as_recorded_and_a_rehearsal_s_own_date_beside_it(html: str) -> None:
    recorded = session_row()["recorded_at"]
    assert f"recorded {recorded:%Y-%m-%d %H:%M} UTC; its own clock began" in html


def test_where_all_turns_are_shown_each_is_told_apart(tmp_path: Path) -> None:
    tables: dict[str, list[Any]] = {}
    for trial in (1, 2):
        own = variants_run({"gmu-0.70": 2.0, "gmu-0.95": 1.0}, session_id=f"walk-{trial}", trial=trial, users=(1, 4))
        for table, rows in own.items():
            tables.setdefault(table, []).extend(rows)
    publish_run(warehouse := warehouse_in(tmp_path), tables)
    table = stage_markdown(warehouse.query("SELECT * FROM stage_table ORDER BY started_at"))
    lines = [line.split(" | ")[:3] for line in table.splitlines() if line.startswith("| ")][2:]
    assert lines == [
        [f"| {users}", variant, str(turn)]
        for users in (1, 4)
        for variant in ("gmu-0.70", "gmu-0.95")
        for turn in (1, 2)
    ]
    sheet = sheet_markdown(warehouse.query("FROM finops_sheet ORDER BY session_id, stage"))
    assert sheet.count("**L11 gmu-0.95** · ") == sheet.count("**L11 gmu-0.95**, turn 2 · ") == 1
    # A run's own section shows the last turn alone, and needs no column for it.
    [section] = read_sections(warehouse)
    assert {row["trial"] for row in section.stages} == {2}
    assert " turn " not in stage_markdown(section.stages)
