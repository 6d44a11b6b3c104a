"""`labs cost sheet` and `labs cost floor` as people call them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lab_pipelines.cli import app
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment, refused
from tests.support.retail_prices import RetailPricesDouble, machine
from tests.support.rows.runs import get_run, lab_run, variants_run
from tests.support.warehouses import publish_run, warehouse_in

Labs = Callable[..., Result]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


@pytest.fixture
def labs(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Labs:
    own_environment(monkeypatch, warehouse.data_dir)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def snapshot(warehouse: Warehouse) -> Warehouse:
    for number, slower in enumerate((1.0, 1.1, 1.3)):
        publish_run(
            warehouse, lab_run(users=(1, 8), slower=slower, run_id=f"run-{number}", session_id=f"session-{number}")
        )
    publish_run(warehouse, variants_run({"fast": 1.0}, users=(4,), target="rehearsal"))
    publish_run(warehouse, get_run())
    warehouse.rebuild()
    return warehouse


def test_each_configuration_has_its_loads_its_intervals_and_what_waiting_cost(labs: Labs, snapshot: Warehouse) -> None:
    shown = labs("cost", "sheet", "--lab", "L06")
    assert shown.exit_code == 0, shown.output
    assert "L06 baseline · 1 x Standard_NC4as_T4_v3 on demand" in shown.stdout
    assert "useful: TTFT 2 s, TPOT 0.08 s" in shown.stdout
    lines = shown.stdout.splitlines()
    [load] = [line for line in lines if line.startswith("ramp 8 users")]
    assert load.split()[3] == "3"
    assert load.count("±") == 5
    assert any(line.startswith("whole session") for line in lines)
    assert any(line.startswith("cold start: as much as") for line in lines)
    assert any(line.startswith("to zero: cheaper where") for line in lines)
    assert "modelled" in shown.stdout
    assert "L11" not in shown.stdout


def test_one_trial_is_shown_without_an_interval(labs: Labs, snapshot: Warehouse) -> None:
    shown = labs("cost", "sheet", "--target", "rehearsal")
    [load] = [line for line in shown.stdout.splitlines() if line.startswith("ramp 4 users")]
    assert "±" not in load
    assert "?" not in load
    assert "L06" not in shown.stdout


def test_a_lab_without_tokens_has_gaps_and_no_objective(labs: Labs, snapshot: Warehouse) -> None:
    shown = labs("cost", "sheet", "--lab", "L01")
    assert "no objective" in shown.stdout
    [load] = [line for line in shown.stdout.splitlines() if line.startswith("traffic 2/s")]
    assert load.count("\N{EN DASH}") == 4


def test_json_and_csv_have_every_quantity_with_its_bounds(labs: Labs, snapshot: Warehouse) -> None:
    rows = json.loads(labs("cost", "sheet", "--json").stdout)
    assert {row["lab"] for row in rows} == {"L01", "L06", "L11"}
    [row] = [r for r in rows if (r["lab"], r["load"], r["quantity"]) == ("L06", "8 users", "usd_per_request")]
    assert row["low"] < row["value"] < row["high"]
    assert "t of 3 trials" in row["interval"]
    printed = list(csv.DictReader(io.StringIO(labs("cost", "sheet", "--csv").stdout)))
    assert len(printed) == len(rows)
    assert printed[0].keys() == rows[0].keys()


def test_what_was_not_tested_is_said(labs: Labs, snapshot: Warehouse) -> None:
    shown = labs("cost", "sheet", "--sku", "Standard_X", "--lab", "L06")
    assert "nothing has been tested yet with lab L06, sku Standard_X" in shown.stdout
    assert labs("cost", "sheet", "--sku", "Standard_X", "--csv").stdout.strip() == ""


def test_mistakes_are_one_message(labs: Labs, warehouse: Warehouse) -> None:
    assert "--target moon: expected one of local" in refused(labs("cost", "sheet", "--target", "moon"), 2)
    assert "did you mean L06" in refused(labs("cost", "sheet", "--lab", "6"), 2)
    assert "exclude each other" in refused(labs("cost", "sheet", "--json", "--csv"), 2)
    assert "does not exist yet" in refused(labs("cost", "sheet"), 1)


FLOOR = ("cost", "floor", "Standard_NC4as_T4_v3", "--cold-start", "600", "--patience", "0")


def test_a_floor_is_decided_rate_by_rate(labs: Labs) -> None:
    # r (1 + r / 6) = 0.526 / 0.05, by hand: r = 3 (sqrt(1 + 4 x 10.52 / 6) - 1)
    shown = labs(*FLOOR, "--per-hour", "1,6,60", "--breach-usd", "0.05")
    assert shown.exit_code == 0, shown.output
    decided = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines() if line[:1] == " "}
    assert decided == {"1.00": "0", "6.00": "1", "60.0": "1"}
    assert "a floor of one pays from 5.49 requests per hour on" in shown.stdout
    assert "modelled: on-demand list price" in shown.stdout


def test_the_floor_as_json_is_the_model_s_numbers(labs: Labs) -> None:
    told = json.loads(labs(*FLOOR, "--per-hour", "6", "--json").stdout)
    [at] = told["at"]
    assert at["held_share"] == pytest.approx(0.5)
    assert at["breaches_per_h"] == pytest.approx(6)
    assert at["premium_usd_per_month"] == pytest.approx(0.526 / 2 * 730)
    assert at["waited_p99_s"] == 600


def test_a_cold_start_within_patience_never_needs_a_floor(labs: Labs) -> None:
    shown = labs("cost", "floor", "Standard_NC4as_T4_v3", "--cold-start", "2", "--patience", "5")
    assert "a floor of one never pays" in shown.stdout


def test_a_floor_is_paid_at_the_newest_price_of_the_region(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    with RetailPricesDouble(rows=machine("Standard_NC4as_T4_v3", 9.9, None)) as double:
        monkeypatch.setenv("LABS_RETAIL_PRICES_URL", double.url)
        done = labs("prices", "refresh", "--region", "eastus", "--sku", "Standard_NC4as_T4_v3")
    assert done.exit_code == 0, done.output
    shown = labs(*FLOOR, "--per-hour", "6").stdout
    assert "a node of Standard_NC4as_T4_v3 in eastus 9.90 USD per hour" in " ".join(shown.split())


@pytest.mark.parametrize("rates", ["", "0", "-1", "one", "1,,2"])
def test_rates_that_are_none_are_refused(labs: Labs, rates: str) -> None:
    assert "expected numbers above zero" in refused(labs(*FLOOR, "--per-hour", rates), 2)


def test_an_unknown_machine_names_those_that_are_known(labs: Labs) -> None:
    assert "has no SKU 'T4'" in refused(labs("cost", "floor", "T4", "--cold-start", "600"), 2)
