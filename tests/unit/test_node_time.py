"""What sessions pay for nodes: alone for all of it, together for all of it, and never for a node that was not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.catalog.prices import Priority
from lab_pipelines.cost import Case, CostPart, RequestColumns, RequestInterval, split
from lab_pipelines.lanes import UNITS, ClosedSession, CostError, Lane, exact_node_hours
from lab_pipelines.node_time import NodeTime, apportioned, lanes_of, share_nodes
from lab_pipelines.sharing import GIB, Amounts
from tests.support.node_costs import node_hours

READY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PRICES: dict[tuple[str | None, str], Decimal | None] = {
    ("T4", "on_demand"): Decimal("3.6"),
    ("T4", "spot"): Decimal("0.36"),
    ("A100", "on_demand"): Decimal("36"),
    (None, "on_demand"): None,
}
NONE: RequestColumns = RequestColumns.of([])


def price_of(sku: str | None, priority: Priority) -> Decimal | None:
    return PRICES[sku, priority]


def at(seconds: float) -> datetime:
    return READY + timedelta(seconds=seconds)


def session(start: float, end: float, *, cold: float = 0.0, **fields: Any) -> ClosedSession:
    """Held from `start` to `end`, of which `cold` seconds were its cold start."""
    closed = ClosedSession(
        requested_at=at(start), ready_at=at(start + cold), released_at=at(end),
        nodes=1, time_scale=1.0, cold_start_s=cold, first_token_s=0.0,
    )  # fmt: skip
    return replace(closed, **fields)


def node(session_id: str, start: float, end: float, **columns: Any) -> NodeTime:
    row: dict[str, Any] = {
        "session_id": session_id, "node": "n0", "nodes": 1, "pool": None, "sku": "T4", "priority": "on_demand",
        "held_from": at(start), "held_until": at(end), "exclusive": False,
        "capacity_gpus": 1.0, "capacity_cpus": 4.0, "capacity_memory_bytes": 28.0 * GIB,
        "requested_gpus": 0.0, "requested_cpus": 1.0, "requested_memory_bytes": 1.0 * GIB,
        "used_gpus": None, "used_cpus": None, "used_memory_bytes": None,
    }  # fmt: skip
    return NodeTime.from_row(row | columns)


def lanes(name: str, of: ClosedSession, *times: NodeTime, shared: dict[str, list[Lane]] | None = None) -> list[Lane]:
    return lanes_of(name, of, "T4", times, shared=shared or {}, price_of=price_of)


def parts_of(of: ClosedSession, held: list[Lane], *requests: RequestInterval) -> list[list[CostPart]]:
    return split([Case(of, [], held)], RequestColumns.of([(0, one) for one in requests]))[0]


def test_a_session_without_rows_held_the_nodes_of_its_own_alone() -> None:
    held = session(0, 100, nodes=2, cold=10)
    [lane] = lanes("a", held)
    assert (lane.sku, lane.priority, lane.pool) == ("T4", "on_demand", None)
    assert lane.hours == round(node_hours(held) * UNITS)
    assert Decimal(lane.usd or 0) / UNITS == Decimal("0.2")


def test_kinds_of_nodes_have_prices_of_their_own() -> None:
    held = session(0, 100)
    times = [
        node("a", 0, 100, exclusive=True, nodes=4, pool="spot", priority="spot", node=None),
        node("a", 0, 100, exclusive=True, pool="steady"),
    ]
    spot, steady = lanes("a", held, *times)
    assert (spot.pool, spot.usd, steady.pool, steady.usd) == ("spot", UNITS * 4 // 100, "steady", UNITS // 10)
    of_spot, of_steady = parts_of(held, [spot, steady], RequestInterval(at(0), at(50), "ok"))
    assert [(p.part, p.usd) for p in of_spot] == [("serve", Decimal("0.02")), ("idle", Decimal("0.02"))]
    assert [(p.part, p.usd) for p in of_steady] == [("serve", Decimal("0.05")), ("idle", Decimal("0.05"))]


def test_a_node_that_comes_later_and_goes_earlier_costs_the_time_that_it_was_there() -> None:
    held = session(-60, 100, cold=60)
    times = [node("a", -30, 40, exclusive=True), node("a", 20, 100, exclusive=True, node="n1")]
    [lane] = lanes("a", held, *times)
    assert lane.hours == round(Fraction(30 + 40 + 80, 3600) * UNITS)
    [parts] = parts_of(held, [lane], RequestInterval(at(30), at(60), "ok"))
    seconds = {p.part: round(float(p.node_hours) * 3600, 3) for p in parts}
    assert seconds == {"cold_start": 30, "serve": 10 * 2 + 20, "idle": 30 + 10 + 40}


def test_a_session_that_held_no_node_at_all_costs_nothing() -> None:
    [lane] = lanes("a", session(0, 100), node("a", 0, 0, nodes=0, exclusive=True))
    assert (lane.hours, lane.usd) == (0, 0)
    assert parts_of(session(0, 100), [lane]) == [[]]


def test_labs_on_one_node_divide_it_while_both_are_there() -> None:
    sessions = {"a": session(0, 100), "b": session(50, 200)}
    times = [node("a", 0, 100), node("b", 50, 200)]
    shared = share_nodes(times, sessions, price_of=price_of)
    [a], [b] = (lanes(name, sessions[name], time, shared=shared) for name, time in zip("ab", times, strict=True))
    assert (a.hours, b.hours) == (20_833_334, 34_722_222)  # 75 and 125 s; the unit that rounding leaves is a's
    assert (a.usd or 0) + (b.usd or 0) == UNITS * 200 // 1000
    assert a.how and "a share of node n0" in a.how and "requests alone, since usage is unknown" in a.how
    [parts] = parts_of(sessions["a"], [a], RequestInterval(at(60), at(100), "ok"))
    assert {p.part: round(float(p.node_hours) * 3600, 3) for p in parts} == {"serve": 20, "idle": 55}


def test_alone_on_a_node_that_others_might_hold_a_session_pays_for_all_of_it_and_says_nothing_of_others() -> None:
    held = session(0, 100, cold=10)
    [lane] = share_nodes([node("a", 0, 100)], {"a": held}, price_of=price_of)["a"]
    assert (lane.hours, lane.how) == (round(node_hours(held) * UNITS), None)


def test_usage_counts_where_it_is_more_than_the_request_and_is_unknown_rather_than_zero() -> None:
    known = node("a", 0, 1, used_cpus=3.0, used_memory_bytes=0.5 * GIB)
    assert known.asks == Amounts(0, 3, GIB)
    assert known.divided == "by the larger of request and usage"
    assert node("a", 0, 1).asks == Amounts(0, 1, GIB)


def test_a_node_without_a_known_price_divides_hours_and_no_dollars() -> None:
    times = [node("a", 0, 100, sku=None), node("b", 0, 100, sku=None)]
    found = share_nodes(times, {"a": session(0, 100), "b": session(0, 100)}, price_of=price_of)
    assert [found[name][0].usd for name in "ab"] == [None, None]
    assert sum(found[name][0].hours for name in "ab") == round(Fraction(100, 3600) * UNITS)


def test_one_node_of_two_prices_is_refused_by_its_name() -> None:
    times = [node("a", 0, 100), node("b", 0, 100, priority="spot")]
    with pytest.raises(CostError, match="node n0 has several prices at one time"):
        share_nodes(times, {"a": session(0, 100), "b": session(0, 100)}, price_of=price_of)


@pytest.mark.parametrize(
    ("columns", "usd"),
    [({"sku": "A100"}, UNITS), ({"priority": "spot"}, UNITS // 100), ({"capacity_cpus": 64.0}, UNITS // 10)],
)
def test_a_name_that_comes_back_is_another_node_with_its_own_price_and_capacity(
    columns: dict[str, Any], usd: int
) -> None:
    sessions = {"a": session(0, 100), "b": session(0, 100), "c": session(100, 200)}
    before = [node("a", 0, 100, requested_cpus=9.0), node("b", 0, 100, requested_gpus=1.0)]
    expected = share_nodes(before, sessions, price_of=price_of)
    found = share_nodes([*before, node("c", 100, 200, **columns)], sessions, price_of=price_of)
    assert {name: found[name] for name in "ab"} == expected, "what comes later changes nothing for those before it"
    assert [lane.usd for lane in found["c"]] == [usd]


@st.composite
def tenancies(draw: st.DrawFn) -> tuple[dict[str, ClosedSession], list[NodeTime]]:
    sessions, times = {}, []
    for n in range(draw(st.integers(1, 5))):
        start, length = draw(st.floats(0, 3000)), draw(st.floats(1, 2000))
        held = session(start, start + length, cold=draw(st.floats(0, length)))
        asks = {"requested_cpus": draw(st.floats(0, 6)), "used_cpus": draw(st.none() | st.floats(0, 6))}
        sessions[f"s{n}"] = held
        times.append(node(f"s{n}", start, start + length, **asks))
    return sessions, times


@settings(max_examples=150, deadline=None)
@given(tenancies(), st.lists(st.tuples(st.floats(0, 4000), st.floats(0, 500)), max_size=20))
def test_the_parts_of_all_sessions_on_a_node_sum_to_what_it_cost_exactly(
    drawn: tuple[dict[str, ClosedSession], list[NodeTime]], intervals: list[tuple[float, float]]
) -> None:
    sessions, times = drawn
    shared = share_nodes(times, sessions, price_of=price_of)
    cases = [Case(held, [], lanes(name, held, time, shared=shared))
             for (name, held), time in zip(sessions.items(), times, strict=True)]  # fmt: skip
    requests = [
        (n, RequestInterval(at(start), at(start + length), "ok"))
        for n in range(len(cases))
        for start, length in intervals
    ]
    parts = [part for lane_parts in split(cases, RequestColumns.of(requests)) for lane in lane_parts for part in lane]
    exact = sum(
        (sum(exact_node_hours(sessions[name], lane.held)) for name, of in shared.items() for lane in of), Fraction()
    )
    assert sum((p.node_hours for p in parts), Decimal()) * UNITS == round(exact * UNITS)
    assert sum((p.usd or Decimal() for p in parts), Decimal()) * UNITS == round(
        exact * Fraction(PRICES["T4", "on_demand"] or 0) * UNITS
    )
    assert all(p.node_hours >= 0 and (p.usd or 0) >= 0 for p in parts)
    # And that is the time for which anybody was there.
    there, reached = 0.0, -1.0
    for of in sorted(sessions.values(), key=lambda one: one.requested_at):
        start, end = ((moment - READY).total_seconds() for moment in (of.requested_at, of.released_at))
        there += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    assert float(exact) * 3600 == pytest.approx(there, abs=1e-4)


@given(st.lists(st.fractions(0, 1000), max_size=20))
def test_whole_units_sum_to_the_exact_sum(exact: list[Fraction]) -> None:
    units = apportioned(exact)
    assert sum(units) == round(sum(exact, Fraction()) * UNITS)
    assert all(abs(unit - value * UNITS) < 1 for unit, value in zip(units, exact, strict=True))
