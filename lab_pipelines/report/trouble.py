"""What failed on one target, what is missing, and why: what a reader has to know before believing the rest.

Belongs here: which troubles there are and how each is said. Doesn't belong here: finding them (sql/*.sql, findings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab_pipelines.report.read import Section
from lab_pipelines.report.wording import Row, number, percent

MOST = 30
"""Lines of one kind; where there are more, the table says so and names the question that has them all."""


@dataclass(frozen=True)
class Kind:
    """One kind of trouble, as a table."""

    name: str
    columns: tuple[str, ...]
    lines: list[tuple[str, ...]]
    """Provenance, lab, then a cell for each of `columns`."""
    ask: str
    """What `labs sql` answers with all of them."""

    @property
    def shown(self) -> list[tuple[str, ...]]:
        return self.lines[:MOST]

    @property
    def left_out(self) -> int:
        return len(self.lines) - len(self.shown)


def trouble_of(sections: Sequence[Section], rows: Mapping[str, Sequence[Row]]) -> list[Kind]:
    """The troubles of one target that there are. `rows` by question, of that target alone; see `read.TROUBLE`."""
    kinds = [
        Kind("Runs that were cut, or never released their stack", ("run", "why"), _cut(rows["cut_runs"]), "runs"),
        Kind(
            "Rows without the rows that they belong to",
            ("what is there", "what is missing", "rows", "newest run"),
            _incomplete(rows["incomplete"]),
            "select * from stack_sessions",
        ),
        Kind("Steps that failed", ("variant", "step", "runs", "why"), _steps(rows["failed_steps"]), "runs"),
        Kind("Variants that their engine refused", ("variant", "what it said"), _refused(sections), "runs"),
        Kind("Claims that were refuted", ("claim", "why"), _claims(sections, "refuted"), "findings"),
        Kind("Claims that stay open", ("claim", "why"), _claims(sections, "inconclusive"), "findings"),
        Kind(
            "Requests that don't count",
            ("why", "requests", "of all"),
            _invalid(rows["invalid_rows"]),
            "client_honesty",
        ),
        Kind("Numbers that are missing", ("measure", "why", "sessions"), _gaps(rows["gap_reasons"]), "gaps"),
    ]
    return [kind for kind in kinds if kind.lines]


def _cut(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [(row["provenance"], row["lab"], row["run_id"], row["reason"]) for row in rows]


def _incomplete(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (row["provenance"], row["lab"], row["has"], row["lacks"], number(row["lacking"], 0), row["run_id"])
        for row in rows
    ]


def _steps(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    found = []
    for row in rows:
        since = "a newer run has got past it; " if row["passed_since"] else ""
        runs = f"{row['runs']}, the last one {row['run_id']}"
        step = f"{row['name']} ({row['kind']})"
        why = since + (row["reason"] or "it gave no reason")
        found.append((row["provenance"], row["lab"], row["variant"], step, runs, why))
    return found


def _refused(sections: Sequence[Section]) -> list[tuple[str, ...]]:
    return [
        (variant["provenance"], section.lab, variant["variant"], variant["refusal"])
        for section in sections
        for variant in section.variants
        if variant["refusal"] is not None
    ]


def _claims(sections: Sequence[Section], verdict: str) -> list[tuple[str, ...]]:
    return [
        (finding["provenance"], section.lab, finding["claim"], finding["reason"])
        for section in sections
        for finding in section.findings
        if finding["verdict"] == verdict
    ]


def _invalid(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            *(row["provenance"], row["lab"], row["reason"]),
            *(number(row["requests"], 0), percent(row["requests"] / row["sent"])),
        )
        for row in rows
    ]


def _gaps(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (row["provenance"], ", ".join(row["labs"]), row["measure"], row["reason"], number(row["sessions"], 0))
        for row in rows
    ]
