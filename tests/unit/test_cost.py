"""The parts of a session sum to its node cost exactly, and nothing that wasn't measured gets a price."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.cost import Case, CostPart, RequestColumns, RequestInterval, StageWindow, split_session
from lab_pipelines.cost import split as split_all
from lab_pipelines.finops import Configuration, StageWork, sheet_rows, usd_per
from lab_pipelines.lanes import ClosedSession, CostError, all_its_time, lane_of
from lab_pipelines.rows.costs import cost_rows
from tests.support.node_costs import node_cost, node_hours
from tests.support.rows.common import USD_PER_NODE_HOUR, shared
from tests.support.rows.money import billed, cost_row, unit_price
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import session_row
from tests.support.warehouses import publish_run, warehouse_in

READY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PRICE = Decimal("3.6")  # a thousandth of a dollar per second
HOUR = 3600


def at(seconds: float) -> datetime:
    return READY + timedelta(seconds=seconds)


def session(held_wall_s: float = 100, **fields: Any) -> ClosedSession:
    closed = ClosedSession(
        requested_at=at(-50), ready_at=READY, released_at=at(held_wall_s),
        nodes=1, time_scale=1.0, cold_start_s=0.0, first_token_s=0.0,
    )  # fmt: skip
    return replace(closed, **fields)


def stage(number: int, start: float, end: float) -> StageWindow:
    return StageWindow("ramp", number, at(start), at(end))


def request(start: float, end: float, outcome: str = "ok") -> RequestInterval:
    return RequestInterval(at(start), at(end), outcome)


def seconds(parts: list[CostPart]) -> dict[tuple[str, int | None], float]:
    return {(p.part, p.stage): round(float(p.node_hours) * HOUR, 3) for p in parts}


def split(held: ClosedSession, stages: list[StageWindow], requests: list[RequestInterval]) -> list[CostPart]:
    return split_session(held, stages, requests, usd_per_node_hour=PRICE)


def test_serving_is_the_union_of_requests_in_flight_and_the_rest_is_idle() -> None:
    parts = split(session(), [stage(0, 10, 60)], [request(20, 30), request(25, 40), request(50, 55)])
    assert seconds(parts) == {("idle", None): 50, ("serve", 0): 25, ("idle", 0): 25}


def test_a_request_over_a_stages_end_serves_in_both_stages() -> None:
    parts = split(session(), [stage(0, 0, 50), stage(1, 50, 100)], [request(40, 70)])
    assert seconds(parts) == {("serve", 0): 10, ("idle", 0): 40, ("serve", 1): 20, ("idle", 1): 30}


def test_requests_outside_every_stage_serve_outside_every_stage() -> None:
    parts = split(session(), [stage(0, 50, 100)], [request(10, 20)])
    assert seconds(parts) == {("serve", None): 10, ("idle", None): 40, ("idle", 0): 50}


def test_a_failed_request_costs_its_equal_share_of_every_instant() -> None:
    alone = split(session(), [stage(0, 0, 100)], [request(0, 10, "timeout")])
    assert seconds(alone) == {("failed", 0): 10, ("idle", 0): 90}
    # 0-10 one of two in flight fails, 10-20 it is alone
    parts = split(session(), [stage(0, 0, 100)], [request(0, 10), request(0, 20, "http_error")])
    assert seconds(parts) == {("serve", 0): 5, ("failed", 0): 15, ("idle", 0): 80}


def test_a_request_that_the_end_of_the_load_cut_off_did_not_fail() -> None:
    assert seconds(split(session(), [stage(0, 0, 100)], [request(90, 100, "cut")]))["serve", 0] == 10


def test_cold_start_and_held_time_are_stack_time_and_first_token_is_counted_once() -> None:
    held = session(time_scale=5.0, cold_start_s=600.0, first_token_s=5.0)  # the first second after ready
    parts = split(held, [stage(0, 1, 41)], [request(1, 21)])
    assert seconds(parts) == {("cold_start", None): 600, ("serve", 0): 100, ("idle", 0): 100, ("idle", None): 295}
    assert node_hours(held) == Decimal("0.304166667")  # 600 + 5 x 99 = 1095 s
    cold = parts[0]
    assert (cold.part, cold.started_at, cold.ended_at) == ("cold_start", at(-50), at(1))


def test_an_engine_that_was_already_running_has_no_cold_start() -> None:
    assert "cold_start" not in {p.part for p in split(session(), [stage(0, 0, 50)], [])}


def test_every_node_is_paid_for() -> None:
    assert node_cost(session(nodes=3), PRICE) == 3 * node_cost(session(), PRICE) == Decimal("0.3")


def test_without_a_price_there_are_quantities_and_no_cost() -> None:
    parts = split_session(session(), [stage(0, 0, 50)], [request(0, 10)], usd_per_node_hour=None)
    assert [p.usd for p in parts] == [None] * 3
    assert sum(p.node_hours for p in parts) == node_hours(session())


@pytest.mark.parametrize(
    "stages",
    [[stage(0, 0, 50), stage(1, 49, 60)], [stage(0, -1, 50)], [stage(0, 50, 101)], [stage(0, 60, 50)]],
    ids=["overlap", "before it was ready", "after the release", "ends before it begins"],
)
def test_stages_that_contradict_the_session_are_refused(stages: list[StageWindow]) -> None:
    with pytest.raises(CostError, match=r"of ramp .* overlaps another stage, or lies outside"):
        split(session(), stages, [])


def test_an_open_session_has_no_cost_yet() -> None:
    opened = session_row(state="open", released_at=None, held_s=None)
    with pytest.raises(CostError, match="session-1 is still open"):
        ClosedSession.from_row(opened)
    with pytest.raises(CostError, match="before its first token"):
        node_hours(session(held_wall_s=1, first_token_s=2.0))


moments = st.integers(0, 200_000_000).map(lambda us: us / 1e6)
outcomes = st.sampled_from(["ok", "cut", "http_error", "timeout", "connection_error", "stream_error"])


@st.composite
def sessions(draw: st.DrawFn) -> ClosedSession:
    scale = draw(st.sampled_from([1.0, 5.0, 0.3, 40.0]))
    first_token_s = draw(st.floats(0, 10)) * scale
    return session(
        held_wall_s=10 + draw(moments),
        nodes=draw(st.integers(1, 5)),
        time_scale=scale,
        first_token_s=first_token_s,
        cold_start_s=first_token_s + draw(st.floats(0, 3000)),
    )


@st.composite
def stages_of(draw: st.DrawFn, held: ClosedSession) -> list[StageWindow]:
    cuts = sorted(draw(st.lists(st.integers(0, held.warm_wall_us), max_size=10, unique=True)))
    edges = [held.warm_at + timedelta(microseconds=us) for us in cuts]
    return [StageWindow("ramp", n, *edges[2 * n : 2 * n + 2]) for n in range(len(edges) // 2)]


intervals = st.lists(
    st.tuples(st.floats(-20, 250), st.floats(0, 100), outcomes).map(lambda r: request(r[0], r[0] + r[1], r[2])),
    max_size=30,
)
prices = st.decimals(Decimal("0.000001"), Decimal("99.999999"), places=6)


@settings(max_examples=300, deadline=None)
@given(st.data(), sessions(), intervals, prices)
def test_whatever_happens_the_parts_sum_exactly_to_the_session(
    data: st.DataObject, held: ClosedSession, requests: list[RequestInterval], price: Decimal
) -> None:
    stages = data.draw(stages_of(held))
    parts = split_session(held, stages, requests, usd_per_node_hour=price)
    assert sum((p.node_hours for p in parts), Decimal()) == node_hours(held)
    assert sum((p.usd for p in parts if p.usd is not None), Decimal()) == node_cost(held, price)
    for part in parts:
        assert part.usd is not None
        assert part.usd >= 0
        assert part.node_hours >= 0
        assert -part.usd.as_tuple().exponent <= 9  # type: ignore[operator]
        assert abs(part.usd - part.node_hours * price) <= (price + 1) * Decimal("1e-9")
    # Each stage's own window is accounted for in full: serve + failed + idle = its length in stack time.
    for window in stages:
        spent = sum(float(p.node_hours) for p in parts if p.stage == window.stage) * HOUR
        length = (window.ended_at - window.started_at).total_seconds() * held.time_scale * held.nodes
        assert spent == pytest.approx(length, abs=2e-5)
    if all(r.outcome in ("ok", "cut") for r in requests):
        assert "failed" not in {p.part for p in parts}


@settings(max_examples=100, deadline=None)
@given(sessions(), intervals)
def test_stages_only_divide_what_the_whole_session_served(held: ClosedSession, requests: list[RequestInterval]) -> None:
    half = held.warm_at + timedelta(microseconds=held.warm_wall_us // 2)
    halves = [StageWindow("ramp", 0, held.warm_at, half), StageWindow("ramp", 1, half, held.released_at)]
    whole, divided = split(held, [], requests), split(held, halves, requests)
    for name in ("serve", "idle", "failed"):
        once = sum(float(p.node_hours) for p in whole if p.part == name)
        assert sum(float(p.node_hours) for p in divided if p.part == name) == pytest.approx(once, abs=1e-8)


def slowly(held: ClosedSession, stages: list[StageWindow], requests: list[RequestInterval]) -> dict[Any, Fraction]:
    """Exact node-hours by part and stage, instant by instant: the rule as it is written, for a session of its own."""

    def since_warm(moment: datetime) -> int:
        return min(max((moment - held.warm_at) // timedelta(microseconds=1), 0), held.warm_wall_us)

    flights = [(since_warm(r.sent_at), since_warm(r.finished_at), r.outcome in ("ok", "cut")) for r in requests]
    windows = [(since_warm(s.started_at), since_warm(s.ended_at), s.stage) for s in stages]
    edges = sorted({0, held.warm_wall_us, *(edge for one in [*flights, *windows] for edge in one[:2])})
    per_us = Fraction(held.time_scale) * held.nodes / 3_600_000_000
    spent: dict[Any, Fraction] = defaultdict(Fraction)
    spent["cold_start", None] = Fraction(held.cold_start_s) * held.nodes / 3600
    for now, then in pairwise(edges):
        stage = next((number for start, end, number in windows if start <= now < end), None)
        served = [ok for start, end, ok in flights if start <= now < end]
        for ok in served:
            spent["serve" if ok else "failed", stage] += (then - now) * per_us / len(served)
        if not served:
            spent["idle", stage] += (then - now) * per_us
    return {key: hours for key, hours in spent.items() if hours}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(st.tuples(sessions(), intervals), min_size=1, max_size=6))
def test_many_sessions_at_once_come_out_as_each_does_instant_by_instant(
    data: st.DataObject, drawn: list[tuple[ClosedSession, list[RequestInterval]]]
) -> None:
    stages = [data.draw(stages_of(held)) for held, _ in drawn]
    cases = [
        Case(held, own, [lane_of(held, all_its_time(held), usd_per_node_hour=PRICE)])
        for (held, _), own in zip(drawn, stages, strict=True)
    ]
    columns = RequestColumns.of([(n, one) for n, (_, requests) in enumerate(drawn) for one in requests])
    for (held, requests), own, [parts] in zip(drawn, stages, split_all(cases, columns), strict=True):
        expected = slowly(held, own, requests)
        assert {(p.part, p.stage) for p in parts} == expected.keys()
        for part in parts:
            assert abs(Fraction(part.node_hours) - expected[part.part, part.stage]) < Fraction(1, 10**9)
        assert parts == split(held, own, requests), "the company of others changes nothing"


def test_no_session_at_all_has_no_parts() -> None:
    assert split_all([], RequestColumns.of([])) == []


def test_cost_rows_and_sheet_rows_are_rows_of_their_tables(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    for priced in (True, False):
        run = lab_run(run_id=f"priced-{priced}", session_id=f"priced-{priced}", priced=priced)
        publish_run(warehouse, {t: run[t] for t in ("stack_sessions", "cost_records", "finops_sheet")})
    [[held]] = [warehouse.query("FROM stack_sessions WHERE state = 'closed' AND session_id = 'priced-True'")]
    closed = ClosedSession.from_row(held)
    summed = warehouse.query(
        "SELECT sum(ListCost) AS usd, sum(PricingQuantity) AS hours FROM cost_records WHERE session_id = 'priced-True'"
    )
    assert summed == [{"usd": node_cost(closed, USD_PER_NODE_HOUR), "hours": node_hours(closed)}]
    whole = warehouse.query("FROM finops_sheet WHERE stage IS NULL ORDER BY session_id")
    assert [row["usd"] for row in whole] == [None, node_cost(closed, USD_PER_NODE_HOUR)]
    assert whole[0]["node_hours"] == whole[1]["node_hours"] == pytest.approx(float(node_hours(closed)))
    unpriced = {column: value for column, value in whole[0].items() if "usd" in column}
    assert len(unpriced) == 19
    assert set(unpriced.values()) == {None}


def sheet(parts: list[CostPart], work: list[StageWork]) -> list[dict[str, Any]]:
    costs = cost_rows(parts, shared=shared(), sku="x", price=unit_price(PRICE, sku="x", region="y"))
    return sheet_rows(costs, work, shared=shared(), configuration=Configuration("x"))


def test_a_stage_pays_for_its_window_and_the_session_for_all_of_it() -> None:
    held = session(time_scale=1.0, cold_start_s=300.0)
    parts = split(held, [stage(0, 10, 60)], [request(10, 40)])
    one, whole = sheet(parts, [StageWork("ramp", 0, 4, requests=5, input_tokens=1000, output_tokens=4000)])
    assert (one["stage"], one["users"], one["usd"]) == (0, 4, Decimal("0.05"))
    assert (one["serve_usd"], one["idle_usd"]) == (Decimal("0.03"), Decimal("0.02"))
    assert one["usd_per_1k_output_tokens"] == pytest.approx(0.0125)
    assert one["usd_per_1k_tokens"] == pytest.approx(0.01)
    assert one["usd_per_request"] == pytest.approx(0.01)
    assert one["idle_share"] == pytest.approx(0.4)
    assert (whole["step"], whole["stage"], whole["users"], whole["usd"]) == (None, None, None, Decimal("0.4"))
    assert whole["cold_start_usd"] == Decimal("0.3")
    assert whole["idle_share"] == pytest.approx(70 / 400)
    assert whole["usd_per_request"] == pytest.approx(0.08)


def test_cost_per_nothing_is_unknown_and_never_infinite() -> None:
    parts = split(session(), [stage(0, 0, 100)], [])
    for row in sheet(parts, [StageWork("ramp", 0, 1, requests=0, input_tokens=0, output_tokens=0)]):
        assert row["usd"] == Decimal("0.1")
        assert row["idle_share"] == 1
        assert {row[c] for c in ("usd_per_1k_output_tokens", "usd_per_1k_tokens", "usd_per_request")} == {None}
    assert usd_per(None, 5) is None
    assert usd_per(Decimal(0), 5) == 0


def test_a_stage_at_a_rate_without_tokens_has_a_price_per_request_and_none_per_token() -> None:
    parts = split(session(), [stage(0, 0, 100)], [request(0, 10)])
    for row in sheet(parts, [StageWork("ramp", 0, None, requests=50, input_tokens=0, output_tokens=0)]):
        assert (row["users"], row["usd"]) == (None, Decimal("0.1"))
        assert row["usd_per_request"] == pytest.approx(0.002)
        assert {row[c] for c in ("usd_per_1k_output_tokens", "usd_per_1k_tokens")} == {None}


def test_costs_that_can_not_be_added_up_are_refused() -> None:
    with pytest.raises(CostError, match="several states"):
        sheet_rows(
            [cost_row(), billed(cost_row(), Decimal(1))],
            [],
            shared=shared(),
            configuration=Configuration(None),
        )
    unpriced = cost_row(ListCost=None, ListUnitPrice=None)
    with pytest.raises(CostError, match="some have none"):
        sheet_rows([cost_row(), unpriced], [], shared=shared(), configuration=Configuration(None))
