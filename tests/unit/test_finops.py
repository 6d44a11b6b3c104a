"""What a token costs: the sheet's dollars are the cost records', and nothing unknown is a zero."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.catalog.slo import INTERACTIVE
from lab_pipelines.cost import PARTS
from lab_pipelines.finops import Configuration, StageWork, UsefulWork, dollars, sheet_rows, split_usd
from lab_pipelines.finops_split import PhaseTime
from tests.support.rows.common import shared
from tests.support.rows.money import billed, cost_row

Row = dict[str, Any]
ON_T4 = Configuration("t4", nodes=2, gpus_per_node=4, slo=INTERACTIVE)
WORK = StageWork(
    step="ramp",
    stage=0,
    users=4,
    requests=10,
    input_tokens=5_000,
    output_tokens=2_000,
    useful=UsefulWork(requests=8, input_tokens=4_000, output_tokens=1_600),
    phases=PhaseTime(prefill_s=25, decode_s=75),
)


def part(name: str, hours: str, usd: str | None, *, stage: int | None = 0, **columns: Any) -> Row:
    at = {"x_step": None if stage is None else "ramp", "x_stage": stage, "x_part": name}
    cost = {"PricingQuantity": Decimal(hours), "ListCost": None if usd is None else Decimal(usd)}
    price = {} if usd is not None else dict.fromkeys(("ListUnitPrice", "x_price_low", "x_price_high"))
    return cost_row(**at, **cost, **price, **columns)


COSTS = [
    part("cold_start", "0.2", "0.20", stage=None),
    part("idle", "0.1", "0.10", stage=None),
    part("serve", "0.5", "0.50"),
    part("idle", "0.1", "0.10"),
    part("failed", "0.1", "0.10"),
]


def sheet(costs: list[Row], work: list[StageWork], configuration: Configuration = ON_T4) -> list[Row]:
    return sheet_rows(costs, work, shared=shared(), configuration=configuration)


def test_numbers_that_a_reader_can_check_by_hand() -> None:
    stage, whole = sheet(COSTS, [WORK])
    assert (stage["usd"], whole["usd"]) == (Decimal("0.70"), Decimal("1.00"))
    # A quarter of the serving time was prefill: so much of the dollars is the prompts', idle and all.
    assert (whole["prefill_share"], whole["input_usd"], whole["output_usd"]) == (0.25, Decimal("0.25"), Decimal("0.75"))
    assert whole["input_usd_per_1k_tokens"] == pytest.approx(0.05)
    assert whole["output_usd_per_1k_tokens"] == pytest.approx(0.375)
    assert whole["serve_input_usd_per_1k_tokens"] == pytest.approx(0.025)
    assert whole["serve_output_usd_per_1k_tokens"] == pytest.approx(0.1875)
    assert whole["usd_per_1k_output_tokens"] == pytest.approx(0.5)
    assert (whole["useful_requests"], whole["useful_share"]) == (8, 0.8)
    assert whole["usd_per_useful_request"] == pytest.approx(0.125)
    assert whole["usd_per_1k_useful_tokens"] == pytest.approx(1 / 5.6)
    assert whole["usd_per_1k_useful_output_tokens"] == pytest.approx(0.625)
    assert (whole["gpu_hours"], whole["idle_gpu_hours"]) == (pytest.approx(4.0), pytest.approx(0.8))
    assert (whole["efficiency"], whole["idle_share"]) == (pytest.approx(0.5), pytest.approx(0.2))
    # Ten requests took 0.8 warm node-hours; the cold start took 0.2, on two nodes at once.
    assert whole["cold_start_requests"] == pytest.approx(2.5)
    assert whole["break_even_idle_s"] == pytest.approx(360)
    assert (stage["cold_start_requests"], stage["break_even_idle_s"]) == (None, None)
    assert (whole["slo_ttft_s"], whole["slo_tpot_s"], whole["slo_e2e_s"]) == (2.0, 0.08, None)


def test_a_session_of_two_priorities_has_none_in_whatever_order_its_costs_come() -> None:
    mixed = [*COSTS, part("idle", "0.1", "0.01", x_priority="spot")]
    for costs in (mixed, mixed[::-1]):
        assert {(row["priority"], row["region"]) for row in sheet(costs, [WORK])} == {(None, COSTS[0]["RegionId"])}
    assert {row["priority"] for row in sheet(COSTS, [WORK])} == {"on_demand"}


def test_without_a_price_there_is_node_time_and_no_dollar() -> None:
    unpriced = [part(row["x_part"], str(row["PricingQuantity"]), None, stage=row["x_stage"]) for row in COSTS]
    for row in sheet(unpriced, [WORK]):
        assert {name: value for name, value in row.items() if "usd" in name and value is not None} == {}
        assert row["efficiency"] > 0
        assert row["useful_requests"] == 8


def test_what_nobody_asked_for_is_unknown_and_not_none() -> None:
    plain = StageWork("ramp", 0, 4, requests=10, input_tokens=0, output_tokens=0)
    for row in sheet(COSTS, [plain], Configuration(None)):
        unknown = ["useful_requests", "useful_share", "usd_per_useful_request", "usd_per_1k_useful_tokens"]
        unknown += ["prefill_share", "input_usd", "output_usd", "gpu_hours", "idle_gpu_hours", "break_even_idle_s"]
        assert {name: row[name] for name in unknown} == dict.fromkeys(unknown)


def test_an_objective_that_none_kept_makes_the_useful_token_priceless_and_the_share_zero() -> None:
    useless = StageWork("ramp", 0, 4, 10, 5_000, 2_000, useful=UsefulWork(0, 0, 0))
    _, whole = sheet(COSTS, [useless])
    assert (whole["useful_requests"], whole["useful_share"]) == (0, 0)
    assert (whole["usd_per_useful_request"], whole["usd_per_1k_useful_tokens"]) == (None, None)


def test_an_engine_that_was_running_has_no_cold_start_to_compare_with() -> None:
    _, whole = sheet(COSTS[1:], [WORK])
    assert (whole["cold_start_requests"], whole["break_even_idle_s"]) == (None, None)


def test_price_bounds_become_bounds_of_the_cost_and_a_bill_has_none() -> None:
    bounds = {"ListUnitPrice": Decimal("1.0"), "x_price_low": Decimal("0.8"), "x_price_high": Decimal("1.5")}
    costs = [row | bounds for row in COSTS]
    _, whole = sheet(costs, [WORK])
    assert (whole["usd_low"], whole["usd"], whole["usd_high"]) == (Decimal("0.8"), Decimal(1), Decimal("1.5"))
    _, whole = sheet([billed(row, row["ListCost"] * 2) for row in costs], [WORK])
    assert (whole["usd_low"], whole["usd"], whole["usd_high"]) == (Decimal(2), Decimal(2), Decimal(2))
    assert (whole["state"], whole["bill_state"]) == ("billed", "settled")
    _, whole = sheet([row | {"x_price_low": None} for row in costs], [WORK])
    assert whole["usd_low"] is None


def test_a_bill_is_provisional_until_all_of_it_is_settled() -> None:
    bill = [billed(row, row["ListCost"]) for row in COSTS]
    bill[2] |= {"x_bill_state": "provisional"}
    assert {row["bill_state"] for row in sheet(bill, [WORK])} == {"provisional"}


def test_a_bill_in_another_currency_has_no_dollars() -> None:
    bill = [billed(row, row["ListCost"], BillingCurrency="EUR", x_billed_usd=None, x_delta_usd=None) for row in COSTS]
    _, whole = sheet(bill, [WORK])
    assert {value for name, value in whole.items() if "usd" in name} == {None}


amounts = st.decimals(0, 1000, places=9)
works = st.builds(
    StageWork,
    step=st.just("ramp"),
    stage=st.just(0),
    users=st.just(4),
    requests=st.integers(0, 1000),
    input_tokens=st.integers(0, 10**7),
    output_tokens=st.integers(0, 10**7),
    phases=st.builds(PhaseTime, st.floats(0, 1e5), st.floats(0, 1e5)),
)


@given(
    costs=st.lists(
        st.builds(
            lambda name, hours, usd, inside: part(name, str(hours), str(usd), stage=0 if inside else None),
            st.sampled_from(PARTS),
            amounts,
            amounts,
            st.booleans(),
        ),
        min_size=1,
    ),
    work=works,
    state=st.sampled_from(["estimated", "billed"]),
)
def test_whatever_it_cost_the_sheet_s_dollars_are_the_records_to_the_last_digit(
    costs: list[Row], work: StageWork, state: str
) -> None:
    if state == "billed":
        costs = [billed(row, row["ListCost"] * 2) for row in costs]
    stage, whole = sheet(costs, [work])
    assert whole["usd"] == sum(dollars(row) or 0 for row in costs)
    of_stage = [row for row in costs if row["x_stage"] == 0]
    assert stage["usd"] == (sum(dollars(row) or 0 for row in of_stage) if of_stage else None)
    for row in [stage, whole] if of_stage else [whole]:
        assert sum(row[f"{name}_usd"] for name in PARTS) == row["usd"]
        if row["prefill_share"] is not None:
            assert row["input_usd"] + row["output_usd"] == row["usd"]
            assert min(row["input_usd"], row["output_usd"]) >= 0
        assert row["idle_share"] is None or 0 <= row["idle_share"] + row["efficiency"] <= 1 + 1e-12


@given(usd=amounts, share=st.floats(0, 1))
def test_a_split_loses_nothing_and_grows_with_its_share(usd: Decimal, share: float) -> None:
    first, rest = split_usd(usd, share)
    less, _ = split_usd(usd, share / 2)
    assert first is not None
    assert rest is not None
    assert less is not None
    assert first + rest == usd
    assert 0 <= less <= first <= usd


@given(kept=st.lists(st.integers(0, 10), min_size=1), more=st.integers(1, 10))
def test_the_more_is_useful_the_less_a_useful_request_costs(kept: list[int], more: int) -> None:
    def per_useful(extra: int) -> float | None:
        work = [
            StageWork("ramp", n, 4, 20 + extra, 1, 1, useful=UsefulWork(count + extra, 1, 1))
            for n, count in enumerate(kept)
        ]
        return sheet(COSTS, work)[-1]["usd_per_useful_request"]

    before, after = per_useful(0), per_useful(more)
    assert after is not None
    assert before is None or after < before
