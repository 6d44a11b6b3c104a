"""An open loop's schedule and a mix's order: the same in every run, and fair."""

from __future__ import annotations

import math
from itertools import accumulate, islice, pairwise, takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import expon, gamma, kstest
from streaming_load.plan import Stage
from streaming_load.schedule import Mix, Sample, offsets, sample

from tests.support.load_plans import gets, traced


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


def ramp(*points: tuple[float, float], min_requests: int = 1) -> Stage:
    """A stage whose rate goes from point to point, (time, requests per second)."""
    expected = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    length_s = points[-1][0]
    return Stage(0, None, expected / length_s, length_s, min_requests, 999.0, points=points)


def while_it_holds(one: Stage, arrivals: str = "even", **plan: float) -> list[float]:
    schedule = offsets(gets("rate_profile", one, arrivals=arrivals, **plan), one)
    return list(takewhile(lambda at: at < one.hold_wall_s, schedule))


def integral(points: tuple[tuple[float, float], ...], at: float) -> float:
    """Requests that are to come by a time, by adding up thin slices."""
    slices = 20_000
    rates = []
    for number in range(slices):
        middle = at * (number + 0.5) / slices
        (t0, r0), (t1, r1) = next((a, b) for a, b in pairwise(points) if a[0] <= middle < b[0])
        rates.append(r0 + (r1 - r0) * (middle - t0) / (t1 - t0))
    return sum(rates) * at / slices


def test_a_ramp_of_the_rate_has_as_many_requests_as_its_integral_and_each_where_that_has_come_to_it() -> None:
    points = (0.0, 1.0), (10.0, 9.0)
    times = while_it_holds(ramp(*points))
    assert len(times) == 50
    assert [integral(points, at) for at in times] == pytest.approx([n + 0.5 for n in range(50)], rel=1e-4)
    falling = while_it_holds(ramp((0.0, 9.0), (10.0, 1.0)))
    assert falling == pytest.approx([10.0 - at for at in reversed(times)]), "the same, backwards"


def test_a_rate_profile_that_doesn_t_change_is_a_rate() -> None:
    for arrivals in ("even", "poisson"):
        flat = gets("rate_profile", ramp((0.0, 4.0), (2.0, 4.0), (5.0, 4.0)), arrivals=arrivals)
        assert list(islice(offsets(flat, flat.stages[0]), 100)) == pytest.approx(due(stage(), arrivals, 100))


def test_bursts_on_and_off_have_no_request_while_off_and_all_in_their_time() -> None:
    on_off = [(0.0, 10.0), (2.0, 10.0), (2.0, 0.0), (5.0, 0.0)]
    points = [(turn * 5.0 + at, per_s) for turn in range(3) for at, per_s in on_off]
    times = while_it_holds(ramp(*points))
    assert [sum(turn * 5 <= at < turn * 5 + 2 for at in times) for turn in range(3)] == [20, 20, 20]
    assert len(times) == 60
    # The last rate is 0, so nothing comes any more: the schedule has an end, and the sample is what there was.
    one = ramp(*points, min_requests=100)
    assert len(list(offsets(gets("rate_profile", one), one))) == 60
    assert sample(gets("rate_profile", one), one) == Sample(60, 15.0)


def test_after_its_last_point_a_profile_goes_on_at_the_last_rate() -> None:
    one = ramp((0.0, 0.0), (4.0, 2.0))
    times = list(islice(offsets(gets("rate_profile", one), one), 10))
    assert len([at for at in times if at < 4.0]) == 4
    assert [after - before for before, after in pairwise(times[4:])] == pytest.approx([0.5] * 5)
    assert sample(gets("rate_profile", one), one) == Sample(4, 4.0)
    assert sample(gets("rate_profile", one), ramp((0.0, 0.0), (4.0, 2.0), min_requests=6)).requests == 6


@pytest.mark.parametrize(("arrivals", "options"), [("poisson", {}), ("gamma", {"burstiness": 0.5})])
def test_drawn_arrivals_of_a_ramp_are_those_of_rate_one_in_the_time_of_its_integral(
    arrivals: str, options: dict[str, float]
) -> None:
    points = (0.0, 0.0), (300.0, 20.0), (400.0, 20.0), (400.0, 2.0), (1000.0, 2.0)
    one = ramp(*points)
    times = while_it_holds(one, arrivals, **options)
    assert times == while_it_holds(one, arrivals, **options), "the same in every run"
    assert times == sorted(times)
    assert len(times) == pytest.approx(3000 + 2000 + 1200, rel=0.05)
    begun = list(accumulate((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points)))
    came = [
        at * at / 30 if at < 300 else (begun[0] + 20 * (at - 300) if at < 400 else begun[2] + 2 * (at - 400))
        for at in times
    ]
    gaps = [after - before for before, after in pairwise([0.0, *came])]
    law = expon if arrivals == "poisson" else gamma(0.5, scale=2.0)
    assert kstest(gaps, law.cdf).pvalue > 0.01


@given(
    rates=st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 50.0)), min_size=1, max_size=6),
    first=st.floats(0.0, 50.0),
)
def test_any_profile_has_the_requests_of_its_integral_in_order(rates: list[tuple[float, float]], first: float) -> None:
    points, at = [(0.0, first)], 0.0
    for gap, per_s in rates:
        at += gap
        points.append((at, per_s))
    expected = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    one = Stage(0, None, 1.0, at, 1, 999.0, points=tuple(points))
    times = list(takewhile(lambda due: due <= at, offsets(gets("rate_profile", one), one)))
    assert times == sorted(times) and all(due >= 0 for due in times)
    assert abs(len(times) - math.floor(expected + 0.5)) <= 1, "one lies on the edge"


def test_a_trace_is_due_when_its_file_says_and_its_stage_holds_for_the_window(tmp_path: Path) -> None:
    plan = traced(tmp_path, [(0.0, 5, 5), (3.0, 6, 6), (3.0, 7, 7), (9.0, 8, 8)], per_wall_s=2.0)
    assert list(offsets(plan, plan.stages[0])) == [0.0, 1.5, 1.5, 4.5]
    assert sample(plan, plan.stages[0]) == Sample(4, 4.5)


@pytest.mark.parametrize("parts", [2, 3])
def test_the_parts_of_several_processes_make_the_whole(tmp_path: Path, parts: int) -> None:
    profile = gets("rate_profile", ramp((0.0, 1.0), (10.0, 9.0)), arrivals="poisson")
    trace = traced(tmp_path, [(number * 0.3, 5, 5) for number in range(20)])
    for plan in (profile, trace):
        whole = list(islice(enumerate(offsets(plan, plan.stages[0])), 40))
        split = [islice(enumerate(offsets(plan, plan.stages[0])), part, 40, parts) for part in range(parts)]
        assert sorted(one for part in split for one in part) == whole


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
