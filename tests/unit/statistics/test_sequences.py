"""A row of comparisons has one verdict, and one doubtful step is enough to leave it open."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest

from lab_pipelines.statistics.findings import Judgement, ratio
from lab_pipelines.statistics.multiple import simultaneous
from lab_pipelines.statistics.sequences import Step, cliff, every_step


def step(name: str, low: float | None, high: float | None) -> Step:
    effect = None if low is None or high is None else (low + high) / 2
    return Step(name, Judgement("inconclusive", effect, low, high, 30, "m", "too few requests"))


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
        ([UP, UNKNOWN, DOWN], "refuted", "down"),
        ([UNKNOWN], "inconclusive", "too few requests"),
        ([], "inconclusive", "but one value"),
    ],
)
def test_every_step_must_rise(steps: list[Step], verdict: str, reason: str) -> None:
    judged = every_step(steps, comparison="above", threshold=1.0)
    assert (judged.verdict, reason in judged.reason) == (verdict, True)


def test_falling_is_rising_the_other_way_round() -> None:
    assert every_step([DOWN], comparison="below", threshold=1.0).verdict == "confirmed"
    assert every_step([DOWN, UP], comparison="below", threshold=1.0).verdict == "refuted"


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([FLAT, step("edge", 2.5, 4.0), FLAT], "confirmed"),
        ([FLAT, step("edge", 1.5, 4.0), FLAT], "inconclusive"),
        ([FLAT, step("edge", 1.1, 1.5), FLAT], "refuted"),
        ([step("other", 2.2, 3.0), step("edge", 2.5, 4.0), FLAT], "refuted"),
        ([UNKNOWN, step("edge", 2.5, 4.0), FLAT], "inconclusive"),
        ([FLAT, UNKNOWN, FLAT], "inconclusive"),
    ],
)
def test_a_cliff_is_one_step_and_no_other(steps: list[Step], verdict: str) -> None:
    assert cliff(steps, 1, comparison="above", threshold=2.0).verdict == verdict


@pytest.mark.parametrize("direction", ["above", "below"])
def test_a_level_row_is_seldom_called_rising_or_falling(direction: Literal["above", "below"]) -> None:
    """Ten stages that are all alike: a verdict of "refuted" or "confirmed" is a false one."""
    numbers, stages, wrong, rows = np.random.default_rng(31), 10, 0, 400
    for _ in range(rows):
        means = [numbers.normal(100, 10, 10).tolist() for _ in range(stages)]
        steps = [
            Step(
                f"{at}",
                ratio(later, before, comparison=direction, threshold=1.0, confidence=simultaneous(0.95, stages - 1)),
            )
            for at, (before, later) in enumerate(pairwise(means))
        ]
        wrong += every_step(steps, comparison=direction, threshold=1.0).verdict != "inconclusive"
    assert wrong / rows <= 0.07
