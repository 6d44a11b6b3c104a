"""A pool's capacity under reclaims: what is never violated, what chance must come near to, and the facts behind it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.catalog.loader import SpecError, load_catalog
from lab_pipelines.catalog.steps import ReclaimsStep
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.reclaims import MONTH_H, Scenario, Spell, draw_spells, load_reclaim_facts, scenarios_of

rates = st.floats(min_value=0.001, max_value=2.0)
shares = st.floats(min_value=0.0, max_value=1.0)
seconds = st.floats(min_value=0.0, max_value=20_000.0)
nodes = st.integers(min_value=0, max_value=6)


def scenario(per_hour: float = 0.05, together: float = 0.0, wait_s: float = 1800.0) -> Scenario:
    return Scenario(per_hour=per_hour, together=together, wait_s=wait_s, band="0-5")


def spot_availability(spells: list[Spell], spot: int) -> float:
    return sum(s.hours * s.spot_up for s in spells) / sum(s.hours * spot for s in spells)


@given(nodes, nodes, rates, shares, seconds, seconds, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_capacity_is_never_negative_and_spells_follow_one_another(
    on_demand: int, spot: int, per_hour: float, together: float, wait_s: float, cold_start_s: float, seed: int
) -> None:
    drawn = scenario(per_hour, together, wait_s)
    spells = draw_spells(on_demand, spot, drawn, cold_start_s=cold_start_s, months=2, seed=seed)
    assert spells[0].started_h == 0.0
    assert spells[-1].started_h + spells[-1].hours == pytest.approx(2 * MONTH_H)
    for before, after in pairwise(spells):
        assert before.started_h + before.hours == pytest.approx(after.started_h)
    for spell in spells:
        assert spell.hours > 0
        assert spell.month == int(spell.started_h // MONTH_H)
        assert spell.on_demand_up == on_demand
        assert min(spell.spot_up, spell.spot_starting) >= 0
        assert spell.spot_up + spell.spot_starting <= spot
    # Every node-hour is paid for or waited through: those of both priorities and the time down are all there are.
    waiting_h = sum(s.hours * (spot - s.spot_up - s.spot_starting) for s in spells)
    paid_h = sum(s.hours * (s.on_demand_up + s.spot_up + s.spot_starting) for s in spells)
    assert paid_h + waiting_h == pytest.approx((on_demand + spot) * 2 * MONTH_H)


@pytest.mark.parametrize(("per_hour", "together"), [(0.01, 0.92), (0.05, 0.0), (0.05, 1.0), (0.1, 0.5)])
def test_a_node_is_up_for_as_long_as_the_closed_form_says_whatever_falls_together(
    per_hour: float, together: float
) -> None:
    spells = draw_spells(0, 4, scenario(per_hour, together), cold_start_s=900.0, months=400)
    down_h = (1800.0 + 900.0) / 3600
    assert spot_availability(spells, 4) == pytest.approx(1 / (1 + per_hour * down_h), abs=0.005)


def test_without_correlation_the_states_are_binomial() -> None:
    """All four up, with the availability a of one: a^4."""
    spells = draw_spells(0, 4, scenario(0.1), cold_start_s=900.0, months=200)
    all_up = sum(s.hours for s in spells if s.spot_up == 4) / (200 * MONTH_H)
    assert all_up == pytest.approx((1 / 1.075) ** 4, abs=0.015)


def test_reclaims_that_fall_together_leave_no_node_up_as_often_as_one_is_down() -> None:
    spells = draw_spells(0, 4, scenario(0.05, 1.0), cold_start_s=900.0, months=240)
    assert {spell.spot_up for spell in spells} == {0, 4}
    alone = draw_spells(0, 4, scenario(0.05, 0.0), cold_start_s=900.0, months=240)
    none_up = [sum(s.hours for s in drawn if s.spot_up == 0) / (240 * MONTH_H) for drawn in (spells, alone)]
    assert none_up[0] == pytest.approx(1 - 1 / 1.0375, abs=0.006)
    assert none_up[1] < 0.001


def test_more_reclaims_a_longer_wait_or_cold_start_never_raise_availability() -> None:
    def mean(per_hour: float, wait_s: float, cold_start_s: float) -> float:
        return spot_availability(
            draw_spells(1, 4, scenario(per_hour, 0.92, wait_s), cold_start_s=cold_start_s, months=240), 4
        )

    base = mean(0.05, 1800.0, 900.0)
    assert mean(0.01, 1800.0, 900.0) > base > mean(0.1, 1800.0, 900.0)
    assert mean(0.05, 600.0, 900.0) > base > mean(0.05, 5400.0, 900.0)
    assert mean(0.05, 1800.0, 60.0) > base > mean(0.05, 1800.0, 3600.0)


def test_the_same_seed_gives_the_same_months_and_another_others() -> None:
    first, again = (draw_spells(1, 4, scenario(), cold_start_s=600.0, months=3) for _ in range(2))
    assert first == again
    assert draw_spells(1, 4, scenario(), cold_start_s=600.0, months=3, seed=1) != first


def test_on_demand_nodes_are_up_all_the_time() -> None:
    assert draw_spells(5, 0, scenario(), cold_start_s=600.0, months=2) == [
        Spell(0, 0.0, MONTH_H, 5, 0, 0),
        Spell(1, MONTH_H, MONTH_H, 5, 0, 0),
    ]


def test_a_node_that_comes_back_is_paid_for_while_it_starts_and_not_while_it_waits() -> None:
    spells = draw_spells(0, 1, scenario(wait_s=3600.0), cold_start_s=1800.0, months=200)
    states = {(s.spot_up, s.spot_starting) for s in spells}
    assert states == {(1, 0), (0, 0), (0, 1)}
    reclaims = sum(1 for a, b in pairwise(spells) if (a.spot_up, b.spot_up) == (1, 0))
    starting_h = sum(s.hours for s in spells if s.spot_starting)
    waiting_h = sum(s.hours for s in spells if not s.spot_up and not s.spot_starting)
    assert starting_h / reclaims == pytest.approx(0.5, rel=0.01)
    assert waiting_h / reclaims == pytest.approx(1.0, rel=0.07)


# The facts and the scenarios


def test_azure_s_bands_leave_no_rate_out_and_say_where_they_come_from() -> None:
    facts = load_reclaim_facts()
    assert [facts.band_of(rate) for rate in (0.0, 0.01, 0.05, 0.07, 0.1, 0.14, 0.2, 0.5)] == [
        *("0-5", "0-5", "0-5", "5-10", "5-10", "10-15", "15-20", "20+")
    ]
    assert "per hour" in facts.bands_source
    assert "assumption" in facts.wait_for_capacity.source


def test_each_rate_meets_each_way_of_falling_and_the_first_is_the_lab_s_own() -> None:
    step = load_catalog().spec("L75").steps[1]
    assert isinstance(step, ReclaimsStep)
    facts = load_reclaim_facts()
    drawn = scenarios_of(step, facts)
    assert [one.name for one in drawn] == [
        f"{rate:g} per hour, {way}" for rate in (0.05, 0.01, 0.1) for way in ("correlated", "independent")
    ]
    assert drawn[0].together == facts.together.share > drawn[1].together == 0.0


def test_a_spoilt_fact_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "reclaims.yaml"
    text = (REPO_ROOT / "lab_pipelines" / "reclaims.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("share: 0.92", "share: 92"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"reclaims\.yaml:\d+: together\.share: .*less than or equal to 1"):
        load_reclaim_facts(path)
