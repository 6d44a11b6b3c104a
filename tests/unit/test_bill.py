"""Which days are asked for, and what of an answer is news."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.bill import (
    LONGEST_WINDOW_DAYS,
    Amount,
    Answer,
    BillError,
    LineKey,
    Window,
    check_days,
    day_rows,
    days_due,
    ended_days,
    news,
    pool_of,
    settled,
    windows,
)

DAY = date(2026, 3, 2)
NOW = datetime(2026, 3, 20, 9, tzinfo=UTC)


def key(day: date = DAY, resource: str | None = "/a", tag: str | None = None) -> LineKey:
    return LineKey(day, resource, tag, "EUR")


def amount(cost: str, usd: str | None = None) -> Amount:
    return Amount(Decimal(cost), None if usd is None else Decimal(usd))


def answer(lines: dict[LineKey, Amount], window: Window | None = None) -> Answer:
    return Answer(window or Window(DAY, DAY), NOW, lines, calls=1)


@given(st.sets(st.dates(date(2025, 1, 1), date(2026, 12, 31)), max_size=150))
def test_windows_hold_exactly_the_days_and_none_is_longer_than_azure_takes(days: set[date]) -> None:
    found = windows(days)
    assert [day for window in found for day in window.days] == sorted(days)
    assert all(len(window.days) <= LONGEST_WINDOW_DAYS for window in found)


def test_the_daily_question_is_two_windows_that_end_yesterday() -> None:
    first, last = ended_days(NOW)
    assert last == date(2026, 3, 19)
    assert [len(window.days) for window in windows(Window(first, last).days)] == [31, 31]


def test_days_that_azure_would_change_silently_are_refused() -> None:
    with pytest.raises(BillError, match="comes after"):
        check_days(DAY, DAY - timedelta(days=1), today=NOW.date())
    with pytest.raises(BillError, match="2026-03-21 is in the future"):
        check_days(DAY, date(2026, 3, 21), today=NOW.date())
    check_days(DAY, NOW.date(), today=NOW.date())


def test_a_day_is_asked_for_again_once_azure_has_had_time_to_change_its_mind() -> None:
    asked = {DAY: NOW - timedelta(hours=3, minutes=59), DAY + timedelta(days=1): NOW - timedelta(hours=4)}
    due = days_due(DAY, DAY + timedelta(days=2), asked=asked, now=NOW)
    assert due == [DAY + timedelta(days=1), DAY + timedelta(days=2)]


def test_a_day_is_settled_when_it_was_asked_for_five_days_after_any_billing_month_that_holds_it() -> None:
    end = datetime(2026, 3, 3, tzinfo=UTC)
    assert not settled(DAY, end + timedelta(days=36) - timedelta(seconds=1))
    assert settled(DAY, end + timedelta(days=36))


@pytest.mark.parametrize(
    ("resource", "pool"),
    [
        (
            "/subscriptions/s/resourceGroups/MC_x/providers/Microsoft.Compute/virtualMachineScaleSets/aks-t4-123-vmss",
            "t4",
        ),
        ("/x/virtualmachinescalesets/AKS-A100spot-1-VMSS/virtualMachines/0", "a100spot"),
        ("/x/virtualMachineScaleSets/other-t4-123-vmss", None),
        ("/x/disks/aks-t4-123-vmss", None),
        (None, None),
    ],
)
def test_the_pool_is_told_by_the_name_of_its_machines(resource: str | None, pool: str | None) -> None:
    assert pool_of(resource) == pool


def test_the_same_answer_is_no_news_and_another_one_is_a_row() -> None:
    known = {key(): amount("1.5")}
    assert news(answer({key(): amount("1.500000000")}), known) == []
    assert news(answer({key(): amount("1.6")}), known) == [(key(), amount("1.6"))]
    assert news(answer({key(): amount("1.5", "1.7")}), known) == [(key(), amount("1.5", "1.7"))]


def test_a_line_that_is_gone_is_a_row_without_an_amount_and_only_once() -> None:
    later = key(DAY + timedelta(days=1))
    known: dict[LineKey, Amount | None] = {key(): amount("1.5"), later: amount("2")}
    [row] = day_rows(answer({}), known, target="aks", run_id="bill-1")  # `later` was not asked for
    assert (row["usage_date"], row["cost"]) == (DAY, None)
    assert news(answer({}), {key(): None}) == []


def test_a_line_that_comes_back_is_news() -> None:
    assert news(answer({key(): amount("1.5")}), {key(): None}) == [(key(), amount("1.5"))]
