"""What a lab's rehearsal says about a real run of it: how long, how many node-hours, what it costs, and whether its
findings can be decided. Pure: rows of a rehearsal in, intervals out.

Belongs here: the spread around a rehearsal, and the requests that each finding needs.
Doesn't belong here: running the rehearsal (cli/plans.py), the bounds that the spec itself sets (plan.py).

Intervals hold 90 % of 2,000 draws with a fixed seed. Drawn are the cold starts, from their own distributions, and one
factor for the model's error, log-normal and common to all stages of a variant: a stage that ended when enough requests
had, stretches with it; one that only held its time doesn't. Neither gets longer than the spec allows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lab_pipelines.catalog.claims import Ratio, Sample
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.statistics.comparisons import requests_factor
from lab_pipelines.statistics.estimate import CONFIDENCE
from lab_pipelines.statistics.means import BATCHES
from lab_pipelines.statistics.multiple import simultaneous
from lab_pipelines.statistics.quantiles import needed_for
from lab_pipelines.statistics.stages import OF_ALL_REQUESTS, latency_of

DRAWS = 2000
SHARE = 0.9
SEED = 78

Row = Mapping[str, Any]
DrawColdStart = Callable[[random.Random], float]
"""Seconds of one cold start, drawn from its phases' distributions."""


@dataclass(frozen=True)
class Interval:
    """What the rehearsal gave, and the middle 90 % of what a real run may give."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True)
class RehearsedVariant:
    """One variant's session as it was rehearsed. Seconds are stack seconds."""

    variant: str
    sku: str
    nodes: int
    usd_per_node_hour: Decimal | None
    cold_start_s: float
    outside_s: float
    """Held, but in no stage."""
    stages: Sequence[RehearsedStage]
    draw_cold_start: DrawColdStart
    model_error: float
    """Standard deviation of the logarithm of the model's error."""


@dataclass(frozen=True)
class RehearsedStage:
    variant: str
    step: str
    stage: int
    load: float
    duration_s: float
    hold_s: float
    max_hold_s: float
    requests: int


@dataclass(frozen=True)
class Need:
    """How many requests one side of a finding needs until its interval would clear the threshold."""

    finding: str
    claim: str
    verdict: str
    reason: str
    stages: list[str]
    """Variant, step and load of both sides."""
    requests_rehearsed: int | None
    requests_needed: int | None
    """None: no number of requests decides it, since the effect lies at the threshold."""
    is_least: bool
    """The rehearsal gave no interval to go by: with fewer there is none, and with so many there may not be one."""


@dataclass(frozen=True)
class Outlook:
    """Of one run with all its variants."""

    duration_s: Interval
    node_hours: dict[str, Interval]
    """By SKU."""
    usd: Interval | None
    """None where a price is missing."""
    needs: list[Need]
    open: dict[str, str]
    """Each finding of any kind that the rehearsal leaves open, and why, with what would decide it."""


def outlook(spec: LabSpec, variants: Sequence[RehearsedVariant], findings: Sequence[Row]) -> Outlook:
    """What the rehearsed `variants` and their `findings` (rows of that table) say about a real run."""
    numbers = random.Random(SEED)
    drawn = [[_seconds(variant, numbers) for variant in variants] for _ in range(DRAWS)]
    given = [
        variant.cold_start_s + variant.outside_s + sum(s.duration_s for s in variant.stages) for variant in variants
    ]
    hours: dict[str, Interval] = {}
    for sku in dict.fromkeys(variant.sku for variant in variants):
        weights = [variant.nodes / 3600 if variant.sku == sku else 0.0 for variant in variants]
        hours[sku] = _interval(given, drawn, weights)
    prices = [variant.usd_per_node_hour for variant in variants]
    usd = None
    if None not in prices:
        weights = [v.nodes * float(p or 0) / 3600 for v, p in zip(variants, prices, strict=True)]
        usd = _interval(given, drawn, weights)
    return Outlook(
        duration_s=_interval(given, drawn, [1.0] * len(variants)),
        node_hours=hours,
        usd=usd,
        needs=_needs(spec, [stage for variant in variants for stage in variant.stages], findings),
        open={row["finding"]: row["reason"] for row in findings if row["verdict"] == "inconclusive"},
    )


def _seconds(variant: RehearsedVariant, numbers: random.Random) -> float:
    """One draw of how long a variant holds its nodes."""
    factor = math.exp(numbers.gauss(0.0, variant.model_error))
    return (
        variant.draw_cold_start(numbers)
        + variant.outside_s
        + sum(
            min(max(stage.hold_s, stage.duration_s * factor), stage.max_hold_s)
            if stage.duration_s > stage.hold_s
            else stage.duration_s
            for stage in variant.stages
        )
    )


def _interval(given: Sequence[float], drawn: Sequence[Sequence[float]], weights: Sequence[float]) -> Interval:
    sums = sorted(sum(w * s for w, s in zip(weights, draw, strict=True)) for draw in drawn)
    edge = round(len(sums) * (1 - SHARE) / 2)
    return Interval(sums[edge], sum(w * s for w, s in zip(weights, given, strict=True)), sums[-edge - 1])


def _needs(spec: LabSpec, stages: Sequence[RehearsedStage], findings: Sequence[Row]) -> list[Need]:
    judged = {row["finding"]: row for row in findings}
    needs = []
    for finding in spec.findings:
        row = judged.get(finding.id)
        if row is None or not isinstance(finding, Ratio) or finding.quantity is None:
            continue
        sides = [_side(stages, side) for side in (finding.numerator, finding.denominator)]
        known = [side for side in sides if side is not None]
        requests = min((side.requests for side in known), default=None)
        needs.append(
            Need(
                finding=finding.id,
                claim=finding.claim,
                verdict=row["verdict"],
                reason=row["reason"],
                stages=[f"{side.variant} · {side.step} · {side.load:g}" for side in known],
                requests_rehearsed=requests,
                requests_needed=requests_needed(
                    finding.quantity,
                    threshold=finding.threshold,
                    effect=row["effect"],
                    low=row["interval_low"],
                    high=row["interval_high"],
                    requests=requests or 0,
                    confidence=simultaneous(CONFIDENCE, spec.interval_claims),
                ),
                is_least=row["interval_low"] is None,
            )
        )
    return needs


def requests_needed(
    quantity: str,
    *,
    threshold: float,
    effect: float | None,
    low: float | None,
    high: float | None,
    requests: int,
    confidence: float = CONFIDENCE,
) -> int | None:
    """Requests per stage until a ratio's interval clears `threshold` in 8 of 10 runs, from one that `requests` gave.

    The interval shrinks with the root of the sample (`comparisons.requests_factor`); but never fewer than a quantile's
    takes at all where requests are independent, or than one request for each batch mean. Where `requests` gave no
    interval, more than that: they may depend on each other. None where the effect is as good as at the threshold.
    """
    least = (
        BATCHES
        if quantity in ("throughput", *OF_ALL_REQUESTS)
        else needed_for(latency_of(quantity)[1], confidence=confidence)
    )
    if effect is None or low is None or high is None:
        return max(least, requests + 1)
    factor = requests_factor(effect, low, high, threshold, scale="ratio", confidence=confidence)
    return None if factor is None else max(least, math.ceil(requests * factor))


def _side(stages: Sequence[RehearsedStage], sample: Sample) -> RehearsedStage | None:
    """The stage that a finding is judged on: of several turns the last one's."""
    for stage in reversed(stages):
        if (
            sample.variant in (None, stage.variant)
            and sample.step in (None, stage.step)
            and (sample.load is None or math.isclose(sample.load, stage.load))
        ):
            return stage
    return None
