"""The engine model stays as near to public measurements as it is said to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.calibration.__main__ import as_table, plot
from benchmarks.calibration.compare import Compared, compare, read_rows
from benchmarks.calibration.simulate import in_turn, poisson_arrivals
from lab_pipelines.catalog.spec import LoadStep
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.trust import longest_sequence, trust_of

PHI_4 = "microsoft/Phi-4-mini-instruct"
OFF = "--no-enable-prefix-caching"


@pytest.fixture(scope="module")
def compared() -> Sequence[Compared]:
    return compare(read_rows())


def test_every_row_with_a_bound_is_within_it(compared: Sequence[Compared]) -> None:
    held = [one for one in compared if one.bound is not None]
    # ITL and throughput of four rates below the knee, the knee's concurrency, throughput in saturation.
    assert len(held) == 4 + 4 + 1 + 1
    assert not [f"{one.row}, {one.quantity}: {one.error:+.1%}" for one in held if not one.met]


def test_what_the_range_of_trust_says_of_its_error_is_true_of_its_sweep(compared: Sequence[Compared]) -> None:
    said = trust_of(EngineModel.of([PHI_4, OFF], "A100-80G"), context=400).error
    swept = [one for one in compared if one.load is not None and one.quantity in ("ITL", "output", "concurrency")]
    assert len(swept) == 6 * 3
    assert max(abs(one.error) for one in swept) <= said


def test_every_row_is_in_the_table_and_the_plot(compared: Sequence[Compared]) -> None:
    assert as_table(compared).row_count == len(compared) > 30
    svg = plot(compared)
    assert all(one.row in svg for one in compared)


def test_arrivals_have_the_rate_that_they_are_asked_for_and_a_seed_always_gives_the_same() -> None:
    arrivals = poisson_arrivals(500, 4.0, seed=3)
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(125.0)
    assert arrivals == poisson_arrivals(500, 4.0, seed=3) != poisson_arrivals(500, 4.0, seed=4)


def test_a_closed_loop_keeps_its_users_busy_until_its_requests_are_used_up() -> None:
    model = EngineModel.of([PHI_4, OFF], "A100-80G")
    seen = in_turn(model, users=4, requests=40, input_tokens=64, output_tokens=32)
    assert 3.5 < seen.users <= 4.0
    assert seen.ttft_s < seen.e2e_s
    assert seen.e2e_s == pytest.approx(seen.ttft_s + 31 * seen.itl_s)


def test_the_range_of_trust_is_what_was_compared() -> None:
    inside = trust_of(EngineModel.of([PHI_4, OFF], "A100-80G"), context=400)
    assert inside.inside and inside.users == 382 and inside.model_range == "inside"
    assert "within 10% of KAITO's" in inside.says


@pytest.mark.parametrize(
    ("arguments", "gpu", "gpus", "reason"),
    [
        (["microsoft/Phi-3-mini-4k-instruct", OFF], "T4", 1, "a Tesla T4"),
        ([PHI_4], "A100-80G", 1, "prefix caching"),
        (["TheBloke/Mistral-7B-Instruct-v0.2-AWQ", OFF], "A100-80G", 1, "weights in awq"),
        (["meta-llama/Llama-2-13b-chat-hf", OFF], "A100-80G", 1, "13B parameters"),
        ([PHI_4, "-tp", "2", OFF], "A100-80G", 2, "2 GPUs for one engine"),
        ([PHI_4, "-pp", "2", OFF], "A100-80G", 2, "2 GPUs for one engine"),
        ([PHI_4, OFF, "--kv-offloading-size", "4"], "A100-80G", 1, "KV offloading"),
        ([PHI_4, OFF, "--enforce-eager"], "A100-80G", 1, "eager mode"),
        ([PHI_4, OFF, "--labs-static-batching"], "A100-80G", 1, "static batching"),
        ([PHI_4, OFF, "--no-enable-chunked-prefill", "--max-model-len", "4096"], "A100-80G", 1, "prompts in one piece"),
        (
            [PHI_4, OFF, "--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4}'],
            *("A100-80G", 1, "speculation"),
        ),
    ],
)
def test_what_was_not_compared_is_outside_and_says_why(arguments: list[str], gpu: str, gpus: int, reason: str) -> None:
    outside = trust_of(EngineModel.of(arguments, gpu, gpus), context=400)
    assert not outside.inside and outside.users is None
    assert outside.model_range == f"outside: no public measurement was compared with {reason}"
    assert outside.error > trust_of(EngineModel.of([PHI_4, OFF], "A100-80G"), context=400).error


def test_a_sequence_longer_than_any_that_was_compared_is_outside_unless_the_engine_refuses_it() -> None:
    whole = EngineModel.of([PHI_4, OFF], "A100-80G")
    assert trust_of(whole, context=4160).says.endswith("sequences of 4160 tokens")
    assert trust_of(EngineModel.of([PHI_4, OFF, "--max-model-len", "1024"], "A100-80G"), context=4160).inside


def test_a_labs_longest_sequence_counts_what_is_cut_and_not_what_is_meant_to_be_refused() -> None:
    def load(**shape: Any) -> LoadStep:
        request = {"kind": "completion", "output_tokens": 64, "temperature": 0.0, "timeout_s": 60.0} | shape
        request.setdefault("prompts", "load-tests/prompts/fixed-512.json")
        profile = {"kind": "burst", "requests": 1}
        return LoadStep.model_validate({"kind": "load", "name": "a", "profile": profile, "requests": [request]})

    assert longest_sequence([]) == 0
    assert longest_sequence([load(input_tokens=512), load(input_tokens=1536)]) == 1600
    assert longest_sequence([load(input_tokens=1536, truncate_to=768)]) == 832
    assert longest_sequence([load(input_tokens=512), load(input_tokens=5000, expect=400)]) == 576
