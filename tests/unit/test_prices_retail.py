"""Which rows of Azure's list are a price: never another machine's, system's or priority's, and never a guess."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.catalog.prices_retail import arm_name, quotes, short_name
from tests.support.retail_prices import Row, machine, row

T4 = "Standard_NC4as_T4_v3"
NOW = datetime(2026, 10, 5, 6, tzinfo=UTC)


def found(rows: list[Any], **asked: Any):
    prices, problems = quotes(rows, **{"sku": T4, "region": "eastus", "now": NOW, **asked})
    assert set(prices) | set(problems) == {"on_demand", "spot"}
    assert not set(prices) & set(problems)
    return {priority: quote.usd for priority, quote in prices.items()}, problems


def test_of_all_that_a_machine_type_has_two_rows_are_its_prices_in_any_order() -> None:
    rows = machine(T4, 0.526, 0.1837) + machine("Standard_NC8as_T4_v3", 0.752, 0.2) + machine(T4, 1, 0.5, region="uk")
    for seed in range(20):
        random.Random(seed).shuffle(rows)
        assert found(rows) == ({"on_demand": Decimal("0.526"), "spot": Decimal("0.1837")}, {})


def test_a_price_says_since_when_and_by_which_meter() -> None:
    prices, _ = quotes(machine(T4, 0.526, 0.1837), sku=T4, region="eastus", now=NOW)
    assert prices["spot"].effective_from == date(2021, 11, 1)
    assert prices["spot"].meter == "meter-NC4as-T4-v3-Spot-eastus"


@pytest.mark.parametrize(
    "fields",
    [
        {"productName": "Virtual Machines NCasT4 v3 Series Windows"},
        {"productName": "NCasT4 v3 Series Cloud Services"},
        {"productName": "NCasT4 v3 Series CloudServices"},
        {"skuName": "NC4as T4 v3 Low Priority"},
        {"meterName": "NC4as T4 v3 Low Priority"},
        {"type": "Reservation"},
        {"type": "DevTestConsumption"},
        {"reservationTerm": "1 Year"},
        {"unitOfMeasure": "1 Month"},
        {"tierMinimumUnits": 1},
        {"armRegionName": "eastus2"},
        {"armSkuName": "Standard_NC4as_t4_v3"},
        {"armSkuName": "Standard_NC4as_T4_v3_Promo"},
        {"serviceName": "Azure Kubernetes Service"},
        {"effectiveStartDate": "2026-10-05T07:00:00Z"},
        {"effectiveEndDate": "2026-10-05T05:00:00Z"},
    ],
)
def test_what_is_not_a_linux_hour_of_that_machine_is_no_price(fields: Row) -> None:
    assert found([row(T4, 0.4, **fields)])[0] == {}
    assert found([row(T4, 0.526), row(T4, 0.4, **fields)])[0] == {"on_demand": Decimal("0.526")}


def test_spot_is_never_taken_for_on_demand_nor_the_other_way_round() -> None:
    assert found([row(T4, 0.18, kind="Spot")]) == (
        {"spot": Decimal("0.18")},
        {"on_demand": f"{T4} in eastus, on-demand: the list has no price"},
    )
    assert found([row(T4, 0.526)])[1] == {"spot": f"{T4} in eastus, spot: the list has no price"}


@pytest.mark.parametrize("name", ["Standard_NC4as T4 v3", "Standard_NC4as_T4_v3 ", " Standard_NC4as  T4_v3"])
def test_blanks_in_names_are_read_as_what_they_stand_for(name: str) -> None:
    assert arm_name(name) == T4
    assert found([row(T4, 0.526, armSkuName=name)])[0] == {"on_demand": Decimal("0.526")}
    assert found([row(T4, 0.18, armSkuName=name, skuName="NC4as T4 v3  Spot ")])[0] == {"spot": Decimal("0.18")}
    assert short_name(T4) == "NC4as T4 v3"


def test_two_rows_that_disagree_are_no_price_and_both_are_named() -> None:
    prices, problems = found([row(T4, 0.526), row(T4, 0.6, meterId="another")])
    assert prices == {}
    assert problems["on_demand"] == f"{T4} in eastus, on-demand: the list has several prices: 0.526, 0.6 USD"
    assert found([row(T4, 0.526), row(T4, 0.526, meterId="another")])[0] == {"on_demand": Decimal("0.526")}


def test_the_primary_meter_decides_where_there_is_one() -> None:
    other = row(T4, 0.6, isPrimaryMeterRegion=False)
    assert found([row(T4, 0.526), other])[0] == {"on_demand": Decimal("0.526")}
    assert found([other])[0] == {"on_demand": Decimal("0.6")}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unitPrice": 0, "retailPrice": 0}, "the list's price is 0, which no machine costs"),
        ({"unitPrice": -0.5, "retailPrice": -0.5}, "is -0.5, which no machine costs"),
        ({"unitPrice": float("nan"), "retailPrice": float("nan")}, "is nan, which no machine costs"),
        ({"unitPrice": float("inf"), "retailPrice": float("inf")}, "is inf, which no machine costs"),
        ({"unitPrice": 1e9, "retailPrice": 1e9}, "which no machine costs"),
        ({"unitPrice": 1e-9, "retailPrice": 1e-9}, "is below a millionth of a dollar"),
        ({"unitPrice": True, "retailPrice": True}, "is no number"),
        ({"unitPrice": None}, "the list's price is no number: unitPrice None"),
        ({"unitPrice": "free"}, "the list's price is no number: unitPrice 'free'"),
        ({"retailPrice": 0.9}, "two prices in one row: unitPrice 0.526, retailPrice 0.9"),
        ({"currencyCode": "EUR"}, "the list's price is in EUR, not in USD"),
        ({"currencyCode": None}, "in an unnamed currency"),
    ],
)
def test_a_row_that_is_wrong_is_named_and_no_price(fields: Row, said: str) -> None:
    prices, problems = found([row(T4, 0.526, **fields)])
    assert prices == {}
    assert said in problems["on_demand"]
    assert "\n" not in problems["on_demand"]


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 3), st.floats(), st.sampled_from(["", "Spot", "1 Hour", T4, "USD", "0"])
)
_ROWS = st.one_of(
    st.sampled_from([0.0, 0.526, 0.6, -1.0, 1e-9]).flatmap(
        lambda usd: st.dictionaries(st.sampled_from(sorted(row(T4, 1))), _VALUES, max_size=3).map(
            lambda fields: {**row(T4, usd), **fields}
        )
    ),
    _VALUES,
    st.sampled_from([row(T4, 0.18, kind="Spot"), row(T4, 0.2, kind="Spot"), row(T4, 0.1, kind="Low Priority")]),
)


@given(st.lists(_ROWS, max_size=6))
def test_whatever_the_list_says_a_price_is_above_zero_or_its_absence_is_told(rows: list[Any]) -> None:
    prices, problems = found(rows)
    assert all(usd > 0 and usd.is_finite() for usd in prices.values())
    assert all(text.startswith(f"{T4} in eastus, ") for text in problems.values())
    for some in itertools.permutations(rows, len(rows)) if len(rows) <= 3 else [rows[::-1]]:
        assert found(list(some))[0] == prices
