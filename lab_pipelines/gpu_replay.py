"""What another policy would have done over recorded history: dollars saved, cold starts paid, labs killed.

Belongs here: walking a pool's recorded looks with the sensor's own decision function. Pure. Doesn't belong here:
where the looks come from (gpu_history.py), the decision (gpu_policy.py).

Leases are taken away on purpose: they are the layer above, and the question is what the policy would do without it. An
action while a lab held the pool is a lab killed but for its lease. Two things can't be replayed, and are left out: that
only so many pools go at once, and that whoever finds no node may come back later than they did.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from lab_pipelines.gpu_policy import (
    ColdStart,
    GpuPolicy,
    History,
    Observation,
    PoolState,
    Signal,
    advance,
    decide,
    use_of,
)
from lab_pipelines.provenance import Provenance


@dataclass(frozen=True)
class Look:
    """One recorded look at a pool."""

    at: datetime
    pool: PoolState
    requests: Signal
    utilisation: Signal
    labs: tuple[str, ...]
    """That held it then."""
    cold_start: ColdStart


@dataclass(frozen=True)
class Series:
    """A pool's recorded looks, by time."""

    name: str
    provenance: Provenance
    time_scale: float
    """Stack seconds per second of the looks' own clock: times and costs are counted in stack time."""
    looks: Sequence[Look]


@dataclass(frozen=True)
class Killed:
    """A lab that held the pool when the policy would have taken its nodes."""

    lab: str
    at: datetime
    reason: str


@dataclass(frozen=True)
class Replayed:
    """One pool under the policy, in stack time. Dollars are None where no price is known."""

    name: str
    provenance: Provenance
    node_hours: float
    """That were paid for as it was."""
    saved_node_hours: float
    cold_starts: int
    cold_start_node_hours: float
    """What the policy's own cold starts would have cost."""
    usd: Decimal | None
    net_saved_usd: Decimal | None
    actions: int
    killed: tuple[Killed, ...]


def replay(series: Iterable[Series], policy: GpuPolicy) -> list[Replayed]:
    """Every pool on its own, in the order given."""
    return [_replay_pool(one, policy) for one in series]


def _replay_pool(series: Series, policy: GpuPolicy) -> Replayed:
    scale = series.time_scale
    scaled = _in_stack_time(policy, scale)
    history: History | None = None
    gone, actions, cold_starts = False, 0, 0
    killed = list[Killed]()
    paid = saved = woken = 0.0
    usd = net = Decimal()
    priced = True
    for look, following in itertools.pairwise(series.looks):
        seconds = (following.at - look.at).total_seconds()
        # What happened in a longer hole nobody saw: it is neither paid for nor saved.
        hours = 0.0 if seconds > scaled.max_tick_gap_s else seconds * scale / 3600
        pool, price = look.pool, look.pool.usd_per_h
        if pool.count == 0:
            gone = False
        elif gone and _is_asked_for(look, killed, scaled):
            gone, history = False, None
            cold_starts += 1
            cold_hours = look.cold_start.seconds / 3600
            woken += pool.count * cold_hours
            net -= (price or 0) * Decimal(cold_hours)
        if not gone:
            history = advance(history, pool, look.requests, look.utilisation, policy=scaled, now=look.at)
            cold = replace(look.cold_start, seconds=look.cold_start.seconds / scale)
            seen = Observation(pool, (), look.requests, look.utilisation, None, history, cold)
            decision = decide(seen, policy=scaled, mode="on", now=look.at)
            if decision.action == "scale_to_zero":
                gone, actions = True, actions + 1
                killed += [Killed(lab, look.at, decision.reason) for lab in look.labs]
        if pool.count:
            priced = priced and price is not None
            cost = (price or 0) * Decimal(hours)
            paid, usd = paid + pool.count * hours, usd + cost
            if gone:
                saved, net = saved + pool.count * hours, net + cost
    return Replayed(
        name=series.name,
        provenance=series.provenance,
        node_hours=paid,
        saved_node_hours=saved,
        cold_starts=cold_starts,
        cold_start_node_hours=woken,
        usd=usd if priced else None,
        net_saved_usd=net if priced else None,
        actions=actions,
        killed=tuple(killed),
    )


def _is_asked_for(look: Look, killed: Sequence[Killed], policy: GpuPolicy) -> bool:
    """Whether somebody uses the pool that the policy has taken: it would have had to come back."""
    use, _ = use_of(look.requests, look.utilisation, policy, was_idle=True)
    return use == "busy" or not set(look.labs) <= {one.lab for one in killed}


def _in_stack_time(policy: GpuPolicy, scale: float) -> GpuPolicy:
    """The policy for looks whose clock runs `scale` times slower than the stack's."""
    times = ("idle_for_s", "cooldown_s", "max_tick_gap_s", "assumed_cold_start_s")
    return policy.model_copy(update={name: getattr(policy, name) / scale for name in times})
