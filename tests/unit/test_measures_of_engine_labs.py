"""The SQL measures of the labs about one engine, on rows whose answers are plain."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab_pipelines.deployment import REPO_ROOT
from resources.warehouse import Warehouse
from tests.support.rows.common import REQUESTED_AT, RUN_ID
from tests.support.rows.load import request_row, stage_row
from tests.support.rows.measures import summary_row
from tests.support.rows.sessions import log_row
from tests.support.warehouses import publish_run, warehouse_in

STAGE = {"session_id": "session-1", "step": "ramp", "stage": 0}
WINDOW = {
    "session_id": "session-1",
    "start": REQUESTED_AT + timedelta(seconds=5),
    "end": REQUESTED_AT + timedelta(seconds=25),
}


def answer(warehouse: Warehouse, name: str, parameters: dict[str, Any]) -> float | None:
    sql = (REPO_ROOT / "warehouse" / "measures" / f"{name}.sql").read_text(encoding="utf-8")
    ((value,),) = [tuple(row.values()) for row in warehouse.query(sql, parameters)]
    return value


def test_rare_stalls_are_between_two_events_and_not_the_wait_for_the_first(tmp_path: Path) -> None:
    """A thousand gaps of the stage: 989 of 0.1 s, ten of 0.5 s, one of 2.5 s."""
    warehouse = warehouse_in(tmp_path)
    gaps = np.array([0.1] * 989 + [0.5] * 10 + [2.5])
    requests = [
        request_row(request_id=f"r{number}", event_offsets_s=np.cumsum([9.0, *some]).tolist())
        for number, some in enumerate(np.split(gaps, 10))
    ]
    requests += [
        request_row(request_id="one-event", event_offsets_s=[0.4]),
        *(request_row(request_id=f"s{n}", stage=1, event_offsets_s=[0.4, 7.0]) for n in range(50)),
        request_row(request_id="cut", event_offsets_s=[0.4, 8.0], in_stage=False, valid=False, invalid_reasons=["cut"]),
    ]
    publish_run(warehouse, {"requests": requests})
    assert answer(warehouse, "itl_p99", STAGE) == pytest.approx(np.quantile(gaps, 0.99))
    assert answer(warehouse, "itl_p999", STAGE) == pytest.approx(np.quantile(gaps, 0.999))


def finished(number: int, preemptions: int, ttft_s: float, e2e_s: float, *, after_s: float = 6.0) -> dict[str, Any]:
    line = {"event": "request_finished", "request_id": f"r{number}", "preemptions": preemptions}
    return log_row(
        logged_at=REQUESTED_AT + timedelta(seconds=after_s), line=json.dumps({**line, "ttft_s": ttft_s, "e2e_s": e2e_s})
    )


def test_preempted_requests_are_told_from_the_others_and_from_those_of_other_stages(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    lines = [
        finished(1, 0, 1.0, 50.0),
        finished(2, 0, 3.0, 54.0),
        finished(3, 2, 1.0, 90.0),
        finished(4, 1, 2.0, 96.0),
        finished(5, 1, 500.0, 900.0, after_s=26.0),
    ]
    publish_run(warehouse, {"log_lines": lines})
    assert answer(warehouse, "ttft_p50_preempted", WINDOW) == pytest.approx(1.5)
    assert answer(warehouse, "ttft_p50_not_preempted", WINDOW) == pytest.approx(2.0)
    assert answer(warehouse, "e2e_p50_preempted", WINDOW) == pytest.approx(93.0)
    assert answer(warehouse, "e2e_p50_not_preempted", WINDOW) == pytest.approx(52.0)


def test_where_none_was_preempted_there_is_no_number(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, {"log_lines": [finished(1, 0, 1.0, 50.0)]})
    assert answer(warehouse, "ttft_p50_preempted", WINDOW) is None


@pytest.mark.parametrize(("last_tokens", "expected"), [(5_500, 4.0), (5_000, None), (4_800, None)])
def test_a_block_s_worth_is_throughput_per_block_and_has_no_ratio_to_none(
    tmp_path: Path, last_tokens: int, expected: float | None
) -> None:
    """1000 tokens in 100 s more per 100 blocks, and then 500 more for 200 blocks: four times as much."""
    warehouse = warehouse_in(tmp_path)
    points = {"gmu-0.70": (100.0, 4_000), "gmu-0.85": (200.0, 5_000), "gmu-0.95": (400.0, last_tokens)}
    stages, summaries = [], []
    for variant, (blocks, tokens) in points.items():
        one = {"variant": variant, "session_id": variant}
        stages += [
            stage_row(**one, users=32, stage=3, output_tokens=tokens),
            stage_row(**one, users=8, stage=1, output_tokens=1),
        ]
        summaries += [
            summary_row(**one, users=users, stage=stage, measure="kv_blocks", unit="count", value=blocks)
            for stage, users in ((3, 32), (1, 8))
        ]
    publish_run(warehouse, {"load_stages": stages, "metric_summaries": summaries})
    got = answer(warehouse, "gain_per_block_first_over_second", {"run_id": RUN_ID})
    assert got == (None if expected is None else pytest.approx(expected))
