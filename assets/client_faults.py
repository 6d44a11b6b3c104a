"""Stages that say nothing about the stack, because the load generator was over its own error budget in them.

Belongs here: whether a finding rests on such a stage. Doesn't belong here: what the budget is
(lab_pipelines/client_errors.py), or the judgement itself (findings.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab_pipelines.catalog.claims import Cliff, Finding, Monotone, Ordering, Ratio, Sample, samples_of
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.client_errors import OVER
from lab_pipelines.rows import Row
from resources.warehouse import Warehouse

_FAULTS = """
    SELECT load, client_fault FROM stage_table
    WHERE run_id = $run_id AND client_fault IS NOT NULL AND step = $step
      AND ($variant IS NULL OR variant = $variant)
      AND ($load IS NULL OR users = $load OR abs(offered_per_s - $load) < 1e-6)
    ORDER BY stage
"""


def client_fault(spec: LabSpec, finding: Finding, sessions: Sequence[Row], warehouse: Warehouse) -> str | None:
    """Why a finding on what the client measured can't be decided, if a stage that it rests on is over budget."""
    for sample in _samples(spec, finding):
        step = sample.step or spec.load_steps[0].name
        asked = {"run_id": sessions[0]["run_id"], "step": step, "variant": sample.variant, "load": sample.load}
        for stage in warehouse.query(_FAULTS, asked, within={"run_id": sessions[0]["run_id"]}):
            return f"{OVER} at {stage['load']} of {step}: {stage['client_fault']}"
    return None


def _samples(spec: LabSpec, finding: Finding) -> Iterator[Sample]:
    """What a finding takes from the client's own rows. Measures have values, or gaps with reasons, of their own."""
    match finding:
        case Ratio(measure=None):
            yield from (finding.numerator, finding.denominator)
        case Monotone() | Ordering() | Cliff():
            step = next(one for one in spec.load_steps if finding.step in (None, one.name))
            yield from samples_of(finding, step.loads)
        case _:
            return
