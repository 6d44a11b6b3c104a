"""A node's time is divided without a remainder, by what its tenants ask for, and never to anybody's harm."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.sharing import GIB, Amounts, Divided, Share, Tenant, divide

T4 = Amounts(1, 4, 28 * GIB)
HALF_OF_ALL = Amounts(0.5, 2, 14 * GIB)


def tenant(session: str, start_us: int, end_us: int, asks: Amounts = HALF_OF_ALL) -> Tenant:
    return Tenant(session, start_us, end_us, asks)


def time_of(divided: Divided, session: str) -> Fraction:
    return sum(((one.end_us - one.start_us) * one.share for one in divided.shares[session]), Fraction())


def test_a_tenant_alone_pays_for_the_whole_node_whatever_it_asks_for() -> None:
    for asks in (Amounts(0, 0.1, 0), Amounts(0, 0, 0), Amounts(5, 50, 500 * GIB)):
        assert divide([tenant("a", 10, 30, asks)], T4) == Divided({"a": [Share(10, 30, Fraction(1))]}, [])


def test_what_overlaps_is_shared_and_what_does_not_is_not() -> None:
    divided = divide([tenant("a", 0, 60), tenant("b", 40, 100)], T4)
    assert divided.shares["a"] == [Share(0, 40, Fraction(1)), Share(40, 60, Fraction(1, 2))]
    assert divided.shares["b"] == [Share(40, 60, Fraction(1, 2)), Share(60, 100, Fraction(1))]


def test_time_between_tenants_is_nobodys() -> None:
    divided = divide([tenant("a", 0, 10), tenant("b", 30, 40)], T4)
    assert divided.unheld == [(10, 30)]
    assert time_of(divided, "a") == time_of(divided, "b") == 10


def test_a_node_is_divided_by_opencosts_prices_of_its_resources() -> None:
    """By hand: a asks for the GPU, 0.95 of the node's 0.95 + 4 x 0.031611 + 28 x 0.004237 = 1.19508 USD an hour, and
    b for 2 vCPUs and 7 GiB, 2 x 0.031611 + 7 x 0.004237 = 0.092881. What is idle they pay in the same proportion."""
    divided = divide([tenant("a", 0, 1, Amounts(1, 0, 0)), tenant("b", 0, 1, Amounts(0, 2, 7 * GIB))], T4)
    assert divided.shares["a"][0].share == Fraction("0.95") / Fraction("1.042881")
    assert divided.shares["b"][0].share == Fraction("0.092881") / Fraction("1.042881")


def test_a_resource_that_is_asked_for_more_than_there_is_of_it_counts_once() -> None:
    """The vCPUs are asked for twice over, so that they weigh no more than there are of them: a has half of them and
    the memory, b has the other half."""
    divided = divide([tenant("a", 0, 1, Amounts(0, 4, 28 * GIB)), tenant("b", 0, 1, Amounts(0, 4, 0))], T4)
    cpus, memory = 4 * Fraction("0.031611"), 28 * Fraction("0.004237")
    assert divided.shares["a"][0].share == (cpus / 2 + memory) / (cpus + memory)


def test_tenants_that_ask_for_nothing_share_equally_and_pay_nothing_beside_one_that_asks() -> None:
    nothing = Amounts(0, 0, 0)
    alone = divide([tenant("a", 0, 1, nothing), tenant("b", 0, 1, nothing)], T4)
    assert [alone.shares[one][0].share for one in "ab"] == [Fraction(1, 2)] * 2
    beside = divide([tenant("a", 0, 1, nothing), tenant("b", 0, 1, Amounts(0, 0.1, 0))], T4)
    assert [beside.shares[one][0].share for one in "ab"] == [0, 1]


amounts = st.builds(
    Amounts,
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.floats(0, 8, allow_subnormal=False),
    st.floats(0, 60, allow_subnormal=False).map(lambda gib: float(int(gib * GIB))),
)


@st.composite
def tenants_of(draw: st.DrawFn) -> list[Tenant]:
    times = draw(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 5_000)), min_size=1, max_size=7))
    return [tenant(f"s{n}", start, start + length, draw(amounts)) for n, (start, length) in enumerate(times)]


@settings(max_examples=300, deadline=None)
@given(tenants_of(), amounts)
def test_the_parts_of_all_tenants_and_nobodys_sum_to_the_nodes_time_exactly(
    tenants: list[Tenant], capacity: Amounts
) -> None:
    divided = divide(tenants, capacity)
    length = max(one.end_us for one in tenants) - min(one.start_us for one in tenants)
    unheld = sum(end - start for start, end in divided.unheld)
    assert sum((time_of(divided, one.session) for one in tenants), Fraction()) + unheld == length
    for one in tenants:
        assert all(share.share >= 0 for share in divided.shares[one.session])
        there = sum(share.end_us - share.start_us for share in divided.shares[one.session])
        assert there == one.end_us - one.start_us


@settings(max_examples=100, deadline=None)
@given(tenants_of(), amounts, st.randoms(use_true_random=False))
def test_the_order_of_tenants_does_not_matter(tenants: list[Tenant], capacity: Amounts, random: Random) -> None:
    shuffled = list(tenants)
    random.shuffle(shuffled)
    assert divide(shuffled, capacity) == divide(tenants, capacity)


@settings(max_examples=200, deadline=None)
@given(tenants_of(), amounts, amounts, st.integers(0, 10_000), st.integers(0, 5_000))
def test_another_tenant_never_raises_what_the_others_pay(
    tenants: list[Tenant], capacity: Amounts, asks: Amounts, start: int, length: int
) -> None:
    before = divide(tenants, capacity)
    after = divide([*tenants, tenant("another", start, start + length, asks)], capacity)
    for one in tenants:
        assert time_of(after, one.session) <= time_of(before, one.session)


@pytest.mark.parametrize("sessions", [2, 200])
def test_a_year_of_tenants_one_after_the_other_pays_for_the_whole_year(sessions: int) -> None:
    tenants = [tenant(f"s{n:03}", 100 * n, 100 * n + 150) for n in range(sessions)]
    divided = divide(tenants, T4)
    assert sum((time_of(divided, one.session) for one in tenants), Fraction()) == 100 * (sessions - 1) + 150
    assert time_of(divided, "s001") == (100 if sessions > 2 else 125)
