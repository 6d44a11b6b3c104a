"""Findings of kind `paired`: each turn's two visits are a pair, and the pairs are judged together.

Belongs here: which visits are a pair, and what becomes of one that isn't whole.
Doesn't belong here: what a visit gives to its pair (findings.py), the judgement (lab_pipelines/statistics/paired.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lab_pipelines.catalog.claims import Paired
from lab_pipelines.rows.common import Row
from lab_pipelines.statistics.findings import Judgement
from lab_pipelines.statistics.paired import judge_pairs


def judge_paired(
    finding: Paired, sessions: Sequence[Row], value_of: Callable[[Row], float | str], *, confidence: float
) -> Judgement:
    """The verdict on a run's `sessions`, rows of `stack_sessions`; `value_of` gives one's value, or why it has none.

    A turn without both values is no pair. It is left out, and the reason says so: what is missing may be missing
    because of what is compared.
    """
    by_turn: dict[int, dict[str, Row]] = {}
    for session in sessions:
        by_turn.setdefault(session["trial"], {})[session["variant"]] = session
    pairs, left_out = list[tuple[float, float]](), list[str]()
    for turn, visited in sorted(by_turn.items()):
        sides = [_side(name, visited, value_of) for name in (finding.variant, finding.over)]
        above, below = sides
        if isinstance(above, float) and isinstance(below, float):
            pairs.append((above, below))
        else:
            said = next(side for side in sides if isinstance(side, str))
            left_out.append(f"turn {turn} is left out: {said}")
    judged = judge_pairs(
        [above for above, _ in pairs],
        [below for _, below in pairs],
        comparison=finding.comparison,
        threshold=finding.threshold,
        confidence=confidence,
    )
    return replace(judged, reason="; ".join([judged.reason, *left_out])) if left_out else judged


def _side(variant: str, visited: dict[str, Row], value_of: Callable[[Row], float | str]) -> float | str:
    if variant not in visited:
        return f"variant {variant} was not walked in it"
    value = value_of(visited[variant])
    return f"{variant}: {value}" if isinstance(value, str) else float(value)
