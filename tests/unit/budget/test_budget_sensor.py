"""A tick of the budget guard: when it says something, what it cuts, and what it leaves alone."""

from __future__ import annotations

import json

import pytest

from lab_pipelines.catalog.prices import StalePriceError
from lab_pipelines.deployment import BudgetMode
from resources.billing import PriceSheetBilling
from resources.budget_guard import BudgetGuard
from resources.cluster import Lease
from tests.support.guarded_money import A100, T4_SPOT_USD, Clocked, Money, near
from tests.support.node_pools import T4, node_pool


def test_without_a_budget_nothing_is_recorded_and_the_tick_says_so(money: Money) -> None:
    money.budgets()
    money.past(10_000)
    assert "no budget is set" in money.tick()
    assert money.rows() == []


@pytest.mark.parametrize("target", ["local", "rehearsal"])
def test_modelled_money_is_not_guarded(money: Money, target: str) -> None:
    assert money.tick(target).startswith(f"money on target {target} is modelled")


def test_switched_off_it_reads_nothing(money: Money) -> None:
    money.mode = "off"
    assert money.tick() == "switched off (LABS_BUDGET_GUARD=off)"
    assert money.pools.calls() == []


def test_a_file_that_can_t_be_read_decides_nothing(money: Money) -> None:
    money.budgets(month_usd=-1)
    assert "budgets.yaml:1: month_usd" in money.tick()
    assert money.rows() == []


def test_a_state_is_a_row_when_it_changes_with_every_amount(money: Money) -> None:
    money.past(70)
    assert money.tick() == "1 budget within bounds (LABS_BUDGET_GUARD=cut)"
    money.past(15, run_id="second")
    assert money.tick().startswith("the month: warn, ok → warn: 85.00 of 100.00 USD spent (85 %)")
    assert "the month: warn, 85.00 of" in money.tick()
    [row] = money.rows()
    assert (row["scope"], row["state_before"], row["state"], row["action"], row["outcome"]) == (
        *("month", "ok", "warn", "tell"),
        None,
    )
    assert (row["spent_usd"], row["closed_usd"], row["budget_usd"], row["guard"]) == (85, 85, 100, "cut")
    assert json.loads(row["budgets"])["month_usd"] == "100"
    assert money.warehouse.query("SELECT count(*) AS n FROM budget_decisions") == [{"n": 1}], "at once, not in an hour"


def test_a_raised_budget_holds_at_the_next_look(money: Money) -> None:
    money.past(110)
    assert "the month: refuse" in money.tick()
    money.budgets(month_usd=1000)
    assert money.tick() == "1 budget within bounds (LABS_BUDGET_GUARD=cut)"


def test_over_the_lab_s_budget_its_run_is_marked_its_stack_and_nodes_go_and_its_books_are_closed(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.up("L11", hours=1, run_id="run-11")
    assert money.tick().startswith("cut: L06; L06: cut, ok → cut: 1.58 of 1.00 USD spent (158 %)")
    assert money.left() == (["L11"], {"l06pool": 0, "l11pool": 1})
    [mark] = money.warehouse.query("FROM run_marks")
    assert (mark["lab"], mark["run_id"], mark["mark"], mark["scope"]) == ("L06", "run-1", "cut", "L06")
    [session] = money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")
    assert session["run_id"] == "run-1"
    assert abs(session["held_s"] - 3 * 3600) < 60
    [paid] = money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost WHERE run_id = 'run-1'")
    assert near(paid["usd"], 3 * 0.526)
    assert near(money.spend("L06").closed_usd, 3 * 0.526), "it counts once, and still"
    told, asked, done = money.rows()
    assert [(one["action"], one["outcome"]) for one in (told, asked, done)] == [
        *[("tell", None), ("cut", "asked")],
        ("cut", "done"),
    ]
    assert (done["of_lab"], done["of_run"], done["of_pool"]) == ("L06", "run-1", None)
    assert money.tick().startswith("L06: cut, 1.58"), "and nothing is left to do"
    assert len(money.rows()) == 3


def test_over_the_month_s_budget_every_gpu_goes_the_dearest_first_and_what_has_none_stays(money: Money) -> None:
    money.budgets(month_usd=1)
    money.past(2)
    money.up("L06", hours=0.1)
    money.up("L11", hours=0.1, run_id="run-11", sku=A100)
    money.cluster.put(*money.cluster.leases(), money.lease("L01", run_id="run-01"))
    money.pools.put(*money.pools.read(), node_pool("forgotten"), node_pool("foreign", tags={}))
    assert money.tick().startswith("cut: L11, L06, forgotten; the month: cut")
    leases, pools = money.left()
    assert leases == ["L01"]
    assert pools == {"l06pool": 0, "l11pool": 0, "forgotten": 0, "foreign": 1}
    scaled = [call.split()[1] for call in money.pools.calls() if call.startswith("scale")]
    assert scaled == ["l11pool", "l06pool", "forgotten"]


@pytest.mark.parametrize("mode", ["warn", "refuse"])
def test_by_itself_it_only_says_what_it_would_cut(money: Money, mode: BudgetMode) -> None:
    assert BudgetGuard().mode == "refuse"
    money.mode = mode
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.tick()
    money.tick()
    assert money.left() == (["L06"], {"l06pool": 1})
    assert [(one["action"], one["outcome"]) for one in money.rows()] == [("tell", None), ("cut", "withheld")]
    assert money.warehouse.query("FROM run_marks") == []


class Ending(Clocked):
    """The run ends by itself between the first look and the second."""

    def leases(self) -> list[Lease]:
        found = super().leases()
        self.put()
        return found


def test_a_run_that_ends_meanwhile_is_not_marked(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.cluster = money.cluster_of(Ending)
    money.tick()
    assert money.warehouse.query("FROM run_marks") == []
    assert [(one["action"], one["outcome"]) for one in money.rows()] == [("tell", None)]


def test_a_run_on_spot_nodes_is_cut_for_what_they_cost_and_its_books_say_so(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=10, spot=True)
    assert money.tick() == "1 budget within bounds (LABS_BUDGET_GUARD=cut)"
    money.budgets(lab_usd=0.5)
    assert money.tick().startswith("cut: L06; L06: cut, ok → cut: 0.63 of 0.50 USD spent")
    [held] = money.warehouse.query("FROM node_time")
    assert (held["pool"], held["nodes"], held["sku"], held["priority"]) == ("l06pool", 1, T4, "spot")
    [session] = money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")
    assert (held["held_from"], held["held_until"]) == (session["requested_at"], session["released_at"])
    paid = money.warehouse.query("SELECT DISTINCT x_priority, x_pool, ListUnitPrice FROM cost_records")
    assert [tuple(row.values()) for row in paid] == [("spot", "l06pool", T4_SPOT_USD)]
    assert near(money.spend("L06").closed_usd, 10 * 0.0627)


def test_what_a_cut_run_has_cost_can_be_told_by_an_old_price(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.billing = PriceSheetBilling(max_age_days=0)
    with pytest.raises(StalePriceError):
        money.billing.node_hour_price(T4)
    money.up("L06", hours=3)
    assert money.tick().startswith("cut: L06")
    assert money.rows()[-1]["outcome"] == "done"
    assert near(money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost")[0]["usd"], 3 * 0.526)
