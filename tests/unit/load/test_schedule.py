"""An open loop's schedule and a mix's order: the same in every run, and fair."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gamma, kstest
from streaming_load.plan import Stage
from streaming_load.schedule import Mix, Sample, offsets, sample

from tests.support.load_plans import gets


def stage(number: int = 0, per_wall_s: float = 4.0, *, hold_s: float = 10.0, min_requests: int = 1) -> Stage:
    return Stage(number, None, per_wall_s, hold_wall_s=hold_s, min_requests=min_requests, max_hold_wall_s=99.0)


def due(one: Stage, arrivals: str, count: int = 400, step: str = "traffic", **plan: float) -> list[float]:
    return list(islice(offsets(gets("rate", one, arrivals=arrivals, step=step, **plan), one), count))


def test_even_arrivals_are_one_interval_apart_from_half_an_interval_on() -> None:
    assert due(stage(), "even", 4) == [0.125, 0.375, 0.625, 0.875]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_their_name() -> None:
    times = due(stage(), "poisson", 4000)
    gaps = [after - before for before, after in pairwise([0.0, *times])]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)
    assert min(gaps) > 0


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_arrivals_have_the_rate_and_are_as_bursty_as_asked(burstiness: float) -> None:
    times = due(stage(), "gamma", 20_000, burstiness=burstiness)
    gaps = [after - before for before, after in pairwise([0.0, *times])]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2 / burstiness, rel=0.1)
    assert times == due(stage(), "gamma", 20_000, burstiness=burstiness), "the same in every run"
    # Not only two moments: the gaps' distribution is the gamma distribution itself.
    assert kstest(gaps, gamma(burstiness, scale=0.25 / burstiness).cdf).pvalue > 0.01


def test_poisson_arrivals_are_the_same_in_every_run_and_differ_by_step_and_stage() -> None:
    assert due(stage(), "poisson") == due(stage(), "poisson")
    assert due(stage(), "poisson", 3) == pytest.approx([0.340250, 0.642001, 0.944789], abs=1e-6), "in every release"
    assert due(stage(), "poisson") != due(stage(1), "poisson")
    assert due(stage(), "poisson") != due(stage(), "poisson", step="other")
    assert due(stage(), "poisson", trial=1) == due(stage(), "poisson")
    assert due(stage(), "poisson", trial=2) == due(stage(), "poisson", trial=2) != due(stage(), "poisson")


def test_a_faster_clock_plays_the_same_pattern_faster() -> None:
    slow, fast = due(stage(per_wall_s=4.0), "poisson"), due(stage(per_wall_s=20.0), "poisson")
    assert [offset * 5 for offset in fast] == pytest.approx(slow)


def test_a_burst_is_due_at_once() -> None:
    one = Stage(0, 5, None, hold_wall_s=0.0, min_requests=5, max_hold_wall_s=99.0)
    plan = gets("burst", one)
    assert list(offsets(plan, one)) == [0.0] * 5
    assert sample(plan, one) == Sample(5, 0.0)


def test_a_sample_is_what_is_due_during_the_hold_and_at_least_the_minimum() -> None:
    assert sample(gets("rate", stage()), stage()) == Sample(40, 10.0)
    slow = stage(per_wall_s=0.5, min_requests=8)  # due after 1, 3, 5, … 15 s
    assert sample(gets("rate", slow), slow) == Sample(8, 15.0)


@given(weights=st.lists(st.floats(0.1, 100), min_size=1, max_size=5), first=st.integers(0, 5000))
def test_in_any_stretch_of_a_mix_every_shape_has_its_share(weights: list[float], first: int) -> None:
    mix = Mix(weights)
    counts = [0] * len(weights)
    for taken, turn in enumerate(range(first, first + 300), start=1):
        counts[mix.shape(turn)] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - taken * weight / sum(weights)) < 4


def test_rare_shapes_come_round_at_even_distances() -> None:
    mix = Mix([97, 3])
    turns = [turn for turn in range(2000) if mix.shape(turn) == 1]
    assert len(turns) == 60
    assert {after - before for before, after in pairwise(turns)} <= {21, 34, 55}, "three distances at most"
