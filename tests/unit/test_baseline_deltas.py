"""Every lab beside the baseline of its own place: what is compared with what, and what is said where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.baseline import BASELINES_DIR, UNITS, Baseline, BaselineError, current
from lab_pipelines.baseline_rows import baseline_rows, publish_baselines
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.chapters import chapters
from lab_pipelines.report.read import read_report
from resources.warehouse import Warehouse
from tests.support.rows.load import over_budget
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

MEASURED = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0, "pace": "full"}


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


def lab(warehouse: Warehouse, name: str, lab_id: str, *, users: Sequence[int] = (1, 4), **columns: Any) -> None:
    publish_run(warehouse, lab_run(users=users, lab=lab_id, run_id=name, session_id=name, **columns))


def deltas(warehouse: Warehouse, lab_id: str, **where: Any) -> list[dict[str, Any]]:
    found = warehouse.query(
        "SELECT * FROM baseline_deltas WHERE lab = ? ORDER BY session_id, comparison, step, stage, quantity", [lab_id]
    )
    return [row for row in found if all(row[name] == value for name, value in where.items())]


def pinned_l06() -> Baseline:
    found = current("L06", "local")
    assert found is not None
    return found


def test_a_stage_stands_beside_the_pinned_one_of_its_load_quantity_by_quantity(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "a", "L11")
    found = deltas(warehouse, "L11", comparison="same load", users=4)
    assert [row["quantity"] for row in found] == [
        "output_tokens_per_s",
        "tpot_p50_s",
        "ttft_p50_s",
        "ttft_p95_s",
        "usd_per_1k_tokens",
    ]
    pinned = pinned_l06()
    stage = next(s for s in pinned.content["variants"]["baseline"]["stages"] if s["users"] == 4)
    speed = found[0]
    assert speed["baseline_value"] == stage["output_tokens_per_s"]
    assert speed["delta"] == pytest.approx(speed["value"] - speed["baseline_value"])
    assert speed["ratio"] == pytest.approx(speed["value"] / speed["baseline_value"])
    assert (speed["better"], found[2]["better"]) == ("higher", "lower")
    assert (speed["comparable"], speed["reason"], speed["caveat"]) == (True, None, None)
    assert (speed["provenance"], speed["baseline_provenance"]) == ("modelled", "modelled")
    assert (speed["baseline_file"], speed["baseline_digest"]) == ("0001.json", pinned.digest)
    assert speed["baseline_run_id"] == pinned.content["run_id"]
    tpot = found[1]
    assert (tpot["comparable"], tpot["delta"], tpot["reason"]) == (False, None, "the baseline does not know it")


def test_the_best_stage_stands_beside_the_best_one_where_loads_differ(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "a", "L11", users=(2, 64))
    assert {row["reason"] for row in deltas(warehouse, "L11", comparison="none")} == {
        "the baseline has no stage with 2 users",
        "the baseline has no stage with 64 users",
    }
    speed, price = deltas(warehouse, "L11", comparison="peak")
    stages = pinned_l06().content["variants"]["baseline"]["stages"]
    assert (speed["quantity"], price["quantity"]) == ("output_tokens_per_s", "usd_per_1k_tokens")
    assert speed["baseline_value"] == max(s["output_tokens_per_s"] for s in stages)
    assert price["baseline_value"] == min(s["usd_per_1k_tokens"] for s in stages)
    assert (speed["load"], speed["baseline_load"]) == ("64 users", "32 users")


def test_a_stage_whose_client_was_over_its_error_budget_has_no_delta_and_is_no_peak(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    tables = lab_run(users=(1, 4), lab="L11", run_id="a", session_id="a")
    fault = over_budget(tables, 1)
    publish_run(warehouse, tables)
    found = deltas(warehouse, "L11", comparison="same load", users=4)
    assert len(found) == 5
    for row in found:
        assert (row["value"], row["delta"], row["comparable"]) == (None, None, False)
        assert row["reason"] == f"client over its error budget: {fault}"
    assert {row["load"] for row in deltas(warehouse, "L11", comparison="peak")} == {"1 user"}


def test_the_years_table_and_the_view_say_the_same(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "a", "L11", slower=1.3)
    report = read_report(warehouse, load_catalog(), now=datetime(2026, 3, 6, tzinfo=UTC))
    (line,) = next(row.lines for row in chapters(report)[0].year if row.lab.id == "L11")
    speed, price = deltas(warehouse, "L11", comparison="peak")
    assert (line.throughput, line.price) == (speed["ratio"], price["ratio"])
    assert line.throughput is not None and line.price is not None


def test_without_a_pin_l06s_newest_run_in_the_same_place_is_the_baseline(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "l06", "L06", **MEASURED)
    lab(warehouse, "a", "L11", slower=2.0, **MEASURED)
    found = deltas(warehouse, "L11", comparison="same load", quantity="ttft_p50_s")
    assert [row["ratio"] for row in found] == pytest.approx([2.0, 2.0])
    assert {(row["baseline_run_id"], row["baseline_file"], row["baseline_provenance"]) for row in found} == {
        ("l06", None, "measured")
    }
    own = deltas(warehouse, "L06")
    assert {row["reason"] for row in own} == {"L06 has no run on aks to compare with"}, "not with itself"


def test_measured_is_never_set_against_modelled_without_saying(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "a", "L11", engine="external", provenance="measured", time_scale=1.0)
    found = deltas(warehouse, "L11", comparison="same load")
    assert {row["reason"] for row in found} == {"measured against a modelled baseline"}
    assert {(row["delta"], row["ratio"], row["comparable"]) for row in found} == {(None, None, False)}
    # As soon as L06 was measured there, that is the baseline, though the modelled one is pinned.
    lab(warehouse, "l06", "L06", engine="external", provenance="measured", time_scale=1.0)
    found = deltas(warehouse, "L11", comparison="same load", quantity="ttft_p50_s")
    assert [(row["comparable"], row["baseline_run_id"], row["ratio"]) for row in found] == [(True, "l06", 1.0)] * 2


def test_what_else_differs_is_said(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "a", "L11", pace="full", time_scale=1.0)
    assert {row["caveat"] for row in deltas(warehouse, "L11")} == {"1 x against 5 x; pace full against short"}


def test_another_kind_of_load_is_not_the_same_load(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    tables = lab_run(users=(4,), lab="L13", run_id="b", session_id="b")
    tables["load_stages"][0]["profile"] = "burst"
    publish_run(warehouse, tables)
    assert {row["reason"] for row in deltas(warehouse, "L13", comparison="none")} == {
        "the baseline has no stage with burst of 4"
    }


def test_an_unknown_price_is_a_gap(warehouse: Warehouse) -> None:
    publish_baselines(warehouse)
    lab(warehouse, "a", "L11", priced=False)
    found = deltas(warehouse, "L11", comparison="same load", quantity="usd_per_1k_tokens")
    assert [(row["value"], row["delta"], row["reason"]) for row in found] == [(None, None, "not known")] * 2


def test_publishing_the_pinned_files_again_changes_nothing(warehouse: Warehouse) -> None:
    published = publish_baselines(warehouse)
    assert published == publish_baselines(warehouse)
    counted = warehouse.query("SELECT count(*) AS n FROM baselines")[0]["n"]
    stages = [s for one in published for v in one.content["variants"].values() for s in v["stages"]]
    assert counted == len(stages)


def test_the_last_file_of_a_chain_is_the_baseline(warehouse: Warehouse) -> None:
    pinned = pinned_l06()
    later = Baseline(pinned.path.with_name("0002.json"), {**pinned.content, "digest": "2" * 64, "run_id": "later"})
    for one in (pinned, later):
        run_id = one.content["run_id"]
        warehouse.publish("baselines", baseline_rows(one), target="local", lab="L06", run_id=run_id, part=one.path.stem)
    lab(warehouse, "a", "L11")
    assert {row["baseline_file"] for row in deltas(warehouse, "L11")} == {"0002.json"}


def test_every_pinned_number_has_a_column(warehouse: Warehouse) -> None:
    (row, *_) = baseline_rows(pinned_l06())
    assert set(UNITS) <= set(row)
    assert row["recorded_at"] - row["pinned_at"] > timedelta(0)


def test_an_edited_file_is_not_published(warehouse: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "baselines" / "L06" / "local"
    folder.mkdir(parents=True)
    text = (BASELINES_DIR / "L06" / "local" / "0001.json").read_text()
    (folder / "0001.json").write_text(text.replace('"users": 4', '"users": 5'))
    with pytest.raises(BaselineError, match="changed after it was pinned"):
        publish_baselines(warehouse, tmp_path / "baselines")
