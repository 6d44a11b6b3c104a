"""The modelled /metrics has the series of a real vLLM 0.32: names, types, labels and buckets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from lab_pipelines.engine import tables
from lab_pipelines.engine.args import parse_engine_args
from lab_pipelines.engine.dcgm_metrics import DcgmMetrics
from lab_pipelines.engine.exposition import Counter, Gauge, Histogram, render
from lab_pipelines.engine.gpu_state import GpuState
from lab_pipelines.engine.memory import plan_memory
from lab_pipelines.engine.vllm_metrics import ProcessMetrics, VllmMetrics, one_two_five

REFERENCE = Path(__file__).parents[2] / "data" / "vllm-0.32-metrics.txt"
PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
T4 = tables.hardware("T4")


def modelled(max_model_len: int) -> VllmMetrics:
    args = parse_engine_args([PHI_3, "--no-enable-prefix-caching", f"--max-model-len={max_model_len}"], T4)
    memory = plan_memory(T4, [args.model], utilization=0.92, max_model_len=max_model_len)
    return VllmMetrics(args, memory, time_scale=5.0)


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def shape(family: Metric) -> tuple[str, frozenset[tuple[str, tuple[tuple[str, str], ...]]]]:
    """A family's type and its samples: name, label names, and the values of the labels that are choices."""
    free = {"model_name"} | (set(family.samples[0].labels) if family.name == "vllm:cache_config_info" else set())
    samples = frozenset(
        (sample.name, tuple(sorted((key, "" if key in free else value) for key, value in sample.labels.items())))
        for sample in family.samples
    )
    return family.type, samples


def only_vllm(found: dict[str, Metric]) -> dict[str, Metric]:
    return {name: family for name, family in found.items() if name.startswith("vllm:")}


def test_every_series_of_a_real_vllm_is_there_with_its_type_labels_and_buckets_and_no_other() -> None:
    reference = only_vllm(families(REFERENCE.read_text(encoding="utf-8")))
    # The recorded server's context: its kv_cache_size_tokens / kv_cache_max_concurrency.
    found = families(modelled(1024).render().decode())
    assert len(reference) > 60
    assert only_vllm(found).keys() == reference.keys()
    for name, family in reference.items():
        assert shape(found[name]) == shape(family), name
    assert all(name.startswith(("vllm:", "labs_")) for name in found)


def test_process_and_http_series_have_the_names_types_and_labels_of_vllms() -> None:
    reference = families(REFERENCE.read_text(encoding="utf-8"))
    process = ProcessMetrics()
    process.http_done(handler="/v1/completions", method="POST", status=200, bytes_in=10, bytes_out=20, duration_s=0.2)
    found = families(process.render().decode())

    def labels(family: Metric) -> set[tuple[str, tuple[str, ...], str]]:
        return {(s.name, tuple(sorted(s.labels)), s.labels.get("le", "")) for s in family.samples}

    others = {name: family for name, family in reference.items() if not name.startswith("vllm:")}
    assert found.keys() == others.keys()
    for name, family in others.items():
        assert (found[name].type, labels(found[name])) == (family.type, labels(family)), name


@pytest.mark.parametrize(
    ("longest", "bounds"),
    [(1, [1]), (1024, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]), (4096, [*one_two_five(1999), 2000])],
)
def test_token_buckets_go_1_2_5_up_to_the_context(longest: int, bounds: list[int]) -> None:
    assert one_two_five(longest) == bounds


def test_the_cache_config_tells_blocks_and_tokens() -> None:
    config = families(modelled(4096).render().decode())["vllm:cache_config_info"].samples[0].labels
    assert (config["block_size"], config["num_gpu_blocks"], config["kv_cache_size_tokens"]) == ("16", "913", "14608")
    assert (config["enable_prefix_caching"], config["gpu_memory_utilization"]) == ("False", "0.92")


def test_a_histogram_counts_a_value_on_a_bound_into_that_bucket_and_many_at_once() -> None:
    histogram = Histogram("h", "help", {"a": "b"}, [1, 2.5])
    histogram.observe(1.0)
    histogram.observe(2.0, 3)
    histogram.observe(9.0)
    samples = {(s.name, s.labels.get("le")): s.value for s in samples_of([histogram], "h")}
    assert samples == {
        ("h_bucket", "1.0"): 1,
        ("h_bucket", "2.5"): 4,
        ("h_bucket", "+Inf"): 5,
        ("h_count", None): 5,
        ("h_sum", None): 16,
    }


def test_labels_survive_quotes_backslashes_and_line_breaks() -> None:
    odd = 'a "quoted" \\ and\nbroken'
    gauge = Gauge("g", "help", [{"name": odd}], 1.5)
    assert [(s.labels, s.value) for s in samples_of([gauge], "g")] == [({"name": odd}, 1.5)]


def test_a_counter_refuses_labels_that_it_does_not_have() -> None:
    with pytest.raises(KeyError):
        Counter("c", "help", [{"reason": "stop"}]).child(reason="stpo")


def test_the_gpu_exporter_has_dcgms_default_series_with_its_labels() -> None:
    state = GpuState(T4, 0.0)
    exporter = DcgmMetrics(T4, state, used_bytes=T4.memory_bytes.value * 0.92)
    found = families(exporter.render(1.0).decode())
    values = {name: family.samples[0].value for name, family in found.items()}
    assert {f"DCGM_FI_DEV_{name}" for name in ("GPU_UTIL", "MEM_COPY_UTIL", "FB_FREE", "FB_USED", "POWER_USAGE")} | {
        f"DCGM_FI_DEV_{name}" for name in ("GPU_TEMP", "MEMORY_TEMP", "SM_CLOCK", "MEM_CLOCK", "ENC_UTIL", "DEC_UTIL")
    } | {
        f"DCGM_FI_DEV_{name}" for name in ("XID_ERRORS", "PCIE_REPLAY_COUNTER", "TOTAL_ENERGY_CONSUMPTION")
    } <= values.keys()
    for family in found.values():
        assert family.samples[0].labels.keys() == {"gpu", "UUID", "device", "modelName", "Hostname"}
    # 14.56 GiB in MiB, 92 % of them taken.
    assert values["DCGM_FI_DEV_FB_USED"] == pytest.approx(13_720, abs=1)
    assert values["DCGM_FI_DEV_FB_USED"] + values["DCGM_FI_DEV_FB_FREE"] == pytest.approx(14_913, abs=1)
    assert values["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] == pytest.approx(10_000)
    again = families(exporter.render(3.0).decode())["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"].samples[0].value
    assert again == pytest.approx(30_000)


def samples_of(metrics: list[Counter] | list[Gauge] | list[Histogram], name: str) -> Iterable:
    return families(render(metrics).decode())[name].samples
