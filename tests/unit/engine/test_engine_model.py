"""Arguments and a GPU become one engine: what it may hold, what its steps cost, what its drafts are worth."""

from __future__ import annotations

import pytest

from lab_pipelines.engine.args import EngineArgsError
from lab_pipelines.engine.core import Request
from lab_pipelines.engine.drafts import accepted_drafts
from lab_pipelines.engine.memory import BLOCK_TOKENS, GpuMemoryError
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.tables import UnknownNameError

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
QWEN = ["Qwen/Qwen3-8B-AWQ", "--max-model-len", "4096", "--max-num-seqs", "32"]
DRAFT = '{"method": "draft_model", "model": "Qwen/Qwen3-0.6B", "num_speculative_tokens": 4}'
NGRAM = '{"method": "ngram", "num_speculative_tokens": 4}'


def test_limits_follow_from_arguments_and_memory() -> None:
    model = EngineModel.of(
        [PHI_3, "--max-model-len", "2048", "--max-num-seqs", "16", "--kv-offloading-size", "4"], "T4"
    )
    limits = model.limits
    assert (limits.max_model_len, limits.max_num_seqs, limits.max_num_batched_tokens) == (2048, 16, 2048)
    assert limits.prefix_caching and limits.chunked_prefill and not limits.static_batching
    assert limits.kv_blocks == model.memory.kv_blocks > 2048 // BLOCK_TOKENS
    # 4 GiB over 16 tokens of 393,216 bytes.
    assert limits.offload_blocks == 4 * 1024**3 // (16 * 393_216) == 682
    assert model.used_bytes == pytest.approx(0.92 * 15_637_086_208)


def test_its_engine_serves_a_request_at_its_own_cost() -> None:
    model = EngineModel.of([PHI_3], "T4")
    engine = model.engine()
    engine.add(Request(512, 1))
    step = engine.step()
    assert step.duration_s == model.cost.step_s(step.batch)
    assert step.batch.prefill == 512
    assert not engine.has_work


def test_two_gpus_are_used_only_when_asked_for() -> None:
    one = EngineModel.of([PHI_3], "T4", 2)
    two = EngineModel.of([PHI_3, "-tp", "2"], "T4", 2)
    assert (one.gpus, two.gpus) == (1, 2)
    assert two.memory.weights_bytes == one.memory.weights_bytes / 2
    assert two.limits.kv_blocks > 2 * one.limits.kv_blocks


def test_offloaded_blocks_are_counted_over_all_gpus() -> None:
    arguments = [PHI_3, "--kv-offloading-size", "4"]
    one, two = EngineModel.of(arguments, "T4"), EngineModel.of([*arguments, "-tp", "2"], "T4", 2)
    assert one.limits.offload_blocks == two.limits.offload_blocks


@pytest.mark.parametrize(
    ("arguments", "gpu", "error", "message"),
    [
        (["mistralai/Mistral-7B-Instruct-v0.2"], "T4", GpuMemoryError, "No available memory for the cache blocks"),
        (["meta-llama/Llama-2-13b-chat-hf"], "T4", GpuMemoryError, "CUDA out of memory"),
        ([PHI_3, "--enable-lora"], "T4", EngineArgsError, "'--enable-lora' is not modelled"),
        ([PHI_3], "B300", UnknownNameError, "'B300' is not modelled; modelled are"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], gpu: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EngineModel.of(arguments, gpu)


def test_a_draft_costs_memory_and_its_acceptance_depends_on_the_text() -> None:
    plain = EngineModel.of(QWEN, "T4")
    drafted = EngineModel.of([*QWEN, "--speculative-config", DRAFT], "T4")
    ngram = EngineModel.of([*QWEN, "--speculative-config", NGRAM], "T4")
    assert drafted.limits.kv_blocks < plain.limits.kv_blocks == ngram.limits.kv_blocks
    assert (plain.limits.draft_tokens, drafted.limits.draft_tokens) == (0, 4)
    assert plain.acceptance("code") == 0
    for model in (drafted, ngram):
        assert model.acceptance("code") > model.acceptance("prose") > 0
    assert drafted.acceptance("numbers") > ngram.acceptance("numbers")


def test_accepted_tokens_have_the_mean_of_a_geometric_number_cut_at_the_drafts_length() -> None:
    model = EngineModel.of([*QWEN, "--speculative-config", DRAFT], "T4")
    accepted = accepted_drafts(model, lambda request: "code")
    assert accepted is not None
    request, a, g = Request(1, 1), model.acceptance("code"), 4
    draws = [accepted(request) for _ in range(20_000)]
    assert set(draws) == {0, 1, 2, 3, 4}
    # One more token comes from the target itself: (1 - a^(g+1)) / (1 - a) a step.
    assert sum(draws) / len(draws) + 1 == pytest.approx((1 - a ** (g + 1)) / (1 - a), rel=0.02)
    assert accepted_drafts(EngineModel.of(QWEN, "T4"), lambda request: "code") is None
