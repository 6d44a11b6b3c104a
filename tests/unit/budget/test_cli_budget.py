"""`labs budget` and what a spent budget does to `labs gpu up`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from lab_pipelines import build
from lab_pipelines.cli import app
from lab_pipelines.deployment import Deployment
from resources.billing import PriceSheetBilling
from tests.support.command_line import own_environment, refused
from tests.support.guarded_money import Money
from tests.support.node_pools import T4, node_pool


@pytest.fixture
def labs(money: Money, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    own_environment(monkeypatch, money.warehouse.data_dir)
    monkeypatch.setenv("LABS_TARGET", "aks")
    monkeypatch.setenv("LABS_BUDGETS", str(money.folder / "budgets.yaml"))

    def get_resources(settings: Deployment) -> dict[str, object]:
        return {
            "cluster": money.cluster,
            "node_pools": money.pools,
            "billing": PriceSheetBilling(region=settings.region),
            "gpu_switch": build.gpu_switch(settings),
            "budget_guard": build.budget_guard(settings),
        }

    monkeypatch.setitem(build.RESOURCES, "aks", get_resources)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_labs_budget_shows_every_budget_and_what_follows(money: Money, labs: Callable[..., Result]) -> None:
    money.budgets(month_usd=10, labs={"L11": 100})
    money.past(9, lab="L11")
    result = labs("budget")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "warn" in lines["month"] and "refusal at 10.00" in lines["month"]
    assert "ok" in lines["L11"] and "warning at 80.00" in lines["L11"]
    assert "the guard may warn, and refuse new GPU leases (LABS_BUDGET_GUARD=refuse)" in result.stdout
    shown = json.loads(labs("budget", "--json").stdout)
    assert [(one["budget"], one["spent_usd"], one["state"]) for one in shown["budgets"]] == [
        *[("month", 9.0, "warn"), ("L11", 9.0, "ok")],
    ]


def test_labs_budget_without_one_says_how_to_set_one(money: Money, labs: Callable[..., Result]) -> None:
    money.budgets()
    result = labs("budget")
    assert (result.exit_code, "no budget is set" in result.stdout, "LABS_BUDGETS" in result.stdout) == (0, True, True)


def test_labs_budget_with_a_wrong_file_is_one_line(money: Money, labs: Callable[..., Result]) -> None:
    money.budgets(month_usd=-3)
    assert "budgets.yaml:1: month_usd: " in refused(labs("budget"), 1)
    money.budgets(month_usd="foo")
    assert "month_usd: expected an amount in USD, e.g. 500, but found 'foo'\n" in refused(labs("budget"), 1)


def test_labs_budget_without_its_file_names_the_variable(money: Money, labs: Callable[..., Result]) -> None:
    (money.folder / "budgets.yaml").unlink()
    said = refused(labs("budget"), 1)
    assert f"LABS_BUDGETS: {money.folder}/budgets.yaml:1: " in said
    assert said.endswith("is not a file; copy lab_pipelines/budgets.yaml\n")


def test_labs_budget_decisions_tells_what_was_decided(money: Money, labs: Callable[..., Result]) -> None:
    assert "no decision is on record" in labs("budget", "decisions").stdout
    money.past(85)
    money.tick()
    result = labs("budget", "decisions")
    assert result.exit_code == 0, result.output
    assert "ok → warn: 85.00 of 100.00 USD spent (85 %)" in result.stdout
    [row] = json.loads(labs("budget", "decisions", "--json").stdout)
    assert (row["state"], row["spent_usd"]) == ("warn", 85.0)


def test_labs_gpu_up_is_refused_too(money: Money, labs: Callable[..., Result]) -> None:
    money.pools.put(node_pool("t4", count=0))
    money.past(101)
    assert "t4 gets no GPU, for the budget of the month: " in refused(labs("gpu", "up", T4), 1)
    assert money.left()[1] == {"t4": 0}
    money.budgets(month_usd=1000)
    assert labs("gpu", "up", T4).exit_code == 0
