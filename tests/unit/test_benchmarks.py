"""The benchmarks' arithmetic: a figure is held against its bound, and the parts of a run sum to the whole."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from benchmarks import frozen, report, rivals, row_writing, sheet
from benchmarks.attribution import Took, exponent
from benchmarks.client_lag import lag_figures
from benchmarks.figures import Figure, quantile, table
from benchmarks.overhead import ASSETS, Span, demo_parts
from benchmarks.replicas import ARGUMENTS, GPU, Router
from benchmarks.rivals import Run
from benchmarks.rivals_tools import Level, Seen, Sent
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.report.read import read_report
from resources.load_generator import RequestRecord
from resources.load_records import read_result
from resources.snapshot import open_snapshot
from resources.warehouse_core import PlainWarehouse


def test_a_figure_is_met_up_to_its_bound_and_neither_without_a_bound_or_a_value() -> None:
    assert Figure("b", "at the bound", 5.0, "ms", at_most=5.0).met is True
    assert Figure("b", "over it", 5.1, "ms", at_most=5.0).met is False
    assert Figure("b", "no bound", 5.1, "ms").met is None
    assert Figure("b", "no value", None, "ms", at_most=5.0).met is None


def test_a_quantile_is_one_of_the_values_and_the_maximum_where_there_are_too_few() -> None:
    values = [float(n) for n in range(1, 101)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile(values[:20], 0.99) == 20
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_the_exponent_tells_linear_time_from_quadratic() -> None:
    linear = [Took(rows=n, seconds=3e-6 * n, peak_mib=1.0) for n in (100, 1_000, 10_000)]
    quadratic = [Took(rows=n, seconds=1e-9 * n * n, peak_mib=1.0) for n in (100, 1_000, 10_000)]
    assert (exponent(linear), exponent(quadratic)) == (pytest.approx(1), pytest.approx(2))


def test_the_lag_bound_counts_at_32_users_only() -> None:
    at_32 = {figure.name: figure for figure in lag_figures("lag", [0.001, 0.006], users=32)}
    assert at_32["TTFT lag, p99"].value == pytest.approx(6.0)
    assert at_32["TTFT lag, p99"].met is False
    assert [figure.met for figure in lag_figures("lag", [0.001, 0.006], users=4)] == [None, None, None]
    assert [figure.value for figure in lag_figures("lag", [], users=32)] == [None]


def test_the_parts_of_a_run_and_its_stages_sum_to_its_wall_time() -> None:
    names = ["node_ready", "driver_ready", "image_pulled", "model_loaded", "engine_ready", "first_token"]
    # Seconds apart, so that a moment that is counted twice or not at all shows in the sum.
    phases = {name: Span(110 + 2.0 * n, 111.5 + 2.0 * n) for n, name in enumerate(names)}
    steps = {"deployed_stack": Span(109, 130), "load_run": Span(131, 180), "load_run_check": Span(181, 184)}
    steps |= {name: Span(190 + 10.0 * n, 197 + 10.0 * n) for n, name in enumerate(ASSETS[2:])}
    stages = [Span(140, 150), Span(151, 170)]
    parts = demo_parts(Span(100, 250), steps, phases, stages)
    assert sum(parts.values()) == pytest.approx(150 - 29)
    assert all(seconds >= 0 for seconds in parts.values())
    assert parts["load: between stages"] == pytest.approx(1)
    assert parts["checks"] == pytest.approx(3)
    assert parts["load: drain, read records, publish"] == pytest.approx(10)


def test_the_table_says_which_figures_are_over_their_bound() -> None:
    output = io.StringIO()
    figures = [Figure("lag", "p99", 7.0, "ms", at_most=5.0), Figure("memory", "peak", 800.0, "MiB", at_most=2048)]
    Console(file=output, width=120).print(table(figures))
    lines = output.getvalue().splitlines()
    assert any("p99" in line and "≤ 5 ms" in line and "NO" in line for line in lines)
    assert any("peak" in line and "yes" in line for line in lines)


def test_a_router_sends_each_request_to_the_replica_with_the_fewest_and_loses_none() -> None:
    draw, at_s = Random(3), 0.0
    router = Router(EngineModel.of(ARGUMENTS, GPU), 4)
    sent: list[tuple[Tracked, int]] = []
    for _ in range(300):
        at_s += draw.expovariate(40.0)
        request = Tracked(draw.randint(64, 192), draw.randint(4, 64), arrived_s=at_s)
        sent.append((request, router.send(request)))
    router.advance(at_s + 100.0)
    assert sorted(map(id, router.ended)) == sorted(id(request) for request, _ in sent)
    ended_s = [router.replicas[chosen].event_times(request)[-1] for request, chosen in sent]
    for number, (request, chosen) in enumerate(sent):
        unfinished = [0, 0, 0, 0]
        for (_, replica), end_s in zip(sent[:number], ended_s, strict=False):
            unfinished[replica] += end_s >= request.arrived_s
        assert chosen == unfinished.index(min(unfinished))


def test_one_replica_behind_a_router_serves_as_it_does_alone() -> None:
    model = EngineModel.of(ARGUMENTS, GPU)
    alone: Replica[Tracked] = Replica(model.engine(), model.cost, start_s=0.0)
    router = Router(model, 1)
    firsts: list[list[float | None]] = []
    for send in (alone.submit, router.send):
        draw, requests, at_s = Random(5), list[Tracked](), 0.0
        for _ in range(200):
            at_s += draw.expovariate(20.0)
            requests.append(Tracked(draw.randint(64, 192), draw.randint(4, 64), arrived_s=at_s))
            send(requests[-1])
        while alone.in_system:
            alone.advance(at_s + 100.0)
        router.advance(at_s + 100.0)
        firsts.append([request.first_token_s for request in requests])
    assert firsts[1] == pytest.approx(firsts[0], rel=1e-9)


def test_the_sheet_s_made_up_year_has_as_many_records_as_asked_for_and_answers_its_questions(tmp_path: Path) -> None:
    path = tmp_path / "labs.duckdb"
    sheet.build(str(path), 26 * 500)
    with open_snapshot(path) as connection:
        assert connection.execute("SELECT count(*) FROM cost_records").fetchall() == [(26 * 500,)]
        assert connection.execute("SELECT count(*), count(DISTINCT state) FROM sheet_current").fetchall() == [(2500, 1)]
        for question in sheet.QUESTIONS.values():
            assert connection.execute(question).fetchall() != []


@pytest.mark.parametrize(
    ("due", "latency_s"),
    [(1.0, 0.5), (4.5, 0.5), (4.75, 5.5), (5.0, 5.5), (9.5, 1.0), (10.0, 0.5), (12.0, 0.5)],
)
def test_a_request_waits_for_what_is_left_of_the_freeze_and_then_for_its_own_time(due: float, latency_s: float) -> None:
    assert frozen.latency_s(due, needed_s=0.5, froze_at=5.0, went_on_at=10.0) == pytest.approx(latency_s)


def test_errors_are_of_the_tools_times_against_the_servers() -> None:
    sent = Sent("c0", "", received_ns=0, sent_ns=[200_000_000, 220_000_000, 250_000_000])
    seen = Seen.of(sent, 0.203, [0.021, 0.028, 0.5])  # the last gap is that of the event without a token
    run = Run("ours", Level(1, 1, 3, 0.2, 0.02), [seen], events=3, cpu_s=1.0)

    assert run.ttft_errors_s == pytest.approx([0.003])
    assert run.itl_errors_s == pytest.approx([0.001, 0.002])
    assert seen.last_event_error_s == pytest.approx(0.203 + 0.049 - 0.25)
    mean_only = Run("guidellm", run.level, [Seen(sent, 0.2, 0.026)], events=3, cpu_s=1.0)
    assert mean_only.itl_errors_s == pytest.approx([0.001])
    assert run.pace_s == pytest.approx(0.025)
    assert not run.sustained, "the server was asked for 20 ms and took 25"


def test_our_generator_is_held_against_the_best_of_the_others_and_against_the_bare_client() -> None:
    def run(tool: str, streams: int, error_s: float, cpu_s: float) -> Run:
        sent = Sent("c0", "", received_ns=0, sent_ns=[200_000_000, 220_000_000])
        level = Level(streams, 2, 2, 0.2, 0.02)
        return Run(tool, level, [Seen.of(sent, 0.2 + error_s, [0.02])], events=1_000_000, cpu_s=cpu_s)

    runs = [run("ours", 32, 0.004, 12.0), run("bare aiohttp", 32, 0.008, 10.0), run("AIPerf", 32, 0.002, 90.0)]
    by_name = {figure.name: figure for figure in rivals.figures(runs, {"guidellm": "not measured"})}

    assert by_name["ours at 32: TTFT error, p99"].value == pytest.approx(4.0)
    assert by_name["ours at 32: TTFT error, p99"].met is True
    assert by_name["at 32: our TTFT error p99 over the best other's"].value == pytest.approx(2.0)
    assert by_name["at 32: our TTFT error p99 over the best other's"].note == "AIPerf"
    assert by_name["at 32: our CPU per event over the bare client's"].value == pytest.approx(1.2)
    assert by_name["AIPerf at 32: CPU per event"].value == pytest.approx(90)
    assert by_name["guidellm"].note == "not measured"
    assert by_name["ours: highest rate sustained"].value == pytest.approx(1600)


def test_the_report_s_made_up_lake_has_all_labs_in_two_places_and_can_be_true(tmp_path: Path) -> None:
    requests = report.make_lake(tmp_path, requests=3)
    found = read_report(PlainWarehouse(str(tmp_path)), load_catalog(), now=datetime.now(UTC))
    assert (found.targets, len(found.labs_with_results)) == (["aks", "rehearsal"], 78)
    stages = [stage for section in found.sections for stage in section.stages]
    assert sum(total["requests_ok"] for total in found.totals) == requests == 3 * len(stages)
    assert all(stage["ttft_p50_s"] and stage["itl_p95_s"] for stage in stages)


def test_the_records_whose_writing_is_measured_are_those_of_a_load(tmp_path: Path) -> None:
    row_writing._write_records(tmp_path, 8)
    result = read_result(tmp_path)
    assert len(result.requests) == 8 and result.stages[0].event_loop_probes > 100
    written = set(row_writing._record(0, 0.0, [0.1])) | {"stage", "in_stage", "asked_tokens"}
    assert written == set(RequestRecord.model_fields), "a trace's alone say what they asked for"
