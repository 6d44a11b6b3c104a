"""`labs forecast`: the table says what was compared, the picture is written, and a missing side is named."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lab_pipelines.cli.app import app
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment
from tests.support.rows.runs import lab_run, variants_run
from tests.support.warehouses import publish_run, warehouse_in

REHEARSAL: dict[str, Any] = {"target": "rehearsal", "time_scale": 1.0, "run_id": "rehearsed", "session_id": "f"}


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    warehouse = warehouse_in(tmp_path)
    own_environment(monkeypatch, warehouse.data_dir)
    return warehouse


def labs(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["forecast", *arguments])


def test_forecast_and_run_stand_side_by_side_with_their_error_and_a_picture(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    publish_run(warehouse, lab_run(users=(1, 4), slower=1.2, **REHEARSAL))
    result = labs("L06")
    assert result.exit_code == 0, result.output
    assert "model against model: local ran the modelled server, so nothing was measured" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["ramp", "1", "user", "TTFT", "p50", "0.384", "0.320", "+20", "%"] in lines
    assert any(line[:4] == ["ramp", "1", "user", "TTFT"] and "≈" in line for line in lines), "24 requests bound no p95"
    assert next(line[:7] for line in lines if line[:3] == ["TTFT", "p50", "2"]) == [
        "TTFT",
        "p50",
        "2",
        "20",
        "%",
        "20",
        "%",
    ]
    picture = Path(warehouse.data_dir) / "report" / "forecast-L06-local.svg"
    assert str(picture) in result.stdout
    assert ET.fromstring(picture.read_text(encoding="utf-8")).tag.endswith("svg")
    assert "Forecast against the modelled server" in picture.read_text(encoding="utf-8")


def test_variants_are_told_apart_and_a_measured_run_is_called_so(warehouse: Warehouse) -> None:
    real: dict[str, Any] = {"engine": "external", "provenance": "measured", "time_scale": 1.0}
    publish_run(warehouse, variants_run({"a": 1.0, "b": 2.0}, users=(4,), **real))
    publish_run(warehouse, variants_run({"a": 1.0, "b": 1.0}, users=(4,), **REHEARSAL))
    result = labs("L11")
    assert "a rehearsal against what was measured on local" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    found = {line[0]: line[-2:] for line in lines if line[1:6] == ["ramp", "4", "users", "TTFT", "p50"]}
    assert found == {"a": ["+0.0", "%"], "b": ["-50", "%"]}


def test_only_the_newest_run_of_a_target_is_compared(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    later = lab_run(users=(1,))["load_stages"][0]["recorded_at"].replace(year=2027)
    publish_run(warehouse, lab_run(users=(1,), run_id="newer", session_id="newer", recorded_at=later))
    publish_run(warehouse, lab_run(users=(1,), **REHEARSAL))
    shown = json.loads(labs("L06", "--json").stdout)
    assert {row["run_id"] for row in shown["compared"]} == {"newer"}
    assert {row["run_id"] for row in shown["errors"]} == {"newer"}


def test_a_side_that_is_missing_is_named_with_the_remedy(warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    result = labs("L06")
    assert result.exit_code == 1
    assert "labs run L06 --target rehearsal" in result.stderr
    assert "on target aks" in labs("L06", "--target", "aks").stderr
    assert labs("L99").exit_code == 2


@pytest.mark.usefixtures("warehouse")
def test_the_rehearsal_is_no_run_to_compare_itself_with() -> None:
    result = labs("L06", "--target", "rehearsal")
    assert (result.exit_code, "is the forecast itself" in result.stderr) == (2, True)


def test_the_status_of_a_run_counts_the_verdicts_of_all_its_variants(warehouse: Warehouse) -> None:
    publish_run(warehouse, variants_run({"a": 1.0, "b": 1.0}, refused={"c": "No memory"}, users=(1,)))
    warehouse.rebuild()
    shown = CliRunner().invoke(app, ["status", "--json"])
    (run,) = json.loads(shown.stdout)["newest_runs"]
    assert (run["variants"], run["confirmed"], run["released"]) == (["a", "b", "c"], 2, True)
