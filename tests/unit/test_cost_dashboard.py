"""The dashboard of cost: every question is asked of a real labs.duckdb, as the data source plugin would ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dashboards.grafana import build
from dashboards.grafana.warehouse import PLUGIN, SQL
from resources.snapshot import open_snapshot
from tests.support.rows.common import REQUESTED_AT, SKU, Row
from tests.support.rows.decisions import budget_decision_row
from tests.support.rows.money import billed
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

CONVERTED = {"VARCHAR", "DOUBLE", "BIGINT", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"}
"""DuckDB's types that the plugin turns into Grafana's. It knows no HUGEINT, which a sum of integers is."""
NOW = datetime.now(UTC).replace(microsecond=0)


def panels() -> list[dict[str, Any]]:
    shown = json.loads((build.FOLDER / "cost.json").read_text(encoding="utf-8"))
    return [panel for panel in shown["panels"] if panel["type"] != "row"]


def filled(sql: str, *, target: str = "local") -> str:
    """As the plugin sends it: the variable, and its macro over the last 30 days."""
    start, end = ((NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (30, -1))
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= '{start}' AND \1 <= '{end}'", sql)
    return sql.replace("${target}", target)


class Answers:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(self, file: str, *, target: str = "local", zone: str = "UTC") -> list[dict[str, Any]]:
        self._connection.execute(f"SET TimeZone = '{zone}'")
        cursor = self._connection.execute(filled((SQL / f"{file}.sql").read_text(encoding="utf-8"), target=target))
        kinds = {column[0]: str(column[1]) for column in cursor.description}
        assert set(kinds.values()) <= CONVERTED, f"{file}: {kinds}"
        return [dict(zip(kinds, row, strict=True)) for row in cursor.fetchall()]


def moved(tables: dict[str, list[Row]], length: timedelta) -> dict[str, list[Row]]:
    """The rows of a run, so much later."""
    return {
        table: [
            {name: value + length if isinstance(value, datetime) else value for name, value in row.items()}
            for row in found
        ]
        for table, found in tables.items()
    }


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """A warehouse with two labs that have run now, one of them billed, and the guard's decisions."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("cost"))
    month = NOW.replace(day=1, hour=0, minute=0, second=0)
    # A few minutes ago, but in this month.
    later = max(NOW - timedelta(minutes=5), month) - REQUESTED_AT
    for lab, run_id in (("L06", "run-6"), ("L11", "run-11")):
        tables = lab_run(users=[1, 8], lab=lab, run_id=run_id, session_id=run_id)
        shifted = moved(tables, later)
        publish_run(warehouse, shifted)
        if lab == "L06":
            bills = [
                billed(row, 2 * known["ListCost"])
                for row, known in zip(shifted["cost_records"], tables["cost_records"], strict=True)
            ]
            warehouse.publish("cost_records", bills, target="local", lab=lab, run_id=run_id, part="billed")
    decision = budget_decision_row(
        recorded_at=NOW, tick_at=NOW, period_start=month, period_end=NOW + timedelta(days=31)
    )
    older = decision | {"recorded_at": NOW - timedelta(hours=1), "state": "ok", "budget_usd": Decimal(50)}
    of_lab = decision | {"scope": "L06", "budget_usd": Decimal(7)}
    where = {"target": "local", "lab": "all", "run_id": decision["run_id"]}
    warehouse.publish("budget_decisions", [older, of_lab, decision], **where)
    with open_snapshot(warehouse.rebuild()) as connection:
        yield Answers(connection)


@pytest.fixture(scope="module")
def lab_usd() -> Decimal:
    """What one of the runs is estimated to have cost."""
    return sum((row["ListCost"] for row in lab_run(users=[1, 8])["cost_records"]), Decimal())


def test_every_panel_asks_one_file_through_the_plugin_and_says_what_it_tells() -> None:
    asked = []
    for panel in panels():
        [target] = panel["targets"]
        assert (panel["datasource"], target["datasource"]) == ({"type": PLUGIN, "uid": "${warehouse}"},) * 2
        assert (target["format"], target["editorMode"]) == (1, "code")
        asked.append(target["rawSql"])
        assert panel["description"].startswith(target["rawSql"].splitlines()[0].removeprefix("-- "))
    assert sorted(asked) == sorted(path.read_text(encoding="utf-8") for path in SQL.glob("*.sql"))


def test_what_a_panel_draws_is_a_column_of_its_answer(ask: Answers) -> None:
    for panel in panels():
        [answered] = [ask(path.stem) for path in SQL.glob("*.sql")
                      if path.read_text(encoding="utf-8") == panel["targets"][0]["rawSql"]]  # fmt: skip
        assert answered, panel["title"]
        needed = set[str]()
        for transformation in panel.get("transformations", []):
            options = transformation["options"]
            needed |= set(options.get("excludeByName", {}))
            needed |= {options[name] for name in ("columnField", "rowField", "valueField") if name in options}
        if panel["type"] == "barchart":
            needed |= set(panel["options"]["xField"].split("\\"))
        if panel["type"] == "timeseries":
            needed.add("time")
        assert needed <= answered[0].keys(), panel["title"]


def test_cost_per_1k_tokens_is_the_stages_by_users_and_machine(ask: Answers) -> None:
    sheet = {row["users"]: row["usd_per_1k_tokens"] for row in lab_run(users=[1, 8])["finops_sheet"]}
    answered = ask("cost_per_1k_tokens")
    assert [(row["users"], row["machine"]) for row in answered] == [
        ("1", f"{SKU} (modelled)"),
        ("8", f"{SKU} (modelled)"),
    ]
    assert [row["usd"] for row in answered] == pytest.approx([sheet[1], sheet[8]])


def test_where_the_money_went_sums_to_what_the_sessions_cost(ask: Answers, lab_usd: Decimal) -> None:
    answered = ask("where_the_money_went")
    assert [row["lab"] for row in answered] == ["L06", "L11"]
    for row in answered:
        parts = [row[part] or 0 for part in ("serve", "idle", "cold_start", "failed")]
        assert sum(parts) == pytest.approx(float(lab_usd))
        assert row["unpriced"] == 0


def test_the_bill_stands_beside_the_estimate_of_what_is_billed(ask: Answers, lab_usd: Decimal) -> None:
    answered = ask("estimate_against_bill")
    assert sum(row["estimated"] for row in answered) == pytest.approx(2 * float(lab_usd))
    assert sum(row["estimated_of_billed"] or 0 for row in answered) == pytest.approx(float(lab_usd))
    assert sum(row["billed"] or 0 for row in answered) == pytest.approx(2 * float(lab_usd))
    assert ask("estimate_against_bill", target="aks") == [], "one target at a time"


def test_a_session_with_node_time_of_no_known_price_is_no_estimate(tmp_path: Path) -> None:
    tables = moved(lab_run(), NOW - timedelta(minutes=5) - REQUESTED_AT)
    # A part that is priced beside one that is not.
    [idle, *_] = [row for row in tables["cost_records"] if row["x_part"] == "idle"]
    idle |= dict.fromkeys(("ListCost", "ListUnitPrice", "x_price_low", "x_price_high"))
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, tables)
    with open_snapshot(warehouse.rebuild()) as connection:
        [day] = Answers(connection)("estimate_against_bill")
    assert (day["estimated"], day["billed"]) == (None, None)


@pytest.mark.parametrize("file", ["estimate_against_bill", "month_against_budget"])
def test_a_day_is_one_of_utc_whatever_the_reader_s_zone_is(ask: Answers, file: str) -> None:
    here = ask(file)
    assert here == ask(file, zone="Pacific/Kiritimati") == ask(file, zone="America/Los_Angeles")
    assert all((row["time"].hour, row["time"].minute) == (0, 0) for row in here)


def test_idle_hours_are_those_of_the_sessions(ask: Answers) -> None:
    idle = [row for row in lab_run(users=[1, 8])["cost_records"] if row["x_part"] == "idle"]
    [answered] = ask("idle_hours")
    assert answered["machine"] == SKU
    assert answered["idle_node_hours"] == pytest.approx(2 * float(sum(row["PricingQuantity"] for row in idle)))
    assert answered["idle_usd"] == pytest.approx(2 * float(sum(row["ListCost"] for row in idle)))


def test_the_month_adds_up_and_stands_against_the_newest_budget(ask: Answers, lab_usd: Decimal) -> None:
    answered = ask("month_against_budget")
    spent = [row["spent"] for row in answered]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(2 * float(lab_usd))
    assert {row["budget"] for row in answered} == {100.0}


def test_the_states_are_the_newest_of_each_budget_the_month_s_first(ask: Answers) -> None:
    answered = ask("budget_states")
    assert [(row["budget"], row["state"], row["budget_usd"]) for row in answered] == [
        ("month", "warn", 100.0),
        ("L06", "warn", 7.0),
    ]
    assert answered[0]["spent_share"] == pytest.approx(0.805)


def test_the_files_say_which_question_they_answer() -> None:
    for path in sorted(SQL.glob("*.sql")):
        assert re.match(r"-- .*\?", path.read_text(encoding="utf-8")), path.name


def test_the_time_filter_is_in_every_question_over_all_runs() -> None:
    filtered = {path.stem for path in SQL.glob("*.sql") if "$__timeFilter" in path.read_text(encoding="utf-8")}
    assert filtered == {"where_the_money_went", "estimate_against_bill", "idle_hours"}
