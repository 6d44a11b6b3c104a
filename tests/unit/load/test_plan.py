"""The plan's two readers agree, and a wrong file is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from streaming_load.plan import PlanError, read_plan

from resources.load_generator import LoadPlan, StagePlan

PLAN = LoadPlan(
    run_id="r",
    step="ramp",
    base_url="http://127.0.0.1:1/v1",
    model="m",
    prompts="/p.json",
    input_tokens=512,
    output_tokens=256,
    temperature=0.0,
    timeout_wall_s=60,
    stages=[
        StagePlan(stage=0, users=1, hold_wall_s=1, min_requests=2, max_hold_wall_s=3),
        StagePlan(stage=1, users=4, hold_wall_s=1, min_requests=2, max_hold_wall_s=3),
    ],
)


def test_a_load_process_reads_what_a_load_plan_wrote(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(PLAN.model_dump_json(), encoding="utf-8")
    assert json.loads(json.dumps(asdict(read_plan(file)))) == PLAN.model_dump(mode="json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "is not JSON"),
        ("[]", r"missing fields \['base_url'"),
        (json.dumps({**PLAN.model_dump(mode="json"), "user": 1}), r"unknown fields \['user'\]"),
        (json.dumps({**PLAN.model_dump(mode="json"), "stages": [{}]}), r"stages\[0\]: missing fields \['hold_wall_s'"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PlanError, match=says) as refused:
        read_plan(file)
    assert str(file) in str(refused.value)


def test_a_missing_plan_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere\.json can't be read"):
        read_plan(tmp_path / "nowhere.json")
