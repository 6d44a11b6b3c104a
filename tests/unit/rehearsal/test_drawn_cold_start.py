"""Draws of a cold start lie around its plan, and a warm node saves what is there already."""

from __future__ import annotations

import random
from statistics import mean

import pytest
import yaml

from lab_pipelines.engine.cold_start import cold_start_plan, drawn_cold_start
from lab_pipelines.engine.tables import TABLES_DIR

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"


def test_the_same_numbers_draw_the_same_phases() -> None:
    first, second = (drawn_cold_start("T4", PHI_3, random.Random("x"), warm=False) for _ in range(2))
    assert first == second != drawn_cold_start("T4", PHI_3, random.Random("y"), warm=False)


def test_a_warm_node_has_driver_and_image_and_only_the_engine_starts() -> None:
    drawn = drawn_cold_start("T4", PHI_3, random.Random(1), warm=True)
    assert [phase.name for phase in drawn] == ["model_loaded", "engine_ready"]


def test_each_phase_stays_within_what_was_seen_of_it_and_means_what_a_triangle_does() -> None:
    spreads = {
        phase["name"]: phase["spread"]
        for phase in yaml.safe_load((TABLES_DIR / "cold_start.yaml").read_text(encoding="utf-8"))["phases"]
    }
    numbers = random.Random(3)
    draws = [drawn_cold_start("T4", PHI_3, numbers, warm=False) for _ in range(2000)]
    for position, planned in enumerate(cold_start_plan("T4", PHI_3)):
        ratios = [draw[position].duration_s / planned.duration_s for draw in draws]
        low, high = spreads[planned.name]["shortest"], spreads[planned.name]["longest"]
        assert low <= min(ratios) and max(ratios) <= high, planned.name
        assert mean(ratios) == pytest.approx((low + 1 + high) / 3, rel=0.03), planned.name
