"""How numbers, gaps and provenance read, wherever a person meets them: page, Markdown, terminal.

Doesn't belong here: which numbers are shown (stage_table.py, page.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]
Number = int | float | Decimal

PROVENANCES = ("measured", "modelled")
"""In the order in which a reader meets them."""
VERDICTS = ("confirmed", "refuted", "inconclusive")
GAP = "\N{EN DASH}"
"""An unknown value. Its reason stands in the list of gaps."""
ROUGH = "≈"
"""Precedes a quantile whose sample is too small for a 95 % interval."""
ROUGH_NOTE = f"{ROUGH} too few requests for a 95 % interval: a p95 needs 72 independent ones, a p99 368."
OUTSIDE = "†"
"""Follows the load of a stage for which the engine model was compared with no measurement."""
OUTSIDE_NOTE = f"{OUTSIDE} outside of the range in which the engine model was compared with measurements."
AT_FAULT = "‡"
"""Follows the load of a stage in which the load generator was over its own error budget."""
AT_FAULT_NOTE = (
    f"{AT_FAULT} the load generator was over its own error budget: no request of the stage is valid, and its "
    "throughput is a lower bound"
)
GAP_NOTE = f"{GAP} not known: the gaps list why, unless the lab doesn't ask for it."

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def decimals_for(values: Iterable[Number | None], *, significant: int, at_most: int) -> int:
    """Decimals that give the smallest non-zero value its `significant` digits, so that a column stays aligned."""
    smallest = min((abs(float(v)) for v in values if v), default=1.0)
    return min(max(significant - 1 - math.floor(math.log10(smallest)), 0), at_most)


def number(value: Number | None, decimals: int) -> str:
    """`value` with a thin grouping of thousands; a gap for None."""
    return GAP if value is None else f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def short(value: Number | None, significant: int = 3) -> str:
    """One number on its own, e.g. in a sentence."""
    return number(value, decimals_for([value], significant=significant, at_most=7) if value else 0)


def duration(seconds: float | None) -> str:
    """Stack seconds as a person says them: `42.0 s`, `12 min 48 s`."""
    if seconds is None:
        return GAP
    if seconds < 120:
        return f"{short(seconds)} s"
    return f"{int(seconds + 0.5) // 60} min {int(seconds + 0.5) % 60} s"


def provenance_line(row: Row) -> str:
    """Where a number comes from, in one line. `row` is any row of the warehouse."""
    return f"{origin(row)} · {place(row)}"


def turns_note(variants: Sequence[Row]) -> str | None:
    """Of a run whose variants were walked several times: which turn is shown. Rows of `run_overview`."""
    turns = max(variant["turns"] for variant in variants)
    if turns == 1:
        return None
    return f"turn {turns}, the last of {turns}; the cost and comparisons by pairs are of all turns"


def origin(row: Row) -> str:
    """Whether a row was measured or modelled, and how fast its clock ran."""
    return f"{row['provenance']} · {clock(row)}"


def clock(row: Row) -> str:
    """How fast a row's clock ran."""
    if row.get("target") == "rehearsal":
        return "virtual time"
    scale = row["time_scale"]
    return "real time" if scale == 1 else f"{scale:g} stack s per wall s"


def place(row: Row) -> str:
    """Where a row's stack lived, how long its stages held, and what served it."""
    return f"target {row['target']} · pace {row['pace']} · {engine(row)}"


def engine(row: Row) -> str:
    """What served a row's requests."""
    return "no engine" if row["engine"] == "none" else row["engine"]


def outside_range(row: Row) -> str | None:
    """Why the engine model is not to be trusted for a row; None where it is, and where nothing is modelled."""
    prefix, _, reason = (row["model_range"] or "").partition(": ")
    return reason if prefix == "outside" else None


def percent(share: float | None, *, signed: bool = False) -> str:
    """A relative number: `12 %`, `+12 %`; below ten with a decimal."""
    if share is None:
        return GAP
    decimals = 1 if abs(share) < 0.0995 else 0
    return f"{share * 100:{'+' if signed else ''}.{decimals}f} %"


def loads_of(row: Row) -> float:
    """What a stage applied, as a number: users, requests of a burst, or requests per second."""
    return float(row["offered_per_s"] if row["users"] is None else row["users"])


def in_order(values: Iterable[str]) -> list[str]:
    """Each value once, in the order of their first appearance."""
    return list(dict.fromkeys(values))


def effect(finding: Row) -> str:
    """A finding's effect, and its interval where it has one. Its `method` says with which confidence that holds: all
    of a lab's hold at once with 95 %, so that each alone has more."""
    if finding["effect"] is None:
        return "no effect size"
    if finding["interval_low"] is None or finding["interval_high"] is None:
        return short(finding["effect"])
    return f"{short(finding['effect'])}, interval {short(finding['interval_low'])} to {short(finding['interval_high'])}"


def verdict_counts(counts: Mapping[str, int]) -> str:
    """`3 confirmed, 1 refuted`, from counts by verdict."""
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def gap_place(gap: Row) -> str:
    """Where a number is missing. `gap` has the closed loops' `users`, and the other loads in words."""
    loads = [*([users_text(gap["users"])] if gap["users"] else []), *(gap["loads"] or [])]
    return f"at {', '.join(loads)}" if loads else "whole session"


def gap_variants(gap: Row, variants: Sequence[str]) -> str:
    """Which of a run's variants lack the number: empty where all of them do, and for one of the run as a whole."""
    concerned = [variant for variant in variants if variant in gap["variants"]]
    return "" if len(concerned) in (0, len(variants)) else f" ({', '.join(concerned)})"


def users_text(users: Sequence[int]) -> str:
    """Numbers of concurrent users: `1 user`, `1, 4, 8 users`."""
    return f"{', '.join(str(n) for n in users)} {'user' if list(users) == [1] else 'users'}"


def printable(text: str) -> str:
    """`text` without control characters: a terminal obeys them, and the chart renderer aborts the process on one."""
    if text.isprintable():  # a report of 78 labs asks this of a million characters
        return text
    return "".join(
        c if c.isprintable() or c in "\n\N{NARROW NO-BREAK SPACE}" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def markdown_text(text: object) -> str:
    """Any text as literal Markdown on one line, fit for a table cell."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", printable(" ".join(str(text).split())))
