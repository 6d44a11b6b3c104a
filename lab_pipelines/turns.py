"""The order in which a run walks its variants: turn by turn, each turn with every variant once. Pure.

Belongs here: who comes when, and what a visit is called. Doesn't belong here: walking (assets/load_run.py), or what
pairs of one turn say (lab_pipelines/statistics/paired.py).

Between two runs the same engine differs by far more than within one, and within one by what changes with time: a
machine warms up, a neighbour comes and goes. So variants that are to be compared take turns in one run, and each turn's
pair is compared with itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lab_pipelines.catalog.stack import Variant

MOST_VISITS = 200
"""Of a run. A lease keeps a record of each, of some 4 KB, in a cluster in one ConfigMap of at most 1 MiB."""


class Visit(NamedTuple):
    """One variant in one turn: a session of its own, whose rows have the turn as their `trial`."""

    variant: Variant
    trial: int
    """The turn, from 1."""

    @property
    def name(self) -> str:
        return visit_name(self.variant.id, self.trial)


def visit_name(variant: str, trial: int) -> str:
    """A visit's part in names of files, folders and sessions: the variant's own in the first turn, `wide.T2` later.

    A variant's name has no capital letter, so no two visits share a name.
    """
    return variant if trial == 1 else f"{variant}.T{trial}"


def visits(variants: Sequence[Variant], turns: int) -> list[Visit]:
    """All visits of a run, in order.

    A variant that is meant to be refused comes once, in the first turn: it has no rows to repeat, and each refusal
    costs a cold start. Raises `ValueError` for more than `MOST_VISITS`.
    """
    again = [variant for variant in variants if variant.refused is None]
    first = [Visit(variant, 1) for variant in variants]
    if (count := len(first) + len(again) * (turns - 1)) > MOST_VISITS:
        raise ValueError(
            f"{turns} turns of {len(variants)} variants are {count} visits, and a run has {MOST_VISITS} at most"
        )
    later = turn_orders(len(again), turns)[1:]
    return first + [Visit(again[index], trial) for trial, order in enumerate(later, 2) for index in order]


def turn_orders(variants: int, turns: int) -> list[list[int]]:
    """The order of each turn, as indices of so many variants; the first one's is theirs.

    Turns come in twos, the second the first one backwards, so a drift that is linear in time falls on all variants
    alike. The twos go through a Williams design (Williams 1949, Experimental designs balanced for the estimation of
    residual effects of treatments): after as many turns as there are variants, or twice as many for an odd number, each
    has had each place equally often, and has come right after each other one equally often within a turn.
    """
    zigzag = [-(place // 2) % variants if place % 2 == 0 else place // 2 + 1 for place in range(variants)]
    # The design's own names would have the first turn go 0, 1, n - 1, 2, …; any renaming keeps its balance.
    renamed = {name: place for place, name in enumerate(zigzag)}
    orders = list[list[int]]()
    for turn in range(turns):
        order = [renamed[(name + turn // 2) % variants] for name in zigzag]
        orders.append(order if turn % 2 == 0 else order[::-1])
    return orders
