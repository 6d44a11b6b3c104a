"""What a client is blamed for, what it isn't, and when nothing of a stage is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.client_budget import ClientBudget
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.client_errors import (
    BURST,
    NOT_STAMPED,
    OTHER_CLOCK,
    ClientError,
    cell,
    client_errors,
    faults,
    token_fault,
    worst_of,
)
from lab_pipelines.rows.load import client_error_rows, request_rows
from resources.load_generator import LoadResult, RequestRecord, StageRecord
from tests.support.rows.load import client_error_row
from tests.support.warehouses import warehouse_in
from tests.unit.test_rows import START, gets, plan, record, session, step

BUDGET = ClientBudget()


def requests(count: int, **columns: Any) -> list[RequestRecord]:
    """As many whole, stamped requests; TTFT 0.1 s, of which the server knows 0.098."""
    sent = {"sent_offset_s": 0.001, "event_offsets_s": [0.1, 0.2], "server_ttft_s": 0.098, "client_lag_s": 0.0005}
    lags = {"first_receive_lag_s": 0.0005, "receive_lag_p99_s": 0.002}
    return [
        record(**(sent | lags | {"output_tokens": 256} | columns | {"request_id": f"r{number}"}))
        for number in range(count)
    ]


def stage(**columns: Any) -> StageRecord:
    sampled = {"busiest_cpu_share": 0.2, "cpu_samples": 16, "event_loop_lag_p99_s": 0.003, "event_loop_probes": 200}
    where = {"stage": 0, "users": 4, "started_at": START, "ended_at": START + 8, "client_cpu_share": 0.2}
    return StageRecord(**(where | sampled | columns))


def judged(
    *records: RequestRecord, judge_share: bool = True, no_client: str | None = None, **of_stage: Any
) -> dict[str, ClientError]:
    result = LoadResult(requests=list(records), stages=[stage(**of_stage)], no_client=no_client)
    errors = client_errors(plan(), result, BUDGET, judge_share=judge_share)
    assert list(errors) == [0]
    return {error.quantity: error for error in errors[0]}


def test_an_undisturbed_client_is_within_its_budget_in_every_quantity() -> None:
    errors = judged(*requests(200))
    assert {name: error.within for name, error in errors.items()} == dict.fromkeys(errors, True)
    assert (errors["cpu_share"].n, errors["event_loop_lag_p99"].n) == (16, 200)
    assert {name: error.reason for name, error in errors.items()} == dict.fromkeys(errors)
    assert errors["ttft_error_share"].value == pytest.approx((0.0005 + 0.1 - 0.001 - 0.098) / 0.1)
    assert faults({0: list(errors.values())}) == {}


@pytest.mark.parametrize(
    ("of_stage", "of_late_requests", "reason"),
    [
        ({"event_loop_lag_p99_s": 0.084}, {}, "event-loop lag p99 84 ms > 50 ms"),
        ({"busiest_cpu_share": 0.97}, {}, "CPU share of one process 97 % > 90 %"),
        ({}, {"client_lag_s": 0.06}, "schedule lag p99 60 ms > 50 ms"),
        ({}, {"first_receive_lag_s": 0.0612}, "TTFT lag p99 61.2 ms > 50 ms"),
    ],
)
def test_a_late_or_busy_client_is_over_budget_and_says_by_how_much(
    of_stage: dict[str, Any], of_late_requests: dict[str, Any], reason: str
) -> None:
    late = requests(3 if of_late_requests else 0, **of_late_requests)
    errors = judged(*requests(197), *late, **of_stage)
    assert faults({0: list(errors.values())}) == {0: [f"client over its error budget: {reason}"]}


def test_two_late_requests_of_two_hundred_move_no_99th_percentile() -> None:
    errors = judged(*requests(198), *requests(2, client_lag_s=3.0, first_receive_lag_s=3.0))
    assert errors["schedule_lag_p99"].within and errors["ttft_lag_p99"].within


def test_what_the_server_kept_waiting_is_not_the_clients_error() -> None:
    """A frozen server: sent late for want of a place, read late by the server, answered late."""
    waited = requests(60, sent_offset_s=4.0, event_offsets_s=[6.0], server_ttft_s=0.098)
    errors = judged(*requests(140), *waited)
    assert all(error.within for error in errors.values())


def test_a_receiver_is_judged_by_the_process_that_was_latest() -> None:
    slow = requests(5, worker="worker-1", receive_lag_p99_s=0.2)
    errors = judged(*requests(200), *slow)
    assert errors["receive_lag_p99"].value == 0.2 and errors["receive_lag_p99"].n == 205
    assert errors["receive_lag_p99"].reason == "receive lag p99 200 ms > 100 ms"


def test_the_width_of_a_burst_is_told_and_judged_by_what_it_does_to_ttft() -> None:
    """All are due at one moment, and one process sends them one after the other, 0.2 ms apart."""
    burst = plan(step({"kind": "burst", "requests": 400}))
    wide = [requests(1, client_lag_s=n * 0.0002, event_offsets_s=[5.0], server_ttft_s=4.99)[0] for n in range(400)]
    found = client_errors(burst, LoadResult(requests=wide, stages=[stage()]), BUDGET, judge_share=True)[0]
    lag, share = (
        next(one for one in found if one.quantity == name) for name in ("schedule_lag_p99", "ttft_error_share")
    )
    assert (lag.value, lag.within, lag.reason) == (pytest.approx(0.079), None, BURST)
    assert share.within and share.value == pytest.approx((0.0399 + 0.009) / 5.0, rel=0.01)


def test_a_fast_stack_needs_a_client_that_is_faster_still() -> None:
    fast = requests(100, event_offsets_s=[0.011], server_ttft_s=0.008)
    assert judged(*fast)["ttft_error_share"].reason == "error of the median TTFT 22.7 % > 10 %"
    unjudged = judged(*fast, judge_share=False)["ttft_error_share"]
    assert unjudged.value == pytest.approx(0.227, abs=0.001)
    assert (unjudged.within, unjudged.reason) == (None, "the pace is not for baselines")


def test_a_server_that_does_not_stamp_leaves_its_quantities_unjudged() -> None:
    errors = judged(*requests(50, server_ttft_s=None, first_receive_lag_s=None, receive_lag_p99_s=None))
    for name in ("ttft_lag_p99", "receive_lag_p99", "ttft_error_share"):
        assert (errors[name].value, errors[name].within, errors[name].reason) == (None, None, NOT_STAMPED)
    assert errors["schedule_lag_p99"].within and errors["event_loop_lag_p99"].within


def test_another_machines_clock_is_not_compared() -> None:
    errors = judged(*requests(50, first_receive_lag_s=None, receive_lag_p99_s=None))
    assert errors["ttft_lag_p99"].reason == errors["receive_lag_p99"].reason == OTHER_CLOCK
    assert errors["ttft_error_share"].within


def test_a_rehearsal_has_no_client_and_says_so_in_every_quantity() -> None:
    errors = judged(*requests(5), no_client="rehearsed: no client took part")
    assert {(e.value, e.within, e.reason, e.n) for e in errors.values()} == {
        (None, None, "rehearsed: no client took part", 0)
    }


def test_another_length_is_the_fault_of_its_own_request_and_a_missing_usage_of_none() -> None:
    errors = judged(*requests(9), *requests(1, output_tokens=5), *requests(1, output_tokens=None))
    mismatch = errors["token_mismatch"]
    assert (mismatch.value, mismatch.within, mismatch.n) == (0.1, False, 10)
    assert faults({0: list(errors.values())}) == {}
    [shape] = plan().shapes
    [short] = requests(1, output_tokens=5)
    said = token_fault(shape, short)
    assert said is not None and re.fullmatch(r"another length than asked for: 5 of \d+ output tokens", said)
    assert token_fault(shape, requests(1, outcome="timeout", output_tokens=5)[0]) is None


def test_a_stage_over_budget_has_no_valid_request_and_the_others_keep_theirs() -> None:
    load = LoadResult(
        requests=[*requests(3), *requests(3, stage=1, output_tokens=5), *requests(3, stage=1)],
        stages=[stage(event_loop_lag_p99_s=0.3), stage(stage=1)],
    )
    errors = client_errors(plan(), load, BUDGET, judge_share=True)
    made = request_rows(session(), plan(), load, faults=faults(errors))
    assert [row["valid"] for row in made] == [False] * 6 + [True] * 3
    assert made[0]["invalid_reasons"] == ["client over its error budget: event-loop lag p99 300 ms > 50 ms"]
    assert "5 of" in made[3]["invalid_reasons"][0]


def test_plain_gets_have_neither_stamps_nor_tokens() -> None:
    load = LoadResult(
        requests=requests(3, server_ttft_s=None, first_receive_lag_s=None, receive_lag_p99_s=None), stages=[stage()]
    )
    found = {error.quantity: error for error in client_errors(gets(), load, BUDGET, judge_share=True)[0]}
    assert found["token_mismatch"].within is None and found["schedule_lag_p99"].within


def test_the_rows_are_what_the_warehouse_asks_for(tmp_path: Path) -> None:
    load = LoadResult(requests=requests(3), stages=[stage(busiest_cpu_share=None)])
    made = client_error_rows(session(), plan(), client_errors(plan(), load, BUDGET, judge_share=True))
    warehouse = warehouse_in(tmp_path)
    warehouse.publish("client_errors", made, target="local", lab="L06", run_id="run-1")
    found = warehouse.query("SELECT quantity, within, reason FROM client_errors WHERE within IS NOT true")
    assert found == [{"quantity": "cpu_share", "within": None, "reason": "the CPU time was not sampled"}]


def test_every_lab_has_a_budget_though_none_states_one() -> None:
    specs = [load_catalog().spec(lab) for lab in ("L01", "L06", "L71")]
    assert [spec.error_budget.client for spec in specs] == [ClientBudget()] * 3


def test_in_one_line_each_quantity_is_told_where_it_was_worst() -> None:
    lags = [client_error_row(stage=number, value=value) for number, value in enumerate((0.003, None, 0.0123))]
    cpu = client_error_row(quantity="cpu_share", unit="ratio", value=0.12, allowed=0.9)
    assert worst_of([cpu, *lags]) == "event-loop lag p99 12.3 ms of 50 ms, CPU share of one process 12 % of 90 %"
    assert [cell(lags[0], name) for name in ("value", "within", "reason")] == ["3 ms", "yes", ""]
