"""Claims on values that are all there are: the worst one decides, and a gap decides nothing."""

from __future__ import annotations

from typing import Literal

import pytest

from lab_pipelines.statistics.findings import agreement, bound, outcomes, plain_ratio


@pytest.mark.parametrize(
    ("values", "comparison", "threshold", "verdict", "effect"),
    [
        ([3.0, 5.0], "above", 2.0, "confirmed", 3.0),
        ([3.0, 5.0], "above", 3.0, "refuted", 3.0),
        ([3.0, 5.0], "below", 5.0, "refuted", 5.0),
        ([3.0, 5.0], "below", 6.0, "confirmed", 5.0),
        ([3.0, None], "below", 6.0, "inconclusive", 3.0),  # the gap might have been above it
        ([7.0, None], "below", 6.0, "refuted", 7.0),  # one that is above it settles the matter
        ([None], "below", 6.0, "inconclusive", None),
        ([], "below", 6.0, "inconclusive", None),
    ],
)
def test_a_bound_is_judged_on_its_worst_value_and_a_gap_confirms_nothing(
    values: list[float | None],
    comparison: Literal["above", "below"],
    threshold: float,
    verdict: str,
    effect: float | None,
) -> None:
    judgement = bound(values, comparison=comparison, threshold=threshold)
    assert (judgement.verdict, judgement.effect) == (verdict, effect)
    assert judgement.n == sum(value is not None for value in values)


@pytest.mark.parametrize(
    ("pairs", "verdict", "effect"),
    [
        ([(101.0, 100.0), (99.5, 100.0)], "confirmed", 0.01),
        ([(103.0, 100.0), (100.0, 100.0)], "refuted", 0.03),
        ([(100.0, 100.0), (None, 100.0)], "inconclusive", 0.0),
        ([(1.0, 0.0)], "inconclusive", None),
        ([], "inconclusive", None),
    ],
)
def test_two_measures_agree_only_if_every_pair_does(
    pairs: list[tuple[float | None, float | None]], verdict: str, effect: float | None
) -> None:
    judgement = agreement(pairs, tolerance=0.02)
    assert judgement.verdict == verdict
    assert judgement.effect == (None if effect is None else pytest.approx(effect))


@pytest.mark.parametrize(
    ("ended", "verdict", "reason"),
    [
        ({"a": "ok", "b": "ok", "c": "failed"}, "confirmed", "all 2 steps"),
        ({"a": "ok", "b": "failed"}, "refuted", "not as expected: b"),
        ({"a": "ok"}, "inconclusive", "not done: b"),
        ({"a": "failed"}, "refuted", "not as expected: a"),
    ],
)
def test_outcomes_are_those_of_the_steps_that_the_claim_names(ended: dict[str, str], verdict: str, reason: str) -> None:
    judgement = outcomes(ended, ["a", "b"])
    assert judgement.verdict == verdict
    assert reason in judgement.reason


def test_one_number_over_another_has_no_interval_and_a_gap_decides_nothing() -> None:
    judged = plain_ratio(3.0, 2.0, comparison="above", threshold=1.4)
    assert (judged.verdict, judged.effect, judged.low) == ("confirmed", 1.5, None)
    assert plain_ratio(3.0, 2.0, comparison="below", threshold=1.4).verdict == "refuted"
    for numerator, denominator in ((None, 2.0), (3.0, None), (3.0, 0.0)):
        assert plain_ratio(numerator, denominator, comparison="above", threshold=1).verdict == "inconclusive"
