"""From the budget guard's verdicts to rows of `budget_decisions` and back, and the mark of a run that it cuts.

Belongs here: pure functions. Doesn't belong here: deciding (budget_guard.py), keeping rows (resources/decision_log.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from lab_pipelines.budget_guard import Holding, State, Verdict
from lab_pipelines.budgets import Budgets, Period
from lab_pipelines.deployment import BudgetMode
from lab_pipelines.gpu_decisions import ALL_LABS
from lab_pipelines.provenance import Provenance

TABLE = "budget_decisions"
MARKS = "run_marks"
Action = Literal["tell", "refuse", "cut"]
Outcome = Literal["withheld", "asked", "done", "failed"]
_MICRO_USD = Decimal("0.000001")


def decision_row(
    verdict: Verdict,
    *,
    budgets: Budgets,
    guard: BudgetMode,
    now: datetime,
    target: str,
    provenance: Provenance,
    action: Action = "tell",
    of: Holding | None = None,
    outcome: Outcome | None = None,
    detail: str | None = None,
) -> dict[str, Any]:
    """One row but for `run_id`, which is its batch's. `of` is who is refused or cut."""
    spend = verdict.spend
    closed, open_, pools, projected = (
        usd.quantize(_MICRO_USD) for usd in (spend.closed_usd, spend.open_usd, spend.pools_usd, spend.projected_usd)
    )
    spent = closed + open_ + pools
    held = of is not None and of.run_id is not None
    return {
        "lab": ALL_LABS,
        "target": target,
        "provenance": provenance,
        "recorded_at": datetime.now(UTC),
        "tick_at": now,
        "scope": verdict.scope,
        "period_start": verdict.period.start,
        "period_end": verdict.period.end,
        "budget_usd": verdict.budget_usd,
        "closed_usd": closed,
        "billed_more_usd": spend.billed_more_usd.quantize(_MICRO_USD),
        "open_usd": open_,
        "pools_usd": pools,
        "spent_usd": spent,
        "projected_usd": projected,
        "committed_usd": spent + projected,
        "unknown": list(spend.unknown),
        "state_before": verdict.before,
        "state": verdict.state,
        "guard": guard,
        "budgets": budgets.model_dump_json(),
        "action": action,
        "of_lab": of.name if of and held else None,
        "of_run": of.run_id if of else None,
        "of_pool": of.name if of and not held else None,
        "reason": verdict.reason,
        "outcome": outcome,
        "detail": detail,
    }


def state_before(row: Mapping[str, Any] | None, *, period: Period, budget_usd: Decimal) -> State:
    """The state that the newest row of a budget left; `ok` without one, in a new period, or for another budget."""
    if row is None or (row["period_start"], row["budget_usd"]) != (period.start, budget_usd):
        return "ok"
    return row["state"]


def mark_row(
    verdict: Verdict, *, lab: str, run_id: str, target: str, provenance: Provenance, now: datetime
) -> dict[str, Any]:
    """The mark of a run that is about to be cut."""
    return {
        "lab": lab,
        "run_id": run_id,
        "target": target,
        "provenance": provenance,
        "recorded_at": now,
        "mark": "cut",
        "scope": verdict.scope,
        "marked_by": "budget_guard",
        "reason": f"the budget guard has cut this run, for the budget of {said_scope(verdict.scope)}: {verdict.reason}",
    }


def said_scope(scope: str) -> str:
    """`the month`, or the lab."""
    return "the month" if scope == "month" else scope
