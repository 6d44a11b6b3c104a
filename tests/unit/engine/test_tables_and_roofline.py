"""The tables have sources, and the step time that follows from them agrees with what was measured elsewhere."""

from __future__ import annotations

import pytest

from lab_pipelines.engine import tables
from lab_pipelines.engine.memory import GpuMemoryError, plan_memory
from lab_pipelines.engine.roofline import Batch, StepCost
from lab_pipelines.engine.tables import Fact

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"


def decode(sequences: int, context: int) -> Batch:
    return Batch(sequences, sequences * context, 0, 0.0, 0, sequences, sequences)


def prefill(tokens: int) -> Batch:
    return Batch(0, 0, tokens, tokens * tokens / 2, 0, 1, 1)


@pytest.mark.parametrize("gpu", tables.all_hardware())
def test_every_number_of_a_gpu_names_its_source(gpu: str) -> None:
    facts = [value for _, value in tables.hardware(gpu) if isinstance(value, Fact)]
    assert len(facts) > 15
    assert all(len(fact.source) > 5 for fact in facts)


def test_the_v100_is_history() -> None:
    assert {row.name: row.status for row in tables.all_hardware().values()} == {
        "T4": "current",
        "A100-80G": "current",
        "V100-16G": "retired",
        "A10-24G": "current",
        "H100": "current",
    }


def test_an_unknown_name_is_answered_with_the_names_that_exist() -> None:
    with pytest.raises(tables.UnknownNameError, match="'H900' is not modelled; modelled are: T4, A100-80G"):
        tables.hardware("H900")
    with pytest.raises(tables.UnknownNameError, match=PHI_3):
        tables.model("gpt-9")


@pytest.mark.parametrize(
    ("model", "bytes_per_token"),
    [
        (PHI_3, 393_216),
        ("microsoft/Phi-4-mini-instruct", 131_072),
        ("mistralai/Mistral-7B-Instruct-v0.2", 131_072),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 131_072),
    ],
)
def test_kv_bytes_per_token_follow_from_the_architecture(model: str, bytes_per_token: int) -> None:
    assert tables.model(model).kv_bytes_per_token == bytes_per_token


def test_a_lone_phi_3_stream_on_a_t4_takes_32_to_38_ms_per_token() -> None:
    cost = StepCost(tables.hardware("T4"), tables.model(PHI_3))
    assert 0.032 <= cost.step_s(decode(1, 640)) <= 0.038


@pytest.mark.parametrize(
    ("requests", "rate", "tpot_ms"),
    [(3.60, 2, 8.06), (7.45, 4, 8.40), (15.97, 8, 9.12), (36.5, 16, 10.68), (155.4, 32, 25.5)],
)
def test_phi_4_mini_on_an_a100_agrees_with_kaitos_sweep(requests: float, rate: int, tpot_ms: float) -> None:
    # KAITO, Phi-4-mini, 200 tokens in and 200 out, A100-80G PCIe (kaito-project/kaito, a100/benchmark-phi4-p*.csv).
    # In the mean, a step also carries the prompts that arrive while it lasts.
    cost = StepCost(tables.hardware("A100-80G"), tables.model("microsoft/Phi-4-mini-instruct"))
    n, arriving = round(requests), rate * tpot_ms / 1000 * 200
    step = cost.step_s(Batch(n, n * 300, round(arriving), arriving * 100, 0, n, n))
    assert step * 1000 == pytest.approx(tpot_ms, rel=0.08)


@pytest.mark.parametrize(("tokens", "measured_ms"), [(512, 34.9), (1024, 75.6), (4096, 275.0)])
def test_llama_3_prefill_on_an_a100_agrees_with_vidurs_profile(tokens: int, measured_ms: float) -> None:
    # Vidur, Llama-3-8B, matrix multiplications and elementwise operations of a whole model; without attention and host.
    row = tables.hardware("A100-80G")
    cost = StepCost(row, tables.model("meta-llama/Meta-Llama-3-8B-Instruct"))
    without_attention = Batch(0, 0, tokens, 0.0, 0, 0, 0)
    host = row.host_s.value + 32 * row.attention_layer_s.value
    assert (cost.step_s(without_attention) - host) * 1000 == pytest.approx(measured_ms, rel=0.15)


def test_more_work_never_takes_less_time() -> None:
    cost = StepCost(tables.hardware("T4"), tables.model(PHI_3))
    assert cost.step_s(decode(8, 640)) > cost.step_s(decode(4, 640)) > cost.step_s(decode(4, 320))
    assert cost.step_s(prefill(1024)) > cost.step_s(prefill(512))
    cached = Batch(0, 0, 512, 512 * (512 + 256), 512, 1, 1)
    assert cost.step_s(prefill(512)) < cost.step_s(cached) < cost.step_s(prefill(1024))


def test_shares_are_shares_and_decoding_is_bound_by_memory_prefill_by_compute() -> None:
    cost = StepCost(tables.hardware("T4"), tables.model(PHI_3))
    for batch in (decode(1, 640), decode(32, 640), prefill(2048)):
        busy, compute, memory, link = cost.shares(batch, cost.step_s(batch))
        assert all(0 < share <= 1 for share in (busy, compute, memory))
        assert link == 0, "one GPU talks to nobody"
    alone, prompt = decode(1, 640), prefill(2048)
    assert cost.shares(alone, cost.step_s(alone)).memory > 0.5
    assert cost.shares(prompt, cost.step_s(prompt)).compute > 0.3
    assert cost.shares(alone, cost.step_s(alone)).compute < 0.05


def test_phi_3_leaves_a_t4_913_blocks_at_vllms_default() -> None:
    plan = plan_memory(tables.hardware("T4"), [tables.model(PHI_3)], utilization=0.92, max_model_len=4096)
    # (15,637,086,208 * 0.92 - 7.64e9 - 1e9) / (16 * 393,216)
    assert plan.kv_blocks == 913


def test_more_memory_never_lowers_capacity() -> None:
    row, model = tables.hardware("T4"), tables.model(PHI_3)
    blocks = [
        plan_memory(row, [model], utilization=share / 100, max_model_len=512).kv_blocks for share in range(60, 101)
    ]
    assert blocks == sorted(blocks)
    assert blocks[0] < blocks[-1]


def test_mistral_7b_does_not_fit_a_t4() -> None:
    mistral = tables.model("mistralai/Mistral-7B-Instruct-v0.2")
    with pytest.raises(GpuMemoryError, match=r"No available memory for the cache blocks.*gpu-memory-utilization"):
        plan_memory(tables.hardware("T4"), [mistral], utilization=0.92, max_model_len=4096)


def test_weights_that_are_larger_than_the_gpu_run_out_of_memory() -> None:
    llama = tables.model("meta-llama/Meta-Llama-3-8B-Instruct")
    with pytest.raises(GpuMemoryError, match=r"CUDA out of memory: .* needs 14\.96 GiB"):
        plan_memory(tables.hardware("T4"), [llama], utilization=0.92, max_model_len=4096)


def test_a_cache_that_cannot_hold_one_request_is_refused_with_what_it_could_hold() -> None:
    with pytest.raises(GpuMemoryError, match=r"max seq len \(4096\).*enough for \d+ tokens.*--max-model-len"):
        plan_memory(tables.hardware("T4"), [tables.model(PHI_3)], utilization=0.60, max_model_len=4096)


def test_steps_in_a_row_cost_what_each_costs() -> None:
    hardware, model = tables.hardware("T4"), tables.model(PHI_3)
    for cost in (
        StepCost(hardware, model),
        StepCost(hardware, model, tensor=2),
        StepCost(hardware, model, pipeline=2, eager=True),
    ):
        for first in (decode(1, 500), decode(7, 600), decode(32, 640)):
            together = cost.steps_s(first, 40)
            each = [cost.step_s(first._replace(context=first.context + n * first.decodes)) for n in range(40)]
            assert together.tolist() == pytest.approx(each, rel=1e-12)


def test_four_bits_move_fewer_bytes_and_fit_where_sixteen_do_not() -> None:
    whole, awq = (tables.model(f"{name}") for name in (MISTRAL, "TheBloke/Mistral-7B-Instruct-v0.2-AWQ"))
    assert awq.weights_bytes < 0.33 * whole.weights_bytes
    assert plan_memory(tables.hardware("T4"), [awq], utilization=0.92, max_model_len=4096).kv_blocks > 4096 // 16
    a100 = tables.hardware("A100-80G")
    assert StepCost(a100, awq).step_s(decode(1, 500)) < 0.6 * StepCost(a100, whole).step_s(decode(1, 500))


def test_two_gpus_halve_the_work_but_talk() -> None:
    hardware, model = tables.hardware("T4"), tables.model(PHI_3)
    one, two = StepCost(hardware, model), StepCost(hardware, model, tensor=2)
    alone = decode(1, 500)
    assert 0.5 * one.step_s(alone) < two.step_s(alone) < one.step_s(alone)
    # A prompt's activations cross the link: over PCIe the second GPU is mostly lost.
    assert two.step_s(prefill(2048)) > 0.6 * one.step_s(prefill(2048))
    assert two.shares(prefill(2048), two.step_s(prefill(2048))).link_bytes_per_s > 1e9


def test_a_pipeline_helps_many_sequences_and_not_one() -> None:
    hardware, model = tables.hardware("T4"), tables.model(PHI_3)
    one, two = StepCost(hardware, model), StepCost(hardware, model, pipeline=2)
    assert two.step_s(decode(1, 500)) >= one.step_s(decode(1, 500)), "the bubble"
    assert two.step_s(decode(64, 700)) < one.step_s(decode(64, 700))
    assert two.shares(decode(1, 500), two.step_s(decode(1, 500))).busy < 0.55


def test_more_gpus_hold_more_and_a_draft_less() -> None:
    hardware, model = tables.hardware("T4"), tables.model(PHI_3)
    one = plan_memory(hardware, [model], utilization=0.92, max_model_len=4096)
    two = plan_memory(hardware, [model], utilization=0.92, max_model_len=4096, shards=2)
    assert two.kv_blocks > 2 * one.kv_blocks
    drafted = plan_memory(hardware, [model, tables.model("Qwen/Qwen3-0.6B")], utilization=0.92, max_model_len=4096)
    assert drafted.kv_blocks < one.kv_blocks
    assert plan_memory(hardware, [model], utilization=0.92, max_model_len=4096, eager=True).kv_blocks > one.kv_blocks


def test_a_draft_costs_time_and_its_verification_little() -> None:
    hardware, target = tables.hardware("T4"), tables.model("Qwen/Qwen3-8B-AWQ")
    plain = StepCost(hardware, target).step_s(decode(1, 300))
    drafting = StepCost(hardware, target, drafts=4, draft_model=tables.model("Qwen/Qwen3-0.6B"))
    ngram = StepCost(hardware, target, drafts=4)
    batch = decode(1, 300)._replace(drafts=4)
    assert plain < ngram.step_s(batch) < 1.2 * plain
    assert ngram.step_s(batch) < drafting.step_s(batch) < 3 * plain
    assert drafting.step_s(batch._replace(moved=1600)) > drafting.step_s(batch)


def test_the_feed_forward_network_s_width_follows_from_the_parameters() -> None:
    # intermediate_size of the models' own config.json.
    for name, width in ((PHI_3, 8192), (MISTRAL, 14336), ("Qwen/Qwen3-8B-AWQ", 12288), ("Qwen/Qwen3-0.6B", 3072)):
        assert tables.model(name).intermediate == pytest.approx(width, rel=0.002)


def test_elementwise_work_grows_with_tokens_and_its_norms_are_not_divided() -> None:
    hardware, model = tables.hardware("A100-80G"), tables.model("meta-llama/Meta-Llama-3-8B-Instruct")
    one, two = StepCost(hardware, model), StepCost(hardware, model, tensor=2)
    # Vidur's profile: 95 us a layer at 512 tokens, 27 to 29 us at up to 32.
    per_layer = hardware.layer_s.value + 512 * one.elementwise_s / model.architecture.layers
    assert per_layer == pytest.approx(95e-6, rel=0.1)
    assert 0.5 * one.elementwise_s < two.elementwise_s < one.elementwise_s


def test_a_draft_model_computes_prompts_too() -> None:
    hardware, target = tables.hardware("T4"), tables.model("Qwen/Qwen3-8B-AWQ")
    drafting = StepCost(hardware, target, drafts=4, draft_model=tables.model("Qwen/Qwen3-0.6B"))
    plain, draft = (
        cost.step_s(prefill(1024))
        for cost in (StepCost(hardware, target), StepCost(hardware, tables.model("Qwen/Qwen3-0.6B")))
    )
    host_s = hardware.host_s.value + hardware.host_per_sequence_s.value
    assert drafting.step_s(prefill(1024)) == pytest.approx(plain + draft - host_s)
