"""What a budget's spend leads to: states, their hysteresis, periods, what is cut, and the file of budgets itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.budget_decisions import decision_row, state_before
from lab_pipelines.budget_guard import STATES, Amount, Holding, Spend, State, Verdict, cuts, judge, spend_of
from lab_pipelines.budgets import BUDGETS_FILE, MONTH, Budgets, load_budgets, period_of
from lab_pipelines.catalog.loader import SpecError

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
PERIOD = period_of(MONTH, NOW)
BUDGETS = Budgets(month_usd=Decimal(100), lab_usd=Decimal(20))

usd = st.decimals(min_value=0, max_value=300, places=2)
spends = st.builds(Spend, closed_usd=usd, open_usd=usd, pools_usd=usd, projected_usd=usd)
states = st.sampled_from(STATES)


def state(spend: Spend, before: State = "ok", **settings: Any) -> State:
    budgets = BUDGETS.model_copy(update=settings)
    return judge(MONTH, PERIOD, Decimal(100), spend, budgets=budgets, before=before).state


def closed(amount: float) -> Spend:
    return Spend(closed_usd=Decimal(str(amount)))


@pytest.mark.parametrize(
    ("spent", "expected"),
    [(0, "ok"), (79.99, "ok"), (80, "warn"), (99.99, "warn"), (100, "refuse"), (119.99, "refuse"), (120, "cut")],
)
def test_the_states_begin_where_the_file_says(spent: float, expected: State) -> None:
    assert state(closed(spent)) == expected


def test_what_is_committed_to_warns_and_refuses_but_only_what_is_spent_cuts() -> None:
    assert state(Spend(open_usd=Decimal(50), projected_usd=Decimal(500))) == "refuse"
    assert state(Spend(open_usd=Decimal(120))) == "cut"
    assert state(Spend(pools_usd=Decimal(120))) == "cut"


@pytest.mark.parametrize(
    ("before", "spent", "expected"),
    [
        *[("cut", 115, "cut"), ("cut", 114.99, "refuse"), ("cut", 95, "refuse"), ("cut", 94.99, "warn")],
        *[("refuse", 95, "refuse"), ("refuse", 94.99, "warn"), ("warn", 75, "warn"), ("warn", 74.99, "ok")],
    ],
)
def test_a_state_is_left_only_below_its_margin(before: State, spent: float, expected: State) -> None:
    assert state(closed(spent), before) == expected


@given(spends, states, usd, st.sampled_from(["closed_usd", "open_usd", "pools_usd", "projected_usd"]))
def test_more_money_never_leads_to_a_lower_state(spend: Spend, before: State, more: Decimal, kind: str) -> None:
    dearer = replace(spend, **{kind: getattr(spend, kind) + more})
    assert STATES.index(state(dearer, before)) >= STATES.index(state(spend, before))


@given(spends, states, st.booleans())
def test_money_that_can_t_be_told_warns_and_never_cuts(spend: Spend, before: State, refuse: bool) -> None:
    known = state(spend, before)
    untold = state(replace(spend, unknown=("a pool without a price",)), before, refuse_unknown=refuse)
    least: State = "refuse" if refuse else "warn"
    assert untold == max(known, least, key=STATES.index)


@given(spends, states)
def test_the_same_spend_again_changes_nothing(spend: Spend, before: State) -> None:
    """No flapping, and two daemons that look at the same money agree."""
    once = state(spend, before)
    assert state(spend, once) == once


@given(st.lists(st.tuples(st.sampled_from(["L06", "L11", None]), usd), max_size=8))
def test_the_month_is_the_sum_of_labs_and_of_what_has_none(parts: list[tuple[str | None, Decimal]]) -> None:
    amounts = [Amount(lab, "closed", one, "") for lab, one in parts]
    whole = spend_of(MONTH, amounts).spent_usd
    named = sum((spend_of(lab, amounts).spent_usd for lab in ("L06", "L11")), Decimal())
    assert whole == named + sum((one for lab, one in parts if lab is None), Decimal())


def test_what_has_no_price_is_in_no_sum_and_named_once() -> None:
    spend = spend_of("L06", [Amount("L06", "open", None, "no price"), Amount("L06", "projected", None, "no price")])
    assert (spend.committed_usd, spend.unknown) == (0, ("no price",))
    assert spend_of("L11", [Amount("L06", "open", None, "no price")]).unknown == ()


# From look to look


def row_of(verdict: Verdict) -> dict[str, Any]:
    return decision_row(verdict, budgets=BUDGETS, guard="cut", now=NOW, target="aks", provenance="measured")


def test_a_new_month_or_another_budget_begins_anew() -> None:
    verdict = judge(MONTH, PERIOD, Decimal(100), closed(130), budgets=BUDGETS, before="ok")
    row = row_of(verdict)
    assert state_before(row, period=PERIOD, budget_usd=Decimal(100)) == "cut"
    assert state_before(row, period=period_of(MONTH, PERIOD.end), budget_usd=Decimal(100)) == "ok"
    assert state_before(row, period=PERIOD, budget_usd=Decimal(200)) == "ok"
    assert state_before(None, period=PERIOD, budget_usd=Decimal(100)) == "ok"


@pytest.mark.parametrize(
    ("now", "start", "end"),
    [
        ("2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00", "2027-02-01T00:00:00+00:00"),
        ("2026-03-01T00:30:00+02:00", "2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"),
    ],
)
def test_a_month_is_one_of_utc(now: str, start: str, end: str) -> None:
    period = period_of(MONTH, datetime.fromisoformat(now))
    assert (period.start.isoformat(), period.end.isoformat()) == (start, end)


def test_a_lab_s_budget_is_of_the_year() -> None:
    period = period_of("L06", NOW)
    assert (period.start, period.end) == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


# What is cut

L06 = Holding("L06", "run-6", gpu=True, usd_per_h=Decimal("0.5"), until=NOW)
L11 = Holding("L11", "run-11", gpu=True, usd_per_h=Decimal("3.7"), until=NOW)
L01 = Holding("L01", "run-1", gpu=False, usd_per_h=Decimal("0.2"), until=NOW)
POOL = Holding("t4", None, gpu=True, usd_per_h=Decimal(1))
UNPRICED = Holding("L48", "run-48", gpu=True, usd_per_h=None, until=NOW)
ALL = [L06, L11, L01, POOL, UNPRICED]


def over(scope: str, state: State = "cut") -> Verdict:
    return Verdict(scope, PERIOD, Decimal(100), Spend(), "ok", state, "")


def test_the_month_s_budget_ends_whatever_has_a_gpu_the_dearest_first() -> None:
    assert [one.holding for one in cuts([over(MONTH)], ALL)] == [L11, POOL, L06, UNPRICED]


def test_a_lab_s_budget_ends_the_lab_s_own_lease_with_or_without_a_gpu() -> None:
    ended = cuts([over(MONTH, "refuse"), over("L01"), over("L06", "refuse")], ALL)
    assert [(one.holding, one.verdict.scope) for one in ended] == [(L01, "L01")]


@given(st.lists(st.sampled_from([MONTH, "L06", "L11"]), unique=True), st.lists(st.sampled_from(ALL), unique=True))
def test_nothing_is_cut_twice_and_nothing_without_a_budget_that_asks_for_it(
    scopes: list[str], holdings: list[Holding]
) -> None:
    ended = cuts([over(scope) for scope in scopes], holdings)
    assert len({one.holding for one in ended}) == len(ended)
    for one in ended:
        assert one.verdict.scope == one.holding.name or (one.verdict.scope == MONTH and one.holding.gpu)
    assert cuts([over(scope, "refuse") for scope in scopes], holdings) == []


# The file


def read(tmp_path: Path, text: str) -> Budgets:
    path = tmp_path / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path)


def test_as_it_comes_there_is_no_limit_and_the_file_says_what_the_defaults_are() -> None:
    assert load_budgets() == Budgets()
    assert not load_budgets().limited
    assert set(Budgets.model_fields) == {
        line.split(":")[0] for line in BUDGETS_FILE.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()
    }


def test_a_lab_s_own_amount_comes_before_that_of_all(tmp_path: Path) -> None:
    budgets = read(tmp_path, "month_usd: 500\nlab_usd: 20\nlabs: {L48: 400.5}\n")
    assert (budgets.of(MONTH), budgets.of("L06"), budgets.of("L48")) == (500, 20, Decimal("400.5"))
    assert read(tmp_path, "labs: {L48: 400}\n").limited
    assert read(tmp_path, "labs: {L48: 400}\n").of("L06") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("month_usd: -5\n", "budgets.yaml:1: month_usd: "),
        ("month_usd: much\n", "budgets.yaml:1: month_usd: "),
        ("month_usd: 5\nlabs: {L99: 3}\n", "budgets.yaml:2: labs: L99 is no lab; the year has L01 to L78"),
        ("month_usd: 5\nwarn_percent: 110\n", "warn, refuse and cut_percent in that order"),
        ("targets: [rehearsal]\n", "budgets.yaml:1: targets.0: "),
        ("monthly: 5\n", "is not a field of this spec"),
    ],
)
def test_a_wrong_file_is_told_by_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


def test_a_row_s_sums_agree_to_the_micro_dollar() -> None:
    third = Decimal(1) / 3
    spend = Spend(third, third, third, third)
    row = row_of(judge(MONTH, PERIOD, Decimal(100), spend, budgets=BUDGETS, before="ok"))
    assert row["spent_usd"] == row["closed_usd"] + row["open_usd"] + row["pools_usd"] == Decimal("0.999999")
    assert row["committed_usd"] == row["spent_usd"] + row["projected_usd"]
    assert row["tick_at"] - NOW == timedelta()
