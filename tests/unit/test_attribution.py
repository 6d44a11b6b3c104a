"""What sessions cost by the lake: as their run estimated it, and anew when prices or overlaps become known."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from assets.cost_attribution import publish_estimates
from lab_pipelines.attribution import attribute, estimate_rows, labs_with_sessions, reattribute
from lab_pipelines.catalog.prices import PriceSheet, Priority, UnitPrice, load_prices
from lab_pipelines.catalog.slo import INTERACTIVE
from lab_pipelines.cli.app import app
from lab_pipelines.session_sheets import publish_sheets
from resources.billing import Billing
from resources.contract import WarehouseError
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment
from tests.support.rows.common import USD_PER_NODE_HOUR, Row
from tests.support.rows.money import unit_price
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import shared_node_row
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 3, 9, 12, 0, tzinfo=UTC)


def price_of(sku: str | None, priority: Priority) -> UnitPrice | None:
    return None if sku is None else unit_price(priority=priority, sku=sku)


def dearer(sku: str | None, priority: Priority) -> UnitPrice | None:
    return None if sku is None else unit_price(2 * USD_PER_NODE_HOUR, priority=priority, sku=sku)


def run_of(lab: str, number: int = 1, *, shared: bool = False, **columns: Any) -> dict[str, list[Row]]:
    own: dict[str, Any] = {"lab": lab, "run_id": f"{lab}-{number}", "session_id": f"{lab}-s{number}"} | columns
    run = lab_run(**own)
    if shared:
        closed = next(row for row in run["stack_sessions"] if row["state"] == "closed")
        run["node_time"] = [shared_node_row(closed)]
    return run


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


def current(warehouse: Warehouse) -> dict[str, Decimal]:
    found = warehouse.query("SELECT session_id, sum(usd) AS usd FROM cost_current GROUP BY 1 ORDER BY 1")
    return {row["session_id"]: row["usd"] for row in found}


def test_a_run_is_estimated_from_its_rows(warehouse: Warehouse) -> None:
    run = run_of("L06")
    publish_run(warehouse, run)
    [one] = attribute(warehouse, "L06", "local", price_of=price_of, run_id="L06-1")
    names = ("x_part", "x_step", "x_stage", "PricingQuantity", "ListCost", "ChargePeriodStart", "x_priority")
    estimated = estimate_rows(one, price_of=price_of)
    assert [[row[name] for name in names] for row in estimated] == [
        [row[name] for name in names] for row in run["cost_records"]
    ]
    assert len({row["recorded_at"] for row in estimated}) == 1, "one estimate, whose rows hold together"
    assert one.usd() == sum(row["ListCost"] for row in run["cost_records"])


def test_a_lake_from_before_node_time_was_kept_is_estimated_by_its_sessions_own_nodes(warehouse: Warehouse) -> None:
    run = run_of("L06")
    del run["node_time"]
    publish_run(warehouse, run)
    [one] = attribute(warehouse, "L06", "local", price_of=price_of)
    assert one.usd() == sum(row["ListCost"] for row in run["cost_records"])


def test_what_is_estimated_anew_without_news_changes_nothing(warehouse: Warehouse) -> None:
    for number in (1, 2):
        publish_run(warehouse, run_of("L06", number))
    before = len(warehouse.query("FROM cost_records"))
    found = reattribute(warehouse, labs_with_sessions(warehouse), price_of=price_of, now=NOW)
    assert (found.sessions, found.changed) == (2, [])
    assert len(warehouse.query("FROM cost_records")) == before


def test_another_price_adds_estimates_that_hold_from_then_on_and_edits_none(warehouse: Warehouse) -> None:
    publish_run(warehouse, run_of("L06"))
    publish_run(warehouse, run_of("L07", priced=False))
    former, records = current(warehouse), len(warehouse.query("FROM cost_records"))
    found = reattribute(warehouse, labs_with_sessions(warehouse), price_of=dearer, now=NOW)
    assert found.sessions == 2
    [changed] = found.changed
    assert (changed.lab, changed.session_id, changed.before) == ("L06", "L06-s1", former["L06-s1"])
    assert changed.after == pytest.approx(2 * former["L06-s1"], abs=Decimal("1e-7"))
    assert current(warehouse)["L06-s1"] == changed.after
    assert len(warehouse.query("FROM cost_records")) > records
    again = reattribute(warehouse, labs_with_sessions(warehouse), price_of=dearer, now=NOW + timedelta(days=1))
    assert again.changed == []


def test_a_run_that_ended_before_its_estimate_gets_one(warehouse: Warehouse) -> None:
    run = run_of("L06")
    del run["cost_records"]
    publish_run(warehouse, run)
    [changed] = reattribute(warehouse, [("local", "L06")], price_of=price_of, now=NOW).changed
    assert changed.before is None
    assert changed.after == current(warehouse)["L06-s1"]


def test_a_lab_pays_less_once_it_is_known_who_else_held_its_node(warehouse: Warehouse) -> None:
    publish_run(warehouse, run_of("L06", shared=True))
    assert reattribute(warehouse, [("local", "L06")], price_of=price_of, now=NOW).changed == [], "alone: all of it"
    alone = current(warehouse)["L06-s1"]
    # L07 was there at the same time, with the same requests; it ended later and is estimated first.
    publish_run(warehouse, run_of("L07", shared=True, slower=1.5))
    where = labs_with_sessions(warehouse)
    assert {one.lab for one in reattribute(warehouse, where, price_of=price_of, now=NOW).changed} == {"L06", "L07"}
    now = current(warehouse)
    assert now["L06-s1"] == pytest.approx(alone / 2, abs=Decimal("1e-8"))
    whole = sum(row["ListCost"] for row in run_of("L07", slower=1.5)["cost_records"])
    assert sum(now.values()) == pytest.approx(whole, abs=Decimal("1e-8")), "together they pay the node once"
    methods = {row["x_method"] for row in warehouse.query("SELECT DISTINCT x_method FROM cost_current")}
    assert all("a share of node node-0, which other sessions held too, by requests alone" in one for one in methods)
    assert reattribute(warehouse, where, price_of=price_of, now=NOW + timedelta(hours=1)).changed == []


class FixedPrice(Billing):
    """What the price sheet of its day says."""

    usd: str = str(USD_PER_NODE_HOUR)

    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        return unit_price(Decimal(self.usd), priority=priority, sku=sku) if sku else None

    def sheet(self) -> PriceSheet:
        return load_prices()


def ended(warehouse: Warehouse, run: dict[str, list[Row]], billing: Billing) -> list[Row]:
    """Publish what a run has when its stack is gone, and let it estimate what it cost."""
    publish_run(warehouse, {name: of for name, of in run.items() if name not in ("cost_records", "finops_sheet")})
    sessions = [row for row in run["stack_sessions"] if row["state"] == "closed"]
    return publish_estimates(sessions, billing, warehouse)


def a_day_later(run: dict[str, list[Row]]) -> dict[str, list[Row]]:
    def of(value: object) -> object:
        return value + timedelta(days=1) if isinstance(value, datetime) else value

    return {table: [{name: of(value) for name, value in row.items()} for row in own] for table, own in run.items()}


def test_a_run_may_estimate_again_and_adds_rows_where_a_price_is_another(warehouse: Warehouse) -> None:
    run = run_of("L06")
    first = ended(warehouse, run, FixedPrice())
    sessions = [run["stack_sessions"][-1]]
    publish_sheets(warehouse, sessions, objective=INTERACTIVE)
    again = publish_estimates(sessions, FixedPrice(), warehouse)
    publish_sheets(warehouse, sessions, objective=INTERACTIVE)
    assert sum(row["ListCost"] for row in again) == sum(row["ListCost"] for row in first)
    assert len(warehouse.query("FROM cost_records")) == len(first), "it says the same already"
    assert len(warehouse.query("FROM finops_sheet")) == len(run["finops_sheet"])
    usd = sum(row["ListCost"] for row in publish_estimates(sessions, FixedPrice(usd="0.9"), warehouse))
    assert current(warehouse) == {"L06-s1": usd}
    publish_sheets(warehouse, sessions, objective=None)
    [whole] = warehouse.query("FROM sheet_current WHERE stage IS NULL")
    assert (whole["usd"], whole["slo_ttft_s"]) == (usd, INTERACTIVE.ttft_s), "the sheet follows, by its own objective"


def test_a_session_that_closed_after_the_run_s_first_sheet_gets_one_of_its_own(warehouse: Warehouse) -> None:
    early, late = run_of("L06"), run_of("L06", variant="late", run_id="L06-1", session_id="L06-late")
    ended(warehouse, early, FixedPrice())
    publish_sheets(warehouse, [early["stack_sessions"][-1]], objective=None)
    where = {"target": "local", "lab": "L06", "run_id": "L06-1", "part": "late"}
    for table in ("stack_sessions", "node_time", "load_stages", "requests"):
        warehouse.publish(table, late[table], **where)
    both = [early["stack_sessions"][-1], late["stack_sessions"][-1]]
    publish_estimates(both, FixedPrice(), warehouse)
    publish_sheets(warehouse, both, objective=None)
    wholes = warehouse.query("SELECT session_id FROM finops_sheet WHERE stage IS NULL ORDER BY ALL")
    assert [row["session_id"] for row in wholes] == ["L06-late", "L06-s1"]


def test_who_ended_first_pays_a_share_as_soon_as_it_is_known_who_else_was_there(warehouse: Warehouse) -> None:
    first, last = run_of("L06", shared=True), run_of("L07", shared=True, slower=1.5)
    elsewhere = run_of("L06", 2, shared=True)
    elsewhere["node_time"] = [row | {"node": "node-1"} for row in elsewhere["node_time"]]
    later = a_day_later(run_of("L06", 3, shared=True))
    for run in (first, elsewhere, later):
        ended(warehouse, run, FixedPrice())
    publish_sheets(warehouse, [first["stack_sessions"][-1]], objective=None)
    alone = current(warehouse)
    ended(warehouse, last, FixedPrice())
    now = current(warehouse)
    assert now["L06-s1"] == pytest.approx(alone["L06-s1"] / 2, abs=Decimal("1e-8"))
    whole = sum(row["ListCost"] for row in last["cost_records"])
    assert now["L06-s1"] + now["L07-s1"] == pytest.approx(whole, abs=Decimal("1e-8")), "the node is paid once"
    assert (now["L06-s2"], now["L06-s3"]) == (alone["L06-s2"], alone["L06-s3"]), "neither was there then"
    assert len(warehouse.query("SELECT DISTINCT recorded_at FROM cost_records WHERE session_id <> 'L06-s1'")) == 3
    [sheet] = warehouse.query("FROM sheet_current WHERE stage IS NULL AND session_id = 'L06-s1'")
    assert sheet["usd"] == now["L06-s1"]
    where = labs_with_sessions(warehouse)
    found = reattribute(warehouse, where, price_of=FixedPrice().node_hour_price, now=datetime.now(UTC))
    assert (found.changed, found.sheets) == ([], 0), "nothing is left to be typed"


def test_where_no_node_is_shared_nobody_is_looked_for(warehouse: Warehouse) -> None:
    damaged = Path(warehouse.data_dir) / "lake" / "node_time" / "target=local" / "lab=L07" / "other.parquet"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"nobody reads this")
    assert ended(warehouse, run_of("L06"), FixedPrice())
    with pytest.raises(WarehouseError, match=r"other\.parquet"):
        ended(warehouse, run_of("L08", shared=True), FixedPrice())


def test_sheets_that_somebody_left_behind_are_made_good_and_counted(warehouse: Warehouse) -> None:
    run = run_of("L06")
    publish_run(warehouse, run)
    dear = [row | {"recorded_at": NOW, "ListCost": 2 * row["ListCost"]} for row in run["cost_records"]]
    warehouse.publish("cost_records", dear, target="local", lab="L06", run_id="L06-1", part="estimated-dear")
    first = reattribute(warehouse, [("local", "L06")], price_of=price_of, now=NOW)
    assert (len(first.changed), first.sheets) == (1, 1)
    again = reattribute(warehouse, [("local", "L06")], price_of=price_of, now=NOW + timedelta(hours=1))
    assert (again.changed, again.sheets) == ([], 0)


def test_spot_nodes_are_priced_as_spot_nodes(warehouse: Warehouse) -> None:
    run = run_of("L06")
    run["node_time"] = [run["node_time"][0] | {"priority": "spot", "pool": "t4spot"}]
    publish_run(warehouse, run)

    def cheaper_on_spot(sku: str | None, priority: Priority) -> UnitPrice | None:
        return unit_price(Decimal("0.1") if priority == "spot" else USD_PER_NODE_HOUR, priority=priority)

    [one] = attribute(warehouse, "L06", "local", price_of=cheaper_on_spot)
    estimated = estimate_rows(one, price_of=cheaper_on_spot)
    assert {(row["x_priority"], row["x_pool"], row["ListUnitPrice"]) for row in estimated} == {
        ("spot", "t4spot", Decimal("0.1"))
    }


def test_the_command_says_what_changed_and_by_how_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own_environment(monkeypatch, tmp_path / "data")
    warehouse = warehouse_in(tmp_path)
    run = run_of("L06")
    del run["cost_records"]
    publish_run(warehouse, run)
    publish_run(warehouse, run_of("L07"))
    runner = CliRunner()
    answer = runner.invoke(app, ["cost", "reattribute", "--lab", "L06", "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert said["sessions"] == 1
    assert [(one["session_id"], one["before"]) for one in said["changed"]] == [("L06-s1", None)]
    runner.invoke(app, ["cost", "reattribute", "--target", "local"])
    again = runner.invoke(app, ["cost", "reattribute", "--target", "local"])
    expected = "2 sessions, 0 estimated anew, 0 of them cost another sum, by +0.000000 USD together; 0 sheets written\n"
    assert again.stdout == expected, again.output
    run = run_of("L08")
    run["cost_records"] = [row | {"x_price_low": None, "x_price_high": None} for row in run["cost_records"]]
    publish_run(warehouse, run)
    bounds = runner.invoke(app, ["cost", "reattribute", "--lab", "L08"])
    assert bounds.stdout.endswith(
        "1 sessions, 1 estimated anew, 0 of them cost another sum, by +0.000000 USD together; 1 sheets written\n"
    ), bounds.output
    wrong = runner.invoke(app, ["cost", "reattribute", "--target", "moon"])
    assert (wrong.exit_code, "--target moon: expected one of" in wrong.output) == (2, True)
