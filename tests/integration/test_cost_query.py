"""The real SDK against a double of Cost Management: all data in the end, and never a call too many."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest

from lab_pipelines.bill import Answer, BillError, LineKey, Window
from lab_pipelines.deployment import REPO_ROOT
from resources.azure_session import AzureError, UnansweredError
from resources.call_limit import CallLimit, Limit
from resources.cost_query import AZURE_LIMITS, RETRY_HEADERS, BillPausedError
from tests.support.azure_cost import AzureCost, BillingOverLoopback, Clock, machines, page

MARCH = Window(date(2026, 3, 1), date(2026, 3, 31))
NOW = datetime(2026, 4, 20, 9, tzinfo=UTC)
ENTITY, QPU = RETRY_HEADERS[1], RETRY_HEADERS[0]


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def azure(clock: Clock) -> Iterator[AzureCost]:
    with AzureCost(now=clock) as server:
        yield server


@pytest.fixture
def billing(azure: AzureCost, clock: Clock, tmp_path: Path) -> BillingOverLoopback:
    return billing_in(tmp_path, azure, clock)


def billing_in(folder: Path, azure: AzureCost, clock: Clock) -> BillingOverLoopback:
    limit = CallLimit(folder / "calls.json", AZURE_LIMITS, clock=clock, sleep=clock.sleep)
    return BillingOverLoopback.to(azure, folder, limit)


def ask(
    billing: BillingOverLoopback, window: Window = MARCH, *, within_s: float = 3600, said: list[str] | None = None
) -> Answer:
    return billing.ask_bill(window, within_s=within_s, progress=(said if said is not None else []).append)


def charge_every_day(azure: AzureCost, window: Window = MARCH, *, resources: int = 1) -> Decimal:
    """A bill without gaps, and its sum."""
    total = Decimal()
    for day in window.days:
        for number in range(resources):
            cost = Decimal(day.day) / 8 + number
            azure.charge(day, machines(f"t{number}"), cost, tag="l06" if number % 2 else None)
            total += cost
    return total


def total(answer: Answer) -> Decimal:
    return sum((amount.cost for amount in answer.lines.values()), Decimal())


def test_a_month_is_one_call_by_resource_and_tag_with_a_client_type(
    azure: AzureCost, billing: BillingOverLoopback
) -> None:
    expected = charge_every_day(azure, resources=2)
    answer = ask(billing)
    assert (total(answer), len(answer.lines), answer.calls) == (expected, 62, 1)
    assert LineKey(date(2026, 3, 5), machines("t1"), "l06", "USD") in answer.lines
    [seen] = azure.seen
    assert seen.headers["Clienttype"] == "lab-pipelines"
    assert seen.body["timePeriod"] == {"from": "2026-03-01T00:00:00Z", "to": "2026-03-31T23:59:59Z"}
    assert [one["name"] for one in seen.body["dataset"]["grouping"]] == ["ResourceId", "lab"]


@pytest.mark.parametrize("last_link", ["null", "empty", "absent"])
def test_every_page_is_fetched_by_post_with_the_same_question(
    azure: AzureCost, billing: BillingOverLoopback, last_link: Literal["null", "empty", "absent"]
) -> None:
    azure.rows_per_page, azure.next_link_as = 7, last_link
    expected = charge_every_day(azure, resources=2)
    answer = ask(billing)
    assert (total(answer), len(answer.lines), answer.calls) == (expected, 62, 9)
    assert {seen.method for seen in azure.seen} == {"POST"}
    assert all(seen.body == azure.seen[0].body for seen in azure.seen)
    assert {seen.headers.get("Clienttype") for seen in azure.seen} == {"lab-pipelines"}
    assert azure.violations == []


def test_a_next_link_to_another_host_gets_no_token(azure: AzureCost, billing: BillingOverLoopback) -> None:
    path = (
        "/subscriptions/x/resourceGroups/y/providers/Microsoft.CostManagement/query?api-version=2025-03-01&$skiptoken=7"
    )
    day = Window(date(2026, 3, 2), date(2026, 3, 2))
    azure.fault("POST", "query", status=200, body=page(next_link=f"https://elsewhere.invalid{path}"))
    azure.fault("POST", "query", status=200, body=page([1, "/a", "", "", 20260302, "USD"]))
    assert total(ask(billing, day)) == 1  # asked for at the address that the token is for
    azure.fault("POST", "query", status=200, body=page(next_link="https://elsewhere.invalid/steal"))
    with pytest.raises(AzureError, match="nextLink leads to /steal, which is no cost query"):
        ask(billing, day)


@pytest.mark.parametrize("way", ["columns_reversed", "iso", "pretax", "no dollars", "euro"])
def test_whatever_the_offer_calls_it(azure: AzureCost, billing: BillingOverLoopback, way: str) -> None:
    azure.columns_reversed = way == "columns_reversed"
    azure.days_as = "iso" if way == "iso" else "number"
    azure.offers = "PreTaxCost" if way in ("pretax", "no dollars") else "Cost"
    if way in ("no dollars", "euro"):
        azure.currency, azure.usd_per_unit = "EUR", None if way == "no dollars" else Decimal("1.25")
    expected = charge_every_day(azure)
    answer = ask(billing)
    assert total(answer) == expected
    usd = {amount.cost_usd for amount in answer.lines.values()}
    if way == "no dollars":
        assert usd == {None}
    elif way == "euro":
        assert sum(amount.cost_usd or 0 for amount in answer.lines.values()) == expected * Decimal("1.25")
    assert azure.violations == []


@pytest.mark.parametrize("empty", ["no rows", "204"])
def test_days_without_data_stay_gaps(
    azure: AzureCost, billing: BillingOverLoopback, empty: Literal["no rows", "204"]
) -> None:
    azure.empty_as = empty
    assert ask(billing).lines == {}
    azure.charge(date(2026, 3, 2), machines("t4"), "1.5")
    assert {key.usage_date for key in ask(billing).lines} == {date(2026, 3, 2)}


def test_days_that_azure_leaves_out_of_an_answer_by_resource_are_asked_for_one_by_one(
    azure: AzureCost, billing: BillingOverLoopback
) -> None:
    azure.grouped_gives_last_day_only = True
    week = Window(date(2026, 3, 1), date(2026, 3, 7))
    expected = charge_every_day(azure, week)
    answer = ask(billing, week)
    assert (total(answer), answer.calls) == (expected, 1 + 1 + 6)
    assert azure.violations == []


def test_the_same_machine_in_two_spellings_is_one_line(azure: AzureCost, billing: BillingOverLoopback) -> None:
    day = date(2026, 3, 2)
    azure.charge(day, machines("t4"), "1.5", tag="l06")
    azure.charge(day, machines("t4").upper(), "0.25", tag="L06")
    assert ask(billing, Window(day, day)).lines == {
        LineKey(day, machines("t4"), "l06", "USD"): (Decimal("1.75"), Decimal("1.75"))
    }


def test_questions_that_azure_would_change_are_never_sent(azure: AzureCost, billing: BillingOverLoopback) -> None:
    for window, said in [
        (Window(date(2026, 4, 1), date(2026, 4, 21)), "in the future"),
        (Window(date(2026, 3, 2), date(2026, 3, 1)), "comes after"),
        (Window(date(2026, 3, 1), date(2026, 4, 1)), "32 days; Azure answers for 31 at most"),
    ]:
        with pytest.raises(BillError, match=said):
            ask(billing, window)
    assert azure.seen == []


def test_the_largest_of_azures_headers_is_waited(azure: AzureCost, billing: BillingOverLoopback, clock: Clock) -> None:
    charge_every_day(azure)
    azure.storm = [{ENTITY: "17", QPU: "41", "Retry-After": "3"}]
    said = list[str]()
    ask(billing, said=said)
    assert clock.now - NOW == timedelta(seconds=41)
    assert any("asks for 41 s" in text for text in said)
    assert azure.violations == []


@pytest.mark.parametrize("headers", [{}, {QPU: "soon"}, {QPU: "nan"}, {QPU: "-5"}, {QPU: "inf"}])
def test_a_refusal_that_says_no_time_costs_a_minute(
    azure: AzureCost, billing: BillingOverLoopback, clock: Clock, headers: dict[str, str]
) -> None:
    charge_every_day(azure)
    azure.fault("POST", "query", status=429, code="429", headers=headers)
    ask(billing)
    assert clock.now - NOW == timedelta(seconds=60)


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_refusals_ends_with_all_data_and_never_a_call_too_many(
    azure: AzureCost, billing: BillingOverLoopback, seed: int
) -> None:
    dice = random.Random(seed)
    azure.limits = AZURE_LIMITS
    azure.rows_per_page = 5
    azure.storm = [
        {name: str(dice.randint(1, 50)) for name in dice.sample(RETRY_HEADERS, dice.randint(1, 3))} for _ in range(25)
    ]
    expected = charge_every_day(azure, resources=2)
    answer = ask(billing)
    assert (total(answer), len(answer.lines)) == (expected, 62)
    assert azure.violations == []
    assert answer.calls == len(azure.calls) == 13 + 25


def test_a_storm_without_end_ends_in_a_clear_state(azure: AzureCost, billing: BillingOverLoopback) -> None:
    azure.storm = [{QPU: "1"}] * 1000
    with pytest.raises(
        BillPausedError, match=r"cost of 2026-03-01 to 2026-03-31: .*60 times in a row.*ask again after"
    ):
        ask(billing)
    assert len(azure.calls) == 60
    assert azure.violations == []


def test_where_there_is_no_time_to_wait_it_says_when_to_come_again(
    azure: AzureCost, billing: BillingOverLoopback, clock: Clock, tmp_path: Path
) -> None:
    charge_every_day(azure)
    azure.storm = [{QPU: "3600"}]
    with pytest.raises(BillPausedError, match=r"only at 2026-04-20 10:00:00 UTC") as raised:
        ask(billing, within_s=600)
    assert raised.value.again_at == NOW + timedelta(hours=1)
    assert clock.slept == []
    with pytest.raises(BillPausedError):  # another process knows, too, and asks nothing
        ask(billing_in(tmp_path, azure, clock), within_s=600)
    assert len(azure.calls) == 1
    clock.pass_time(timedelta(hours=1))
    assert len(ask(billing_in(tmp_path, azure, clock)).lines) == 31
    assert azure.violations == []


@pytest.mark.parametrize(
    ("status", "code", "message", "said"),
    [
        (401, "ExpiredAuthenticationToken", "The access token expiry is past.", "az login"),
        (401, "AccountCostDisabled", "Access to cost data has been disabled.", "hides its charges"),
        (403, "RBACAccessDenied", "The client does not have authorization.", "Cost Management Reader"),
        (404, "ResourceGroupNotFound", "Resource group 'x' could not be found.", "LABS_AKS_NODE_RESOURCE_GROUP"),
        (400, "BadRequest", "Cost management is not supported for this offer.", "not supported for this offer"),
    ],
)
def test_a_no_is_said_at_once_with_its_remedy(
    azure: AzureCost, billing: BillingOverLoopback, status: int, code: str, message: str, said: str
) -> None:
    azure.fault("POST", "query", status=status, code=code, message=message, times=9)
    with pytest.raises(AzureError, match=said) as raised:
        ask(billing)
    assert str(raised.value).startswith("cost of 2026-03-01 to 2026-03-31: ")
    assert "\n" not in str(raised.value)
    assert len(azure.seen) == 1


def test_failures_are_asked_again_and_count_as_calls(
    azure: AzureCost, billing: BillingOverLoopback, clock: Clock
) -> None:
    expected = charge_every_day(azure)
    azure.fault("POST", "query", status=503, code="ServiceUnavailable", message="Try again.")
    azure.fault("POST", "query")  # the connection is dropped
    assert total(ask(billing)) == expected
    azure.fault("POST", "query", status=500, times=9)
    with pytest.raises(UnansweredError, match="failed to answer, 4 times"):
        ask(billing)
    assert len(azure.seen) == 7
    azure.clear_faults()
    azure.fault("POST", "query", status=200, body="<html>gateway</html>", times=4)
    with pytest.raises(UnansweredError, match="answer is no JSON, 4 times: <html>gateway</html>"):
        ask(billing)
    assert clock.now - NOW >= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("bodies", "said"),
    [
        (
            [page([1, "/a", "", "", 20260302, "USD"], [None, "/a", "", "", 20260303, "USD"])],
            "page 1, row 2, column Cost",
        ),
        ([page([1, "/a", "", "", 20260402, "USD"])], "a day from 2026-03-01 to 2026-03-31, as was asked for"),
        ([page([1, "/a", "", "", 20260302, "USD"], [2, "/a", "", "", 20260302, "USD"])], "row 2 repeats page 1, row 1"),
        (['{"properties": []}'], "page 1 has no properties"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused_whole(
    azure: AzureCost, billing: BillingOverLoopback, bodies: list[str], said: str
) -> None:
    for body in bodies:
        azure.fault("POST", "query", status=200, body=body)
    with pytest.raises(AzureError, match=f"cost of 2026-03-01 to 2026-03-31: Azure's answer can't be read: .*{said}"):
        ask(billing)


def test_pages_that_lead_in_a_circle_or_have_no_end_are_refused(azure: AzureCost, billing: BillingOverLoopback) -> None:
    path = "/subscriptions/x/resourceGroups/y/providers/Microsoft.CostManagement/query?$skiptoken=7"
    azure.fault("POST", "query", status=200, body=page(next_link=path), times=2)
    with pytest.raises(AzureError, match="page 2 leads back to a page that was read before"):
        ask(billing)
    azure.endless = True
    with pytest.raises(AzureError, match="it has no end: 500 pages"):
        ask(billing, within_s=10**6)
    assert azure.violations == []


def test_in_real_time_a_short_limit_holds_through_a_storm(tmp_path: Path) -> None:
    short = Limit(4, 0.5, of_one=True)
    with AzureCost(limits=(short,), rows_per_page=4) as azure:
        expected = charge_every_day(azure)
        azure.storm = [{QPU: "0.3"}, {ENTITY: "0.1", QPU: "0.2"}]
        limit = CallLimit(tmp_path / "calls.json", [short])
        begun = time.monotonic()
        answer = ask(BillingOverLoopback.to(azure, tmp_path, limit), within_s=60)
    assert (total(answer), answer.calls) == (expected, 8 + 2)
    assert azure.violations == []
    assert time.monotonic() - begun >= 1.0


SCRIPT = """
import sys
from datetime import date
from pathlib import Path
from lab_pipelines.bill import Window
from resources.call_limit import CallLimit, Limit
from tests.support.azure_cost import AzureCost, BillingOverLoopback
folder, url, token = sys.argv[1:]
limit = CallLimit(Path(folder) / "calls.json", [Limit(4, 0.5, of_one=True)])
there = AzureCost(token=token)
billing = BillingOverLoopback.to(there, folder, limit, base_url=url)
answer = billing.ask_bill(Window(date(2026, 3, 1), date(2026, 3, 31)), within_s=60, progress=lambda _: None)
print(len(answer.lines), answer.calls)
"""


def test_two_processes_share_what_azure_allows(tmp_path: Path) -> None:
    with AzureCost(limits=(Limit(4, 0.5, of_one=True),), rows_per_page=4) as azure:
        charge_every_day(azure)
        azure.storm = [{QPU: "0.4"}, {ENTITY: "0.2"}]
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), azure.url, azure.token]
        there = {**os.environ, "PYTHONPATH": str(REPO_ROOT)}
        both = [subprocess.Popen(command, cwd=REPO_ROOT, env=there, stdout=subprocess.PIPE, text=True) for _ in "ab"]
        said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [lines for lines, _ in said] == ["31", "31"]
    assert sum(int(calls) for _, calls in said) == len(azure.calls) == 2 * 8 + 2
    assert azure.violations == []


def test_everything_of_a_wrong_sign_in_is_said_in_one_line(azure: AzureCost, clock: Clock, tmp_path: Path) -> None:
    billing = billing_in(tmp_path, azure, clock).model_copy(update={"token": "another"})
    billing._limit = CallLimit(tmp_path / "calls.json", AZURE_LIMITS, clock=clock, sleep=clock.sleep)
    with pytest.raises(AzureError, match="az login"):
        ask(billing)
