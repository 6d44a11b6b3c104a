"""Who pays which share of a node that several sessions hold at the same time. Pure: intervals in, shares out.

Belongs here: OpenCost's rule for one node. Doesn't belong here: which nodes a session holds (node_time.py), what a
session did with its share (cost.py), prices of nodes (catalog/prices.yaml).

The rule (OpenCost specification, "Foundational definitions"): a tenant's allocation is what it requested or used,
whichever is more, of each resource; the node's price is divided over its resources by fixed prices per unit, normalised
so that they sum to the price of the node. What nobody is allocated is the node's idle time. Here the tenants that are
present pay for it, in proportion to what they are allocated: a node is held for those who asked for it, and a tenant
that is alone pays for all of it. Time without a tenant belongs to nobody.

Shares are fractions: whatever they are applied to is divided without a remainder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.engine.tables import Fact

GIB = 2**30


class ResourcePrices(BaseModel):
    """node_sharing.yaml: what a unit of each resource weighs, in USD per hour."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    gpu_usd_per_h: Fact
    cpu_usd_per_h: Fact
    memory_gib_usd_per_h: Fact


@cache
def resource_prices() -> ResourcePrices:
    return read_model(Path(__file__).parent / "node_sharing.yaml", ResourcePrices)


class Amounts(NamedTuple):
    """So much of each resource."""

    gpus: float
    cpus: float
    memory_bytes: float

    def at_least(self, other: Amounts) -> Amounts:
        """The larger one of each resource."""
        return Amounts(*map(max, self, other))


@dataclass(frozen=True)
class Tenant:
    """One session on the node from `start_us` to `end_us`. `asks`: the larger of request and usage."""

    session: str
    start_us: int
    end_us: int
    asks: Amounts


class Share(NamedTuple):
    """A share of the node over some time."""

    start_us: int
    end_us: int
    share: Fraction


@dataclass(frozen=True)
class Divided:
    """A node's time. The shares of every instant sum to 1, or the instant is `unheld`."""

    shares: dict[str, list[Share]]
    """Of each tenant, in order, for as long as it was there."""
    unheld: list[tuple[int, int]]
    """Between the first tenant's start and the last one's end, when none was there."""


def divide(tenants: Sequence[Tenant], capacity: Amounts) -> Divided:
    """Divide a node of `capacity` among its tenants.

    Of a resource that the tenants together ask for more of than there is, each gets its part in proportion. Tenants
    that ask for nothing at all share equally where nobody asks for anything, and pay nothing beside one that does.
    """
    starts = sorted(tenants, key=attrgetter("start_us"))
    ends = sorted(tenants, key=attrgetter("end_us"))
    moments = sorted({moment for one in tenants for moment in (one.start_us, one.end_us)})
    divided = Divided({one.session: [] for one in tenants}, [])
    present, next_start, next_end = dict[str, Tenant](), 0, 0
    for now, then in pairwise(moments):
        while next_end < len(ends) and ends[next_end].end_us <= now:
            present.pop(ends[next_end].session, None)
            next_end += 1
        while next_start < len(starts) and starts[next_start].start_us <= now:
            if starts[next_start].end_us > now:
                present[starts[next_start].session] = starts[next_start]
            next_start += 1
        if not present:
            divided.unheld.append((now, then))
        for session, share in _shares(list(present.values()), capacity).items():
            divided.shares[session].append(Share(now, then, share))
    return divided


def _shares(present: Sequence[Tenant], capacity: Amounts) -> dict[str, Fraction]:
    """The share of each tenant while exactly these are there."""
    if len(present) == 1:
        return {present[0].session: Fraction(1)}
    allocated = dict.fromkeys((one.session for one in present), Fraction())
    for resource, price in enumerate(_prices()):
        asked = {one.session: Fraction(one.asks[resource]) for one in present}
        there_is = max(Fraction(capacity[resource]), sum(asked.values(), Fraction()))
        if there_is:
            worth = price * Fraction(capacity[resource])
            for session, amount in asked.items():
                allocated[session] += worth * amount / there_is
    total = sum(allocated.values(), Fraction())
    if not total:
        return {session: Fraction(1, len(present)) for session in allocated}
    return {session: amount / total for session, amount in allocated.items()}


@cache
def _prices() -> tuple[Fraction, Fraction, Fraction]:
    """Per unit of each resource, in the order of `Amounts`."""
    prices = resource_prices()
    gpu, cpu, gib = (
        Fraction(str(one.value)) for one in (prices.gpu_usd_per_h, prices.cpu_usd_per_h, prices.memory_gib_usd_per_h)
    )
    return gpu, cpu, gib / GIB
