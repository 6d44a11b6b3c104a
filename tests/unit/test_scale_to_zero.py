"""The closed forms of scaling to zero, against a simulation of the very thing that they describe."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.scale_to_zero import HOUR_S, SparseTraffic, break_even_idle_s


def simulated(traffic: SparseTraffic, *, requests: int, seed: int) -> tuple[float, list[float]]:
    """Share of the time that nodes were held, and the waits: request by request, as the policy would have it."""
    draw, now, held, waits = Random(seed), 0.0, 0.0, list[float]()
    started = warm = gone = 0.0  # of the replica's present life: requested, warm, given back unless something comes
    up = False
    for _ in range(requests):
        now += draw.expovariate(traffic.per_h / HOUR_S)
        if up and now > gone:
            held += gone - started
            up = False
        if not up:
            up, started, warm = True, now, now + traffic.cold_start_s
        waits.append(max(warm - now, 0.0))
        gone = max(now, warm) + traffic.cooldown_s
    return held / (started if up else now), waits


@pytest.mark.parametrize(
    ("per_h", "cooldown_s", "cold_start_s", "patience_s"),
    [(1, 0, 600, 0), (6, 300, 640, 2), (60, 60, 300, 100), (12, 900, 45, 10), (600, 0, 30, 0), (6, 300, 5, 10)],
)
def test_the_closed_forms_are_what_a_simulation_gives(
    per_h: float, cooldown_s: float, cold_start_s: float, patience_s: float
) -> None:
    traffic = SparseTraffic(per_h, cold_start_s, usd_per_h=0.526, cooldown_s=cooldown_s, patience_s=patience_s)
    held, waits = simulated(traffic, requests=400_000, seed=7)
    breaches = sum(wait > patience_s for wait in waits) / len(waits)
    assert traffic.held_share == pytest.approx(held, rel=0.01)
    assert traffic.breach_share == pytest.approx(breaches, rel=0.01)
    assert traffic.breaches_per_h == pytest.approx(per_h * breaches, rel=0.01)
    assert traffic.floor_premium_usd_per_h == pytest.approx(0.526 * (1 - held), rel=0.03)
    for quantile in (0.5, 0.9, 0.99):
        seen = sorted(waits)[int(quantile * len(waits))]
        assert traffic.waited_s(quantile) == pytest.approx(seen, rel=0.02, abs=0.01 * cold_start_s)


positive = st.floats(0.01, 1000)
traffics = st.builds(
    SparseTraffic,
    per_h=positive,
    cold_start_s=positive,
    usd_per_h=positive,
    cooldown_s=st.floats(0, 2000),
    patience_s=st.floats(0, 60),
)


@given(traffic=traffics, breach_usd=positive)
def test_from_the_break_even_rate_on_the_floor_is_cheaper_whatever_the_cooldown(
    traffic: SparseTraffic, breach_usd: float
) -> None:
    rate = traffic.floor_pays_from_per_h(breach_usd)
    if traffic.cold_start_s <= traffic.patience_s:
        assert rate is None
        assert traffic.premium_per_breach_usd is None
        return
    assert rate is not None

    def dearer_without(per_h: float) -> bool:
        """Whether a floor of zero costs more: its nodes and its breaches, against a node that is always there."""
        at = SparseTraffic(per_h, traffic.cold_start_s, traffic.usd_per_h, traffic.cooldown_s, traffic.patience_s)
        return at.breaches_per_h * breach_usd > at.floor_premium_usd_per_h

    if rate * traffic.cooldown_s / HOUR_S < 100:  # above, both sides are too small for a float to tell them apart
        assert dearer_without(rate * 1.001)
        assert not dearer_without(rate * 0.999)


@given(traffic=traffics)
def test_shares_are_shares_and_a_longer_cooldown_holds_more_and_breaches_less(traffic: SparseTraffic) -> None:
    longer = SparseTraffic(
        traffic.per_h, traffic.cold_start_s, traffic.usd_per_h, traffic.cooldown_s + 60, traffic.patience_s
    )
    assert 0 <= traffic.held_share <= longer.held_share <= 1
    assert 0 <= longer.breach_share <= traffic.breach_share <= 1
    assert 0 <= traffic.waited_s(0.5) <= traffic.waited_s(0.99) <= traffic.cold_start_s


def test_numbers_that_a_reader_can_check_by_hand() -> None:
    # Six an hour, a cold start of ten minutes, no cooldown: a cycle is ten minutes of nothing and ten of cold start.
    traffic = SparseTraffic(per_h=6, cold_start_s=600, usd_per_h=0.60)
    assert traffic.held_share == pytest.approx(0.5)
    assert traffic.floor_premium_usd_per_h == pytest.approx(0.30)
    assert traffic.breaches_per_h == pytest.approx(6)  # the first of a cycle and the one of its cold start
    assert traffic.premium_per_breach_usd == pytest.approx(0.05)
    assert traffic.floor_pays_from_per_h(0.05) == pytest.approx(6)
    assert break_even_idle_s(1200, nodes=2) == 600


def test_impossible_traffic_is_refused() -> None:
    with pytest.raises(ValueError, match="per_h"):
        SparseTraffic(0, 600, 0.5)
    with pytest.raises(ValueError, match="not below"):
        SparseTraffic(1, -1, 0.5)
