"""Steps, outliers and noise over many runs: each is called by its name as often as drift.py promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lab_pipelines.statistics.drift import MIN_RUNS, Drift, drift

SERIES = 400
MOST_BY_CHANCE = 0.05 * SERIES + 2 * (SERIES * 0.05 * 0.95) ** 0.5
"""Series called stepped where 5 % are: two standard deviations of the count above it."""
LENGTHS = (10, 12, 20, 35, 60)
Noise = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n)


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    """Student's t with three degrees of freedom, of standard deviation 1."""
    return rng.standard_t(3, n) / 3**0.5


def dependent(rng: np.random.Generator, n: int) -> np.ndarray:
    """Autoregressive, 0.3 from one run to the next, in its steady state."""
    found = rng.standard_normal(n + 20)
    for index in range(1, n + 20):
        found[index] = 0.3 * found[index - 1] + (1 - 0.09) ** 0.5 * found[index]
    return found[20:]


def drifts(
    noise: Noise, lengths: tuple[int, ...], change: Callable[[np.random.Generator, np.ndarray], None]
) -> list[Drift]:
    """Of runs about 100 with a standard deviation of 1, changed in place."""
    rng, found = np.random.default_rng(20_26), list[Drift]()
    for number in range(SERIES):
        runs = 100 + noise(rng, lengths[number % len(lengths)])
        change(rng, runs)
        found.append(drift(runs))
    return found


def nothing(rng: np.random.Generator, runs: np.ndarray) -> None:
    """Noise alone."""


@pytest.mark.parametrize("noise", [normal, heavy, dependent])
def test_noise_is_no_step(noise: Noise) -> None:
    found = drifts(noise, LENGTHS, nothing)
    assert sum(one.state == "stepped" for one in found) <= MOST_BY_CHANCE


@pytest.mark.parametrize("length", [12, 20, 40])
def test_a_step_of_three_standard_deviations_is_found(length: int) -> None:
    """With six runs on both sides, or six before and many after."""

    def step(rng: np.random.Generator, runs: np.ndarray) -> None:
        runs[6:] += 3

    found = drifts(normal, (length,), step)
    assert sum(one.state == "stepped" for one in found) >= 0.90 * SERIES
    right = [one for one in found if one.state == "stepped" and abs(one.levels[1].start - 6) <= 1]
    assert len(right) >= 0.80 * SERIES
    assert float(np.median([one.steps[0] for one in right])) == pytest.approx(0.03, abs=0.005)
    assert sum(bool(one.outliers) for one in right) <= 0.05 * SERIES, "a step is not called outliers"


@pytest.mark.parametrize("noise", [normal, dependent])
def test_a_run_that_lies_apart_is_an_outlier_and_no_step(noise: Noise) -> None:
    where = list[int]()

    def outlier(rng: np.random.Generator, runs: np.ndarray) -> None:
        where.append(int(rng.integers(len(runs))))
        runs[where[-1]] += 8

    found = drifts(noise, LENGTHS, outlier)
    assert sum(one.state == "stepped" for one in found) <= MOST_BY_CHANCE
    assert sum(at in one.outliers for at, one in zip(where, found, strict=True)) >= 0.80 * SERIES
    assert not any(one.unsettled for one in found)


def test_noise_has_hardly_an_outlier() -> None:
    assert sum(bool(one.outliers) for one in drifts(normal, LENGTHS, nothing)) <= 0.05 * SERIES


def test_a_step_up_and_down_again_leaves_three_levels() -> None:
    rng = np.random.default_rng(3)
    runs = 100 + rng.standard_normal(45)
    runs[15:30] += 5
    found = drift(runs)
    assert [(level.start, level.end) for level in found.levels] == [(0, 15), (15, 30), (30, 45)]
    assert found.steps == pytest.approx([0.05, -0.05], abs=0.01)
    assert "2 steps in 45 runs: +" in found.reason
    assert found.of_last_level() == list(range(30, 45))


def test_an_outlier_does_not_hide_a_step() -> None:
    """Of three standard deviations, with an outlier on the side where it looks like the other one."""

    def both(rng: np.random.Generator, runs: np.ndarray) -> None:
        runs[8:] += 3
        runs[4] += 12

    found = drifts(normal, (16, 30), both)
    assert sum(one.state == "stepped" for one in found) >= 0.85 * SERIES
    assert sum(4 in one.outliers for one in found) >= 0.90 * SERIES


def test_a_step_too_young_to_tell_is_said_to_be_perhaps_one() -> None:
    runs = 100 + np.random.default_rng(5).standard_normal(20)
    runs[-3:] += 15
    found = drift(runs)
    assert (found.state, found.unsettled, found.outliers) == ("steady", 3, (17, 18, 19))
    assert "perhaps a step, which takes 5 runs to tell" in found.reason
    assert found.of_last_level() == list(range(17))


def test_too_few_runs_is_an_answer() -> None:
    found = drift([100.0, 101.0, 180.0])
    assert (found.state, found.levels, found.scale) == ("unknown", (), None)
    assert found.reason == f"too few runs: 3; steps are told from outliers from {MIN_RUNS} on"


def test_runs_that_repeat_one_number_have_neither() -> None:
    """As a rehearsal's do, which draws the same numbers each time."""
    found = drift([235.07] * 12)
    assert (found.state, found.outliers, found.scale) == ("steady", (), 0.0)
    stepped = drift([235.07] * 6 + [236.0] * 6)
    assert [level.value for level in stepped.levels] == [235.07, 236.0]
    single = drift([235.07] * 11 + [236.0])
    assert (single.state, single.outliers) == ("steady", (11,))


def test_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="leave out what is not known"):
        drift([1.0] * 10 + [float("nan")])
