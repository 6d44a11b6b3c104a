"""`labs cost export`: the file holds what the warehouse does, to the last digit, and keeps to FOCUS or is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from lab_pipelines.cli import app
from resources.duck import connect
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment, refused
from tests.support.rows.common import Row
from tests.support.rows.money import billed, cost_row
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

Labs = Callable[..., Result]

ON_AKS: Row = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0}
CSV, PARQUET = "focus-1.2-aks-best.csv", "focus-1.2-aks-best.parquet"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """A rehearsed run, and three on aks: one with its bill, one that waits for it, one on a machine without a price."""
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, lab_run(target="rehearsal", run_id="rehearsed", session_id="rehearsed"))
    tables = lab_run(**ON_AKS, run_id="billed", session_id="billed")
    estimates = tables["cost_records"]
    later = estimates[0]["recorded_at"] + timedelta(days=1)
    tables["cost_records"] = estimates + [
        billed(row, row["ListCost"] + Decimal("0.000000007"), recorded_at=later) for row in estimates
    ]
    publish_run(warehouse, tables)
    publish_run(warehouse, lab_run(**ON_AKS, lab="L11", run_id="waits", session_id="waits", users=(2, 3)))
    publish_run(warehouse, lab_run(**ON_AKS, lab="L12", run_id="unpriced", session_id="unpriced", priced=False))
    return warehouse


@pytest.fixture
def labs(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    own_environment(monkeypatch, warehouse.data_dir)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["cost", "export", *arguments])


def said(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def read(file: str | Path) -> list[dict[str, object]]:
    with connect() as connection:
        answer = connection.execute(f"FROM '{file}'")
        names = [column[0] for column in answer.description or []]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def total(file: str | Path, column: str) -> object:
    with connect() as connection:
        return connection.execute(f"SELECT sum({column}::DECIMAL(38, 15)) FROM '{file}'").fetchall()[0][0]


@pytest.mark.parametrize("file", [CSV, PARQUET])
def test_the_file_sums_to_what_the_warehouse_says_to_the_last_digit(
    labs: Labs, warehouse: Warehouse, file: str
) -> None:
    lines = said(labs("--target", "aks", "--format", file.rpartition(".")[2]))
    [expected] = warehouse.query(
        "SELECT sum(usd) FILTER (x_state = 'billed') AS bill, sum(usd) FILTER (session_id = 'waits') AS estimate, "
        "sum(usd) FILTER (x_state = 'estimated' AND session_id = 'billed') AS other FROM cost_current "
        "WHERE target = 'aks'"
    )
    assert expected["bill"] != expected["other"]
    assert total(file, "BilledCost") == expected["bill"] + expected["estimate"]
    assert total(file, "ListCost") == total(file, "CAST(ListUnitPrice * PricingQuantity AS DECIMAL(38, 15))")
    assert lines == [
        f"{file}: 9 rows of FOCUS 1.2, target aks, best",
        f"5 measured rows, billed: {expected['bill']} USD",
        f"4 measured rows, estimated: {expected['estimate']} USD",
        "left out: 5 estimated records: no list price is known for the machine",
    ]


def test_csv_and_parquet_hold_the_same(labs: Labs) -> None:
    for kind in ("csv", "parquet"):
        said(labs("--target", "aks", "--format", kind))
    with connect() as connection:
        columns = [name for name, *_ in connection.execute(f"DESCRIBE FROM '{PARQUET}'").fetchall()]
        same = connection.execute(
            f"SELECT count(*) FROM '{PARQUET}' AS p JOIN '{CSV}' AS c USING (x_session_id, x_part, ChargePeriodStart) "
            "WHERE p.BilledCost = c.BilledCost::DECIMAL(18, 9) AND p.x_method = c.x_method "
            "AND p.ChargePeriodEnd = c.ChargePeriodEnd AND p.Tags = c.Tags AND p.x_stage IS NOT DISTINCT FROM c.x_stage"
        ).fetchall()
    assert same == [(9,)]
    assert [name.startswith("x_") for name in columns] == sorted(name.startswith("x_") for name in columns)
    text = Path(CSV).read_text(encoding="utf-8").splitlines()
    assert text[0] == ",".join(columns)
    assert "2026-03-02T09:00:00Z" in text[1]


def test_a_parquet_file_says_its_version_without_being_read(labs: Labs) -> None:
    said(labs("--target", "aks", "--format", "parquet"))
    about = pq.read_metadata(PARQUET).metadata
    assert (about[b"focus_version"], about[b"x_state"]) == (b"1.2", b"best")


def test_one_state_of_a_session_unless_one_is_asked_for(labs: Labs) -> None:
    states = {}
    for state in ("best", "estimated", "billed"):
        said(labs("--target", "aks", "--state", state, "--out", f"{state}.parquet", "--format", "parquet"))
        states[state] = {(row["x_session_id"], row["x_state"]) for row in read(f"{state}.parquet")}
    assert states == {
        "best": {("billed", "billed"), ("waits", "estimated")},
        "estimated": {("billed", "estimated"), ("waits", "estimated")},
        "billed": {("billed", "billed")},
    }


def test_one_target_at_a_time(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_TARGET", "rehearsal")
    lines = said(labs("--out", "rehearsed.csv"))
    assert lines[1].startswith("5 modelled rows, estimated: ")
    assert {row["x_provenance"] for row in read("rehearsed.csv")} == {"modelled"}


def test_a_lab_and_days_narrow_it(labs: Labs) -> None:
    said(labs("--target", "aks", "--lab", "L11", "--from", "2026-03-02", "--to", "2026-03-02", "--out", "one.csv"))
    assert {row["x_lab"] for row in read("one.csv")} == {"L11"}
    assert "there is nothing to export" in refused(labs("--target", "aks", "--from", "2026-03-03"), 1)
    assert "there is nothing to export" in refused(labs("--target", "aks", "--to", "2026-03-01"), 1)


def test_stdout_has_the_file_and_nothing_else(labs: Labs) -> None:
    result = labs("--target", "aks", "--out", "-", "--lab", "L11")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert (lines[0].split(",")[0], len(lines)) == ("BilledCost", 5)
    assert "stdout: 4 rows of FOCUS 1.2" in result.stderr
    assert list(Path().glob("focus*")) == []


def test_a_file_that_is_there_stays_unless_force_is_given(labs: Labs) -> None:
    Path(CSV).write_text("mine", encoding="utf-8")
    assert "--force" in refused(labs("--target", "aks"), 1)
    assert Path(CSV).read_text(encoding="utf-8") == "mine"
    said(labs("--target", "aks", "--force"))
    assert len(read(CSV)) == 9
    assert sorted(path.name for path in Path().iterdir() if path.name != "data") == [CSV]


def test_an_export_that_breaks_a_rule_is_refused_and_leaves_nothing(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, {"cost_records": [cost_row(**ON_AKS, run_id="odd", RegionId="", BillingCurrency="usd")]})
    message = refused(labs("--target", "aks"), 1)
    assert "the export would break rules of FOCUS 1.2, and was not written:" in message
    assert "RegionId='': must be null rather than empty" in message
    assert "Traceback" not in message
    assert [path.name for path in Path().iterdir()] == ["data"]


def test_every_cost_record_is_a_row_or_left_out(labs: Labs, warehouse: Warehouse) -> None:
    for state in ("best", "estimated", "billed"):
        lines = said(labs("--target", "aks", "--state", state, "--out", f"{state}.csv"))
        left_out = sum(int(line.split()[2]) for line in lines if line.startswith("left out: "))
        [records] = warehouse.query(
            "SELECT count(*) AS n FROM cost_current WHERE target = 'aks' AND (x_state = $state OR ($state = 'best' "
            "AND (x_state = 'billed' OR session_id <> 'billed')))",
            {"state": state},
        )
        assert len(read(f"{state}.csv")) + left_out == records["n"], state


def test_what_can_t_be_said_in_dollars_is_left_out_and_counted(labs: Labs, warehouse: Warehouse) -> None:
    estimate = cost_row(**ON_AKS, run_id="euros", session_id="euros")
    euros = {"BillingCurrency": "EUR", "ListUnitPrice": None, "ListCost": None, "x_billed_usd": None}
    bill = billed(estimate, Decimal("0.013"), **euros, x_delta_usd=None)
    publish_run(warehouse, {"cost_records": [estimate, bill]})
    lines = said(labs("--target", "aks", "--out", "euros.csv"))
    assert "left out: 1 billed records: billed in EUR, and Azure did not say it in dollars" in lines
    assert ("euros", "estimated") in {(row["x_session_id"], row["x_state"]) for row in read("euros.csv")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "2026-13-01"], "--from 2026-13-01: expected a day, e.g. 2026-03-01"),
        (["--from", "2026-03-02", "--to", "2026-03-01"], "give the earlier day first"),
        (["--lab", "6"], "did you mean L06?"),
        (["--target", "moon"], "expected one of local, rehearsal, kubernetes, aks"),
    ],
)
def test_a_wrong_call_is_refused_with_the_right_one(labs: Labs, arguments: list[str], message: str) -> None:
    assert message in refused(labs(*arguments), 2)


def test_a_place_that_can_t_be_written_is_a_message(labs: Labs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "file" in refused(labs("--target", "aks", "--out", "file/x.csv"), 1)


def test_texts_of_any_kind_come_back_as_they_were(labs: Labs, warehouse: Warehouse) -> None:
    method = 'a "price", of\nmarch; 50 % — ü'
    publish_run(warehouse, {"cost_records": [cost_row(**ON_AKS, run_id="odd", session_id="odd", x_method=method)]})
    said(labs("--target", "aks", "--lab", "L06"))
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT x_method, Tags FROM read_csv('{CSV}', all_varchar = true) WHERE x_session_id = 'odd'"
        ).fetchall()
    assert [(row[0], json.loads(row[1])) for row in found] == [(method, {"lab": "l06", "variant": "baseline"})]
