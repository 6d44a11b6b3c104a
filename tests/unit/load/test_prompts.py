"""Prompts: the committed fixture, the nonce, and the JSON of a request."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from streaming_load.plan import CompletionShape, PlanError, TracedShape
from streaming_load.prompts import NONCE_TOKENS, RequestBodies, TracedBodies, nonce, read_prompts
from streaming_load.traces import TraceRow

from lab_pipelines.deployment import REPO_ROOT
from tests.support.load_plans import gets

PROMPTS = REPO_ROOT / "load-tests" / "prompts"


def bodies(prompts: list[list[int]], input_tokens: int = 12) -> RequestBodies:
    shape = CompletionShape(
        kind="completion",
        weight=1.0,
        prompts="unused",
        input_tokens=input_tokens,
        output_tokens=7,
        temperature=0.5,
        timeout_wall_s=1,
    )
    return RequestBodies("run-1", 'phi-"3"', shape, prompts)


def test_the_committed_fixtures_are_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate_prompts", PROMPTS / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert set(generate.FIXTURES) == {path.name for path in PROMPTS.glob("*.json")}
    for name, (input_tokens, prompts) in generate.FIXTURES.items():
        assert (PROMPTS / name).read_text(encoding="utf-8") == generate.fixture(input_tokens, prompts)


@pytest.mark.parametrize(("tokens", "count"), [(32, 32), (128, 32), (512, 32), (2048, 8)])
def test_a_fixture_holds_different_prompts_of_safe_ids(tokens: int, count: int) -> None:
    prompts = read_prompts(PROMPTS / f"fixed-{tokens}.json", tokens)
    assert len(prompts) == count
    assert len({tuple(prompt) for prompt in prompts}) == count


def test_each_turn_of_a_run_has_prompts_that_no_cache_has_seen() -> None:
    plans = [gets("rate", trial=trial, run_id="run-1") for trial in (1, 2, 3)]
    assert [plan.prompt_key for plan in plans] == ["run-1", "run-1.T2", "run-1.T3"]


def test_every_request_starts_with_a_nonce_of_its_own() -> None:
    ids = [f"ramp-{user}-{k}" for user in range(40) for k in range(40)] + [f"ramp-s0-{k}" for k in range(40)]
    nonces = {tuple(nonce(run, request_id)) for run in ("a", "b") for request_id in ids}
    assert len(nonces) == 2 * len(ids)
    assert all(len(ids) == NONCE_TOKENS and all(300 <= token <= 999 for token in ids) for ids in nonces)
    assert nonce("a", "ramp-1-12") != nonce("a", "ramp-11-2")


def test_a_body_is_the_prompt_with_its_first_tokens_replaced_and_asks_for_an_exact_number_of_tokens() -> None:
    prompts = [list(range(300, 312)), list(range(400, 412))]
    body = json.loads(bodies(prompts).body("ramp-3-2", 5))

    assert body.pop("prompt") == nonce("run-1", "ramp-3-2") + list(range(400 + NONCE_TOKENS, 412))
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
    body = json.loads(bodies([[300, 301, 302]], input_tokens=3).body("ramp-0-0", 0))
    assert body["prompt"] == nonce("run-1", "ramp-0-0")[:3]


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


def traced_prompt(
    row: TraceRow, request_id: str = "replay-s0-1", *, run_id: str = "run-1", step: str = "r"
) -> list[int]:
    bodies = TracedBodies(run_id, "m", step, TracedShape("traced", 1.0, temperature=0.5, timeout_wall_s=1))
    body = json.loads(bodies.body(request_id, row))
    assert body["min_tokens"] == body["max_tokens"] == row.output_tokens
    assert (body["model"], body["stream"], body["ignore_eos"], body["temperature"]) == ("m", True, True, 0.5)
    assert all(300 <= token <= 999 for token in body["prompt"])
    return body["prompt"]


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 511, 512, 513, 5000])
@pytest.mark.parametrize("hashed", [False, True])
def test_a_traced_prompt_has_exactly_its_tokens(tokens: int, hashed: bool) -> None:
    ids = tuple(range(-(-tokens // 512))) if hashed else None
    assert len(traced_prompt(TraceRow(0.0, tokens, 3, ids))) == tokens


def test_prompts_are_alike_as_far_as_the_trace_s_ids_are_and_no_further() -> None:
    first, later, other = (
        traced_prompt(TraceRow(0.0, tokens, 3, ids), f"r-{tokens}")
        for tokens, ids in ((1500, (0, 1, 2)), (1800, (0, 1, 3, 4)), (900, (0, 5)))
    )
    assert first[:1024] == later[:1024] and first[:512] == other[:512]
    for one, two, alike in ((first, later, 1024), (first, other, 512), (later, other, 512)):
        assert one[alike : alike + NONCE_TOKENS] != two[alike : alike + NONCE_TOKENS]
    shared = traced_prompt(TraceRow(0.0, 600, 3, (0, 1)))
    assert shared == first[:600], "a block that has only begun is the beginning of the whole one"


def test_what_a_trace_shares_is_shared_within_one_step_of_one_run_alone() -> None:
    row = TraceRow(0.0, 600, 3, (0, 1))
    starts = [traced_prompt(row), traced_prompt(row, run_id="run-2"), traced_prompt(row, step="again")]
    assert len({tuple(start[:NONCE_TOKENS]) for start in starts}) == 3


def test_without_hashes_every_request_s_prompt_is_its_own_from_its_first_token() -> None:
    row = TraceRow(0.0, 600, 3, None)
    starts = {tuple(traced_prompt(row, f"replay-s0-{number}")[:NONCE_TOKENS]) for number in range(50)}
    assert len(starts) == 50
