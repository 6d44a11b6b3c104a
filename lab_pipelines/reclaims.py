"""The capacity of a pool whose Spot nodes are taken back, drawn over months. Pure, but for reading its facts.

Belongs here: the process of reclaims and returns, and the facts that it takes (reclaims.yaml). Doesn't belong here:
what a pool's replicas can serve (measured by a lab), or what it is worth (warehouse/views, measures).

Each node holds one replica. A Spot node is up until it is reclaimed, alone or with all others at once; then it waits
until there is capacity, and starts. It is paid for from the start on, and serves when it is up. A Poisson process of
reclaims by node and one of the whole pool together reclaim each node that is up at the same rate, whatever their
shares: A. Marshall and I. Olkin, A Multivariate Exponential Distribution, JASA 62 (1967). So a node is up for
1 / (1 + rate x mean time down) of the time, whether reclaims are correlated or not. On-demand nodes don't fail here.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from pydantic import Field

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.catalog.steps import ReclaimsStep
from lab_pipelines.catalog.strict import SpecModel, Text

MONTH_H = 730.0
SEED = 75


class Band(SpecModel):
    """Evictions per hour that Azure tells as one; the last has no upper end."""

    low: float = Field(ge=0)
    high: float | None = Field(default=None, gt=0)


class Together(SpecModel):
    share: float = Field(ge=0, le=1)
    source: Text


class Wait(SpecModel):
    mean_s: float = Field(ge=0)
    source: Text


class ReclaimFacts(SpecModel):
    """reclaims.yaml."""

    bands: dict[Text, Band] = Field(min_length=1)
    bands_source: Text
    together: Together
    wait_for_capacity: Wait

    def band_of(self, per_hour: float) -> str:
        """The name of Azure's band that a rate lies in."""
        return next(name for name, band in self.bands.items() if band.low <= per_hour <= (band.high or per_hour))


@dataclass(frozen=True)
class Scenario:
    """How often Spot nodes are reclaimed, and how. `together` of a node's reclaims take all Spot nodes at once."""

    per_hour: float
    together: float
    wait_s: float
    """Mean time until there is capacity again."""
    band: str
    """Azure's, of that rate."""

    @property
    def name(self) -> str:
        return f"{self.per_hour:g} per hour, {'correlated' if self.together else 'independent'}"


@dataclass(frozen=True)
class Spell:
    """A time in which the pool's capacity did not change. Hours since the first month began; it lies in one month."""

    month: int
    started_h: float
    hours: float
    on_demand_up: int
    spot_up: int
    spot_starting: int
    """Paid for, and not yet serving. The others of the Spot nodes wait for capacity, and cost nothing."""


@cache
def load_reclaim_facts(path: Path = Path(__file__).parent / "reclaims.yaml") -> ReclaimFacts:
    """The facts in `path`. Raises `SpecError` that names file, line and field."""
    return read_model(path, ReclaimFacts)


def scenarios_of(step: ReclaimsStep, facts: ReclaimFacts) -> list[Scenario]:
    """Each rate with each way of falling, the step's own first."""
    return [
        Scenario(
            per_hour=rate,
            together=facts.together.share if correlated else 0.0,
            wait_s=facts.wait_for_capacity.mean_s,
            band=facts.band_of(rate),
        )
        for rate, correlated in product(step.reclaims_per_hour, step.correlated)
    ]


def draw_spells(
    on_demand: int, spot: int, scenario: Scenario, *, cold_start_s: float, months: int, seed: int = SEED
) -> list[Spell]:
    """`months` of a pool that begins with all nodes up. The same arguments give the same spells."""
    spells = []
    for since_h, ended_h, up, starting in _changes(spot, scenario, cold_start_s, months * MONTH_H, seed):
        now_h = since_h
        while now_h < ended_h:  # a spell ends with its month
            month = int(now_h // MONTH_H)
            until_h = min(ended_h, (month + 1) * MONTH_H)
            spells.append(Spell(month, now_h, until_h - now_h, on_demand, up, starting))
            now_h = until_h
    return spells


def _changes(
    spot: int, scenario: Scenario, cold_start_s: float, end_h: float, seed: int
) -> Iterator[tuple[float, float, int, int]]:
    """From when until when so many Spot nodes were up, and so many starting; in hours."""
    numbers = random.Random(f"{seed}/{spot}/{scenario.name}")
    alone, together = scenario.per_hour * (1 - scenario.together), scenario.per_hour * scenario.together
    due: list[tuple[float, bool]] = []
    """When a node that is down gets its machine (False), or is up again (True)."""
    now_h, up, starting = 0.0, spot, 0
    while now_h < end_h:
        # Nothing that is exponential remembers: after each change the next reclaim is drawn anew.
        rate = up * alone + (together if up else 0.0)
        reclaimed_h = now_h + numbers.expovariate(rate) if rate else end_h
        at_h = min(reclaimed_h, due[0][0] if due else end_h, end_h)
        if at_h > now_h:
            yield now_h, at_h, up, starting
        now_h = at_h
        if now_h >= end_h:
            return
        if due and due[0][0] <= now_h:
            _, is_up = heapq.heappop(due)
            if is_up:
                up, starting = up + 1, starting - 1
            else:
                starting += 1
                heapq.heappush(due, (now_h + cold_start_s / 3600, True))
            continue
        hit = up if numbers.random() * rate < together else 1
        wait_h = numbers.expovariate(3600 / scenario.wait_s) if scenario.wait_s else 0.0
        for _ in range(hit):  # those that went together wait for the same capacity
            heapq.heappush(due, (now_h + wait_h, False))
        up -= hit
