"""A lab's findings, judged from its own rows in the warehouse as soon as they are complete.

Belongs here: which samples a kind of finding is judged on. Doesn't belong here: the judgement itself
(lab_pipelines/statistics/).
"""

from __future__ import annotations

from dataclasses import replace

from lab_pipelines import rows
from lab_pipelines.catalog.spec import Agreement, Bound, Finding, LabSpec, Outcomes, ThroughputRatio
from lab_pipelines.statistics.findings import Judgement, agreement, batch_means, bound, outcomes, ratio
from resources.cluster import Session
from resources.warehouse import Warehouse

BATCHES = 10

_ARRIVALS = """
    SELECT epoch(r.scheduled_at) + unnest(r.event_offsets_s) / r.time_scale AS at,
           r.output_tokens / len(r.event_offsets_s) AS tokens
    FROM requests r
    WHERE r.session_id = ? AND len(r.event_offsets_s) > 0
"""
_WINDOW = """
    SELECT epoch(started_at) AS start, epoch(ended_at) AS end_
    FROM load_stages WHERE session_id = ? AND users = ?
"""
_VALUES = """
    SELECT step, stage, value FROM metric_summaries WHERE session_id = ? AND measure = ? ORDER BY window_start
"""
_OUTCOMES = "SELECT name, outcome FROM events WHERE session_id = ? AND kind <> 'cold_start'"


def judge(spec: LabSpec, session: Session, warehouse: Warehouse) -> list[rows.Row]:
    """`findings`: one row per finding of the spec."""
    return [_row(session, finding, _judgement(finding, session, warehouse)) for finding in spec.findings]


def _judgement(finding: Finding, session: Session, warehouse: Warehouse) -> Judgement:
    match finding:
        case ThroughputRatio():
            return _throughput_ratio(finding, session, warehouse)
        case Bound():
            values = _values(finding.measure, session, warehouse)
            return bound(list(values.values()), comparison=finding.comparison, threshold=finding.threshold)
        case Agreement():
            of = _values(finding.of, session, warehouse)
            values = _values(finding.measure, session, warehouse)
            return agreement([(value, of.get(where)) for where, value in values.items()], tolerance=finding.tolerance)
        case Outcomes():
            ended = warehouse.query(_OUTCOMES, [session.session_id])
            return outcomes({row["name"]: row["outcome"] for row in ended}, finding.steps)


def _throughput_ratio(finding: ThroughputRatio, session: Session, warehouse: Warehouse) -> Judgement:
    arrivals = [(row["at"], row["tokens"]) for row in warehouse.query(_ARRIVALS, [session.session_id])]
    batches = {
        users: _batches(arrivals, warehouse.query(_WINDOW, [session.session_id, users]))
        for users in (finding.numerator_users, finding.denominator_users)
    }
    judgement = ratio(
        batches[finding.numerator_users],
        batches[finding.denominator_users],
        comparison=finding.comparison,
        threshold=finding.threshold,
    )
    if left_out := [users for users, means in batches.items() if not means]:
        stages = " and ".join(f"{users} users" for users in left_out)
        return replace(judgement, reason=f"pace {session.pace} has no stage with {stages}")
    return judgement


def _batches(arrivals: list[tuple[float, float]], windows: list[rows.Row]) -> list[float]:
    """Batch means of tokens per wall second; their ratio is the same in stack time. Empty without the stage."""
    if not windows:
        return []
    return batch_means(arrivals, start=windows[0]["start"], end=windows[0]["end_"], batches=BATCHES)


def _values(measure: str, session: Session, warehouse: Warehouse) -> dict[tuple[str | None, int | None], float | None]:
    """A measure's value by step and stage; (None, None) is the whole run, a value of None a gap."""
    found = warehouse.query(_VALUES, [session.session_id, measure])
    return {(row["step"], row["stage"]): row["value"] for row in found}


def _row(session: Session, finding: Finding, judgement: Judgement) -> rows.Row:
    return {
        **rows.common(session),
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
