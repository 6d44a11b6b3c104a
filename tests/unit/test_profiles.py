"""Every load profile that a spec may name is known wherever profiles are told apart."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from streaming_load.plan import ProfileKind

from lab_pipelines.catalog.steps import LoadStep
from lab_pipelines.catalog.steps import Profile as OfASpec
from lab_pipelines.cli.lab_page import _step_line
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.charts import _AXES
from lab_pipelines.report.stage_table import _LOAD
from resources.load_generator import Profile as OfAPlan

KINDS = {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(get_args(OfASpec)[0])}
COMPLETION = {
    "kind": "completion",
    "input_tokens": 512,
    "output_tokens": 8,
    "temperature": 0.0,
    "prompts": "load-tests/prompts/fixed-512.json",
    "timeout_s": 60.0,
}
TRACED = {"kind": "traced", "max_input_tokens": 512, "max_output_tokens": 64, "temperature": 0.0, "timeout_s": 60.0}


def test_every_profile_of_a_spec_is_known_wherever_profiles_are_told_apart() -> None:
    assert set(get_args(OfAPlan)) == set(get_args(ProfileKind)) == set(_AXES) == set(_LOAD) == KINDS
    schema = (REPO_ROOT / "warehouse" / "schema" / "load_stages.sql").read_text(encoding="utf-8")
    [listed] = re.findall(r"CHECK \(profile IN \(([^)]*)\)", schema)
    assert set(re.findall(r"'(\w+)'", listed)) == KINDS


@pytest.mark.parametrize(
    ("profile", "request_", "said"),
    [
        (
            {"kind": "rate_profile", "points": [{"at_s": 0, "per_s": 1}, {"at_s": 60, "per_s": 4.5}], "repeat": 2},
            COMPLETION,
            "load on vllm: requests/s from point to point: 1 at 0 s, 4.5 at 60 s, 2 times; even arrivals; 512 tokens "
            "in, 8 out",
        ),
        (
            {
                "kind": "trace",
                "file": "load-tests/traces/t.csv",
                "format": "azure",
                "start_s": 60.0,
                "duration_s": 30.0,
            },
            TRACED,
            "load on vllm: the trace load-tests/traces/t.csv at 1 times its speed, from 60 s to 90 s; at most 512 "
            "tokens in, 64 out",
        ),
    ],
)
def test_a_lab_s_page_says_what_a_schedule_is(profile: dict[str, Any], request_: dict[str, Any], said: str) -> None:
    fields = {"kind": "load", "name": "traffic", "profile": profile, "requests": [request_]}
    assert _step_line(LoadStep.model_validate(fields)) == said
