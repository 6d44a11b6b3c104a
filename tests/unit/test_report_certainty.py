"""A lab's section beside its numbers: how sure they are, the client's own error, the year's baseline."""

from __future__ import annotations

from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.baseline_rows import publish_baselines
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.against import NOTE as RATIOS
from lab_pipelines.report.against import against_baseline, source_of
from lab_pipelines.report.certainty import certainty_of
from lab_pipelines.report.lab_run import run_ladders
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.page import render_lab
from lab_pipelines.report.read import Report, read_report
from lab_pipelines.report.wording import GAP
from tests.support.rows.common import Row
from tests.support.rows.load import over_budget
from tests.support.rows.results import statistic_row
from tests.support.rows.runs import get_run, lab_run
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)


def report_of(directory: Path, *runs: dict[str, list[Row]], pinned: bool = True) -> Report:
    warehouse = warehouse_in(directory)
    if pinned:
        publish_baselines(warehouse)
    for run in runs:
        publish_run(warehouse, run)
    return read_report(warehouse, load_catalog(), now=NOW)


def shifted(run: dict[str, list[Row]], stage: int, **columns: Any) -> None:
    """Make a stage one that wasn't steady."""
    for row in run["stage_statistics"]:
        if row["stage"] == stage:
            row.update(columns)


def test_each_number_stands_with_its_interval_and_what_it_rests_on(tmp_path: Path) -> None:
    run = lab_run(users=(1, 4))
    for row in run["stage_statistics"]:
        if row["stage"] == 1 and row["quantity"] == "ttft_p50":
            row.update(value=0.5, low=0.45, high=0.61, n=40, n_effective=22.4)
    report = report_of(tmp_path, run)
    (section,) = report.sections
    (ladder,) = run_ladders(section, pictures=False)
    sure = ladder.certainty
    assert sure is not None and sure.headers == ["output, tokens/s", "TTFT p50, s", "TTFT p95, s"]
    assert [(stage.load, stage.steady, stage.left_out) for stage in sure.stages] == [
        ("1 user", "steady", ""),
        ("4 users", "trend +12 %", ""),
    ]
    _, median, p95 = sure.stages[1].cells
    assert (median.value, median.interval, median.rests_on) == ("0.500", "0.450 to 0.610", "(40, worth 22)")
    assert p95.interval == p95.rests_on == ""
    refusal = "No interval of TTFT p95: 1 user, 4 users: 20 values; an interval of the p95 needs 72."
    assert refusal in sure.notes
    html, text = unescape(render_lab(report, "L06")), render_markdown(report)
    assert "<small>0.450 to 0.610</small><small>(40, worth 22)</small>" in html and refusal in html
    assert r"0.500 \[0.450 to 0.610\] (40, worth 22)" in text and refusal in text


def test_a_stage_that_was_not_steady_says_so_in_a_word(tmp_path: Path) -> None:
    run = lab_run(users=(1, 4, 8))
    shifted(run, 0, state="trend", drift=0.124)
    shifted(run, 1, state="level_shift", drift=-0.08, left_out=3)
    shifted(run, 2, state="unknown", drift=None)
    report = report_of(tmp_path, run)
    (ladder,) = run_ladders(report.sections[0], pictures=False)
    assert ladder.certainty is not None
    told = [(stage.steady, stage.moved, stage.left_out) for stage in ladder.certainty.stages]
    assert told == [
        ("trend +12 %", True, ""),
        ("level shift -8.0 %", True, "first 3 left out"),
        ("not known", False, ""),
    ]
    html = render_lab(report, "L06")
    assert "<b>trend +12 %</b>" in html and "<b>level shift -8.0 %</b><small>first 3 left out</small>" in html
    assert "level shift -8.0 %, first 3 left out |" in render_markdown(report)


def test_plain_gets_have_latencies_in_milliseconds() -> None:
    stage = {"request_kind": "http", "session_id": "s", "variant": "v", "step": "gets", "stage": 0, "load": "2.5/s"}
    row = statistic_row(session_id="s", step="gets", quantity="e2e_p50", value=0.2, low=0.19, high=0.21)
    found = certainty_of([stage], [row | {"stage_state": "steady", "stage_drift": 0.0}])
    assert found is not None and found.headers == ["latency p50, ms", "latency p95, ms"]
    assert [(cell.value, cell.interval) for cell in found.stages[0].cells] == [("200", "190 to 210"), (GAP, "")]


def test_runs_from_before_any_of_it_was_kept_show_nothing_of_it(tmp_path: Path) -> None:
    run = lab_run(users=(1, 4))
    del run["stage_statistics"], run["client_errors"]
    report = report_of(tmp_path, run, pinned=False)
    section = report.sections[0]
    assert section.certainty == section.client_errors == []
    for text in (render_lab(report, "L06"), render_markdown(report)):
        assert not [said for said in ("How sure", "The client's own error", RATIOS, "Not compared") if said in text]


def test_the_clients_own_error_is_one_line_of_its_run(tmp_path: Path) -> None:
    report = report_of(tmp_path, lab_run(users=(1, 4)))
    line = "The client's own error: event-loop lag p99 3 ms of 50 ms; within budget."
    html = unescape(render_lab(report, "L06"))
    assert html.count(line) == 1 and line in render_markdown(report)
    assert "‡" not in html


def test_a_stage_over_the_budget_is_marked_with_the_reason_below(tmp_path: Path) -> None:
    run = lab_run(users=(1, 4))
    reason = over_budget(run, 1)
    report = report_of(tmp_path, run)
    (ladder,) = run_ladders(report.sections[0], pictures=False)
    assert [line[0].at_fault for line in ladder.cells] == [None, reason]
    (note,) = [note for note in ladder.notes if "‡" in note]
    assert note.endswith(f"is a lower bound (at 4: {reason}). Run it again where the machine has less else to do.")
    html, text = unescape(render_lab(report, "L06")), render_markdown(report)
    assert html.count("‡</i>") == 1 and note in html
    assert "over budget: event-loop lag p99 in 1 of 2 stages." in html
    assert "\n| 4 ‡ |" in text and reason.replace(">", r"\>") in text


def test_a_run_stands_against_the_pinned_baseline_of_its_place(tmp_path: Path) -> None:
    report = report_of(tmp_path, lab_run(users=(1, 64), lab="L11", pace="full"))
    (section,) = report.sections
    found = against_baseline(section.deltas, section.names)
    assert found is not None
    assert found.said.startswith("Against L06's baseline 0001.json, pinned 2026-")
    assert found.said.endswith("What else differs: pace full against short.")
    assert found.headers[:3] == ["fastest stage, tokens/s", "cheapest stage, USD per 1K", "tokens/s"]
    assert "TTFT p95" not in found.headers, "quantiles of too few requests don't count"
    peak = next(row for row in report.peaks if row["quantity"] == "output_tokens_per_s")
    ((_, cells),) = found.lines
    assert float(cells[0].removesuffix(" x")) == pytest.approx(peak["value"] / peak["baseline_value"], rel=0.01)
    html = unescape(render_lab(report, "L11"))
    assert found.said in html and f"<td>{cells[0]}</td>" in html
    assert f"| {cells[0]} |" in render_markdown(report)


def test_what_does_not_compare_says_why(tmp_path: Path) -> None:
    measured = lab_run(lab="L11", engine="external", provenance="measured", time_scale=1.0)
    report = report_of(tmp_path, measured)
    said = "Not compared with L06: measured against a modelled baseline"
    assert said in unescape(render_lab(report, "L11")) and said in render_markdown(report)


def test_the_baselines_own_first_run_is_not_said_to_lack_a_baseline(tmp_path: Path) -> None:
    report = report_of(tmp_path, lab_run(), pinned=False)
    assert report.sections[0].deltas
    assert against_baseline(report.sections[0].deltas, report.sections[0].names) is None


def test_an_unpinned_baseline_names_its_run() -> None:
    row = {"baseline_file": None, "baseline_run_id": "r1", "pinned_at": None}
    assert source_of(row) == "L06's newest run there, not pinned (r1)"


def test_a_run_of_gets_alone_has_no_baseline_and_says_nothing(tmp_path: Path) -> None:
    report = report_of(tmp_path, get_run())
    section = report.sections[0]
    assert section.deltas == [] and against_baseline(section.deltas, section.names) is None
