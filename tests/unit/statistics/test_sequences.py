"""A row of comparisons has one verdict, and one doubtful step is enough to leave it open."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import pytest

from lab_pipelines.statistics.comparisons import Side, ratio
from lab_pipelines.statistics.findings import Judgement
from lab_pipelines.statistics.means import mean
from lab_pipelines.statistics.multiple import simultaneous
from lab_pipelines.statistics.sequences import Step, cliff, every_step


class Against(TypedDict):
    comparison: Literal["above", "below"]
    threshold: float
    confidence: float


class Interval(NamedTuple):
    """Of the ratio of one step, and whether the stages behind it were steady."""

    name: str
    low: float | None
    high: float | None
    steady: bool = True


def step(name: str, low: float | None, high: float | None, *, steady: bool = True) -> Interval:
    return Interval(name, low, high, steady)


def against(
    steps: list[Interval], threshold: float, *, comparison: Literal["above", "below"] = "above"
) -> tuple[list[Step], Against]:
    """Each step as a comparison judges it."""
    told = list[Step]()
    for name, low, high, steady in steps:
        if low is None or high is None:
            told.append(Step(name, Judgement("inconclusive", None, None, None, 30, "m", "too few requests")))
            continue
        right, wrong = (
            (low > threshold, high <= threshold) if comparison == "above" else (high < threshold, low >= threshold)
        )
        verdict = "inconclusive" if not steady else "confirmed" if right else "refuted" if wrong else "inconclusive"
        told.append(Step(name, Judgement(verdict, (low + high) / 2, low, high, 30, "m", "")))
    return told, {"comparison": comparison, "threshold": threshold, "confidence": 0.975}


UP, DOWN, FLAT, UNKNOWN = (
    step("up", 1.2, 1.4),
    step("down", 0.6, 0.9),
    step("flat", 0.95, 1.1),
    step("unknown", None, None),
)


@pytest.mark.parametrize(
    ("steps", "verdict", "reason"),
    [
        ([UP, step("barely", 1.01, 1.3)], "confirmed", "barely"),
        ([UP, FLAT], "inconclusive", "flat"),
        ([UP, UNKNOWN], "inconclusive", "unknown"),
        ([UP, step("restless", 1.2, 1.4, steady=False)], "inconclusive", "restless"),
        ([UP, step("restless", 0.6, 0.9, steady=False)], "inconclusive", "restless"),
        ([UP, UNKNOWN, DOWN], "refuted", "down"),
        ([UNKNOWN], "inconclusive", "too few requests"),
        ([], "inconclusive", "but one value"),
    ],
)
def test_every_step_must_rise(steps: list[Interval], verdict: str, reason: str) -> None:
    told, claim = against(steps, 1.0)
    judged = every_step(told, **claim)
    assert (judged.verdict, reason in judged.reason) == (verdict, True)
    assert judged.method == "every neighbouring ratio, intervals of 97.5 % each, which hold at once (Bonferroni)"


def test_falling_is_rising_the_other_way_round() -> None:
    for steps, verdict in (([DOWN], "confirmed"), ([DOWN, UP], "refuted")):
        told, claim = against(steps, 1.0, comparison="below")
        assert every_step(told, **claim).verdict == verdict


def test_a_single_step_is_not_counted() -> None:
    told, claim = against([UP], 1.0)
    assert every_step(told, **claim).reason == "up: 1.3 [1.2, 1.4]"
    told, claim = against([UP, step("barely", 1.01, 1.3)], 1.0)
    assert every_step(told, **claim).reason == "all 2 steps; the least clear is barely: 1.155 [1.01, 1.3]"


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([FLAT, step("edge", 2.5, 4.0), FLAT], "confirmed"),
        ([FLAT, step("edge", 1.5, 4.0), FLAT], "inconclusive"),
        ([FLAT, step("edge", 1.1, 1.5), FLAT], "refuted"),
        ([step("other", 2.2, 3.0), step("edge", 2.5, 4.0), FLAT], "refuted"),
        ([UNKNOWN, step("edge", 2.5, 4.0), FLAT], "inconclusive"),
        ([FLAT, UNKNOWN, FLAT], "inconclusive"),
        ([FLAT, step("edge", 2.5, 4.0, steady=False), FLAT], "inconclusive"),
    ],
)
def test_a_cliff_is_one_step_and_no_other(steps: list[Interval], verdict: str) -> None:
    told, claim = against(steps, 2.0)
    assert cliff(told, 1, **claim).verdict == verdict


@pytest.mark.parametrize("direction", ["above", "below"])
def test_a_level_row_is_seldom_called_rising_or_falling(direction: Literal["above", "below"]) -> None:
    """Ten stages that are all alike: a verdict of "refuted" or "confirmed" is a false one."""
    numbers, stages, wrong, rows = np.random.default_rng(31), 10, 0, 400
    for _ in range(rows):
        each = simultaneous(0.95, stages - 1)
        means = [Side("s", mean(numbers.normal(100, 10, 200), confidence=each)) for _ in range(stages)]
        claim: Against = {"comparison": direction, "threshold": 1.0, "confidence": each}
        steps = [Step(f"{at}", ratio(later, before, **claim)) for at, (before, later) in enumerate(pairwise(means))]
        wrong += every_step(steps, **claim).verdict != "inconclusive"
    assert wrong / rows <= 0.07
