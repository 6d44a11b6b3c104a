"""A cold start's plan names its phases in order, with durations and sources."""

from __future__ import annotations

import pytest

from lab_pipelines.engine.cold_start import cold_start_plan
from lab_pipelines.engine.tables import UnknownNameError

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"


def test_the_phases_come_in_the_order_of_a_cold_start() -> None:
    plan = cold_start_plan("T4", PHI_3)
    assert [phase.name for phase in plan] == [
        "node_ready",
        "driver_ready",
        "image_pulled",
        "model_loaded",
        "engine_ready",
    ]
    assert all(phase.duration_s > 0 and "kaito issue 2325" in phase.source for phase in plan)


def test_loading_takes_longer_for_a_model_with_more_bytes_and_nothing_else_does() -> None:
    small, large = (
        cold_start_plan("A100-80G", PHI_3),
        cold_start_plan("A100-80G", "meta-llama/Meta-Llama-3-8B-Instruct"),
    )
    longer = [a.name for a, b in zip(small, large, strict=True) if b.duration_s > a.duration_s]
    assert longer == ["model_loaded"]


def test_weights_load_at_the_measured_rate() -> None:
    # 51.75 GiB took 62 s after 98 s of start-up.
    loading = next(phase for phase in cold_start_plan("A100-80G", PHI_3) if phase.name == "model_loaded")
    assert loading.duration_s - 98 == pytest.approx(62 * 7.64e9 / (51.75 * 2**30), rel=0.001)


def test_only_the_measured_machine_is_trusted_fully() -> None:
    assert {phase.confidence for phase in cold_start_plan("A100-80G", PHI_3)} == {"A"}
    assert {phase.confidence for phase in cold_start_plan("T4", PHI_3)} == {"C"}


def test_an_unknown_gpu_or_model_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'T5'"):
        cold_start_plan("T5", PHI_3)
    with pytest.raises(UnknownNameError, match="'phi'"):
        cold_start_plan("T4", "phi")
