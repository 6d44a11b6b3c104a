"""A lab's findings, judged from its own rows in the warehouse as soon as they are complete.

Belongs here: which samples a kind of finding is judged on. Doesn't belong here: the judgement itself
(lab_pipelines/statistics/).
"""

from __future__ import annotations

from dataclasses import replace

from lab_pipelines import rows
from lab_pipelines.catalog.spec import Finding, LabSpec
from lab_pipelines.statistics.findings import batch_means, ratio
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


def judge(spec: LabSpec, session: Session, warehouse: Warehouse) -> list[rows.Row]:
    """`findings`: one row per finding of the spec whose stages this run's pace applied."""
    if not spec.findings:
        return []
    arrivals = [(row["at"], row["tokens"]) for row in warehouse.query(_ARRIVALS, [session.session_id])]
    judged = []
    for finding in spec.findings:
        batches = {
            users: _batches(arrivals, warehouse.query(_WINDOW, [session.session_id, users]))
            for users in (finding.numerator_users, finding.denominator_users)
        }
        judged.append(_row(session, finding, batches))
    return judged


def _batches(arrivals: list[tuple[float, float]], windows: list[rows.Row]) -> list[float]:
    """Batch means of tokens per wall second; their ratio is the same in stack time. Empty without the stage."""
    if not windows:
        return []
    return batch_means(arrivals, start=windows[0]["start"], end=windows[0]["end_"], batches=BATCHES)


def _row(session: Session, finding: Finding, batches: dict[int, list[float]]) -> rows.Row:
    judgement = ratio(
        batches[finding.numerator_users],
        batches[finding.denominator_users],
        comparison=finding.comparison,
        threshold=finding.threshold,
    )
    if left_out := [users for users, means in batches.items() if not means]:
        stages = " and ".join(f"{users} users" for users in left_out)
        judgement = replace(judgement, reason=f"pace {session.pace} has no stage with {stages}")
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
