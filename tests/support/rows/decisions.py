"""Rows of what sensors decided: `gpu_decisions`, `budget_decisions` and `run_marks`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support.rows.common import REQUESTED_AT, SKU, USD_PER_NODE_HOUR, Row, shared


def gpu_decision_row(**columns: Any) -> Row:
    """A pool of one T4 that was looked at while L06 held it."""
    return {
        **{name: shared()[name] for name in ("target", "provenance", "recorded_at")},
        "lab": "all",
        "run_id": "gpu-20260302T090000Z-00000000",
        "tick_at": REQUESTED_AT,
        "pool": "t4",
        "vm_size": SKU,
        "mode": "User",
        "nodes": 1,
        "ours": True,
        "autoscaled": False,
        "spot": False,
        "state": "Succeeded",
        "usd_per_h": USD_PER_NODE_HOUR,
        "held_by": ["L06"],
        "held_until": REQUESTED_AT + timedelta(minutes=15),
        "requests": 3.0,
        "requests_age_s": 12.0,
        "requests_reporting": 1,
        "requests_expected": 1,
        "utilisation_percent": 80.0,
        "utilisation_age_s": 8.0,
        "utilisation_reporting": 1,
        "utilisation_expected": 1,
        "signals_gap": None,
        "idle_for_s": None,
        "expected_idle_s": None,
        "expected_idle_source": None,
        "since_change_s": 1200.0,
        "cold_start_s": 640.5,
        "cold_start_source": "median of the last 3 sessions",
        "switch": "dry-run",
        "policy": "{}",
        "action": "keep",
        "rule": "leased",
        "reason": "L06 holds it until 2026-03-02 09:15:00 UTC",
        "outcome": None,
        "detail": None,
    } | columns


def budget_decision_row(**columns: Any) -> Row:
    """The month's budget, of which four fifths are spent for the first time."""
    return {
        **{name: shared()[name] for name in ("target", "provenance", "recorded_at")},
        "lab": "all",
        "run_id": "budget-20260302T090000Z-00000000",
        "tick_at": REQUESTED_AT,
        "scope": "month",
        "period_start": datetime(2026, 3, 1, tzinfo=UTC),
        "period_end": datetime(2026, 4, 1, tzinfo=UTC),
        "budget_usd": Decimal(100),
        "closed_usd": Decimal(70),
        "billed_more_usd": Decimal(0),
        "open_usd": Decimal(10),
        "pools_usd": Decimal("0.5"),
        "spent_usd": Decimal("80.5"),
        "projected_usd": Decimal(1),
        "committed_usd": Decimal("81.5"),
        "unknown": [],
        "state_before": "ok",
        "state": "warn",
        "guard": "refuse",
        "budgets": "{}",
        "action": "tell",
        "of_lab": None,
        "of_run": None,
        "of_pool": None,
        "reason": "ok → warn: 80.50 of 100.00 USD spent (80 %), 1.00 more committed to",
        "outcome": None,
        "detail": None,
    } | columns


def run_mark_row(**columns: Any) -> Row:
    """The mark of a run that was cut."""
    return {
        **{name: shared()[name] for name in ("lab", "run_id", "target", "provenance", "recorded_at")},
        "mark": "cut",
        "scope": "month",
        "marked_by": "budget_guard",
        "reason": "the budget guard has cut this run, for the budget of the month",
    } | columns
