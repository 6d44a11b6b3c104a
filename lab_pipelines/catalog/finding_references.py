"""What the findings of a lab may refer to: variants, steps, loads and measures that it has. Pure.

Doesn't belong here: the shape of a finding (claims.py), or how the other parts of a spec fit together (spec.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import get_args

from lab_pipelines.catalog.claims import (
    DEPLOY,
    Bound,
    Cliff,
    Finding,
    Latency,
    Monotone,
    Ordering,
    Outcomes,
    Paired,
    Ratio,
    Sample,
    samples_of,
)
from lab_pipelines.catalog.measures import Measure
from lab_pipelines.catalog.slo import Slo
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.catalog.steps import AnyStep, LoadStep
from lab_pipelines.statistics.paired import MIN_PAIRS


def require_findings_hold(
    findings: Sequence[Finding],
    *,
    variants: Sequence[Variant],
    steps: Sequence[AnyStep],
    measures: Sequence[Measure],
    turns: int,
    objective: Slo | None,
) -> None:
    """Raise `ValueError` for a finding that refers to what its lab lacks, or leaves out what has several choices.

    `steps` are all of the lab's, causes of alerts included; `objective` is what a request must keep to be useful.
    """
    over = {measure.name: measure.over for measure in measures}
    load_steps = {step.name: step for step in steps if isinstance(step, LoadStep)}
    for finding in findings:
        where = f"findings: {finding.id}"
        for side in finding.sides:
            _require_sample_holds(side, where, variants, load_steps)
        if isinstance(finding, Monotone | Ordering | Cliff):
            _require_sequence_holds(finding, where, variants, load_steps)
        if isinstance(finding, Paired) and turns < MIN_PAIRS:
            raise ValueError(f"{where} compares pairs of one turn and takes {MIN_PAIRS}; turns is {turns}")
        if isinstance(finding, Outcomes):
            names = [DEPLOY, *(step.name for step in steps)]
            if unknown := [name for name in finding.steps if name not in names]:
                raise ValueError(f"{where} names {', '.join(unknown)}, which is not one of the steps")
        if objective is None and str(getattr(finding, "quantity", None)).startswith("goodput"):
            raise ValueError(f"{where} is about goodput; give the lab an slo")
        if unknown := [name for name in finding.measures if name not in over]:
            raise ValueError(f"{where} names {', '.join(unknown)}, which is not one of the measures")
        whole = [over[name] in ("run", "variants") for name in finding.measures]
        if isinstance(finding, Ratio | Paired) and any(whole):
            raise ValueError(f"{where} compares stages; {finding.measures[0]} is of a whole run")
        if len(set(whole)) > 1:
            raise ValueError(f"{where} compares a measure of the run with one of its stages")
        if isinstance(finding, Bound | Outcomes) and finding.variant not in (
            None,
            *(variant.id for variant in variants),
        ):
            raise ValueError(f"{where} names variant {finding.variant}, which the lab lacks")


def _require_sequence_holds(
    finding: Monotone | Ordering | Cliff, where: str, variants: Sequence[Variant], steps: Mapping[str, LoadStep]
) -> None:
    """A step and the shape of its requests, and at least two loads, or several variants at one of them."""
    for sample in samples_of(finding, [_a_load(finding, where, steps)]):
        _require_sample_holds(sample, where, variants, steps)
    loads = _loads(finding, where, steps)
    if finding.shape is not None and finding.quantity not in get_args(Latency):
        raise ValueError(f"{where}: only latencies can be told apart by the request's shape")
    if not isinstance(finding, Ordering) and len(loads) < 2:
        raise ValueError(f"{where}: the step has but one load, and no neighbour to compare it with")
    if not isinstance(finding, Ordering) and any(after <= before for before, after in pairwise(loads)):
        listed = ", ".join(f"{load:g}" for load in loads)
        raise ValueError(f"{where} goes from each load to the next, which must be higher; the step has {listed}")
    if isinstance(finding, Cliff) and finding.after not in loads[:-1]:
        listed = ", ".join(f"{load:g}" for load in loads[:-1])
        raise ValueError(f"{where}: after is {finding.after:g}; give the load before the cliff, one of: {listed}")
    if isinstance(finding, Ordering) and len(set(finding.variants)) < len(finding.variants):
        raise ValueError(f"{where}: a variant is listed twice")


def _loads(finding: Monotone | Ordering | Cliff, where: str, steps: Mapping[str, LoadStep]) -> list[float]:
    if finding.step is None and len(steps) != 1:
        raise ValueError(f"{where}: give the step, one of: {', '.join(steps)}")
    name = finding.step or next(iter(steps))
    if name not in steps:
        raise ValueError(f"{where}: {name} is not one of the load steps: {', '.join(steps)}")
    return steps[name].loads


def _a_load(finding: Monotone | Ordering | Cliff, where: str, steps: Mapping[str, LoadStep]) -> float | None:
    return finding.load if isinstance(finding, Ordering) else next(iter(_loads(finding, where, steps)), None)


def _require_sample_holds(
    sample: Sample, where: str, variants: Sequence[Variant], steps: Mapping[str, LoadStep]
) -> None:
    """Every field that is left out must have but one choice."""
    up = [variant.id for variant in variants if variant.refused is None]
    if sample.variant is None and len(up) > 1:
        raise ValueError(f"{where}: give the variant, one of: {', '.join(up)}")
    if sample.variant is not None and sample.variant not in up:
        raise ValueError(f"{where}: no variant {sample.variant} comes up; there are: {', '.join(up)}")
    if sample.step is None and len(steps) > 1:
        raise ValueError(f"{where}: give the step, one of: {', '.join(steps)}")
    if not steps or (sample.step is not None and sample.step not in steps):
        raise ValueError(f"{where}: {sample.step} is not one of the load steps: {', '.join(steps)}")
    step = steps[sample.step] if sample.step else next(iter(steps.values()))
    if sample.load is None and len(step.loads) > 1:
        raise ValueError(f"{where}: give the load, one of: {', '.join(f'{load:g}' for load in step.loads)}")
    if sample.load is not None and (found := step.loads.count(sample.load)) != 1:
        which = "no stage" if found == 0 else f"not one stage but {found}"
        raise ValueError(f"{where}: {which} of {step.name} has load {sample.load:g}")
    if sample.shape is not None and sample.shape >= len(step.requests):
        raise ValueError(f"{where}: {step.name} has {len(step.requests)} shapes, counted from 0")
