"""Prompts: the committed fixture, the nonce, and the JSON of a request."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from streaming_load.plan import Plan, PlanError, Stage
from streaming_load.prompts import NONCE_TOKENS, RequestBodies, nonce, read_prompts

from lab_pipelines.deployment import REPO_ROOT

PROMPTS = REPO_ROOT / "load-tests" / "prompts"


def plan(input_tokens: int = 12) -> Plan:
    return Plan(
        run_id="run-1",
        step="ramp",
        base_url="http://127.0.0.1:1/v1",
        model='phi-"3"',
        prompts="unused",
        input_tokens=input_tokens,
        output_tokens=7,
        temperature=0.5,
        timeout_wall_s=1,
        stages=(Stage(0, 1, 1, 1, 1),),
    )


def test_the_committed_fixtures_are_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate_prompts", PROMPTS / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert set(generate.FIXTURES) == {path.name for path in PROMPTS.glob("*.json")}
    for name, input_tokens in generate.FIXTURES.items():
        assert (PROMPTS / name).read_text(encoding="utf-8") == generate.fixture(input_tokens)


def test_the_fixture_holds_32_different_prompts_of_512_safe_ids() -> None:
    prompts = read_prompts(PROMPTS / "fixed-512.json", 512)
    assert len(prompts) == 32
    assert len({tuple(prompt) for prompt in prompts}) == 32


def test_every_request_starts_with_a_nonce_of_its_own() -> None:
    nonces = {tuple(nonce(run, "ramp", user, k)) for run in ("a", "b") for user in range(40) for k in range(40)}
    assert len(nonces) == 2 * 40 * 40
    assert all(len(ids) == NONCE_TOKENS and all(300 <= token <= 999 for token in ids) for ids in nonces)
    assert nonce("a", "ramp", 1, 12) != nonce("a", "ramp", 11, 2)


def test_a_body_is_the_prompt_with_its_first_tokens_replaced_and_asks_for_an_exact_number_of_tokens() -> None:
    prompts = [list(range(300, 312)), list(range(400, 412))]
    body = json.loads(RequestBodies(plan(), prompts).body(3, 2))

    assert body.pop("prompt") == nonce("run-1", "ramp", 3, 2) + list(range(400 + NONCE_TOKENS, 412))
    assert body == {
        "model": 'phi-"3"',
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "min_tokens": 7,
        "ignore_eos": True,
        "temperature": 0.5,
    }


def test_a_prompt_shorter_than_the_nonce_keeps_its_length() -> None:
    body = json.loads(RequestBodies(plan(input_tokens=3), [[300, 301, 302]]).body(0, 0))
    assert body["prompt"] == nonce("run-1", "ramp", 0, 0)[:3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"prompts": [[300, 301]]}', "prompt 0 of .* has 2 tokens, but the plan's input_tokens is 3"),
        ('{"prompts": [[300, 301, 1000]]}', "ids outside 300…999"),
        ('{"prompts": [[300, 301, "x"]]}', "ids outside 300…999"),
        ('{"prompts": []}', "holds no prompt"),
        ('{"texts": []}', "not JSON with a list `prompts`"),
        ("nonsense", "not JSON with a list `prompts`"),
    ],
)
def test_a_fixture_that_does_not_fit_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "fixture.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PlanError, match=says) as refused:
        read_prompts(file, 3)
    assert str(file) in str(refused.value)


def test_a_missing_fixture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere\.json can't be read \(No such file"):
        read_prompts(tmp_path / "nowhere.json", 3)
