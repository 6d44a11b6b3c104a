"""The plan's two readers agree, and a wrong file is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from streaming_load.plan import PlanError, read_plan
from streaming_load.traces import replayed

from lab_pipelines.deployment import REPO_ROOT
from resources.load_generator import CompletionShape, HttpShape, LoadPlan, StagePlan, TracedShape, TracePlan

PLAN = LoadPlan(
    run_id="r",
    step="ramp",
    base_url="http://127.0.0.1:1/v1",
    model="m",
    profile="ramp",
    shapes=[
        CompletionShape(
            weight=3.0,
            prompts="/p.json",
            input_tokens=512,
            output_tokens=256,
            temperature=0.0,
            timeout_wall_s=60,
        )
    ],
    stages=[
        StagePlan(stage=0, users=1, hold_wall_s=1, min_requests=2, max_hold_wall_s=3),
        StagePlan(stage=1, users=4, hold_wall_s=1, min_requests=2, max_hold_wall_s=3),
    ],
)


GETS = LoadPlan(
    run_id="r",
    step="traffic",
    base_url="http://127.0.0.1:1",
    model=None,
    profile="rate",
    arrivals="poisson",
    max_in_flight=8,
    shapes=[
        HttpShape(weight=97, path="/status/200", expect=200, timeout_wall_s=5),
        HttpShape(weight=3, path="/status/500", expect=500, timeout_wall_s=5),
    ],
    stages=[
        StagePlan(stage=0, users=None, per_wall_s=12.5, hold_wall_s=1, min_requests=2, max_hold_wall_s=3),
    ],
)


CHANGING = GETS.model_copy(
    update={
        "profile": "rate_profile",
        "stages": [
            StagePlan(
                stage=0, users=None, per_wall_s=2.0, hold_wall_s=2, min_requests=1, max_hold_wall_s=3,
                points=[(0.0, 1.0), (2.0, 3.0)],
            )
        ],
    }
)  # fmt: skip


def replay(**changes: Any) -> LoadPlan:
    """A plan that replays a part of the synthetic trace."""
    window: dict[str, Any] = {"start_s": 10.0, "duration_s": 20.0, "max_input_tokens": 512, "max_output_tokens": 64}
    path = REPO_ROOT / "load-tests" / "traces" / "synthetic-azure-2024.csv"
    found = replayed(path, "azure", **window)
    fields = {"file": str(path), "format": "azure", "per_wall_s": 5.0, "clipped": found.clipped, "digest": found.digest}
    stage = StagePlan(
        stage=0, users=None, per_wall_s=9.0, hold_wall_s=4, min_requests=len(found.rows), max_hold_wall_s=9
    )
    return LoadPlan(
        run_id="r",
        step="replay",
        base_url="http://127.0.0.1:1/v1",
        model="m",
        profile="trace",
        max_in_flight=8,
        trace=TracePlan.model_validate({**window, **fields, **changes}),
        shapes=[TracedShape(temperature=0.0, timeout_wall_s=5)],
        stages=[stage],
    )


@pytest.mark.parametrize("fields", [{"arrivals": "gamma"}, {"burstiness": 0.5}])
def test_gamma_arrivals_and_their_burstiness_belong_together(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="burstiness: belongs to gamma arrivals"):
        LoadPlan.model_validate(GETS.model_dump() | fields)


@pytest.mark.parametrize(
    "plan", [PLAN, GETS, CHANGING, replay()], ids=["completions", "gets", "changing rate", "trace"]
)
def test_a_load_process_reads_what_a_load_plan_wrote(tmp_path: Path, plan: LoadPlan) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan.model_dump_json(), encoding="utf-8")
    assert json.loads(json.dumps(asdict(read_plan(file)))) == plan.model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shapes": [*PLAN.shapes, *GETS.shapes]}, "can't be mixed"),
        ({"model": None}, "a completion needs one"),
        ({"stages": GETS.stages}, "users belong to the profiles `ramp`, `constant` and `burst`"),
        ({"profile": "rate", "max_in_flight": 8}, "users belong to the profiles"),
        ({"profile": "burst"}, "max_in_flight"),
        ({"max_in_flight": 8}, "max_in_flight"),
        ({"shapes": []}, "at least 1 item"),
        ({"shapes": replay().shapes}, "the profile `trace`, a trace and a shape of kind `traced` belong together"),
        ({"trace": replay().trace}, "the profile `trace`, a trace and a shape of kind `traced` belong together"),
        ({**dict(replay()), "trace": None}, "the profile `trace`, a trace and a shape of kind `traced` belong"),
        ({**dict(CHANGING), "profile": "rate"}, "points belong to the profile `rate_profile`"),
        ({**dict(GETS), "profile": "rate_profile"}, "points belong to the profile `rate_profile`"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LoadPlan(**{**dict(PLAN), **changes})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "is not JSON"),
        ("[]", r"missing fields \['arrivals', 'base_url'"),
        (json.dumps({**PLAN.model_dump(mode="json"), "user": 1}), r"unknown fields \['user'\]"),
        (json.dumps({**PLAN.model_dump(mode="json"), "stages": [{}]}), r"stages\[0\]: missing fields \['hold_wall_s'"),
        (json.dumps({**PLAN.model_dump(mode="json"), "shapes": [{"kind": "x"}]}), r"shapes\[0\]: kind is none of comp"),
        (json.dumps({**GETS.model_dump(mode="json"), "shapes": [{"kind": "http"}]}), r"shapes\[0\]: missing fields"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PlanError, match=says) as refused:
        read_plan(file)
    assert str(file) in str(refused.value)


def test_a_process_with_another_trace_than_the_plan_s_refuses_it(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    for changes, says in (
        ({"digest": "00"}, r"synthetic-azure-2024\.csv here isn't the file that the plan was made for; bring both"),
        ({"max_input_tokens": 511}, "isn't the file that the plan was made for"),
        ({"file": str(tmp_path / "gone.csv")}, r"gone\.csv can't be read"),
        ({"format": "mooncake"}, "line 1: not a JSON object"),
    ):
        file.write_text(replay(**changes).model_dump_json(), encoding="utf-8")
        with pytest.raises(PlanError, match=says):
            read_plan(file)


def test_a_plan_s_files_are_found_from_any_folder() -> None:
    plan = replay(file="load-tests/traces/synthetic-azure-2024.csv").found_from_anywhere(REPO_ROOT)
    assert plan.trace == replay().trace
    assert PLAN.found_from_anywhere(Path("/there")).shapes[0] == PLAN.shapes[0].model_copy(
        update={"prompts": "/p.json"}
    )


def test_a_missing_plan_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere\.json can't be read"):
        read_plan(tmp_path / "nowhere.json")
