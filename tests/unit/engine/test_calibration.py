"""The engine model stays as near to public measurements as it is said to be."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.calibration import __main__ as command
from benchmarks.calibration.__main__ import as_table, plot
from benchmarks.calibration.compare import Compared, compare
from benchmarks.calibration.rows import read_rows
from benchmarks.calibration.simulate import guidellm_arrivals, in_turn, poisson_arrivals, sent_at
from lab_pipelines.catalog.steps import LoadStep
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.trust import longest_sequence, trust_of

PHI_4 = "microsoft/Phi-4-mini-instruct"
OFF = "--no-enable-prefix-caching"


@pytest.fixture(scope="module")
def compared() -> Sequence[Compared]:
    return compare(read_rows())


def errors(compared: Sequence[Compared], sweep: str, *quantities: str) -> list[float]:
    return [
        one.error for one in compared if one.sweep == sweep and one.quantity in quantities and one.error is not None
    ]


def test_every_row_with_a_bound_is_within_it(compared: Sequence[Compared]) -> None:
    held = [one for one in compared if one.bound is not None]
    # ITL, its median and 99th percentile of five rates below the A100's knee and three below the A10's, throughput of
    # four and three; and of each card the knee's concurrency, and throughput in saturation.
    assert len(held) == (5 + 3) * 3 + 4 + 3 + 2 + 2
    assert not [f"{one.row}, {one.quantity}: {one.error:+.1%}" for one in held if not one.met]


@pytest.mark.parametrize(("gpu", "rows"), [("A100-80G", 7), ("A10-24G", 5)])
def test_what_the_range_of_trust_says_of_its_error_is_true_of_its_sweep(
    compared: Sequence[Compared], gpu: str, rows: int
) -> None:
    said = trust_of(EngineModel.of([PHI_4, OFF, "--max-model-len", "8192"], gpu), context=400).error
    swept = errors(compared, f"Phi-4-mini-instruct on {gpu}", "ITL", "ITL p50", "ITL p99", "output", "concurrency")
    assert len(swept) >= 5 * rows - 2
    assert max(map(abs, swept)) <= said


def test_rows_that_no_constant_was_fitted_to_are_met_as_well(compared: Sequence[Compared]) -> None:
    forecast = [one for one in compared if not one.fitted and one.bound is not None]
    assert {one.sweep for one in forecast} == {"Phi-4-mini-instruct on A100-80G", "Phi-4-mini-instruct on A10-24G"}
    assert max(abs(one.error) for one in forecast if one.error is not None) < 0.04


@pytest.mark.parametrize(
    ("quantity", "rows", "most"),
    [
        # Vidur's four models and one of them cut in two; aiconfigurator's decodes and prompts.
        ("linear part", 33, 0.13),
        ("attention", 30, 0.27),
    ],
)
def test_the_parts_of_a_step_are_as_near_to_their_profiles_as_the_document_says(
    compared: Sequence[Compared], quantity: str, rows: int, most: float
) -> None:
    found = [one.error for one in compared if one.quantity == quantity and one.error is not None]
    assert len(found) == rows
    assert max(map(abs, found)) < most


def test_every_row_is_in_the_table_and_the_plot(compared: Sequence[Compared]) -> None:
    assert as_table(compared).row_count == len(compared) > 100
    svg = plot(compared)
    assert all(one.row in svg for one in compared)


def test_somebody_elses_measurement_is_compared_from_a_file_of_the_same_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    rows = tmp_path / "mine.yaml"
    rows.write_text(
        "closed:\n  - {source: a run of mine, confidence: A, gpu: A10-24G, requests: 40, input_tokens: 128, "
        "output_tokens: 64,\n     rows: [{model: Qwen/Qwen2.5-7B-Instruct, users: 8, itl_ms: 40.0}]}\n"
        "poisson:\n  - {source: a run of mine, confidence: A, gpu: T4, model: Qwen/Qwen2.5-1.5B-Instruct,\n"
        "     requests: 40, input_tokens: 128, output_tokens: 64, rows: [{per_s: 2}]}\n",
        encoding="utf-8",
    )
    assert command.main(["--rows", str(rows)]) == 0
    shown = capsys.readouterr().out
    assert "Qwen2.5-7B-Instruct on A10-24G, 8 at once" in shown
    assert "Qwen2.5-1.5B-Instruct on T4, 2/s" in shown
    written = json.loads((tmp_path / "results" / "calibration-mine.json").read_text(encoding="utf-8"))
    assert [one["error"] is None for one in written if one["quantity"] == "ITL"] == [True, False]
    assert (tmp_path / "results" / "calibration-mine.svg").is_file()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("gpu: T4, model: gpt-9, rows: [{per_s: 2}]", "model 'gpt-9' is not modelled; modelled are: "),
        ("gpu: B300, model: microsoft/Phi-4-mini-instruct, rows: [{per_s: 2}]", "GPU 'B300' is not modelled"),
        ("gpu: T4, model: mistralai/Mistral-7B-Instruct-v0.2, rows: [{per_s: 2}]", "No available memory"),
        ("gpu: T4, model: microsoft/Phi-4-mini-instruct, rows: [{rate: 2}]", "mine.yaml:2"),
    ],
)
def test_a_file_that_cannot_be_compared_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, says: str
) -> None:
    rows = tmp_path / "mine.yaml"
    sizes = "requests: 40, input_tokens: 128, output_tokens: 64"
    rows.write_text(f"poisson:\n  - {{source: mine, confidence: A, {sizes}, {row}}}\n", encoding="utf-8")
    assert command.main(["--rows", str(rows)]) == 2
    assert says in capsys.readouterr().err


def test_guidellms_draw_is_a_burst_and_then_exponential_gaps() -> None:
    arrivals = guidellm_arrivals(1000, 4.0, seed=42)
    assert arrivals[:5] == [0.0] * 4 + [pytest.approx(-math.log(1 - random.Random(42).random()) / 4)]
    # KAITO's run at 4/s took 263.8 s, of which its last request was under way for 1.9 s.
    assert arrivals[-1] == pytest.approx(263.8 - 1.9, abs=0.6)


def test_a_client_sends_no_more_than_it_may_have_under_way() -> None:
    model = EngineModel.of([PHI_4, OFF], "A100-80G")
    free = sent_at(model, [0.0] * 40, 64, 32)
    held = sent_at(model, [0.0] * 40, 64, 32, in_flight=4)
    assert 39.0 < free.users <= 40.0  # all end in the last step or the one before it
    assert held.users <= 4.0
    assert held.itl_p50_s <= held.itl_p99_s < free.itl_p50_s


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
    smaller = trust_of(EngineModel.of([PHI_4, OFF, "--max-model-len", "8192"], "A10-24G"), context=400)
    assert smaller.inside and smaller.users == 348
    assert "within 15% of KAITO's" in smaller.says


@pytest.mark.parametrize(
    ("arguments", "gpu", "gpus", "reason"),
    [
        (["microsoft/Phi-3-mini-4k-instruct", OFF], "T4", 1, "a Tesla T4"),
        ([PHI_4, OFF], "H100", 1, "a NVIDIA H100 NVL"),
        (["Qwen/Qwen2.5-7B-Instruct", OFF, "--max-model-len", "8192"], "A10-24G", 1, "7.62B parameters"),
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
