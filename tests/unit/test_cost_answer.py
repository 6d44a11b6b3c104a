"""Every row of Azure's answer is read as it is meant, or refused with its place; none is skipped."""

from __future__ import annotations

import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.bill import Amount, LineKey, Window
from resources.cost_answer import AnswerError, Line, read_page
from tests.support.azure_cost import page

MARCH = Window(date(2026, 3, 1), date(2026, 3, 31))
DAY = date(2026, 3, 2)
DATA = Path(__file__).resolve().parents[1] / "data" / "azure"


def read(text: str, **options: Any) -> list[Line]:
    return list(read_page(text, number=1, window=MARCH, **options).lines)


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (("Cost", "CostUSD", "ResourceId", "TagKey", "TagValue", "UsageDate", "Currency"),
         [1.5, 1.75, "/A/b", "lab", "L06", 20260302, "EUR"]),
        (("Currency", "UsageDate", "TagValue", "TagKey", "ResourceId", "PreTaxCostUSD", "PreTaxCost"),
         ["eur", "2026-03-02T00:00:00", "l06", "lab", "/a/B", 1.75, 1.5]),
        (("PRETAXCOST", "resourceid", "lab", "usagedate", "BillingCurrency", "pretaxcostusd", "ServiceName"),
         [1.5, "/a/b", "l06", "2026-03-02T00:00:00Z", "EUR", 1.75, "Virtual Machines"]),
        (("totalCost", "totalCostUSD", "ResourceId", "TagKey", "TagValue", "UsageDate", "BillingMonth", "Currency"),
         [1.5, 1.75, "/a/b", "lab", "l06", "20260302", "2026-03-01T00:00:00", "EUR"]),
    ],
)  # fmt: skip
def test_columns_are_found_by_name_whatever_their_order_and_case(columns: tuple[str, ...], row: list[Any]) -> None:
    [line] = read(page(row, columns=columns))
    assert line.key == LineKey(DAY, "/a/b", "l06", "EUR")
    assert line.amount == Amount(Decimal("1.500000000"), Decimal("1.750000000"))


def test_amounts_keep_azures_digits_to_nine_decimals() -> None:
    [line] = read(page([2.10333307059661, "/a", "", "", 20260302, "USD"]))
    assert line.amount == (Decimal("2.103333071"), Decimal("2.103333071"))
    [line] = read('{"properties": {"columns": [{"name": "Cost"}, {"name": "UsageDate"}, {"name": "Currency"}], '
                  '"rows": [[1e-05, 20260302.0, "USD"]]}}', grouped=False)  # fmt: skip
    assert line.amount.cost == Decimal("0.000010000")


def test_a_refund_is_negative_and_dollars_that_azure_did_not_say_stay_unknown() -> None:
    assert read(page([-3, "/a", "", "", 20260302, "EUR"]))[0].amount == Amount(Decimal("-3.000000000"), None)
    names = ("Cost", "CostUSD", "ResourceId", "TagValue", "UsageDate", "Currency")
    assert read(page([1, None, "/a", None, 20260302, "EUR"], columns=names))[0].amount.cost_usd is None


@pytest.mark.parametrize("empty", [None, "", " "])
def test_what_azure_leaves_empty_is_unknown(empty: str | None) -> None:
    [line] = read(page([1, empty, empty, empty, 20260302, "USD"]))
    assert (line.key.resource_id, line.key.tag_lab) == (None, None)


@pytest.mark.parametrize(("link", "found"), [(None, None), ("", None), (" ", None), ("https://x/q", "https://x/q")])
def test_the_next_page(link: str | None, found: str | None) -> None:
    assert read_page(page(next_link=link), number=1, window=MARCH).next_link == found


GOOD: list[Any] = [1.5, "/a", "lab", "l06", 20260302, "USD"]


def changed(index: int, value: Any) -> list[Any]:
    return [value if n == index else one for n, one in enumerate(GOOD)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (changed(0, None), r"page 1, row 2, column Cost: null, expected an amount"),
        (changed(0, "1.5"), r'page 1, row 2, column Cost: "1.5", expected an amount'),
        (changed(0, True), r"column Cost: true"),
        (changed(0, 1e12), r"column Cost"),
        (changed(4, None), r"column UsageDate: null, expected a day"),
        (changed(4, 20260230), r"column UsageDate: 20260230, expected a day"),
        (changed(4, 2026032), r"column UsageDate: 2026032, expected a day"),
        (changed(4, "March"), r'column UsageDate: "March", expected a day'),
        (changed(4, 20260401), r"column UsageDate: 20260401, expected a day from 2026-03-01 to 2026-03-31"),
        (changed(5, None), r"column Currency: null, expected a currency"),
        (changed(5, ""), r"column Currency"),
        (changed(1, 7), r"column ResourceId: 7, expected text"),
        (changed(3, ["l06"]), r"column TagValue"),
        (GOOD[:5], r"row 2: .*expected a list of 6 values"),
        ([*GOOD, 1], r"expected a list of 6 values"),
        ({"Cost": 1}, r'row 2: \{"Cost": 1\}, expected a list of 6 values'),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_place(row: Any, said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        read(page(GOOD, row))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html>", "page 1 is no JSON"),
        ("[]", "page 1 has no properties"),
        ("{}", "page 1 has no properties"),
        ('{"properties": {"columns": []}}', r"properties\.rows is null"),
        ('{"properties": {"rows": []}}', r"properties\.columns is null"),
        (page().replace("null", "7"), "nextLink is 7"),
        (page(GOOD).replace("1.5", "NaN"), "NaN is no number"),
        (page(GOOD, columns=("Cost", "cost", "a", "b", "UsageDate", "Currency")), "several columns named cost"),
        (
            page(columns=("ResourceId", "TagValue", "UsageDate", "Currency")),
            r"no column of the cost .*it has: Resource",
        ),
        (page(columns=("Cost", "ResourceId", "TagValue", "BillingMonth", "Currency")), "no column of the day"),
        (page(columns=("Cost", "ResourceId", "TagValue", "UsageDate")), "no column of the currency"),
        (page(columns=("Cost", "TagValue", "UsageDate", "Currency")), "no column of the resource"),
        (page(columns=("Cost", "ResourceId", "UsageDate", "Currency")), "no column of the tag lab"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        read(text)


def test_a_recorded_answer_of_azure() -> None:
    body = json.loads((DATA / "ResourceGroupQueryGrouping.json").read_text())["responses"]["200"]["body"]
    april = Window(date(2018, 4, 1), date(2018, 4, 30))
    lines = read_page(json.dumps(body), number=1, window=april, grouped=False).lines
    assert [(line.key.usage_date, line.amount.cost, line.key.currency) for line in lines] == [
        (date(2018, 4, 17), Decimal("2.103333071"), "USD"),
        (date(2018, 4, 18), Decimal("20.103333071"), "USD"),
    ]
    with pytest.raises(AnswerError, match=re.escape("no column of the resource (resourceid)")):
        read_page(json.dumps(body), number=1, window=april)
