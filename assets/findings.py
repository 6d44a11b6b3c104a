"""A lab's findings, judged from its own rows in the warehouse as soon as they are complete.

Belongs here: which stages and values a kind of finding is judged on. Doesn't belong here: the judgement itself
(lab_pipelines/statistics/), or reading the requests (samples.py).

A finding that compares two variants is told with the numerator's session; one over all variants with the first's. Of a
variant that was walked in several turns the last one's session speaks, as in the view `latest_run`: comparisons of
stages are of that turn alone, those of pairs, bounds, agreements and outcomes of all.
Sessions are rows of `stack_sessions`: a finding on cost is judged when the stack is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from assets.paired_findings import judge_paired
from assets.samples import Samples, Stage
from lab_pipelines.catalog.claims import (
    DEPLOY,
    Agreement,
    Bound,
    Cliff,
    Difference,
    Finding,
    Monotone,
    Ordering,
    Outcomes,
    Paired,
    Quantity,
    Ratio,
    Sample,
    samples_of,
)
from lab_pipelines.catalog.measures import Measure
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.rows.common import Row, common_columns_of
from lab_pipelines.statistics.comparisons import Side, difference, level, ratio
from lab_pipelines.statistics.estimate import CONFIDENCE, refused
from lab_pipelines.statistics.findings import Judgement, agreement, bound, outcomes, plain_ratio
from lab_pipelines.statistics.multiple import simultaneous
from lab_pipelines.statistics.sequences import Step, cliff, every_step
from resources.warehouse import Warehouse, Within

_VALUES = """
    SELECT step, stage, value FROM metric_summaries WHERE session_id = ? AND measure = ? ORDER BY window_start
"""
_OUTCOMES = """
    SELECT name, outcome FROM events
    WHERE session_id = ? AND kind NOT IN ('cold_start', 'milestone') AND outcome <> 'skipped'
"""


@dataclass(frozen=True)
class _Judge:
    """What all findings of one run are judged on. `samples` are read as they are asked for."""

    spec: LabSpec
    sessions: Sequence[Row]
    warehouse: Warehouse
    samples: Samples

    @property
    def confidence(self) -> float:
        return simultaneous(CONFIDENCE, self.spec.interval_claims)


def judge(
    spec: LabSpec,
    sessions: Sequence[Row],
    warehouse: Warehouse,
    *,
    after_cost: bool = False,
    samples: Samples | None = None,
) -> list[Row]:
    """`findings`: one row per finding of the spec; `sessions` are the run's, one per variant and turn, as walked.

    With `after_cost` those that need the run's own cost, without it all others. `samples` are the sessions' requests
    where somebody has read them already.
    """
    of = _Judge(spec, sessions, warehouse, samples or Samples(warehouse, spec.objective))
    return [_judged(of, finding) for finding in spec.findings if spec.is_judged_after_cost(finding) == after_cost]


def _judged(of: _Judge, finding: Finding) -> Row:
    spec, sessions, warehouse = of.spec, of.sessions, of.warehouse
    match finding:
        case Ratio() | Difference():
            judgement = _compared_stages(of, finding)
        case Monotone() | Ordering() | Cliff():
            judgement = _sequence(of, finding)
        case Paired():
            judgement = judge_paired(finding, sessions, partial(_of_visit, of, finding), confidence=of.confidence)
        case Bound():
            judgement = _bound(of, finding)
        case Agreement():
            reference = dict(_values(spec, finding.of, sessions, warehouse))
            values = _values(spec, finding.measure, sessions, warehouse)
            judgement = agreement(
                [(value, reference.get(where)) for where, value in values], tolerance=finding.tolerance
            )
        case Outcomes():
            judgement = _outcomes(spec, finding, _chosen(finding.variant, sessions), warehouse)
    if finding.by_interval and (claims := spec.interval_claims) > 1:
        at_once = f"the lab's {claims} claims on intervals hold at once with {CONFIDENCE * 100:g} % (Bonferroni)"
        judgement = replace(judgement, method=f"{judgement.method}; {at_once}")
    told_with = _session(_variant_of(finding), sessions)
    if told_with is None:
        return _row(_session(None, sessions) or sessions[0], finding, _not_walked(judgement, finding))
    return _row(told_with, finding, judgement)


def _not_walked(judgement: Judgement, finding: Finding) -> Judgement:
    reason = f"variant {_variant_of(finding)} was not walked in this run"
    return replace(judgement, verdict="inconclusive", reason=reason)


def _variant_of(finding: Finding) -> str | None:
    """The variant whose session tells of a finding; None: the first one's."""
    if finding.sides:
        return finding.sides[0].variant
    return finding.variants[0] if isinstance(finding, Ordering) else getattr(finding, "variant", None)


def _of_visit(of: _Judge, finding: Paired, session: Row) -> float | str:
    """What one session gives to its turn's pair, or why it has nothing to give."""
    found = _stage(replace(of, sessions=[session]), finding.sample(session["variant"]))
    if isinstance(found, str):
        return found
    if finding.measure is not None:
        value = _value(finding.measure, *found, of.warehouse)
        return f"{finding.measure} is a gap" if value is None else value
    assert finding.quantity is not None
    _, stage = found
    if stage.fault is not None:
        return stage.fault
    estimate = stage.sample.estimate(finding.quantity, shape=finding.shape)
    return estimate.reason or "it has no such value" if estimate.value is None else estimate.value


def _compared_stages(of: _Judge, finding: Ratio | Difference) -> Judgement:
    against = {"comparison": finding.comparison, "threshold": finding.threshold}
    if isinstance(finding, Ratio) and finding.measure is not None:
        stages = [_stage(of, side) for side in finding.sides]
        missing = next((stage for stage in stages if isinstance(stage, str)), None)
        values = [None if isinstance(stage, str) else _value(finding.measure, *stage, of.warehouse) for stage in stages]
        judgement = plain_ratio(*values, **against)
        return replace(judgement, reason=missing) if missing else judgement
    assert finding.quantity is not None
    sides = [_side(of, finding.quantity, sample, of.confidence) for sample in finding.sides]
    compare = ratio if isinstance(finding, Ratio) else difference
    return compare(*sides, **against, confidence=of.confidence)


def _bound(of: _Judge, finding: Bound) -> Judgement:
    against = {"comparison": finding.comparison, "threshold": finding.threshold}
    if finding.quantity is not None:
        side = _side(of, finding.quantity, finding.sides[0], of.confidence)
        return level(side, **against, confidence=of.confidence)
    assert finding.measure is not None
    values = _values(of.spec, finding.measure, _chosen(finding.variant, of.sessions), of.warehouse)
    return bound([value for _, value in values], **against)


def _sequence(of: _Judge, finding: Monotone | Ordering | Cliff) -> Judgement:
    """Neighbouring loads of one variant, or variants in their order, each over the one before it."""
    step = next(one for one in of.spec.load_steps if finding.step in (None, one.name))
    samples = samples_of(finding, step.loads)
    confidence = simultaneous(of.confidence, len(samples) - 1)
    # A pace may leave out the high stages of a ramp; a claim about all of them is then open.
    sides = [_side(of, finding.quantity, sample, confidence) for sample in samples]
    names = [str(one.variant) if isinstance(finding, Ordering) else f"{one.load:g}" for one in samples]
    against = {"comparison": finding.comparison, "threshold": finding.threshold, "confidence": confidence}
    steps = [
        Step(f"{before} → {after}", ratio(later, earlier, **against))
        for (before, earlier), (after, later) in pairwise(zip(names, sides, strict=True))
    ]
    if isinstance(finding, Cliff):
        return cliff(steps, step.loads.index(finding.after), **against)
    return every_step(steps, **against)


def _side(of: _Judge, quantity: Quantity, sample: Sample, confidence: float) -> Side:
    """The estimate of a quantity in the stage that a side of a comparison means, and how it drifts there."""
    found = _stage(of, sample)
    if isinstance(found, str):
        return Side("", refused(None, 0, "no such stage", found))
    _, stage = found
    name = " ".join([*([sample.variant] if sample.variant else []), stage.step, stage.load])
    if stage.fault is not None:
        return Side(name, refused(None, 0, "nothing valid", stage.fault))
    estimate = stage.sample.estimate(quantity, shape=sample.shape, confidence=confidence)
    steady = stage.sample.steadiness(quantity, shape=sample.shape)
    drift = steady.drift if steady is not None and steady.state in ("trend", "level_shift") else None
    return Side(name, estimate, drift=drift or 0.0)


def _stage(of: _Judge, sample: Sample) -> tuple[Row, Stage] | str:
    """The stage that a side means, with its session, or why there is none. The spec's rules leave but one choice."""
    session = _session(sample.variant, [one for one in of.sessions if one["refusal"] is None])
    if session is None:
        refused_one = _session(sample.variant, of.sessions)
        if refused_one is not None:
            return f"the engine of variant {refused_one['variant']} was refused, so it served no load"
        return f"variant {sample.variant} was not walked in this run"
    step = sample.step or of.spec.load_steps[0].name
    found = next((stage for stage in of.samples.of(session) if stage.has(step, sample.load)), None)
    if found is None:
        load = f" with load {sample.load:g}" if sample.load is not None else ""
        return f"pace {session['pace']} has no stage of {step}{load}"
    return session, found


def _value(measure: str, session: Row, stage: Stage, warehouse: Warehouse) -> float | None:
    found = {
        (row["step"], row["stage"]): row["value"]
        for row in warehouse.query(_VALUES, [session["session_id"], measure], within=_run(session))
    }
    return found.get((stage.step, stage.stage))


def _values(
    spec: LabSpec, measure: str, sessions: Sequence[Row], warehouse: Warehouse
) -> list[tuple[tuple[str, str | None, int | None], float | None]]:
    """A measure's values by session, step and stage; no step is the whole run, a value of None a gap."""
    chosen = sessions[-1:] if _of(spec, measure).over == "variants" else sessions
    return [
        ((session["session_id"], row["step"], row["stage"]), row["value"])
        for session in chosen
        for row in warehouse.query(_VALUES, [session["session_id"], measure], within=_run(session))
    ]


def _of(spec: LabSpec, measure: str) -> Measure:
    return next(one for one in spec.measures if one.name == measure)


def _outcomes(spec: LabSpec, finding: Outcomes, sessions: Sequence[Row], warehouse: Warehouse) -> Judgement:
    ended: dict[str, str] = {}
    wanted: list[str] = []
    for session in sessions:
        visit = session["variant"] if session["trial"] == 1 else f"{session['variant']}, turn {session['trial']}"
        for row in warehouse.query(_OUTCOMES, [session["session_id"]], within=_run(session)):
            ended[f"{visit}: {row['name']}"] = row["outcome"]
        # The steps of a variant that did not come up were not to be walked.
        elsewhere = {step.name for step in spec.flat_steps if not step.is_of(session["variant"])}
        steps = [name for name in finding.steps if name not in elsewhere]
        steps = steps if session["refusal"] is None else [name for name in steps if name == DEPLOY]
        wanted += [f"{visit}: {name}" for name in steps]
    if len(sessions) == 1:  # no other variant whose steps could be meant
        ended = {name.partition(": ")[2]: outcome for name, outcome in ended.items()}
        wanted = [name.partition(": ")[2] for name in wanted]
    return outcomes(ended, wanted)


def _chosen(variant: str | None, sessions: Sequence[Row]) -> list[Row]:
    return [session for session in sessions if variant in (None, session["variant"])]


def _session(variant: str | None, sessions: Sequence[Row]) -> Row | None:
    """The session that speaks for a variant, None the first one: of several turns the last."""
    found = _chosen(variant or sessions[0]["variant"], sessions) if sessions else []
    return found[-1] if found else None


def _run(session: Row) -> Within:
    """All that a finding is judged on."""
    return {"run_id": session["run_id"]}


def _row(session: Row, finding: Finding, judgement: Judgement) -> Row:
    return {
        **common_columns_of(session),
        "finding": finding.id,
        "claim": finding.claim,
        "verdict": judgement.verdict,
        "effect": judgement.effect,
        "interval_low": judgement.low,
        "interval_high": judgement.high,
        "n": judgement.n,
        "method": judgement.method,
        "reason": judgement.reason,
    }
