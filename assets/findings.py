"""A lab's findings, judged from its own rows in the warehouse as soon as they are complete.

Belongs here: which samples a kind of finding is judged on. Doesn't belong here: the judgement itself
(lab_pipelines/statistics/).

A finding that compares two variants is told with the numerator's session; one over all variants with the first's. Of a
variant that was walked in several turns the last one's session speaks, as in the view `latest_run`: comparisons of
stages are of that turn alone, those of pairs, bounds, agreements and outcomes of all.
Sessions are rows of `stack_sessions`: a finding on cost is judged when the stack is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Literal, NamedTuple

from assets.client_faults import client_fault
from assets.paired_findings import judge_paired
from lab_pipelines import rows
from lab_pipelines.catalog.claims import (
    DEPLOY,
    Agreement,
    Bound,
    Cliff,
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
from lab_pipelines.catalog.spec import LabSpec, Measure
from lab_pipelines.statistics import quantiles
from lab_pipelines.statistics.estimate import CONFIDENCE
from lab_pipelines.statistics.findings import (
    Judgement,
    agreement,
    batch_means,
    bound,
    outcomes,
    plain_ratio,
    quantile_ratio,
    ratio,
)
from lab_pipelines.statistics.multiple import simultaneous
from lab_pipelines.statistics.sequences import Step, cliff, every_step
from resources.warehouse import Warehouse, Within

BATCHES = 10

_ARRIVALS = """
    -- Summed by a hundredth of a batch, since a stage has up to a million events.
    SELECT $start + (slice + 0.5) * $width AS at_s, sum(tokens) AS tokens
    FROM (
        SELECT floor((epoch(scheduled_at) + unnest(event_offsets_s) / time_scale - $start) / $width) AS slice,
               output_tokens / len(event_offsets_s) AS tokens
        FROM requests
        WHERE session_id = $session_id AND step = $step AND len(event_offsets_s) > 0
    )
    GROUP BY slice ORDER BY slice  -- in any other order a batch's sum differs in its last digit from run to run
"""
_STAGES = """
    SELECT stage, epoch(started_at) AS start_s, epoch(ended_at) AS end_s
    FROM load_stages
    WHERE session_id = $session_id AND step = $step
      AND ($load IS NULL OR users = $load OR abs(offered_per_s - $load) < 1e-6)
    ORDER BY stage
"""
_LATENCIES = """
    SELECT {column} AS latency_s FROM requests
    WHERE session_id = $session_id AND step = $step AND stage = $stage AND valid AND in_stage
      AND ($shape IS NULL OR shape = $shape) AND {column} IS NOT NULL
"""
_VALUES = """
    SELECT step, stage, value FROM metric_summaries WHERE session_id = ? AND measure = ? ORDER BY window_start
"""
_OUTCOMES = """
    SELECT name, outcome FROM events
    WHERE session_id = ? AND kind NOT IN ('cold_start', 'milestone') AND outcome <> 'skipped'
"""


class _Stage(NamedTuple):
    """One stage that a side of a ratio takes its rows from. Seconds are Unix time."""

    session: rows.Row
    step: str
    stage: int
    start_s: float
    end_s: float


def judge(
    spec: LabSpec, sessions: Sequence[rows.Row], warehouse: Warehouse, *, after_cost: bool = False
) -> list[rows.Row]:
    """`findings`: one row per finding of the spec; `sessions` are the run's, one per variant and turn, as walked.

    With `after_cost` those that need the run's own cost, without it all others.
    """
    return [
        _judged(spec, finding, sessions, warehouse)
        for finding in spec.findings
        if spec.is_judged_after_cost(finding) == after_cost
    ]


def _judged(spec: LabSpec, finding: Finding, sessions: Sequence[rows.Row], warehouse: Warehouse) -> rows.Row:
    match finding:
        case Ratio():
            told_with = _session(finding.numerator.variant, sessions)
            judgement = _ratio(spec, finding, sessions, warehouse)
        case Monotone() | Ordering() | Cliff():
            variant = finding.variants[0] if isinstance(finding, Ordering) else finding.variant
            told_with = _session(variant, sessions)
            judgement = _sequence(spec, finding, sessions, warehouse)
        case Paired():
            told_with = _session(finding.variant, sessions)
            judgement = judge_paired(finding, sessions, partial(_of_visit, spec, finding, warehouse))
        case Bound():
            told_with = _session(finding.variant, sessions)
            judgement = bound(
                [value for _, value in _values(spec, finding.measure, _chosen(finding.variant, sessions), warehouse)],
                comparison=finding.comparison,
                threshold=finding.threshold,
            )
        case Agreement():
            told_with = _session(None, sessions)
            of = dict(_values(spec, finding.of, sessions, warehouse))
            values = _values(spec, finding.measure, sessions, warehouse)
            judgement = agreement([(value, of.get(where)) for where, value in values], tolerance=finding.tolerance)
        case Outcomes():
            told_with = _session(finding.variant, sessions)
            judgement = _outcomes(spec, finding, _chosen(finding.variant, sessions), warehouse)
    if told_with is None:
        return _row(_session(None, sessions) or sessions[0], finding, _not_walked(judgement, finding))
    if (fault := client_fault(spec, finding, sessions, warehouse)) is not None:
        judgement = replace(judgement, verdict="inconclusive", reason=fault)
    return _row(told_with, finding, judgement)


def _not_walked(judgement: Judgement, finding: Finding) -> Judgement:
    match finding:
        case Ratio():
            variant = finding.numerator.variant
        case Ordering():
            variant = finding.variants[0]
        case _:
            variant = getattr(finding, "variant", None)
    return replace(judgement, verdict="inconclusive", reason=f"variant {variant} was not walked in this run")


def _ratio(spec: LabSpec, finding: Ratio, sessions: Sequence[rows.Row], warehouse: Warehouse) -> Judgement:
    sides = [_stage(spec, side, sessions, warehouse) for side in (finding.numerator, finding.denominator)]
    missing = next((side for side in sides if isinstance(side, str)), None)
    above, below = (side if isinstance(side, _Stage) else None for side in sides)
    threshold = finding.threshold
    if finding.measure is not None:
        values = [_value(finding.measure, side, warehouse) if side else None for side in (above, below)]
        judgement = plain_ratio(*values, comparison=finding.comparison, threshold=threshold)
    else:
        assert finding.quantity is not None
        values = [
            _sampled(finding.quantity, side, sample.shape, warehouse) if side else []
            for side, sample in ((above, finding.numerator), (below, finding.denominator))
        ]
        judgement = _compared(finding.quantity, *values, comparison=finding.comparison, threshold=threshold)
    return replace(judgement, verdict="inconclusive", reason=missing) if missing else judgement


def _of_visit(spec: LabSpec, finding: Paired, warehouse: Warehouse, session: rows.Row) -> float | str:
    """What one session gives to its turn's pair, or why it has nothing to give."""
    stage = _stage(spec, finding.sample(session["variant"]), [session], warehouse)
    if isinstance(stage, str):
        return stage
    if finding.measure is not None:
        value = _value(finding.measure, stage, warehouse)
        return f"{finding.measure} is a gap" if value is None else value
    assert finding.quantity is not None
    if finding.quantity == "throughput":
        return fmean(_batches(stage, warehouse))
    column, quantile = _latency(finding.quantity)
    latencies = _latencies(stage, column, finding.shape, warehouse)
    value = quantiles.quantile(latencies, quantile, in_order=False).value
    return "no valid request began and ended in the stage" if value is None else value


def _sequence(
    spec: LabSpec, finding: Monotone | Ordering | Cliff, sessions: Sequence[rows.Row], warehouse: Warehouse
) -> Judgement:
    """Neighbouring loads of one variant, or variants in their order, each over the one before it."""
    step = next(one for one in spec.load_steps if finding.step in (None, one.name))
    stages = list[tuple[str, Sequence[float] | str]]()
    for sample in samples_of(finding, step.loads):
        stage = _stage(spec, sample, sessions, warehouse)
        name = str(sample.variant) if isinstance(finding, Ordering) else f"{sample.load:g}"
        found = stage if isinstance(stage, str) else _sampled(finding.quantity, stage, sample.shape, warehouse)
        stages.append((name, found))
    # A pace may leave out the high stages of a ramp; a claim about all of them is then open.
    confidence = simultaneous(CONFIDENCE, len(stages) - 1)
    steps = [
        Step(f"{before} → {after}", _step_ratio(finding, later, earlier, confidence))
        for (before, earlier), (after, later) in pairwise(stages)
    ]
    if isinstance(finding, Cliff):
        at = step.loads.index(finding.after)
        return cliff(steps, at, comparison=finding.comparison, threshold=finding.threshold)
    return every_step(steps, comparison=finding.comparison, threshold=finding.threshold)


def _step_ratio(
    finding: Monotone | Ordering | Cliff,
    later: Sequence[float] | str,
    earlier: Sequence[float] | str,
    confidence: float,
) -> Judgement:
    missing = next((side for side in (later, earlier) if isinstance(side, str)), None)
    sides = [[] if isinstance(side, str) else side for side in (later, earlier)]
    judged = _compared(
        finding.quantity, *sides, comparison=finding.comparison, threshold=finding.threshold, confidence=confidence
    )
    return replace(judged, verdict="inconclusive", reason=missing) if missing else judged


def _sampled(quantity: Quantity, stage: _Stage, shape: int | None, warehouse: Warehouse) -> list[float]:
    """What a stage brings to a comparison: batch means of its throughput, or its requests' latencies."""
    if quantity == "throughput":
        return _batches(stage, warehouse)
    return _latencies(stage, _latency(quantity)[0], shape, warehouse)


def _compared(
    quantity: Quantity,
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    comparison: Literal["above", "below"],
    threshold: float,
    confidence: float = CONFIDENCE,
) -> Judgement:
    test = ratio if quantity == "throughput" else partial(quantile_ratio, quantile=_latency(quantity)[1])
    return test(numerator, denominator, comparison=comparison, threshold=threshold, confidence=confidence)


def _stage(spec: LabSpec, sample: Sample, sessions: Sequence[rows.Row], warehouse: Warehouse) -> _Stage | str:
    """The stage that a side of a ratio means, or why there is none. The spec's own rules leave but one choice."""
    session = _session(sample.variant, [one for one in sessions if one["refusal"] is None])
    if session is None:
        return f"variant {sample.variant} was not walked in this run"
    step = sample.step or spec.load_steps[0].name
    asked = {"session_id": session["session_id"], "step": step, "load": sample.load}
    found = warehouse.query(_STAGES, asked, within=_run(session))
    if not found:
        load = f" with {sample.load:g} users" if sample.load is not None else ""
        return f"pace {session['pace']} has no stage of {step}{load}"
    return _Stage(session=session, step=step, **found[0])


def _batches(stage: _Stage, warehouse: Warehouse) -> list[float]:
    """Batch means of tokens per wall second; their ratio is the same in stack time."""
    slices = {"start": stage.start_s, "width": (stage.end_s - stage.start_s) / (100 * BATCHES)}
    asked = {"session_id": stage.session["session_id"], "step": stage.step, **slices}
    found = warehouse.query(_ARRIVALS, asked, within=_run(stage.session))
    arrivals = [(row["at_s"], row["tokens"]) for row in found]
    return batch_means(arrivals, start=stage.start_s, end=stage.end_s, batches=BATCHES)


def _latency(quantity: Quantity) -> tuple[str, float]:
    """Column of `requests` and the quantile, e.g. `ttft_p95`."""
    name, _, percent = quantity.rpartition("_p")
    return f"{name}_s", int(percent) / 100


def _latencies(stage: _Stage, column: str, shape: int | None, warehouse: Warehouse) -> list[float]:
    where = {"session_id": stage.session["session_id"], "step": stage.step, "stage": stage.stage, "shape": shape}
    found = warehouse.query(_LATENCIES.format(column=column), where, within=_run(stage.session))
    return [row["latency_s"] for row in found]


def _value(measure: str, stage: _Stage, warehouse: Warehouse) -> float | None:
    found = {
        (row["step"], row["stage"]): row["value"]
        for row in warehouse.query(_VALUES, [stage.session["session_id"], measure], within=_run(stage.session))
    }
    return found.get((stage.step, stage.stage))


def _values(
    spec: LabSpec, measure: str, sessions: Sequence[rows.Row], warehouse: Warehouse
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


def _outcomes(spec: LabSpec, finding: Outcomes, sessions: Sequence[rows.Row], warehouse: Warehouse) -> Judgement:
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


def _chosen(variant: str | None, sessions: Sequence[rows.Row]) -> list[rows.Row]:
    return [session for session in sessions if variant in (None, session["variant"])]


def _session(variant: str | None, sessions: Sequence[rows.Row]) -> rows.Row | None:
    """The session that speaks for a variant, None the first one: of several turns the last."""
    found = _chosen(variant or sessions[0]["variant"], sessions) if sessions else []
    return found[-1] if found else None


def _run(session: rows.Row) -> Within:
    """All that a finding is judged on."""
    return {"run_id": session["run_id"]}


def _row(session: rows.Row, finding: Finding, judgement: Judgement) -> rows.Row:
    return {
        **rows.common_of(session),
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
