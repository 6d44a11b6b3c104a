"""L18 to L24 in rehearsal: what each lab was built to show is there to be judged, on the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resources.warehouse import Warehouse
from tests.support.rehearsals import rehearsed


def findings(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    return {row["finding"]: row for row in warehouse.query("SELECT * FROM findings")}


def speeds(warehouse: Warehouse) -> dict[tuple[str, int], float]:
    """Output tokens/s by variant and users."""
    return {
        (row["variant"], row["users"]): row["output_tokens_per_s"]
        for row in warehouse.query(
            "SELECT variant, users, output_tokens_per_s FROM stage_table WHERE users IS NOT NULL"
        )
    }


def test_l18_s_drafts_are_accepted_as_often_as_their_text_allows(tmp_path: Path) -> None:
    warehouse = rehearsed("L18", tmp_path, pace="smoke")
    rates = {
        (row["variant"], row["step"]): row["value"]
        for row in warehouse.query(
            "SELECT variant, step, value FROM metric_summaries WHERE measure = 'acceptance_rate'"
        )
    }
    # Four tokens, each accepted with the probability a of its text: (a + a^2 + a^3 + a^4) / 4.
    for text, a in (("code", 0.76), ("prose", 0.62), ("numbers", 0.68)):
        assert rates["draft-4", text] == pytest.approx(sum(a**n for n in range(1, 5)) / 4, rel=0.1)
        assert rates["none", text] is None
        assert rates["draft-16", text] < rates["draft-8", text] < rates["draft-4", text]


def test_l19_s_second_gpu_is_partly_lost_to_talking(tmp_path: Path) -> None:
    warehouse = rehearsed("L19", tmp_path)
    speed = speeds(warehouse)
    assert 1.2 < speed["tensor-2", 16] / speed["one-t4", 16] < 2
    [efficiency] = warehouse.query("SELECT value FROM metric_summaries WHERE measure = 'scaling_efficiency'")
    assert efficiency["value"] == pytest.approx(speed["tensor-2", 16] / speed["one-t4", 16] / 2)
    sent = warehouse.query(
        "SELECT variant, min(value) AS least FROM metric_summaries "
        "WHERE measure = 'pcie_bytes_per_s' GROUP BY variant ORDER BY variant"
    )
    assert sent[0] == {"variant": "one-t4", "least": 0.0} and sent[1]["least"] > 1e6


def test_l20_s_pipeline_helps_many_and_not_one(tmp_path: Path) -> None:
    speed = speeds(rehearsed("L20", tmp_path))
    assert speed["pipeline-2", 1] == pytest.approx(speed["one-t4", 1], rel=0.02)
    assert speed["pipeline-2", 16] > 1.1 * speed["one-t4", 16]


def test_l21_s_limit_refuses_exactly_what_does_not_fit(tmp_path: Path) -> None:
    warehouse = rehearsed("L21", tmp_path)
    assert findings(warehouse)["the-limit-is-exact"]["verdict"] == "confirmed"
    refused = {
        (row["variant"], row["step"]): row["value"]
        for row in warehouse.query("SELECT variant, step, value FROM metric_summaries WHERE measure = 'share_refused'")
    }
    assert (refused["len-1024", "above-1024"], refused["len-2048", "above-1024"]) == (1.0, 0.0)
    assert all(share == 1.0 for (_, step), share in refused.items() if step == "above-all")
    assert all(share == 0.0 for (_, step), share in refused.items() if step in ("fits", "cut-by-server"))


def test_l22_and_l24_tell_the_batch_from_the_person_who_waits(tmp_path: Path) -> None:
    judged = findings(rehearsed("L22", tmp_path / "L22"))
    assert {name: row["verdict"] for name, row in judged.items()} == {
        "batch-wants-many": "confirmed",
        "few-starve-the-queue": "confirmed",
        "few-keep-tokens-steady": "inconclusive",
    }
    # With 64 sequences the time per token follows how many there happen to be, for minutes on end.
    assert "an interval of the p95 needs" in judged["few-keep-tokens-steady"]["reason"]
    assert judged["few-starve-the-queue"]["interval_high"] < -0.9
    right_sizing = findings(rehearsed("L24", tmp_path / "L24"))
    # The rule was written before the runs, and a batch on the small model refutes it.
    assert right_sizing["the-rule-holds"]["effect"] == 1.0
    assert right_sizing["small-batch"]["verdict"] == "refuted"


def test_l23_s_sweet_spot_moves_with_the_users(tmp_path: Path) -> None:
    warehouse = rehearsed("L23", tmp_path)
    judged = findings(warehouse)
    assert {row["verdict"] for row in judged.values()} == {"confirmed"}
    cost = {
        (row["variant"], row["users"]): row["usd_per_1k_output_tokens"]
        for row in warehouse.query("SELECT variant, users, usd_per_1k_output_tokens FROM stage_table")
    }
    assert cost["t4", 1] < cost["a100", 1] and cost["t4", 128] > cost["a100", 128]
    ranges = warehouse.query("SELECT variant, any_value(model_range) AS said FROM load_stages GROUP BY 1 ORDER BY 1")
    assert ranges[0] == {"variant": "a100", "said": "inside"}
    assert ranges[1]["said"].startswith("outside: ")
