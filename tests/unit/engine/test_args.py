"""vLLM's arguments are understood as vLLM does, and refused by name where the model can't follow."""

from __future__ import annotations

import pytest

from lab_pipelines.engine import tables
from lab_pipelines.engine.args import EngineArgsError, parse_engine_args

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
T4 = tables.hardware("T4")
OFF = "--no-enable-prefix-caching"


def test_what_is_not_given_has_vllms_defaults() -> None:
    args = parse_engine_args([PHI_3, OFF], T4)
    assert (args.max_model_len, args.max_num_seqs, args.max_num_batched_tokens) == (4096, 256, 2048)
    assert args.gpu_memory_utilization == 0.92
    assert args.chunked_prefill
    assert args.served_model_names == (PHI_3,)


def test_underscores_and_dashes_equal_signs_and_spaces_mean_the_same() -> None:
    dashes = parse_engine_args([PHI_3, OFF, "--gpu-memory-utilization", "0.85", "--max-num-seqs=64"], T4)
    underscores = parse_engine_args(
        ["--model", PHI_3, "--no_enable_prefix_caching", "--gpu_memory_utilization=0.85", "--max_num_seqs", "64"], T4
    )
    assert dashes == underscores
    assert dashes.gpu_memory_utilization == 0.85


def test_without_chunked_prefill_a_step_holds_a_whole_prompt() -> None:
    args = parse_engine_args([PHI_3, OFF, "--no-enable-chunked-prefill"], T4)
    assert (args.chunked_prefill, args.max_num_batched_tokens) == (False, 4096)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([PHI_3, OFF, "--tensor-parallel-size", "2"], r"World size \(2\) is larger than .* GPUs \(1\).*more `gpus`"),
        ([PHI_3, OFF, "-pp", "3"], r"World size \(3\)"),
        ([PHI_3, OFF, "-tp", "5"], r"attention heads \(32\) must be divisible by tensor parallel size \(5\)"),
        ([PHI_3, OFF, "--quantization", "awq"], r"--quantization awq does not match the weights of .* \(fp16\)"),
        ([PHI_3, OFF, "--quantization", "fp8"], "--quantization.*invalid choice"),
        ([PHI_3, OFF, "--kv-offloading-size", "-1"], "--kv-offloading-size -1 is less than nothing; give GiB"),
        ([PHI_3, OFF, "--speculative-config", "4"], "4 is not a JSON object, such as"),
        ([PHI_3, OFF, "--speculative-config", '{"method": "ngram"}'], "num_speculative_tokens None is not a positive"),
        (
            [PHI_3, OFF, "--speculative-config", '{"method": "eagle", "model": "x", "num_speculative_tokens": 2}'],
            "method 'eagle' is not modelled; modelled are ngram, and draft_model",
        ),
        (
            [PHI_3, OFF, "--speculative-config", '{"method": "ngram", "num_speculative_tokens": 8}'],
            "2048 is below --max-num-seqs 256 times 9, a token and its draft",
        ),
        ([PHI_3, OFF, "--enable-lora"], "'--enable-lora' is not modelled; modelled are: .*--max-num-seqs"),
        ([PHI_3, OFF, "--max-num", "3"], "'--max-num' is not modelled"),
        ([PHI_3, OFF, "--dtype", "bfloat16"], r"capability of at least 8\.0, and Tesla T4 has 7\.5; use --dtype half"),
        ([PHI_3, OFF, "--dtype", "fp8"], "--dtype.*invalid choice"),
        ([PHI_3, OFF, "--max-model-len", "8192"], "8192 is more than the 4096"),
        ([PHI_3, OFF, "--max-model-len", "0"], "--max-model-len 0 is not a positive number"),
        ([PHI_3, OFF, "--max-num-seqs", "many"], "--max-num-seqs: invalid int value: 'many'"),
        ([PHI_3, OFF, "--max-num-batched-tokens", "128"], "128 is below --max-num-seqs 256"),
        (
            [PHI_3, OFF, "--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"],
            "2048 is below --max-model-len 4096",
        ),
        ([PHI_3, OFF, "--gpu-memory-utilization", "1.2"], "1.2 is not a share"),
        ([OFF], "no model is given"),
        ([PHI_3, OFF, "--model", "microsoft/Phi-4-mini-instruct"], "given twice"),
        (["nobody/nothing", OFF], "'nobody/nothing' is not modelled; modelled are"),
    ],
)
def test_what_cannot_be_modelled_is_refused_with_the_remedy(arguments: list[str], message: str) -> None:
    with pytest.raises(EngineArgsError, match=message):
        parse_engine_args(arguments, T4)


def test_a_mode_for_throughput_doubles_the_limits_that_are_not_given() -> None:
    throughput = ["--performance-mode", "throughput"]
    args = parse_engine_args([PHI_3, OFF, *throughput], T4)
    assert (args.max_num_seqs, args.max_num_batched_tokens) == (512, 4096)
    assert parse_engine_args([PHI_3, OFF, *throughput, "--max-num-seqs", "16"], T4).max_num_seqs == 16
    balanced = parse_engine_args([PHI_3, OFF, "--performance-mode", "balanced"], T4)
    assert balanced == parse_engine_args([PHI_3, OFF], T4)
    with pytest.raises(EngineArgsError, match=r"--performance-mode.*invalid choice: 'interactivity'"):
        parse_engine_args([PHI_3, OFF, "--performance-mode", "interactivity"], T4)


def test_a_large_gpu_has_larger_batches_but_an_a100_has_not() -> None:
    h100 = parse_engine_args([PHI_3, OFF], tables.hardware("H100"))
    assert (h100.max_num_seqs, h100.max_num_batched_tokens) == (1024, 8192)
    assert parse_engine_args([PHI_3, OFF], tables.hardware("A100-80G")) == parse_engine_args([PHI_3, OFF], T4)


def test_a_draft_is_cut_as_its_target_is() -> None:
    config = '{"method": "draft_model", "model": "Qwen/Qwen2.5-0.5B-Instruct", "num_speculative_tokens": 4}'
    with pytest.raises(EngineArgsError, match=r"attention heads \(14\) must be divisible by .* \(4\)"):
        parse_engine_args([PHI_3, OFF, "-tp", "4", "--speculative-config", config], T4, 4)


def test_bfloat16_is_fine_on_an_a100() -> None:
    assert parse_engine_args([PHI_3, OFF, "--dtype", "bfloat16"], tables.hardware("A100-80G")).max_model_len == 4096


def test_the_options_of_phase_two_are_understood() -> None:
    config = '{"model": "Qwen/Qwen3-0.6B", "num_speculative_tokens": 4}'
    args = parse_engine_args(
        [
            *["Qwen/Qwen3-8B-AWQ", "-tp", "2", "--enforce-eager", "--kv-offloading-size", "4"],
            *["--quantization", "awq_marlin", "--max-num-seqs", "32", "--speculative-config", config],
            "--labs-static-batching",
        ],
        tables.hardware("T4"),
        2,
    )
    assert args.prefix_caching, "on unless it is turned off, as in vLLM"
    assert (args.tensor_parallel, args.gpus, args.eager, args.static_batching) == (2, 2, True, True)
    assert args.offload_bytes == 4 * 1024**3
    assert args.draft is not None and args.draft.model is not None
    assert (args.draft.method, args.draft.tokens, args.draft.model.name) == ("draft_model", 4, "Qwen/Qwen3-0.6B")
