"""A real slow-down is called, noise is not, and what can't be compared is never passed over in silence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from lab_pipelines.regression import (
    Allowance,
    Comparison,
    Question,
    against_history,
    against_run,
    judged,
    outcome_of,
    pasts_of,
)
from lab_pipelines.run_numbers import ALL_STAGES, QUANTITIES, Cell, Number, Quantity, Run

LOADS = (1, 4, 8, 16, 32)
BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
VALUES = {"throughput": (27.0, 92.0, 155.0, 235.0, 292.0), "ttft_p50": (0.17, 0.61, 0.78, 1.2, 2.2)}
VALUES |= {"tpot_p50": (0.037, 0.041, 0.047, 0.059, 0.095)}
"""As L06's pinned baseline has them."""
AT = datetime(2026, 3, 2, tzinfo=UTC)


def cell(name: str, users: int) -> Cell:
    return Cell("baseline", "ramp", users, None, 1, BY_NAME[name], f"{users} users")


EXACT = Run(
    "exact",
    AT,
    "modelled-vllm",
    "modelled",
    "short",
    5.0,
    {
        cell(name, users): Number(value, 0.01, 40)
        for name, of in VALUES.items()
        for users, value in zip(LOADS, of, strict=True)
    },
)


def noisy(
    rng: np.random.Generator,
    *,
    slower: float = 1.0,
    between: float = 0.01,
    within: float = 0.01,
    only: int | None = None,
) -> Run:
    """A run whose numbers differ by `between` as a whole and again each on its own, and by `within` by its requests.

    Standard deviations of logarithms. `slower` for the stage of `only` so many users, or for all.
    """
    whole, numbers = rng.normal(0, between), dict[Cell, Number]()
    for at, number in EXACT.numbers.items():
        change = whole + rng.normal(0, between) + rng.normal(0, within)
        change += math.log(slower) if only in (None, at.users) else 0.0
        sign = -1 if at.quantity.higher_is_better else 1
        numbers[at] = Number(number.value * math.exp(sign * change), within, number.n)
    return replace(EXACT, numbers=numbers)


def checked(run: Run, earlier: Sequence[Run]) -> list[Comparison]:
    """As `labs regress` asks where the baseline was pinned in the same place: both ways at once."""
    baseline = against_run(
        run, earlier[0], name="baseline", allowance=Allowance.SAME_PLACE, earlier=earlier, quantities=QUANTITIES
    )
    return judged([*baseline, *against_history(run, earlier)])


def share_called(checks: int, *, runs: int, slower: float, between: float = 0.01, only: int | None = None) -> float:
    rng = np.random.default_rng(20_26)
    called = 0
    for _ in range(checks):
        earlier = [noisy(rng, between=between) for _ in range(runs)]
        found = checked(noisy(rng, slower=slower, between=between, only=only), earlier)
        called += outcome_of(found) == "regression"
    return called / checks


@pytest.mark.parametrize("between", [0.01, 0.05])
def test_the_same_code_run_again_passes(between: float) -> None:
    """Five hundred checks of runs that differ by noise alone, 1.4 % or 7 % from one to the next."""
    assert share_called(500, runs=6, slower=1.0, between=between) <= 0.05


def test_a_change_as_large_as_the_threshold_is_called_in_one_check_of_twenty_at_most() -> None:
    assert share_called(400, runs=6, slower=1.05) <= 0.05


@pytest.mark.parametrize(("runs", "between"), [(6, 0.01), (15, 0.02)])
def test_a_slow_down_of_15_percent_fails(runs: int, between: float) -> None:
    assert share_called(150, runs=runs, slower=1.15, between=between) >= 0.90


def test_a_single_stage_that_is_slower_fails_and_is_named() -> None:
    rng = np.random.default_rng(2)
    found = checked(noisy(rng, slower=1.3, only=32), [noisy(rng) for _ in range(8)])
    assert outcome_of(found) == "regression"
    worse = {
        (one.cell.quantity.name, one.cell.users) for one in found if one.verdict == "worse" and not one.cell.is_whole
    }
    assert worse == {(name, 32) for name in VALUES}


def test_two_runs_of_one_job_need_no_past() -> None:
    rng = np.random.default_rng(7)

    def outcomes(slower: float) -> list[str]:
        pairs = [(noisy(rng, between=0.001), noisy(rng, slower=slower, between=0.001)) for _ in range(100)]
        asked = [against_run(new, former, name="former", allowance=Allowance.SAME_JOB) for former, new in pairs]
        return [outcome_of(judged(questions)) for questions in asked]

    assert outcomes(1.0).count("regression") <= 5
    assert outcomes(1.15).count("regression") >= 90


def test_without_a_past_another_machine_may_be_slower_by_a_quarter() -> None:
    def asked(slower: float, allowance: Allowance) -> list[Comparison]:
        run = noisy(np.random.default_rng(1), slower=slower, between=0.0, within=0.01)
        return judged(against_run(run, EXACT, name="baseline", allowance=allowance))

    found = asked(1.15, Allowance.ANOTHER_MACHINE)
    assert outcome_of(found) == "inconclusive"
    assert "allowing 26.0 % between two runs: the baseline's run is not in this warehouse" in found[0].reason
    assert outcome_of(asked(1.9, Allowance.ANOTHER_MACHINE)) == "regression"
    assert outcome_of(asked(1.15, Allowance.SAME_PLACE)) == "inconclusive"
    assert outcome_of(asked(1.15, Allowance.NONE)) == "regression"


def test_worse_means_less_throughput_and_more_time() -> None:
    better = replace(EXACT, numbers={c: Number(n.value * 1.5, n.spread, n.n) for c, n in EXACT.numbers.items()})
    found = judged(against_run(better, EXACT, name="former", allowance=Allowance.SAME_JOB))
    verdicts = {one.cell.quantity.name: one.verdict for one in found}
    assert verdicts == {"throughput": "better", "ttft_p50": "worse", "tpot_p50": "worse"}
    speed = next(one for one in found if one.cell.quantity.name == "throughput")
    assert speed.change == pytest.approx(0.5)
    assert speed.low is not None
    assert speed.high is not None
    assert speed.low < 0.5 < speed.high


def test_the_same_within_the_threshold_is_shown_to_be_the_same() -> None:
    found = judged(against_run(EXACT, EXACT, name="former", allowance=Allowance.SAME_JOB), threshold=0.10)
    assert {one.verdict for one in found} == {"same"}
    assert outcome_of(found) == "no regression"


def test_a_stage_or_a_number_that_is_gone_is_no_pass() -> None:
    lost = cell("throughput", 32)
    run = replace(EXACT, numbers={c: n for c, n in EXACT.numbers.items() if c != lost})
    for questions in (
        against_run(run, EXACT, name="baseline", allowance=Allowance.NONE),
        against_history(run, [EXACT] * 6),
    ):
        found = judged(questions)
        assert [one.cell for one in found if one.verdict == "missing"] == [lost]
        assert outcome_of(found) == "missing"
    # The mean over all stages is then one over those that both have.
    whole = next(
        one
        for one in judged(against_run(run, EXACT, name="baseline", allowance=Allowance.NONE))
        if one.cell.is_whole and one.cell.quantity.name == "throughput"
    )
    assert whole.value == pytest.approx(math.prod(VALUES["throughput"][:4]) ** 0.25)


def test_nothing_that_could_be_compared_is_no_pass() -> None:
    assert outcome_of([]) == "nothing compared"
    assert outcome_of(judged(against_history(EXACT, []))) == "nothing compared"
    few = judged(against_history(EXACT, [EXACT] * 4))
    assert {one.verdict for one in few} == {"inconclusive"}
    assert few[0].reason == "4 earlier runs; their spread takes 5 to know"
    assert outcome_of(few) == "nothing compared"
    blind = replace(EXACT, numbers={c: Number(n.value, None, 12) for c, n in EXACT.numbers.items()})
    found = judged(against_run(blind, blind, name="baseline", allowance=Allowance.SAME_JOB))
    assert outcome_of(found) == "nothing compared"
    assert found[0].reason == "12 against 12 requests: too few for an interval"


def test_a_quantile_of_too_few_requests_is_open_and_the_rest_is_not() -> None:
    p95 = Cell("baseline", "ramp", 8, None, 1, BY_NAME["ttft_p95"], "8 users")
    run = replace(EXACT, numbers={**EXACT.numbers, p95: Number(1.2, None, 26)})
    found = judged(against_run(run, run, name="former", allowance=Allowance.SAME_JOB), threshold=0.10)
    assert {one.verdict for one in found if one.cell == p95} == {"inconclusive"}
    assert outcome_of(found) == "no regression"


def test_earlier_runs_do_not_make_a_number_of_too_few_requests() -> None:
    """A p95 of 20 requests is one slow request's time: its spread over six runs says little of the seventh."""
    p95 = Cell("baseline", "ramp", 8, None, 1, BY_NAME["ttft_p95"], "8 users")
    earlier = [replace(EXACT, numbers={p95: Number(1.2 + 0.001 * n, None, 20)}) for n in range(6)]
    slow = replace(EXACT, numbers={p95: Number(1.6, None, 20)})
    (found,) = judged(against_history(slow, earlier))
    assert (found.verdict, found.reason) == ("inconclusive", "20 requests: too few for an interval")
    (found,) = judged(against_run(slow, earlier[0], name="baseline", allowance=Allowance.SAME_PLACE, earlier=earlier))
    assert found.verdict == "inconclusive"


def test_a_side_without_a_spread_is_taken_to_be_as_uncertain_as_the_other() -> None:
    pinned = replace(EXACT, numbers={c: Number(n.value, None, n.n) for c, n in EXACT.numbers.items()})
    alone = judged(against_run(EXACT, pinned, name="baseline", allowance=Allowance.NONE))
    both = judged(against_run(EXACT, EXACT, name="baseline", allowance=Allowance.NONE))
    stages = [(a, b) for a, b in zip(alone, both, strict=True) if not a.cell.is_whole]
    assert all(a.low == pytest.approx(b.low) for a, b in stages)


def test_history_is_the_level_since_the_last_step_without_runs_that_lie_apart() -> None:
    rng = np.random.default_rng(4)
    at = cell("throughput", 8)

    def with_level(level: float, count: int) -> list[Run]:
        return [noisy(rng, slower=level) for _ in range(count)]

    earlier = [*with_level(1.0, 10), *with_level(1.3, 10)]
    earlier[14] = noisy(rng, slower=3.0)
    past = pasts_of(earlier, list(EXACT.numbers))[at]
    assert len(past.values) == 9
    assert past.note == " (without 10 before the last step and 1 that lie apart)"
    # So a run on the new level passes, and one on the old level is better.
    assert outcome_of(judged(against_history(noisy(rng, slower=1.3), earlier))) != "regression"
    verdicts = {one.verdict for one in judged(against_history(noisy(rng), earlier))}
    assert "better" in verdicts
    assert "worse" not in verdicts


def test_a_place_where_single_runs_are_slow_now_and_then_asks_for_another_run() -> None:
    """One run in ten is a third slower, whatever the code: a neighbour's load. Two in a row are no accident."""
    rng = np.random.default_rng(11)
    earlier = [noisy(rng, slower=1.35 if number in (5, 14) else 1.0) for number in range(20)]
    slow = noisy(rng, slower=1.33, between=0.0, within=0.001)
    found = judged(against_history(slow, earlier))
    assert outcome_of(found) != "regression"
    assert any("an earlier run was as bad and the next ones weren't; run it again" in one.reason for one in found)
    assert outcome_of(judged(against_history(noisy(rng, slower=1.6), earlier))) == "regression", (
        "worse than any of them"
    )
    # The slow runs of before don't excuse the second of two in a row: here the last earlier run is the first.
    only_last = [noisy(rng, slower=1.35 if number == 19 else 1.0) for number in range(20)]
    assert outcome_of(judged(against_history(slow, only_last))) == "regression"


def test_a_place_where_one_run_in_ten_is_slow_hardly_ever_fails_the_same_code() -> None:
    rng, called = np.random.default_rng(5), 0
    for _ in range(150):
        spikes = np.where(rng.random(13) < 0.1, rng.uniform(1.08, 1.2, 13), 1.0)
        *earlier, run = (noisy(rng, slower=float(spike)) for spike in spikes)
        called += outcome_of(checked(run, earlier)) == "regression"
    assert called <= 0.08 * 150


def test_runs_that_all_gave_the_same_leave_the_requests_to_tell() -> None:
    """A rehearsal repeated draws the same numbers."""
    slower = replace(EXACT, numbers={c: Number(n.value * 1.2, n.spread, n.n) for c, n in EXACT.numbers.items()})
    assert outcome_of(judged(against_history(slower, [EXACT] * 6))) == "regression"
    still = replace(EXACT, numbers={c: Number(n.value, 0.0, n.n) for c, n in EXACT.numbers.items()})
    found = judged(against_history(still, [still] * 6))
    assert {one.reason for one in found} == {"neither its requests nor the earlier runs vary at all"}


def test_runs_of_another_kind_are_unlike() -> None:
    assert EXACT.unlike(EXACT) is None
    assert replace(EXACT, provenance="measured").unlike(EXACT) == "measured against modelled numbers"
    assert (
        replace(EXACT, pace="full", time_scale=1.0).unlike(EXACT) == "pace full against short, time scale 1 against 5"
    )
    changed = replace(EXACT, details={"sku": "b", "model": "m"})
    assert changed.changed(replace(EXACT, details={"sku": "a", "model": "m", "spec_digest": "1"})) == ["sku"]


def test_only_the_quantities_asked_for_are_looked_at() -> None:
    asked: list[Quantity] = [BY_NAME["ttft_p50"]]
    questions: list[Question] = [
        *against_run(EXACT, EXACT, name="former", allowance=Allowance.NONE, quantities=asked),
        *against_history(EXACT, [EXACT] * 5, quantities=asked),
    ]
    assert {one.cell.quantity.name for one in questions} == {"ttft_p50"}
    assert {one.cell.step for one in questions} == {"ramp", ALL_STAGES}


def test_intervals_of_more_comparisons_are_wider() -> None:
    def width(quantities: list[Quantity]) -> float:
        found = judged(against_run(EXACT, EXACT, name="former", allowance=Allowance.NONE, quantities=quantities))
        one = next(one for one in found if one.cell == cell("ttft_p50", 8))
        assert one.low is not None
        assert one.high is not None
        return one.high - one.low

    assert width([BY_NAME["ttft_p50"]]) < width(list(QUANTITIES))


def test_the_reason_names_the_spread_that_the_interval_is_made_of() -> None:
    rng = np.random.default_rng(3)
    for between, within, by_requests in ((0.05, 0.001, False), (0.0, 0.05, True)):
        earlier = [noisy(rng, between=between, within=0.0) for _ in range(6)]
        run = noisy(rng, between=0.0, within=within)
        reasons = [one.reason.split("; ", 1)[1] for one in checked(run, earlier) if not one.cell.is_whole]
        assert reasons and all(reason.startswith("spread of 6 earlier runs") for reason in reasons)
        assert {reason.endswith("that of the requests is wider and taken") for reason in reasons} == {by_requests}
