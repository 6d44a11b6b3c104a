"""Whether the rows of the lake can be true: what no correct run writes, whoever wrote the file.

Rows are held to the contract when they are published (contract.py). A file may be of another version, of another
machine with a wrong clock, restored in part, or put there by hand; a page that is printed and mailed must not show a
number that came of that. So what is asked here stops the page, with the run and its files named.

Doesn't belong here: files that can't be read, or lie in a wrong place (lake.py); rows that are merely missing, which
are gaps and are shown as such (the report's sql/incomplete.sql).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab_pipelines.words import counted
from resources.contract import Table, WarehouseError
from resources.lake_sql import quoted

if TYPE_CHECKING:
    import duckdb

CLOCKS_DIFFER_BY = timedelta(days=1)
"""A row that was recorded later than now by more is of a machine with a wrong clock, and would pass for the newest."""
LONGEST_S = 10 * 365 * 86_400.0
"""Stack seconds of anything: ten years."""
MOST = 10**12
"""Of anything that is counted in one stage: tokens at a million per second would take eleven days."""
NAMED = 5
"""Problems that one message names."""

_NEVER_NEGATIVE = {
    "stack_sessions": (
        *("node_ready_s", "driver_ready_s", "image_pulled_s", "model_loaded_s", "engine_ready_s", "first_token_s"),
        *("cold_start_s", "held_s", "nodes"),
    ),
    "events": ("duration_s",),
    "load_stages": ("duration_s", "duration_wall_s", "requests_in_stage", "requests_ok", "output_tokens", "users"),
    "requests": ("ttft_s", "e2e_s", "tpot_s", "input_tokens", "output_tokens"),
    "cost_records": ("PricingQuantity", "ListUnitPrice", "ListCost"),
    "finops_sheet": ("node_hours", "usd", "usd_per_1k_tokens", "requests", "input_tokens", "output_tokens"),
    "findings": ("n",),
}
_IN_ORDER = {
    "stack_sessions": (("requested_at", "ready_at"), ("ready_at", "released_at")),
    "events": (("started_at", "ended_at"),),
    "load_stages": (("started_at", "ended_at"),),
    "requests": (("sent_at", "finished_at"),),
    "cost_records": (("ChargePeriodStart", "ChargePeriodEnd"),),
}
_WRITTEN_ONCE = ("stack_sessions", "load_stages", "metric_summaries", "cost_records", "finops_sheet", "findings")
"""Tables of which no two rows are the same in every column."""
_OF_ONE_SESSION = (*_WRITTEN_ONCE, "requests")
"""Tables whose rows carry their session's lab, target and provenance. (What `reclaims` draws is always modelled.)"""


class Rule(NamedTuple):
    broken: str
    """SQL: true of a row that can't be."""
    said: str


def require_sound(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Table], root: Path, *, now: datetime | None = None
) -> None:
    """Hold what `tables` give to what can be true. Raises `WarehouseError`, a line for each run that is wrong.

    `connection` has a table or view of each name; `root` is the lake's folder.
    """
    latest = (now or datetime.now(UTC)) + CLOCKS_DIFFER_BY
    found = [
        *(one for table in tables.values() for one in _broken_rules(connection, table, latest)),
        *(one for name in _WRITTEN_ONCE if name in tables for one in _doubled(connection, name)),
        *_mixed(connection, [name for name in _OF_ONE_SESSION if name in tables]),
        *(_miscounted(connection) if {"requests", "load_stages"} <= tables.keys() else ()),
    ]
    if found:
        more = [f"and {len(found) - NAMED} more"] * (len(found) > NAMED)
        raise WarehouseError("\n".join([*(_explained(root, *one) for one in found[:NAMED]), *more]))


def rules_of(table: Table, latest: datetime) -> list[Rule]:
    """What a row of the table can't be."""
    rules = [Rule(f"{quoted(column)} IS NULL", f"no {column}") for column in sorted(table.required)]
    rules += [Rule(f"NOT ({check})", f"against the rule {check} of {table.source.name}") for check in table.checks]
    for column, kind in table.types.items():
        if kind in ("DOUBLE", "FLOAT"):
            rules.append(Rule(f"NOT isfinite({quoted(column)})", f"no finite {column}"))
        elif kind in ("DOUBLE[]", "FLOAT[]"):
            ends = " AND ".join(f"isfinite({end}({quoted(column)}))" for end in ("list_min", "list_max"))
            rules.append(Rule(f"NOT ({ends})", f"no finite {column}"))
    for column in _NEVER_NEGATIVE.get(table.name, ()):
        most = LONGEST_S if column.endswith("_s") else MOST
        rules.append(Rule(f"{quoted(column)} < 0", f"a negative {column}"))
        rules.append(Rule(f"{quoted(column)} > {most:.0f}", f"a {column} beyond anything that can be"))
    for earlier, later in _IN_ORDER.get(table.name, ()):
        rules.append(Rule(f"{quoted(later)} < {quoted(earlier)}", f"{later} before {earlier}"))
    rules.append(Rule(f"recorded_at > TIMESTAMPTZ '{latest.isoformat()}'", "recorded in the future"))
    return rules


_Problem = tuple[str, str, str, str, str]
"""Table, target, lab, run, what is wrong."""


def _broken_rules(connection: duckdb.DuckDBPyConnection, table: Table, latest: datetime) -> Iterator[_Problem]:
    rules = rules_of(table, latest)
    counts = ", ".join(f"count(*) FILTER ({rule.broken})" for rule in rules)
    [found] = connection.execute(f"SELECT {counts} FROM {quoted(table.name)}").fetchall()
    for rule, count in zip(rules, found, strict=True):
        if count:
            for run in _runs(connection, f"FROM {quoted(table.name)} WHERE {rule.broken}"):
                yield table.name, *run[:3], f"{counted(run[3], 'row')}: {rule.said}"


def _doubled(connection: duckdb.DuckDBPyConnection, name: str) -> Iterator[_Problem]:
    twice = f"(SELECT *, count(*) AS times FROM {quoted(name)} GROUP BY ALL HAVING times > 1)"
    for run in _runs(connection, f"FROM {twice}"):
        yield name, *run[:3], f"{counted(run[3], 'row')}: there more than once"


def _mixed(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> Iterator[_Problem]:
    """Sessions whose rows say that they are of several labs, targets or provenances; each with one of its files."""
    if not names:
        return
    said = " UNION ".join(
        f"SELECT session_id, lab, target, provenance, run_id, '{name}' AS t FROM {quoted(name)}" for name in names
    )
    for at, session, who in connection.execute(
        f"SELECT max(row(t, target, lab, run_id)), session_id, "
        "list_sort(list(DISTINCT concat_ws(' ', lab, target, provenance))) AS who "
        f"FROM ({said}) GROUP BY session_id HAVING len(who) > 1 ORDER BY session_id"
    ).fetchall():
        yield *at, f"the rows of session {session} say that they are of {' and of '.join(who)}"


def _miscounted(connection: duckdb.DuckDBPyConnection) -> Iterator[_Problem]:
    """Stages that have some of the requests that they counted, or too many. One that has none is a gap."""
    for row in connection.execute(
        "WITH sent AS ("
        "    SELECT session_id, step, stage, count(*) AS requests FROM requests WHERE in_stage GROUP BY ALL"
        ") "
        "SELECT target, lab, run_id, step, stage, requests_in_stage, requests "
        "FROM load_stages JOIN sent USING (session_id, step, stage) "
        "WHERE requests <> requests_in_stage ORDER BY ALL"
    ).fetchall():
        yield "requests", *row[:3], f"stage {row[4]} of {row[3]} counted {row[5]}, and the lake has {row[6]}"


def _runs(connection: duckdb.DuckDBPyConnection, source: str) -> list[tuple[str, str, str, int]]:
    return connection.execute(
        f"SELECT target, lab, run_id, count(*) {source} GROUP BY target, lab, run_id ORDER BY ALL"
    ).fetchall()


def _explained(root: Path, table: str, target: str, lab: str, run_id: str, what: str) -> str:
    files = root / table / f"target={target}" / f"lab={lab}" / f"{run_id}*.parquet"
    return f"{files}: {what}. Restore the files, or move the run out of the lake and run {lab} again."
