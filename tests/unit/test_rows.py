"""Rows are in stack seconds, say what they are, and keep what can't be used."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.measures import Measure
from lab_pipelines.catalog.steps import LoadStep
from lab_pipelines.load_plan import load_plan
from lab_pipelines.rows.common import common_columns
from lab_pipelines.rows.events import cold_start_events
from lab_pipelines.rows.load import request_rows, stage_rows, tokens_in_window
from lab_pipelines.rows.measures import counter_total_row, sample_rows, summary_row
from lab_pipelines.rows.sessions import session_row
from resources.load_cluster import ClusterLoadGenerator
from resources.load_generator import HttpShape, LoadError, LoadPlan, LoadResult, RequestRecord, StagePlan, StageRecord
from resources.load_locust import LocustLoadGenerator
from resources.telemetry import Reading, Sample
from tests.support.sessions import READY, endpoint, session
from tests.support.warehouses import warehouse_in

START = READY.timestamp() + 10
SPEC = load_catalog().spec("L06")


def record(**changes: Any) -> RequestRecord:
    """Scheduled as stage 0 begins, sent 10 ms later; three tokens at 0.2, 0.3 and 0.4 s, in wall time."""
    fields: dict[str, Any] = {
        "request_id": "r",
        "worker": "local",
        "user_index": 0,
        "shape": 0,
        "stage": 0,
        "in_stage": True,
        "counted": True,
        "scheduled_at": START,
        "sent_offset_s": 0.01,
        "finished_offset_s": 0.4,
        "event_offsets_s": [0.2, 0.3, 0.4],
        "input_tokens": 512,
        "output_tokens": 3,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "length",
        "error": None,
        "server_ttft_s": 0.188,
        "receive_lag_p99_s": 0.001,
    }
    return RequestRecord(**{**fields, **changes})


def got(**changes: Any) -> RequestRecord:
    """A plain GET, answered 200 ms after it was due."""
    fields = {
        "shape": 1,
        "user_index": None,
        "finished_offset_s": 0.2,
        "event_offsets_s": [],
        "input_tokens": None,
        "output_tokens": None,
        "finish_reason": None,
        "server_ttft_s": None,
        "receive_lag_p99_s": None,
    }
    return record(**{**fields, **changes})


RAMP = SPEC.load_steps[0]
COMPLETION = {
    "kind": "completion",
    "input_tokens": 512,
    "output_tokens": 256,
    "temperature": 0.0,
    "prompts": "load-tests/prompts/fixed-512.json",
    "timeout_s": 600.0,
}
GET = {"kind": "http", "path": "/status/200", "timeout_s": 10.0}


def step(profile: dict[str, Any], *requests: dict[str, Any], component: str = "vllm") -> LoadStep:
    fields = {"kind": "load", "name": "traffic", "component": component, "profile": profile}
    return LoadStep.model_validate({**fields, "requests": list(requests or (COMPLETION,))})


def plan(one: LoadStep = RAMP, pace: str = "short") -> LoadPlan:
    chosen = SPEC.paces[pace]
    return load_plan(session(time_scale=chosen.time_scale), one, chosen)


def gets() -> LoadPlan:
    """Three and 12.5 requests per stack second, one in ten of which asks for an error."""
    rare = {**GET, "path": "/status/500", "expect": 500, "weight": 1.0}
    profile = {"kind": "rate", "per_s": [3.0, 12.5], "arrivals": "poisson", "max_in_flight": 9}
    return plan(step(profile, {**GET, "weight": 9.0}, rare, component="http"))


def result(*records: RequestRecord) -> LoadResult:
    stages = [
        StageRecord(stage=0, users=1, started_at=START, ended_at=START + 8, client_cpu_share=0.2),
        StageRecord(stage=1, users=4, started_at=START + 8, ended_at=START + 16, client_cpu_share=None),
    ]
    return LoadResult(requests=list(records), stages=stages)


def at_a_rate(*records: RequestRecord) -> LoadResult:
    stages = [stage.model_copy(update={"users": None}) for stage in result().stages]
    return LoadResult(requests=list(records), stages=stages)


def test_a_plan_is_in_wall_seconds_and_gives_every_user_several_requests() -> None:
    stages = plan().stages
    assert [stage.users for stage in stages] == [1, 4, 8, 16, 32]
    assert [stage.min_requests for stage in stages] == [20, 20, 24, 48, 96]
    assert {stage.hold_wall_s for stage in stages} == {8.0}
    assert [shape.timeout_wall_s for shape in plan().shapes] == [120.0]


def test_a_pace_may_leave_out_the_high_stages() -> None:
    assert [stage.users for stage in plan(pace="smoke").stages] == [1, 4]


def test_a_pace_that_leaves_nothing_of_a_ramp_is_refused() -> None:
    with pytest.raises(ValueError, match=r"traffic: every stage has more users than the pace's max_users \(4\)"):
        plan(step({"kind": "ramp", "users": [8, 16]}), pace="smoke")


def test_a_rate_is_offered_in_the_stacks_time_and_asks_for_the_paces_minimum() -> None:
    load = gets()
    assert (load.base_url, load.profile, load.arrivals, load.max_in_flight) == (
        "http://127.0.0.1:3", "rate", "poisson", 9,
    )  # fmt: skip
    assert [(stage.users, stage.per_wall_s) for stage in load.stages] == [(None, 15.0), (None, 62.5)]
    assert {(stage.hold_wall_s, stage.min_requests, stage.max_hold_wall_s) for stage in load.stages} == {(8, 20, 120)}
    assert load.shapes == [
        HttpShape(weight=9.0, path="/status/200", expect=200, timeout_wall_s=2.0),
        HttpShape(weight=1.0, path="/status/500", expect=500, timeout_wall_s=2.0),
    ]


def test_a_burst_asks_for_all_of_its_requests_and_holds_no_time() -> None:
    load = plan(step({"kind": "burst", "requests": 64}), pace="smoke")
    assert (load.profile, load.max_in_flight) == ("burst", 64)
    assert load.stages == [StagePlan(stage=0, users=64, hold_wall_s=0.0, min_requests=64, max_hold_wall_s=15.0)]


RAMP_UP = {"kind": "rate_profile", "points": [{"at_s": 0, "per_s": 0}, {"at_s": 30, "per_s": 2}], "max_in_flight": 9}
TRACED = {"kind": "traced", "max_input_tokens": 512, "max_output_tokens": 64, "temperature": 0.0, "timeout_s": 600.0}


def replay(**profile: Any) -> LoadStep:
    file = {"kind": "trace", "file": "load-tests/traces/synthetic-azure-2023.csv", "format": "azure"}
    return step({**file, **profile}, TRACED)


def test_a_changing_rate_has_its_own_time_and_its_mean_is_what_is_offered() -> None:
    load = plan(step({**RAMP_UP, "repeat": 2, "arrivals": "gamma", "burstiness": 0.5}))
    assert (load.profile, load.arrivals, load.burstiness, load.max_in_flight) == ("rate_profile", "gamma", 0.5, 9)
    [stage] = load.stages
    even = plan(step({**RAMP_UP, "points": [{"at_s": 0, "per_s": 0.5}, {"at_s": 9, "per_s": 0.5}]}))
    assert [one.min_requests for one in even.stages] == [4], "no more than there are, before any is sent to keep it up"
    assert stage.points == [(0.0, 0.0), (6.0, 10.0), (6.0, 0.0), (12.0, 10.0)], "the second ramp begins with a jump"
    assert (stage.per_wall_s, stage.hold_wall_s, stage.min_requests, stage.users) == (5.0, 12.0, 20, None)
    result = at_a_rate(got()).model_copy(update={"stages": at_a_rate().stages[:1]})
    [row] = stage_rows(session(), load, result)
    assert (row["profile"], row["offered_per_s"], row["hold_s"], row["clipped_requests"]) == (
        "rate_profile", 1.0, 60.0, None,
    )  # fmt: skip


def test_a_trace_brings_its_own_time_its_own_number_of_requests_and_their_tokens() -> None:
    load = plan(replay(speed=2.0, duration_s=30.0, max_in_flight=7))
    assert load.trace is not None
    assert (load.profile, load.request_kind, load.max_in_flight) == ("trace", "completion", 7)
    assert (load.trace.per_wall_s, load.trace.start_s, load.trace.duration_s) == (10.0, 0.0, 30.0)
    [stage] = load.stages
    assert stage.per_wall_s is not None
    assert (stage.users, stage.hold_wall_s, stage.min_requests) == (None, 3.0, round(stage.per_wall_s * 3.0))
    sent = record(asked_tokens=(512, 3), input_tokens=512)
    result = LoadResult(requests=[sent], stages=at_a_rate().stages[:1])
    [request] = request_rows(session(), load, result)
    assert (request["expected_input_tokens"], request["expected_output_tokens"]) == (512, 3)
    assert request["output_tokens"] == 3 and request["tpot_s"] is not None and request["path"] is None
    [row] = stage_rows(session(), load, result)
    assert (row["users"], row["min_requests"], row["hold_s"]) == (None, stage.min_requests, 15.0)
    assert row["clipped_requests"] == load.trace.clipped > 0
    assert row["offered_per_s"] == pytest.approx(2 * stage.min_requests / 30.0)


def test_a_load_that_takes_longer_than_the_pace_allows_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"traffic: its load takes 1\d+\.\d* s, .* of 600 s .*; raise speed, or shorten"
    ):
        plan(replay(speed=0.05), pace="smoke")
    with pytest.raises(ValueError, match=r"its load takes 900 s, .* of 600 s at the latest; raise max_hold_s"):
        plan(step({**RAMP_UP, "repeat": 30}), pace="smoke")
    with pytest.raises(ValueError, match=r"nowhere\.csv can't be read"):
        plan(replay(file="load-tests/traces/nowhere.csv"))


def test_a_constant_load_is_one_stage_whatever_the_paces_largest_number_of_users() -> None:
    load = plan(step({"kind": "constant", "users": 40}), pace="smoke")
    assert [(stage.users, stage.min_requests) for stage in load.stages] == [(40, 40)]
    assert (load.profile, load.max_in_flight) == ("constant", None)


def test_a_component_without_an_address_and_a_stack_without_an_engine_take_no_load() -> None:
    with pytest.raises(LoadError, match="traffic: the component exporter has no address"):
        plan(step({"kind": "constant", "users": 1}, GET, component="exporter"))
    with pytest.raises(LoadError, match="traffic asks for completions, but the stack of L06 has no engine"):
        load_plan(session(model=None), step({"kind": "constant", "users": 1}), SPEC.paces["short"])
    without_engine = session(model=None)
    load = load_plan(without_engine, step({"kind": "constant", "users": 1}, GET, component="http"), SPEC.paces["full"])
    assert load.model is None


def test_a_plan_s_requests_go_where_their_generator_reaches_the_component() -> None:
    within, here = "http://vllm.lab-06.svc:80/v1", "http://127.0.0.1:1/v1"
    in_a_cluster = session(endpoints=[endpoint("vllm", "vllm", here).model_copy(update={"cluster_url": within})])
    constant, pace = step({"kind": "constant", "users": 1}), SPEC.paces["full"]
    inside, outside = ClusterLoadGenerator(lake_url="file:///lake", image="labs:1"), LocustLoadGenerator()
    assert load_plan(in_a_cluster, constant, pace, address=inside.address).base_url == within
    assert load_plan(in_a_cluster, constant, pace, address=outside.address).base_url == here
    with pytest.raises(LoadError, match="the component vllm has no address"):
        load_plan(session(), constant, pace, address=inside.address)


def test_latencies_are_in_stack_seconds_from_the_scheduled_time_and_the_clients_lag_is_in_wall_seconds() -> None:
    [row] = request_rows(session(), plan(), result(record()))
    assert row["ttft_s"] == pytest.approx(1.0)
    assert row["e2e_s"] == pytest.approx(2.0)
    assert row["tpot_s"] == pytest.approx((2.0 - 1.0) / 2)
    assert row["schedule_lag_s"] == pytest.approx(0.05)
    assert row["server_ttft_s"] == pytest.approx(0.94)
    assert row["ttft_lag_wall_s"] == pytest.approx(0.2 - 0.01 - 0.188)
    assert row["receive_lag_p99_wall_s"] == 0.001


def test_a_whole_request_of_the_length_that_was_asked_for_is_valid_and_one_of_another_length_says_so() -> None:
    load = result(record(output_tokens=256), record(), record(input_tokens=511, output_tokens=256))
    assert [(row["valid"], row["invalid_reasons"]) for row in request_rows(session(), plan(), load)] == [
        (True, []),
        (False, ["another length than asked for: 3 of 256 output tokens"]),
        (False, ["another length than asked for: 511 of 512 input tokens"]),
    ]


def test_a_request_that_was_cut_or_straddles_two_stages_is_kept_and_says_why_it_does_not_count() -> None:
    cut = record(outcome="cut", output_tokens=None, finish_reason=None, in_stage=False)
    [row] = request_rows(session(), plan(), result(cut))
    assert row["valid"] is False
    assert row["invalid_reasons"] == ["outcome: cut", "began and ended in different stages"]
    assert row["output_tokens"] == 3, "what had arrived is counted"
    assert row["e2e_s"] is None and row["tpot_s"] is None
    silent = record(outcome="timeout", event_offsets_s=[], output_tokens=None, server_ttft_s=None)
    [row] = request_rows(session(), plan(), result(silent))
    assert row["ttft_s"] is None and row["ttft_lag_wall_s"] is None and row["output_tokens"] == 0


def test_a_get_has_a_latency_and_no_tokens_and_names_its_path() -> None:
    [row] = request_rows(session(), gets(), at_a_rate(got(http_status=500)))
    assert (row["e2e_s"], row["schedule_lag_s"]) == (pytest.approx(1.0), pytest.approx(0.05))
    assert (row["shape"], row["path"], row["users"], row["user_index"]) == (1, "/status/500", None, None)
    nothing = ["ttft_s", "tpot_s", "input_tokens", "output_tokens", "expected_input_tokens", "expected_output_tokens"]
    assert {column: row[column] for column in nothing} == dict.fromkeys(nothing)
    assert (row["event_offsets_s"], row["valid"]) == ([], True)


def test_what_kept_a_rate_up_is_in_the_stage_but_not_in_its_sample() -> None:
    result = at_a_rate(got(), got(request_id="extra", counted=False))
    rest, extra = request_rows(session(), gets(), result)
    assert (rest["valid"], extra["valid"], extra["in_stage"]) == (True, False, True)
    assert extra["invalid_reasons"] == ["sent only to keep the rate up while the stage's sample came to its end"]
    stage = stage_rows(session(), gets(), result)[0]
    assert (stage["requests_in_stage"], stage["requests_ok"]) == (2, 2), "the server served it all the same"


def test_a_stage_says_what_was_offered() -> None:
    first, second = stage_rows(session(), gets(), at_a_rate(got()))
    assert [(s["profile"], s["request_kind"], s["users"], s["offered_per_s"]) for s in (first, second)] == [
        ("rate", "http", None, 3.0),
        ("rate", "http", None, 12.5),
    ]
    assert (first["min_requests"], first["hold_s"], first["output_tokens"]) == (20, 40.0, 0)
    ramp = stage_rows(session(), plan(), result(record()))[0]
    assert (ramp["profile"], ramp["request_kind"], ramp["users"], ramp["offered_per_s"]) == (
        "ramp", "completion", 1, None,
    )  # fmt: skip


def test_short_and_long_prompts_can_be_told_apart() -> None:
    short = {**COMPLETION, "input_tokens": 128, "output_tokens": 32, "prompts": "load-tests/prompts/fixed-128.json"}
    mixed = plan(step({"kind": "constant", "users": 1}, COMPLETION, short))
    long_row, short_row = request_rows(session(), mixed, result(record(), record(shape=1)))
    assert [(r["shape"], r["expected_input_tokens"], r["expected_output_tokens"]) for r in (long_row, short_row)] == [
        (0, 512, 256),
        (1, 128, 32),
    ]


def test_a_stages_tokens_are_those_that_arrived_in_its_window_whichever_request_they_belong_to() -> None:
    straddling = record(scheduled_at=START + 7.75, in_stage=False)  # tokens at 7.95, 8.05 and 8.15 s
    first, second = stage_rows(session(), plan(), result(record(), straddling))
    assert (first["output_tokens"], second["output_tokens"]) == (3 + 1, 2)
    assert (first["requests_in_stage"], first["requests_ok"]) == (1, 1)
    assert (first["duration_s"], first["duration_wall_s"]) == (40.0, 8.0)


def test_an_event_of_several_tokens_counts_for_all_of_them() -> None:
    doubled = record(output_tokens=6)
    stage = StageRecord(stage=0, users=1, started_at=START, ended_at=START + 0.35, client_cpu_share=None)
    assert tokens_in_window(doubled, stage) == 4


def test_a_closed_session_knows_how_long_it_was_held_in_stack_time() -> None:
    opened = session_row(session(), released_at=None)
    closed = session_row(session(), released_at=READY + timedelta(seconds=100))
    assert (opened["state"], opened["held_s"]) == ("open", None)
    assert (closed["state"], closed["held_s"]) == ("closed", 500.0)
    assert closed["cold_start_s"] == 284.5
    assert closed["image_pulled_s"] is None, "a phase that was not seen is a gap"


def test_a_faster_clock_makes_any_engine_modelled() -> None:
    real = session(engine="external", provenance="measured")
    assert common_columns(real)["provenance"] == "modelled"
    assert common_columns(real.model_copy(update={"time_scale": 1.0}))["provenance"] == "measured"


def test_totals_disagree_only_by_what_the_client_can_know() -> None:
    def disagreement(server: float | None, unknown: float) -> float | None:
        row = counter_total_row(session(), "ramp", "requests_ok", "c", client=100, unknown=unknown, server=server)
        return row["disagreement"]

    assert disagreement(100, 0) == 0
    assert disagreement(103, 0) == 0.03
    assert disagreement(97, 8) == 0.03
    assert disagreement(108, 8) == 0, "a request that was cut may have finished at the server"
    assert disagreement(110, 8) == 0.02
    assert disagreement(None, 0) is None


def test_every_row_is_what_the_warehouse_asks_for(tmp_path: Any) -> None:
    warehouse, one = warehouse_in(tmp_path), session()
    where = {"target": "local", "lab": "L06", "run_id": "run-1"}
    stage = stage_rows(one, plan(), result(record()))[0]
    measure = Measure(name="depth", unit="requests", promql="x{$selector}", over="stage")
    reading = Reading(value=2.0, gap=None, samples=[Sample(START, 2.0)], promql="x")
    published = {
        "stack_sessions": [session_row(one, released_at=None)],
        "events": cold_start_events(one, one.phases),
        "requests": request_rows(one, plan(), result(record())),
        "load_stages": [stage],
        "metric_samples": sample_rows(common_columns(one), stage, measure, reading),
        "metric_summaries": [summary_row(common_columns(one), stage, measure, reading)],
        "counter_totals": [counter_total_row(one, "ramp", "requests_ok", "c", client=1.0, unknown=0.0, server=None)],
    }
    for table, table_rows in published.items():
        warehouse.publish(table, table_rows, **where)
        assert warehouse.query(f"SELECT count(*) AS n FROM {table}") == [{"n": len(table_rows)}]


def test_rows_of_a_rate_are_what_the_warehouse_asks_for(tmp_path: Any) -> None:
    warehouse, one, load = warehouse_in(tmp_path), session(), at_a_rate(got(), got(request_id="cut", outcome="cut"))
    where = {"target": "local", "lab": "L06", "run_id": "run-1"}
    stages = stage_rows(one, gets(), load)
    measure = Measure(name="depth", unit="requests", promql="x{$selector}", over="stage")
    reading = Reading(value=2.0, gap=None, samples=[Sample(START, 2.0)], promql="x")
    warehouse.publish("requests", request_rows(one, gets(), load), **where)
    warehouse.publish("load_stages", stages, **where)
    warehouse.publish("metric_samples", sample_rows(common_columns(one), stages[0], measure, reading), **where)
    warehouse.publish("metric_summaries", [summary_row(common_columns(one), stages[0], measure, reading)], **where)
    assert (
        warehouse.query("SELECT users FROM requests UNION ALL SELECT users FROM metric_samples")
        == [{"users": None}] * 3
    )
