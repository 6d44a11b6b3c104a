"""Claims on pairs of one turn, judged on a warehouse's own rows; and which turn other claims are judged on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.findings import judge
from lab_pipelines.catalog.loader import CATALOG_DIR, SpecError, read_model
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.rows.sessions import session_row
from lab_pipelines.turns import visit_name
from resources.cluster import Session
from resources.warehouse import Warehouse
from tests.support.rows.common import Row
from tests.support.rows.runs import lab_run
from tests.support.sessions import session
from tests.support.warehouses import publish_run, warehouse_in

SLOWER = {"gmu-0.85": 1.0, "gmu-0.70": 1.5}
TURNS = 6
NOISE = [1.0, 1.02, 0.98, 1.01, 0.99, 1.03]
"""By turn, of the second variant alone; beside it every turn has a pace of its own."""
PAIRED: dict[str, Any] = {
    "kind": "paired",
    "quantity": "ttft_p50",
    "variant": "gmu-0.70",
    "over": "gmu-0.85",
    "step": "ramp",
    "load": 8.0,
    "comparison": "above",
    "threshold": 1.2,
}


def spec_with(tmp_path: Path, *findings: dict[str, Any], turns: int = TURNS) -> LabSpec:
    content = yaml.safe_load((CATALOG_DIR / "L11.yaml").read_text(encoding="utf-8"))
    content["findings"] = [{"id": f"f-{n}", "claim": "a claim", **finding} for n, finding in enumerate(findings)]
    content["turns"] = turns
    (path := tmp_path / "L11.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_model(path, LabSpec)


def visit(variant: str, trial: int) -> Row:
    """The columns of a visit's rows."""
    own = {"variant": variant, "trial": trial, "session_id": f"walk.{visit_name(variant, trial)}"}
    return {"lab": "L11", "run_id": "walk", "time_scale": 5.0, **own}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two variants in six turns, whose pace changes by a third from one to the next."""
    found, tables = warehouse_in(tmp_path_factory.mktemp("turns")), dict[str, list[Row]]()
    for trial in range(1, TURNS + 1):
        for variant, slower in SLOWER.items():
            own = slower * (1 + trial / 3) * (NOISE[trial - 1] if variant == "gmu-0.70" else 1.0)
            for table, rows in lab_run(users=(8,), slower=own, **visit(variant, trial)).items():
                tables.setdefault(table, []).extend(rows)
    publish_run(found, tables)
    return found


def walked(turns: int = TURNS) -> list[Session]:
    return [session(**visit(variant, trial)) for trial in range(1, turns + 1) for variant in SLOWER]


def verdicts(spec: LabSpec, warehouse: Warehouse, sessions: list[Session]) -> list[Row]:
    return judge(spec, [session_row(one, released_at=one.ready_at) for one in sessions], warehouse)


def test_a_pair_of_each_turn_takes_away_what_the_turn_does_to_both(tmp_path: Path, warehouse: Warehouse) -> None:
    quantities = ("ttft_p50", "tpot_p50", "e2e_p95")
    spec = spec_with(tmp_path, *({**PAIRED, "quantity": quantity} for quantity in quantities))
    for row in verdicts(spec, warehouse, walked()):
        assert (row["verdict"], row["n"]) == ("confirmed", TURNS)
        assert row["effect"] == pytest.approx(1.5, rel=0.02)
        assert 1.4 < row["interval_low"] < row["interval_high"] < 1.6
        assert (row["variant"], row["trial"], row["session_id"]) == ("gmu-0.70", TURNS, "walk.gmu-0.70.T6")


def test_throughput_and_measures_of_a_stage_can_be_paired_too(tmp_path: Path, warehouse: Warehouse) -> None:
    slower = PAIRED | {"quantity": "throughput", "comparison": "below", "threshold": 0.8}
    measure = {name: value for name, value in slower.items() if name != "quantity"} | {"measure": "output_tokens_per_s"}
    for row in verdicts(spec_with(tmp_path, slower, measure), warehouse, walked()):
        assert (row["verdict"], row["effect"]) == ("confirmed", pytest.approx(1 / 1.5, rel=0.03)), row


def test_a_turn_that_lacks_a_side_is_left_out_and_named(tmp_path: Path, warehouse: Warehouse) -> None:
    spec = spec_with(tmp_path, PAIRED)
    [row] = verdicts(spec, warehouse, [one for one in walked() if (one.variant, one.trial) != ("gmu-0.85", 3)])
    assert (row["verdict"], row["n"]) == ("confirmed", TURNS - 1)
    assert "turn 3 is left out: variant gmu-0.85 was not walked in it" in row["reason"]


def test_fewer_turns_than_a_verdict_needs_leave_it_open(tmp_path: Path, warehouse: Warehouse) -> None:
    [row] = verdicts(spec_with(tmp_path, PAIRED), warehouse, walked(turns=4))
    assert (row["verdict"], row["n"], row["interval_low"]) == ("inconclusive", 4, None)
    assert "4 pairs; a comparison needs 5: walk the variants in 5 turns or more" in row["reason"]
    [row] = verdicts(spec_with(tmp_path, PAIRED | {"variant": "gmu-0.95"}), warehouse, walked())
    assert (row["verdict"], row["n"]) == ("inconclusive", 0)
    assert "variant gmu-0.95 was not walked" in row["reason"]


def test_claims_on_stages_are_judged_on_the_turn_that_speaks(tmp_path: Path, warehouse: Warehouse) -> None:
    sides = {"numerator": {"variant": "gmu-0.70"}, "denominator": {"variant": "gmu-0.85"}}
    sides = {side: {**where, "step": "ramp", "load": 8.0} for side, where in sides.items()}
    ratio = {"kind": "ratio", "measure": "output_tokens_per_s", "comparison": "below", "threshold": 1.0, **sides}
    [row] = verdicts(spec_with(tmp_path, ratio), warehouse, walked())
    last = {
        name: warehouse.query("SELECT value FROM metric_summaries WHERE session_id = ? AND measure = ?", [where, of])
        for name, where, of in (
            ("above", "walk.gmu-0.70.T6", "output_tokens_per_s"),
            ("below", "walk.gmu-0.85.T6", "output_tokens_per_s"),
        )
    }
    assert row["effect"] == pytest.approx(last["above"][0]["value"] / last["below"][0]["value"])
    assert row["trial"] == TURNS


@pytest.mark.parametrize(
    ("change", "turns", "said"),
    [
        ({}, 4, "compares pairs of one turn and takes 5; turns is 4"),
        ({"over": "gmu-0.70"}, 6, "over: gmu-0.70 is the variant itself"),
        ({"over": "gmu-0.99"}, 6, "no variant gmu-0.99 comes up"),
        ({"load": 9.0}, 6, "no stage of ramp has load 9"),
        ({"measure": "kv_blocks"}, 6, "give exactly one of quantity and measure"),
        ({"quantity": "throughput", "shape": 0}, 6, "only latencies can be told apart"),
    ],
)
def test_a_claim_that_can_t_be_judged_is_refused(tmp_path: Path, change: Row, turns: int, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_with(tmp_path, PAIRED | change, turns=turns)
