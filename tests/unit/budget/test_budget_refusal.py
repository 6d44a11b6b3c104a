"""A budget that is spent refuses the next GPU, and says which, how much and what to do."""

from __future__ import annotations

import pytest
from dagster import Failure

from assets.budget import require_budget_left
from lab_pipelines.catalog.loader import load_catalog
from tests.support.guarded_money import Money


def ask(money: Money, lab: str = "L06") -> None:
    spec = load_catalog().spec(lab)
    require_budget_left(money.guard, money.place, spec, spec.variants, run_id="new", progress=list[str]().append)


@pytest.mark.parametrize("scope", ["month", "lab"])
def test_a_spent_budget_refuses_the_next_gpu_and_says_which_how_much_and_what_to_do(money: Money, scope: str) -> None:
    money.budgets(**({"month_usd": 50} if scope == "month" else {"labs": {"L06": 50}}))
    money.past(49, lab="L06")
    ask(money)
    money.past(2, lab="L06", run_id="second")
    with pytest.raises(Failure) as caught:
        ask(money)
    said = str(caught.value.description)
    assert said.startswith(f"L06 gets no GPU, for the budget of {'the month' if scope == 'month' else 'L06'}: ")
    assert "51.00 of 50.00 USD spent (102 %); refused from 100 %, until " in said
    assert f"Raise {'month_usd' if scope == 'month' else 'labs: L06'} in " in said and "budgets.yaml" in said
    [row] = money.warehouse.query("FROM budget_decisions")
    assert (row["action"], row["outcome"], row["of_lab"], row["of_run"]) == ("refuse", "done", "L06", "new")
    if scope == "lab":
        ask(money, "L11")


def test_a_lab_without_a_gpu_is_not_refused(money: Money) -> None:
    money.past(500)
    ask(money, "L01")
    assert money.pools.calls() == [], "and nothing is asked"


def test_a_refusal_needs_no_sensor_and_no_state_of_one(money: Money) -> None:
    money.past(500)
    assert not (money.folder / "data" / "state").exists()
    with pytest.raises(Failure, match=r"500\.00 of 100\.00 USD"):
        ask(money)


def test_warn_lets_it_pass_and_off_does_not_look(money: Money) -> None:
    money.past(500)
    money.mode = "warn"
    ask(money)
    assert [(row["action"], row["outcome"]) for row in money.rows()] == [("refuse", "withheld")]
    money.mode = "off"
    ask(money)
    assert len(money.rows()) == 1


def test_what_can_t_be_told_refuses_only_if_the_file_says_so(money: Money) -> None:
    money.up("L11", sku=None, run_id="untold")
    ask(money)
    money.budgets(month_usd=100, refuse_unknown=True)
    with pytest.raises(Failure, match="not told: no price of L11's machine"):
        ask(money)


def test_budgets_that_can_t_be_read_refuse(money: Money) -> None:
    money.budgets(month_usd="a lot")
    with pytest.raises(Failure, match=r"the budgets can't be read: .*budgets.yaml:1: month_usd"):
        ask(money)
