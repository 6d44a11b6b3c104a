"""The bill in the lake: asks for the days that are due, publishes what is new, and reconciles the estimates with it.

Belongs here: reading and publishing bill_days, bill_asks, bill_shares, the billed rows of cost_records, and the sheets
that follow from them.
Doesn't belong here: asking Azure (cost_query.py), what is new (lab_pipelines/bill.py), or whose cost a line is
(lab_pipelines/reconcile.py).

Every window is in the lake as soon as it is answered, so what one run doesn't finish the next one continues. Nothing is
edited: an answer or a reconciliation that says the same as before adds no row, another one adds rows.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any

from lab_pipelines.bill import (
    ALL_LABS,
    Answer,
    BillError,
    BillLine,
    Window,
    ask_row,
    day_end,
    day_rows,
    day_start,
    days_due,
    lines_of,
    windows,
)
from lab_pipelines.files import locked
from lab_pipelines.reconcile import (
    EstimatedSession,
    NodeSpan,
    Outcome,
    Reconciled,
    Row,
    reconcile,
    share_rows,
    share_signature,
)
from lab_pipelines.session_sheets import bring_up_to_date
from resources.billing import Billing
from resources.cluster import ClusterError, Progress
from resources.lake import Within
from resources.warehouse_core import WarehouseCore

_SESSIONS = Path(__file__).with_name("bill_sessions.sql")


class BillStoppedError(ClusterError):
    """Not everything could be asked for. The message says why, and how much was; the cause says what Azure said."""


@dataclass(frozen=True)
class Told:
    """What a reconciliation found."""

    outcomes: Sequence[Outcome]
    """Of every session that held nodes within the days that were asked for."""
    gaps: Sequence[date]
    """Days that were asked for and of which Azure has no data."""
    never_asked: Sequence[date]
    unplaced: Mapping[str, Decimal]
    """Of these days, what no rule could place; by currency."""
    rows: int
    """Rows that were new, in cost_records and bill_shares."""

    @property
    def billed(self) -> int:
        return sum(one.waiting is None for one in self.outcomes)

    @property
    def waiting(self) -> int:
        return len(self.outcomes) - self.billed


@dataclass(frozen=True)
class BillLedger:
    """The bill of one target. Any number of processes may use it at once."""

    warehouse: WarehouseCore
    target: str
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def ask(self, billing: Billing, first: date, last: date, *, within_s: float, progress: Progress) -> list[Answer]:
        """Ask for the days from `first` to `last` whose answer may be another by now, window by window.

        Raises `BillError` for days that make no question, and `BillStoppedError` as soon as a window can't be answered
        within `within_s`: those before are in the lake, and asking again continues behind them.
        """
        due = windows(days_due(first, last, asked=self.asked(), now=self.clock()))
        run_id, until = self._new_run_id(), monotonic() + within_s
        answers = list[Answer]()
        if not due:
            progress(f"{Window(first, last)}: asked for less than four hours ago; Azure has nothing newer")
        for number, window in enumerate(due, start=1):
            progress(f"{window}: asking for window {number} of {len(due)}")
            try:
                answer = billing.ask_bill(window, within_s=until - monotonic(), progress=progress)
            except ClusterError as error:
                raise BillStoppedError(
                    f"{error} ({len(answers)} of {len(due)} windows are answered and kept)"
                ) from error
            new = self._keep(answer, billing.bill_scope, run_id)
            answers.append(answer)
            days = len({key.usage_date for key in answer.lines})
            progress(f"{window}: {len(answer.lines)} lines on {days} of {len(window.days)} days, {new} of them news")
        return answers

    def reconcile(self, first: date, last: date, *, progress: Progress) -> Told:
        """Bill every session that held nodes from `first` to `last` with what is known; publish what that changes.

        Raises `BillError` when `first` comes after `last`.
        """
        if first > last:
            raise BillError(f"{first} comes after {last}; give the earlier day first")
        with locked(Path(self.warehouse.data_dir) / "state" / f"bill-{self.target}.lock"):
            return self._reconcile(first, last, progress)

    def _reconcile(self, first: date, last: date, progress: Progress) -> Told:
        asked, now = self.asked(), self.clock()
        found, reach = self._reach(first, last)
        lines = self.lines(*reach)
        result = reconcile(lines, found, asked=asked, now=now)
        rows = self._publish_shares(result, reach, now) + self._publish_billed(result.outcomes, now)
        bring_up_to_date(self.warehouse, target=self.target, now=now)
        within = Window(first, last).days
        with_data = {line.key.usage_date for line in lines if line.amount is not None}
        unplaced = defaultdict[str, Decimal](Decimal)
        for share in result.shares:
            if share.session_id is None and first <= share.line.key.usage_date <= last:
                unplaced[share.line.key.currency] += share.cost
        told = Told(
            outcomes=[one for one in result.outcomes if any(first <= day <= last for day in one.session.days)],
            gaps=[day for day in within if day in asked and day not in with_data],
            never_asked=[day for day in within if day not in asked],
            unplaced=dict(unplaced),
            rows=rows,
        )
        progress(
            f"{Window(first, last)}: {told.billed} sessions billed, {told.waiting} waiting, "
            f"{len(told.gaps)} days without data; {rows} new rows"
        )
        return told

    def _reach(self, first: date, last: date) -> tuple[list[EstimatedSession], Window]:
        """The days from `first` to `last`, and all others that they can't be reconciled without; who held nodes then.

        A session's other days count as well, on these other sessions may have shared its nodes, and so on: all who
        share a day's lines are billed anew together.
        """
        reach = Window(first, last)
        while True:
            found = self._sessions(*reach)
            days = [*reach, *(day for one in found for day in one.days)]
            wider = Window(min(days), max(days))
            if wider == reach:
                return found, reach
            reach = wider

    def asked(self) -> dict[date, datetime]:
        """When each day was last asked for."""
        rows = self._query(
            "SELECT usage_date, max(asked_at) AS asked_at FROM bill_by_day WHERE target = $target GROUP BY usage_date",
            {},
        )
        return {row["usage_date"]: row["asked_at"] for row in rows}

    def lines(self, first: date, last: date) -> list[BillLine]:
        """The newest lines of these days."""
        return lines_of(
            self._query(
                "FROM bill_current WHERE target = $target AND usage_date BETWEEN $first AND $last "
                "ORDER BY usage_date, resource_id, tag_lab, currency",
                {"first": first, "last": last},
            )
        )

    def _keep(self, answer: Answer, scope: str, run_id: str) -> int:
        """Publish an answer; how many rows are news. Its lines come first: a day that was asked for has them."""
        known = {line.key: line.amount for line in self.lines(*answer.window)}
        rows = day_rows(answer, known, target=self.target, run_id=run_id)
        part = f"{answer.window.first}"
        if rows:
            self._publish("bill_days", rows, run_id, part)
        self._publish("bill_asks", [ask_row(answer, scope=scope, target=self.target, run_id=run_id)], run_id, part)
        return len(rows)

    def _sessions(self, first: date, last: date) -> list[EstimatedSession]:
        """The sessions that held nodes on any of these days, with all that they held."""
        everywhere: Within = {"target": self.target}
        found = self.warehouse.query(
            _SESSIONS.read_text(encoding="utf-8"),
            {"target": self.target, "first": day_start(first), "until": day_end(last)},
            within=everywhere,
        )
        records = defaultdict[tuple[str, str], list[Row]](list)
        if found:
            for row in self.warehouse.query(
                "SELECT * EXCLUDE (usd) FROM cost_current WHERE session_id IN (SELECT unnest($ids)) "
                "ORDER BY session_id, x_state, x_step, x_stage, x_part, ListCost",
                {"ids": [one["session_id"] for one in found]},
                within=everywhere,
            ):
                records[row["session_id"], row["x_state"]].append(row)
        spans = defaultdict[tuple[str, str], list[NodeSpan]](list)
        for one in found:
            span = NodeSpan(one["pool"], one["nodes"], one["requested_at"], one["released_at"])
            spans[one["session_id"], one["lab"]].append(span)
        return [
            EstimatedSession(session_id, lab, held, records[session_id, "estimated"], records[session_id, "billed"])
            for (session_id, lab), held in spans.items()
        ]

    def _publish_billed(self, outcomes: Iterable[Outcome], now: datetime) -> int:
        """The billed rows of sessions whose bill says something new; how many."""
        changed = [one for one in outcomes if one.news]
        by_run = defaultdict[tuple[str, str], list[Row]](list)
        for one in changed:
            for row in one.rows:
                by_run[row["lab"], row["run_id"]].append(row)
        for (lab, run_id), rows in by_run.items():
            self.warehouse.publish(
                "cost_records", rows, target=self.target, lab=lab, run_id=run_id, part=f"billed-{now:%Y%m%dT%H%M%S.%fZ}"
            )
        return sum(map(len, by_run.values()))

    def _publish_shares(self, result: Reconciled, reach: Window, now: datetime) -> int:
        """The shares of each day on which any differs from what is known; how many."""
        known = defaultdict[date, list[tuple[str, ...]]](list)
        for row in self._query(
            "FROM bill_shares_current WHERE target = $target AND usage_date BETWEEN $first AND $last",
            reach._asdict(),
        ):
            known[row["usage_date"]].append(share_signature(row))
        run_id = self._new_run_id()
        rows = share_rows(result.shares, target=self.target, run_id=run_id, now=now)
        changed = list[Row]()
        for day, of_day in groupby(sorted(rows, key=_usage_date), key=_usage_date):
            shares = list(of_day)
            if sorted(map(share_signature, shares)) != sorted(known[day]):
                changed += shares
        if changed:
            self._publish("bill_shares", changed, run_id, None)
        return len(changed)

    def _query(self, sql: str, params: Mapping[str, object]) -> list[dict[str, Any]]:
        return self.warehouse.query(
            sql, {"target": self.target, **params}, within={"target": self.target, "lab": ALL_LABS}
        )

    def _publish(self, table: str, rows: Sequence[Row], run_id: str, part: str | None) -> None:
        self.warehouse.publish(table, rows, target=self.target, lab=ALL_LABS, run_id=run_id, part=part)

    def _new_run_id(self) -> str:
        return f"bill-{self.clock():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def _usage_date(row: Row) -> date:
    return row["usage_date"]
