"""Every unit of the bill is somebody's, or nobody's for a reason; a session's parts sum to its bill."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.bill import Amount, BillLine, LineKey
from lab_pipelines.reconcile import EstimatedSession, NodeSpan, Outcome, Reconciled, reconcile, share_out
from tests.support.azure_cost import machines
from tests.support.rows.common import USD_PER_NODE_HOUR
from tests.support.rows.money import cost_row

DAY = date(2026, 3, 2)
NEXT = DAY + timedelta(days=1)
SAID_AT = datetime(2026, 3, 4, 9, tzinfo=UTC)
NOW = datetime(2026, 3, 5, 9, tzinfo=UTC)
ASKED = {DAY: SAID_AT, NEXT: SAID_AT}


def line(
    cost: str, *, day: date = DAY, resource: str | None = None, tag: str | None = None, currency: str = "USD",
    usd: str | None = None,
) -> BillLine:  # fmt: skip
    dollars = cost if currency == "USD" else usd
    return BillLine(
        LineKey(day, machines("t4") if resource is None else resource, tag, currency),
        Amount(Decimal(cost), None if dollars is None else Decimal(dollars)),
        SAID_AT,
    )


def session(
    name: str = "s1", lab: str = "L06", *, start: float = 9, hours: float = 1, pool: str | None = "t4",
    usd: tuple[str | None, ...] = ("0.1", "0.4"), **more: Any,
) -> EstimatedSession:  # fmt: skip
    """Held one node from `start` o'clock on DAY; its parts were estimated at `usd`."""
    begin = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(hours=start)
    parts = [
        cost_row(
            lab=lab, session_id=name, x_part=part, ListCost=None if cost is None else Decimal(cost),
            ListUnitPrice=None if cost is None else USD_PER_NODE_HOUR,
            PricingQuantity=Decimal(str(hours / len(usd))),
        )
        for part, cost in zip(["serve", "idle", "cold_start", "failed"], usd, strict=False)
    ]  # fmt: skip
    return EstimatedSession(name, lab, [NodeSpan(pool, 1, begin, begin + timedelta(hours=hours))], parts, **more)


def run(lines: list[BillLine], sessions: list[EstimatedSession], **options: Any) -> Reconciled:
    return reconcile(lines, sessions, **{"asked": ASKED, "now": NOW} | options)


def placed(result: Reconciled) -> dict[str | None, Decimal]:
    found = defaultdict[str | None, Decimal](Decimal)
    for share in result.shares:
        found[share.session_id] += share.cost
    return dict(found)


def billed(outcome: Outcome) -> list[tuple[str, Decimal]]:
    return [(row["x_part"], row["BilledCost"]) for row in outcome.rows]


def test_a_tagged_line_is_its_labs_alone_and_its_parts_follow_the_estimate() -> None:
    result = run([line("1.00", tag="l06")], [session(), session("s2", "L07")])
    assert placed(result) == {"s1": Decimal("1.00")}
    assert billed(result.outcomes[0]) == [("serve", Decimal("0.2")), ("idle", Decimal("0.8"))]
    [serve, _] = result.outcomes[0].rows
    assert (serve["x_estimated_usd"], serve["x_billed_usd"], serve["x_delta_usd"]) == (
        Decimal("0.1"), Decimal("0.2"), Decimal("0.1"),
    )  # fmt: skip
    assert (serve["x_state"], serve["x_bill_state"], serve["x_billed_at"]) == ("billed", "provisional", SAID_AT)
    assert serve["recorded_at"] == NOW
    assert result.outcomes[1].waiting == f"the bill of {DAY} has no line for its nodes"


def test_an_untagged_line_of_a_pool_is_split_by_what_each_session_was_estimated_to_cost_that_day() -> None:
    dear, cheap = session("dear", hours=1, usd=("3",)), session("cheap", "L07", start=12, hours=1, usd=("1",))
    assert placed(run([line("8")], [dear, cheap])) == {"dear": Decimal(6), "cheap": Decimal(2)}


def test_a_session_over_midnight_pays_on_each_day_for_its_hours_of_it() -> None:
    long = session("long", start=21, hours=4, usd=("4",))  # 3 h on DAY, 1 h on NEXT
    other = session("other", "L07", start=25, hours=3, usd=("3",))  # all on NEXT
    result = run([line("6"), line("8", day=NEXT)], [long, other])
    assert placed(result) == {"long": Decimal(6 + 2), "other": Decimal(6)}


def test_where_a_price_is_missing_node_hours_split() -> None:
    unpriced = session("unpriced", hours=3, usd=(None,))
    priced = session("priced", "L07", start=13, hours=1, usd=("100",))
    result = run([line("4")], [unpriced, priced])
    assert placed(result) == {"unpriced": Decimal(3), "priced": Decimal(1)}
    [row] = result.outcomes[0].rows
    assert (row["x_estimated_usd"], row["x_billed_usd"], row["x_delta_usd"]) == (None, Decimal(3), None)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (line("1", tag="l09"), "no session of L09 held nodes on that day"),
        (line("1", tag="website"), "its tag lab=website names no lab"),
        (line("1", tag="l06", resource=machines("a100")), "no session of L06 held nodes of pool a100 on that day"),
        (line("1", resource=machines("system")), "no tag lab, and no session held nodes of pool system on that day"),
        (line("1", resource="/x/publicipaddresses/y"), "it has no tag lab and is no node pool's machines"),
        (line("1", day=NEXT), "no tag lab, and no session held nodes of pool t4 on that day"),
        (BillLine(LineKey(DAY, "/x", None, "USD"), None, SAID_AT), "a later bill no longer has it"),
    ],
)  # fmt: skip
def test_what_no_rule_can_place_is_nobodys_with_the_reason(one: BillLine, reason: str) -> None:
    [share] = run([one], [session()]).shares
    assert share.session_id is None
    assert reason in (share.reason or "")


def test_a_tagged_disk_is_its_labs_and_a_pool_that_is_not_known_fits_any() -> None:
    disk = line("1", tag="l06", resource="/x/disks/y")
    assert placed(run([disk], [session()])) == {"s1": Decimal(1)}
    assert placed(run([line("1", tag="l06")], [session(pool=None)])) == {"s1": Decimal(1)}
    assert placed(run([line("1")], [session(pool=None)])) == {None: Decimal(1)}


@pytest.mark.parametrize(
    ("lines", "asked", "why"),
    [
        ([], {}, "2026-03-02 was never asked for"),
        ([], ASKED, "Azure has no data of 2026-03-02 yet"),
        ([line("1")], {DAY: datetime(2026, 3, 2, 23, 59, tzinfo=UTC)}, "2026-03-02 was asked for before it was over"),
        ([line("1")], {DAY: SAID_AT}, "2026-03-03 was never asked for"),
        ([line("1")], ASKED, "Azure has no data of 2026-03-03 yet"),
        ([line("1"), line("1", day=NEXT, resource="/ip")], ASKED, "the bill of 2026-03-03 has no line for its nodes"),
        ([line("1"), line("1", day=NEXT, currency="EUR")], ASKED, "it is billed in several currencies: EUR, USD"),
    ],
)
def test_a_session_with_a_gap_waits_and_says_for_what(
    lines: list[BillLine], asked: dict[date, datetime], why: str
) -> None:
    [outcome] = run(lines, [session(start=23, hours=2)], asked=asked).outcomes
    assert (outcome.waiting, outcome.rows) == (why, [])


def test_a_session_without_an_estimate_keeps_its_share_and_waits() -> None:
    unattributed = EstimatedSession("s1", "L06", session().spans, [])
    result = run([line("1")], [unattributed])
    assert placed(result) == {"s1": Decimal(1)}
    assert (
        result.outcomes[0].waiting == "it has no estimate that the bill could be split by: materialize cost_attribution"
    )


def test_the_bills_currency_is_kept_and_dollars_are_what_azure_said() -> None:
    [row] = run([line("0.90", currency="EUR", usd="1.00")], [session(usd=("0.5",))]).outcomes[0].rows
    assert (row["BillingCurrency"], row["BilledCost"], row["x_billed_usd"]) == ("EUR", Decimal("0.90"), Decimal("1.00"))
    assert (row["x_estimated_usd"], row["x_delta_usd"]) == (Decimal("0.5"), Decimal("0.5"))
    assert (row["ListCost"], row["ListUnitPrice"]) == (None, None)  # which were in dollars


def test_without_dollars_the_delta_is_unknown() -> None:
    [row] = run([line("0.90", currency="EUR")], [session(usd=("0.5",))]).outcomes[0].rows
    assert (row["BilledCost"], row["x_billed_usd"], row["x_delta_usd"]) == (Decimal("0.90"), None, None)


def test_settled_once_every_day_was_asked_for_late_enough() -> None:
    late = datetime(2026, 4, 9, tzinfo=UTC)
    both = [line("1"), line("1", day=NEXT)]
    long = session(start=23, hours=2)
    states = [
        run(both, [long], asked=asked).outcomes[0].rows[0]["x_bill_state"]
        for asked in ({DAY: late, NEXT: late}, {DAY: late, NEXT: SAID_AT})
    ]
    assert states == ["settled", "provisional"]


def test_a_bill_that_says_the_same_is_no_news_and_a_changed_one_is() -> None:
    before = run([line("1")], [session()]).outcomes[0]
    assert before.news
    known = session(billed=before.rows)
    later = NOW + timedelta(days=1)
    assert not run([line("1")], [known], now=later).outcomes[0].news
    again = run([line("1.01")], [known], now=later).outcomes[0]
    assert again.news
    assert [row["recorded_at"] for row in again.rows] == [later, later]
    settles = {DAY: datetime(2026, 5, 1, tzinfo=UTC)}
    assert run([line("1")], [known], asked=settles, now=later).outcomes[0].news


def taken_back(one: BillLine) -> BillLine:
    return BillLine(one.key, None, one.said_at)


def test_what_another_session_pays_by_now_is_taken_from_the_former_one() -> None:
    before = run([line("8")], [session(), session("s2", "L07")])
    assert placed(before) == {"s1": Decimal(4), "s2": Decimal(4)}
    known = [session(billed=before.outcomes[0].rows), session("s2", "L07", billed=before.outcomes[1].rows)]
    one, two = run([taken_back(line("8")), line("8", tag="l07")], known).outcomes
    assert (one.waiting, one.news, billed(one)) == (None, True, [("serve", Decimal()), ("idle", Decimal())])
    assert sum(cost for _, cost in billed(two)) == Decimal(8)
    assert {(row["x_bill_state"], row["x_billed_at"], row["x_billed_usd"]) for row in one.rows} == {
        ("provisional", SAID_AT, Decimal())
    }


def test_nothing_left_is_said_once_in_the_former_currency() -> None:
    euros = line("1", currency="EUR", usd="1.1")
    before = run([euros], [session()]).outcomes[0]
    [gone] = run([taken_back(euros)], [session(billed=before.rows)]).outcomes
    assert {(row["BillingCurrency"], row["BilledCost"]) for row in gone.rows} == {("EUR", Decimal())}
    later = {day: asked + timedelta(days=1) for day, asked in ASKED.items()}
    [again] = run([taken_back(euros)], [session(billed=gone.rows)], asked=later).outcomes
    assert (again.waiting, again.news) == (None, False)


def test_a_billed_session_over_midnight_keeps_the_day_that_is_left() -> None:
    both = [line("1"), line("2", day=NEXT)]
    before = run(both, [session(start=23, hours=2)]).outcomes[0]
    late = {DAY: NOW + timedelta(days=90), NEXT: NOW + timedelta(days=90)}
    [left] = run([both[0], taken_back(both[1])], [session(start=23, hours=2, billed=before.rows)], asked=late).outcomes
    assert sum(cost for _, cost in billed(left)) == Decimal(1)
    assert {row["x_bill_state"] for row in left.rows} == {"provisional"}, "a day has no line"


def test_a_refund_is_shared_out_like_any_other_amount() -> None:
    result = run([line("-0.01")], [session(), session("s2", "L07", start=12)])
    assert sum(placed(result).values()) == Decimal("-0.01")


@given(total=st.integers(-(10**12), 10**12), weights=st.lists(st.fractions(0, 10**6), min_size=1, max_size=9))
def test_shares_sum_to_the_whole_and_none_is_off_by_a_unit(total: int, weights: list[Fraction]) -> None:
    shares = share_out(total, weights)
    assert sum(shares) == total
    if whole := sum(weights):
        assert all(abs(share - total * weight / whole) < 1 for share, weight in zip(shares, weights, strict=True))


AMOUNTS = st.decimals(Decimal("-50"), Decimal("500"), places=9)
LINES = st.builds(
    lambda cost, day, pool, tag, usd: line(
        str(cost), day=day, resource=machines(pool) if pool else "/x/ip", tag=tag, currency="EUR", usd=str(usd)
    ),
    AMOUNTS, st.sampled_from([DAY, NEXT]), st.sampled_from(["t4", "a100", None]),
    st.sampled_from([None, "l06", "l07", "other"]), AMOUNTS,
)  # fmt: skip
PARTS = st.lists(st.decimals(0, 9, places=9).map(str), min_size=1, max_size=4).map(tuple)
SESSIONS = st.builds(
    lambda lab, start, hours, pool, usd: (lab, start, hours, pool, usd),
    st.sampled_from(["L06", "L07"]), st.floats(0, 40), st.floats(0, 8), st.sampled_from(["t4", "a100", None]), PARTS,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(lines=st.lists(LINES, max_size=12, unique_by=lambda one: one.key), sessions=st.lists(SESSIONS, max_size=5))
def test_the_bill_is_placed_or_nobodys_to_the_last_unit(lines: list[BillLine], sessions: list[Any]) -> None:
    made = [
        session(f"s{n}", lab, start=start, hours=hours, pool=pool, usd=usd)
        for n, (lab, start, hours, pool, usd) in enumerate(sessions)
    ]
    result = run(lines, made)
    for column in ("cost", "cost_usd"):
        bill = sum((getattr(one.amount, column) for one in lines), Decimal())
        assert sum((getattr(share, column) for share in result.shares), Decimal()) == bill
    owed = placed(result)
    for outcome in result.outcomes:
        if outcome.waiting is None:
            assert sum(row["BilledCost"] for row in outcome.rows) == owed[outcome.session.session_id]
            assert len(outcome.rows) == len(outcome.session.estimate)


TAGS = st.sampled_from([None, "l06", "l07", "other"])
BILLS = st.dictionaries(
    st.tuples(st.sampled_from([DAY, NEXT]), st.sampled_from(["t4", "a100", None]), TAGS), AMOUNTS, max_size=8
)
"""What Azure says of each line that there is; one that another bill had is gone."""


@settings(deadline=None, max_examples=150)
@given(bills=st.lists(BILLS, min_size=2, max_size=4), sessions=st.lists(SESSIONS, min_size=1, max_size=5))
def test_whatever_azure_takes_back_or_moves_the_newest_rows_sum_to_the_newest_bill(
    bills: list[dict[tuple[date, str | None, str | None], Decimal]], sessions: list[Any]
) -> None:
    newest = dict[str, list[Any]]()
    former = dict[LineKey, BillLine]()
    for number, bill in enumerate(bills):
        said = [
            line(str(cost), day=day, resource=machines(pool) if pool else "/x/ip", tag=tag)
            for (day, pool, tag), cost in bill.items()
        ]
        former = {key: taken_back(one) for key, one in former.items()} | {one.key: one for one in said}
        made = [
            session(f"s{n}", lab, start=start, hours=hours, pool=pool, usd=usd, billed=newest.get(f"s{n}", ()))
            for n, (lab, start, hours, pool, usd) in enumerate(sessions)
        ]
        result = run(list(former.values()), made, now=NOW + timedelta(days=number))
        newest |= {outcome.session.session_id: list(outcome.rows) for outcome in result.outcomes if outcome.news}
        rows_say = sum((row["BilledCost"] for rows in newest.values() for row in rows), Decimal())
        unbilled = sum((share.cost for share in result.shares if share.session_id not in newest), Decimal())
        assert rows_say + unbilled == sum(bill.values())
