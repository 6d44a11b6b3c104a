"""The reference sheet's intervals hold what they promise, over simulated trials and by another computation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from lab_pipelines.deployment import REPO_ROOT
from resources.duck import connect
from resources.warehouse import Warehouse
from tests.support.rows.common import REQUESTED_AT
from tests.support.rows.runs import get_run, lab_run, variants_run
from tests.support.warehouses import publish_run, warehouse_in

WAREHOUSE = REPO_ROOT / "warehouse"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


def trials_of(warehouse: Warehouse, slower: Sequence[float]) -> None:
    """One run for each, `slower` times as slow as the first."""
    for number, factor in enumerate(slower):
        own = lab_run(users=(4,), slower=factor, run_id=f"run-{number}", session_id=f"session-{number}")
        publish_run(warehouse, own)


def found(warehouse: Warehouse, quantity: str, **where: Any) -> dict[str, Any]:
    rows = warehouse.query("FROM reference_sheet WHERE quantity = ?", [quantity])
    [row] = [row for row in rows if all(row[name] == value for name, value in where.items())]
    return row


def test_an_interval_is_student_s_on_the_logarithm_of_a_price(warehouse: Warehouse) -> None:
    trials_of(warehouse, (1.0, 1.1, 1.3))
    row = found(warehouse, "usd_per_1k_tokens", stage=0)
    values = [r["usd_per_1k_tokens"] for r in warehouse.query("FROM finops_sheet WHERE stage = 0")]
    logs = np.log(values)
    reach = t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert row["value"] == pytest.approx(math.exp(logs.mean()))
    assert row["trial_low"] == pytest.approx(math.exp(logs.mean() - reach), rel=1e-6)
    assert row["trial_high"] == pytest.approx(math.exp(logs.mean() + reach), rel=1e-6)
    assert (row["low"], row["high"]) == (row["trial_low"], row["trial_high"]), "the price has no bounds beside itself"
    assert (row["trials"], row["billed_trials"], row["scale"]) == (3, 0, "log")
    assert row["interval"].startswith("95 %, t of 3 trials, log")
    assert (row["run_id"], row["load"], row["sku"], row["priority"]) == (
        "run-2",  # all were recorded in the same instant: the last of them by name
        "4 users",
        "Standard_NC4as_T4_v3",
        "on_demand",
    )


def test_a_share_has_one_on_its_own_scale_that_stays_a_share(warehouse: Warehouse) -> None:
    trials_of(warehouse, (1.0, 1.1, 1.3, 3.0))
    row = found(warehouse, "idle_share", stage=None)
    values = np.array([r["idle_share"] for r in warehouse.query("FROM finops_sheet WHERE stage IS NULL")])
    reach = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert row["value"] == pytest.approx(values.mean())
    assert row["low"] == pytest.approx(max(values.mean() - reach, 0))
    assert row["high"] == pytest.approx(min(values.mean() + reach, 1))
    assert (row["scale"], row["price_low"]) == ("linear", None)


def test_one_trial_has_no_interval_and_says_so(warehouse: Warehouse) -> None:
    trials_of(warehouse, (1.0,))
    rows = warehouse.query("FROM reference_sheet")
    assert {row["interval"] for row in rows} == {"none: one trial"}
    assert {row[bound] for row in rows for bound in ("low", "high", "trial_low", "trial_high")} == {None}
    assert all(row["value"] is not None for row in rows)


def test_repeats_of_one_draw_tell_of_no_spread(warehouse: Warehouse) -> None:
    trials_of(warehouse, (1.0, 1.0, 1.0))
    assert {row["interval"] for row in warehouse.query("FROM reference_sheet")} == {"none: all 3 trials gave the same"}


def test_trials_without_a_value_are_not_left_out_of_sight(warehouse: Warehouse) -> None:
    """Where nothing was useful a useful token has no price. The mean of the others would be too cheap."""
    for number, useful in enumerate((1, 2, 0)):
        tables = lab_run(users=(4,), slower=1 + number / 10, run_id=f"run-{number}", session_id=f"session-{number}")
        for row in tables["finops_sheet"]:
            if not useful:
                row |= {"useful_requests": 0, "usd_per_useful_request": None, "usd_per_1k_useful_tokens": None}
        publish_run(warehouse, tables)
    row = found(warehouse, "usd_per_useful_request", stage=0)
    assert row["interval"] == "none: 1 of 3 trials have no value"
    assert (row["low"], row["high"]) == (None, None)


def test_price_bounds_widen_the_interval_of_money_and_of_nothing_else(warehouse: Warehouse) -> None:
    for number, slower in enumerate((1.0, 1.2)):
        tables = lab_run(users=(4,), slower=slower, run_id=f"run-{number}", session_id=f"session-{number}")
        for row in tables["finops_sheet"]:
            row |= {"usd_low": (row["usd"] / 2).quantize(Decimal("1e-9")), "usd_high": row["usd"] * 2}
        publish_run(warehouse, tables)
    row = found(warehouse, "usd_per_request", stage=0)
    assert row["low"] == pytest.approx(row["trial_low"] * 0.5, rel=1e-6)
    assert row["high"] == pytest.approx(row["trial_high"] * 2)
    assert row["interval"].endswith("price x 0.5 to 2")
    hours = found(warehouse, "idle_gpu_hours", stage=None)
    assert (hours["low"], hours["high"]) == (hours["trial_low"], hours["trial_high"])


def test_without_bounds_of_the_price_there_is_no_interval_of_money(warehouse: Warehouse) -> None:
    for number, slower in enumerate((1.0, 1.2)):
        tables = lab_run(users=(4,), slower=slower, run_id=f"run-{number}", session_id=f"session-{number}")
        for row in tables["finops_sheet"]:
            row |= {"usd_low": None, "usd_high": None}
        publish_run(warehouse, tables)
    row = found(warehouse, "usd_per_request", stage=0)
    assert (row["low"], row["high"]) == (None, None)
    assert row["interval"] == "none: the bounds of the price are not known"
    assert row["trial_low"] < row["value"] < row["trial_high"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sku", "Standard_NC24ads_A100_v4"),
        ("priority", "spot"),
        ("values_digest", "8" * 64),
        ("slo_ttft_s", 1.0),
        ("provenance", "measured"),
    ],
)
def test_another_configuration_is_another_line(warehouse: Warehouse, column: str, value: Any) -> None:
    for number in (0, 1):
        tables = lab_run(users=(4,), run_id=f"run-{number}", session_id=f"session-{number}")
        other = {column: value} | ({"engine": "vllm", "time_scale": 1.0} if column == "provenance" else {})
        publish_run(warehouse, {"finops_sheet": [row | (other if number else {}) for row in tables["finops_sheet"]]})
    rows = warehouse.query("FROM reference_sheet WHERE quantity = 'usd_per_request' AND stage = 0")
    assert [row["trials"] for row in rows] == [1, 1]
    assert len({row[column] for row in rows}) == 2


def test_every_variant_load_and_machine_has_its_lines_and_gets_have_no_price_per_token(warehouse: Warehouse) -> None:
    publish_run(warehouse, variants_run({"fast": 1.0, "slow": 2.0}, users=(1, 8)))
    publish_run(warehouse, get_run(offered=(2.0, 8.0)))
    rows = warehouse.query("FROM reference_sheet")
    assert {(row["lab"], row["variant"], row["load"]) for row in rows} == {
        *(("L11", variant, load) for variant in ("fast", "slow") for load in ("1 user", "8 users", "whole session")),
        *(("L01", "baseline", load) for load in ("2/s", "8/s", "whole session")),
    }
    of_gets = {row["quantity"] for row in rows if row["lab"] == "L01"}
    assert "usd_per_request" in of_gets
    assert not [name for name in of_gets if "tokens" in name]


def test_intervals_hold_the_truth_in_95_of_100_cases() -> None:
    """4,000 configurations of each number of trials: prices vary by factors around 2 cents, idle shares around 30 %."""
    draw, groups = np.random.default_rng(11), 4000
    frames = []
    for trials in range(3, 11):
        of_group = np.repeat(np.arange(groups), trials)
        frames.append(
            pd.DataFrame(
                {
                    "variant": [f"n{trials}-{group}" for group in of_group],
                    "run_id": [f"n{trials}-{number}" for number in range(len(of_group))],
                    "usd_per_request": 0.02 * np.exp(draw.normal(0, 0.2, len(of_group))),
                    "idle_share": draw.normal(0.3, 0.05, len(of_group)),
                }
            )
        )
    simulated = pd.concat(frames)
    with connect() as connection:
        for name in ("finops_sheet.sql", "run_marks.sql"):
            connection.execute((WAREHOUSE / "schema" / name).read_text(encoding="utf-8"))
        for name in ("01_load_in_words.sql", "39_sheet_current.sql", "90_reference_sheet.sql"):
            connection.execute((WAREHOUSE / "views" / name).read_text(encoding="utf-8"))
        whole = lab_run(users=(1,))["finops_sheet"][-1]
        fixed = {name: value for name, value in whole.items() if name not in simulated.columns}
        fixed |= {"usd_low": whole["usd"], "usd_high": whole["usd"], "recorded_at": REQUESTED_AT + timedelta(hours=1)}
        columns = ", ".join(f'${name} AS "{name}"' for name in fixed if name != "session_id")
        connection.register("simulated", simulated)
        connection.execute(
            f"INSERT INTO finops_sheet BY NAME SELECT *, run_id AS session_id, {columns} FROM simulated",
            {name: value for name, value in fixed.items() if name != "session_id"},
        )
        held = connection.execute(
            "SELECT quantity, trials, count(*) AS n, avg((truth BETWEEN low AND high)::INTEGER) AS held FROM ("
            "SELECT *, CASE quantity WHEN 'idle_share' THEN 0.3 ELSE 0.02 END AS truth FROM reference_sheet "
            "WHERE quantity IN ('idle_share', 'usd_per_request')) GROUP BY ALL"
        ).fetchall()
    assert {(quantity, trials) for quantity, trials, _, _ in held} == {
        (quantity, trials) for quantity in ("idle_share", "usd_per_request") for trials in range(3, 11)
    }
    for quantity, trials, n, share in held:
        assert n == groups
        assert 0.93 <= share <= 0.97, f"{quantity} of {trials} trials: {share}"


def test_the_view_s_table_of_student_s_t_is_right() -> None:
    text = (WAREHOUSE / "views" / "90_reference_sheet.sql").read_text(encoding="utf-8")
    [table] = [part for part in text.split("[") if part.strip().startswith("12.706205")]
    quantiles = [float(number) for number in table.split("]")[0].split(",")]
    assert quantiles == pytest.approx([t.ppf(0.975, freedom) for freedom in range(1, 31)], abs=1e-6)
