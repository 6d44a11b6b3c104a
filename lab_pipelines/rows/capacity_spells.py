"""Rows of `capacity_spells`: a pool whose Spot nodes are taken back, as reclaims.py draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lab_pipelines.catalog.prices import Priority, UnitPrice
from lab_pipelines.catalog.steps import ReclaimsStep
from lab_pipelines.reclaims import Scenario, Spell
from lab_pipelines.rows.common import Row, common_columns
from resources.cluster import Session


def spell_rows(
    session: Session,
    step: ReclaimsStep,
    scenario: Scenario,
    spells: Sequence[Spell],
    *,
    position: int,
    cold_start_s: float,
    prices: Mapping[Priority, UnitPrice | None],
) -> list[Row]:
    """`capacity_spells` of one scenario. `prices` are those of the priorities that the pool has nodes of."""
    usd = {priority: price.usd for priority, price in prices.items() if price is not None}
    shared = {
        **common_columns(session),
        "provenance": "modelled",
        "step": step.name,
        "scenario": scenario.name,
        "position": position,
        "reclaims_per_hour": scenario.per_hour,
        "together": scenario.together,
        "band": scenario.band,
        "wait_s": scenario.wait_s,
        "cold_start_s": cold_start_s,
        "requests_per_s": step.requests_per_s,
        "on_demand_nodes": step.on_demand,
        "spot_nodes": step.spot,
        "on_demand_usd": usd.get("on_demand"),
        "spot_usd": usd.get("spot"),
    }
    return [{**shared, **asdict(spell)} for spell in spells]
