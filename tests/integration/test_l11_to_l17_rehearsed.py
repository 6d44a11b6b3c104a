"""L11 to L17 in rehearsal: their values bring engines up, their measures have values, their claims can be decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.engine.setup import EngineModel
from resources.warehouse import Warehouse
from tests.support.rehearsals import rehearsed

PREEMPTED = {"ttft_p50_preempted", "e2e_p50_preempted"}
GAPS_AT_SMOKE: dict[str, set[str]] = {
    "L12": PREEMPTED,  # two users fit
    "L13": set(),
    "L14": set(),
    "L15": set(),
    "L16": set(),
    "L17": {"hit_rate"},  # with caching off nothing is looked up
}


def kv_blocks_are_the_engine_s(warehouse: Warehouse) -> None:
    """The number that PromQL makes of a label is the number of blocks that the engine has."""
    told = warehouse.query(
        "SELECT DISTINCT s.variant, s.engine_args, m.value FROM metric_summaries AS m "
        "JOIN stack_sessions AS s USING (session_id) WHERE measure = 'kv_blocks' AND state = 'closed'"
    )
    assert told
    for row in told:
        assert row["value"] == EngineModel.of(json.loads(row["engine_args"]), "T4").memory.kv_blocks, row["variant"]


@pytest.mark.parametrize("lab", GAPS_AT_SMOKE)
def test_every_variant_comes_up_as_expected_and_every_measure_has_a_value(lab: str, tmp_path: Path) -> None:
    warehouse = rehearsed(lab, tmp_path, pace="smoke")
    gaps = warehouse.query("SELECT DISTINCT measure FROM metric_summaries WHERE status = 'gap'")
    assert {row["measure"] for row in gaps} == GAPS_AT_SMOKE[lab]
    deploys = warehouse.query("SELECT variant, outcome FROM events WHERE kind = 'deploy'")
    assert deploys and {row["outcome"] for row in deploys} == {"ok"}, deploys
    if lab in ("L15", "L16"):
        kv_blocks_are_the_engine_s(warehouse)
    if lab == "L15":
        (refused,) = warehouse.query("SELECT DISTINCT variant, refusal FROM stack_sessions WHERE refusal IS NOT NULL")
        assert refused["variant"] == "fp16" and "No available memory for the cache blocks" in refused["refusal"]


def test_l11_shows_where_more_cache_stops_to_help(tmp_path: Path) -> None:
    warehouse = rehearsed("L11", tmp_path)
    kv_blocks_are_the_engine_s(warehouse)
    speed: dict[tuple[str, int], float] = {
        (row["variant"], row["users"]): row["output_tokens_per_s"]
        for row in warehouse.query("SELECT variant, users, output_tokens_per_s FROM stage_table")
    }
    # 366 blocks hold seven or eight requests of 48 blocks, 739 fifteen, 987 twenty.
    assert speed["gmu-0.70", 64] < 1.1 * speed["gmu-0.70", 8]
    assert speed["gmu-0.85", 16] == pytest.approx(speed["gmu-0.95", 16], rel=0.02)
    assert speed["gmu-0.70", 32] < speed["gmu-0.85", 32] < speed["gmu-0.95", 32]
    findings: dict[str, dict[str, Any]] = {row["finding"]: row for row in warehouse.query("SELECT * FROM findings")}
    assert {row["verdict"] for row in findings.values()} <= {"confirmed", "refuted"}, findings
    (gain,) = warehouse.query(
        "SELECT value, status FROM metric_summaries WHERE measure = 'gain_per_block_first_over_second'"
    )
    assert gain["status"] == "ok" and gain["value"] == findings["first-blocks-are-worth-more"]["effect"]
