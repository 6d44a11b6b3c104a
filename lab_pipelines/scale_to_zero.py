"""What a floor of no node costs in waiting, and what a floor of one costs in idling. Pure.

Belongs here: the closed forms for sparse traffic, which L32 and the FinOps sheet share.
Doesn't belong here: when the sensor takes nodes away (gpu_policy.py), or what the labs' own nodes cost (cost.py).

Two questions that are often mixed up have two answers:

- *Work that waits for its nodes*, as a lab's next step does: giving the nodes back in an idle spell saves the spell,
  and costs the cold start, in which they are paid and serve nothing. `break_even_idle_s` is that.
- *Users who come when they come*: over a month that ends when it ends, nodes that were away for a while can only have
  cost less, whatever the cold start takes, since a floor would have paid for those minutes too. What it costs is the
  users who meet a cold start. `SparseTraffic` is that: a floor of one is an insurance against breaches, and has a
  premium.

The model of `SparseTraffic`. Requests are a Poisson process of rate r. One replica serves them, takes no time to do so,
and has room for all. After h seconds without a request it goes to zero (h is the cooldown, and the time that a request
is served if that is not small beside it). A request that finds nothing up starts a cold start of s seconds; all that
come in it wait for its end. Requests within it that have at most w seconds left to wait are not in breach.

A cycle is: nothing up, for 1/r on average; the cold start, s; then up until h seconds have passed without a request.
The last takes u = (e^(rh) - 1)/r on average: either nothing comes in h, or something comes after x < h and it begins
anew, so that u = e^(-rh) h + integral from 0 to h of r e^(-rx) (x + u) dx, which is solved by that u. A cycle is
therefore

    1/r + s + (e^(rh) - 1)/r  =  (e^(rh) + r s)/r       seconds long,

and everything below is an amount per cycle over its length, as renewal theory has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOUR_S = 3600.0


def break_even_idle_s(cold_start_node_s: float, nodes: int) -> float:
    """From which length of an idle spell on it is cheaper to give `nodes` back and start them again, in seconds.

    To keep them through a spell of t costs `nodes` x t node-seconds, to start them again `cold_start_node_s`, and a
    node-second costs the same either way. A policy that can't foresee the spell and gives them back after this time
    never pays more than twice what foresight would (ski rental; docs/decisions/0017-scale-to-zero.md).
    """
    return cold_start_node_s / nodes


@dataclass(frozen=True)
class SparseTraffic:
    """Poisson requests on one replica that goes to zero. All times are stack seconds."""

    per_h: float
    """Requests per hour; above zero."""
    cold_start_s: float
    usd_per_h: float
    """Of all nodes of the replica."""
    cooldown_s: float = 0.0
    """Without a request for so long, it goes to zero."""
    patience_s: float = 0.0
    """Waiting for at most so long is no breach: the objective for the first token, less what a warm one takes."""

    def __post_init__(self) -> None:
        if self.per_h <= 0 or min(self.cold_start_s, self.usd_per_h, self.cooldown_s, self.patience_s) < 0:
            raise ValueError("per_h must be above zero, and times and price not below")

    @property
    def held_share(self) -> float:
        """Of the time, with a floor of zero: 1 less the 1/r of each cycle. A floor of one holds all of it."""
        return 1 - 1 / self._length

    @property
    def breaches_per_h(self) -> float:
        """Requests per hour that wait for longer than `patience_s`, with a floor of zero; with a floor of one none do.

        Of a cycle: the one that starts it, and those of the cold start's first s - w seconds, r (s - w) on average.
        None at all where the cold start is over within w.
        """
        return self.per_h * self.breach_share

    @property
    def breach_share(self) -> float:
        """Breaches over requests, of which a cycle has r times its length."""
        return self._longer_than(self.patience_s)

    @property
    def floor_premium_usd_per_h(self) -> float:
        """What a floor of one costs more than a floor of zero, per hour: the hours that nothing would be up."""
        return self.usd_per_h / self._length

    @property
    def premium_per_breach_usd(self) -> float | None:
        """What the floor of one costs for each breach that it avoids: p / (r (1 + r (s - w))); None where it avoids
        none.

        Premium and breaches have the same cycle length below them, so the cooldown cancels out: with Poisson requests
        it saves breaches at the very price at which the floor does. So there is nothing between the two to be gained:
        either the floor is worth its premium, or a cooldown of nothing is best.
        """
        breaches = self.breaches_per_h
        return self.floor_premium_usd_per_h / breaches if breaches else None

    def floor_pays_from_per_h(self, breach_usd: float) -> float | None:
        """From how many requests per hour a floor of one is cheaper, if a breach costs `breach_usd`; None: never.

        Where the premium per breach falls to that price: the positive root of b a r^2 + b r - p = 0, with a = s - w.
        """
        if breach_usd <= 0 or self.cold_start_s <= self.patience_s:
            return None
        ratio = self.usd_per_h / breach_usd  # breaches per hour that the nodes would pay for
        queue_h = (self.cold_start_s - self.patience_s) / HOUR_S
        # (sqrt(1 + 4 a p/b) - 1) / 2a, in a form that loses no digits where a p/b is small.
        return 2 * ratio / (1 + math.sqrt(1 + 4 * queue_h * ratio))

    def waited_s(self, quantile: float) -> float:
        """The quantile of the time that requests wait for a cold start, with a floor of zero.

        Longer than x < s wait, of a cycle's requests, the first and those of the first s - x seconds.
        """
        beyond = (1 - quantile) * self._length - 1
        if beyond < 0:
            return self.cold_start_s
        return max(self.cold_start_s - beyond / self._per_s, 0.0)

    def _longer_than(self, wait_s: float) -> float:
        """Share of the requests that wait for longer than `wait_s`."""
        if self.cold_start_s <= wait_s:
            return 0.0
        return (1 + self._per_s * (self.cold_start_s - wait_s)) / self._length

    @property
    def _per_s(self) -> float:
        return self.per_h / HOUR_S

    @property
    def _length(self) -> float:
        """Of a cycle, in mean times between two requests: e^(rh) + r s."""
        hold = self._per_s * self.cooldown_s
        # Beyond that no float holds it: it never goes down.
        return (math.exp(hold) if hold < 700 else math.inf) + self._per_s * self.cold_start_s
