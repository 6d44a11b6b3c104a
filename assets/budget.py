"""Budgets, as a lab's run meets them: what its own plan may cost, what all runs may have spent, and that it was cut.

Belongs here: the refusals, before anything is rented, and the failure of a run that the budget guard has cut.
Doesn't belong here: the plan's arithmetic (lab_pipelines/plan.py), what was spent (resources/spending.py), or what the
guard decides by itself (lab_pipelines/budget_guard.py, sensors/budget_guard.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast

from dagster import Failure

from lab_pipelines.budget_guard import Holding
from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.catalog.prices import PriceSheet
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.deployment import Target
from lab_pipelines.plan import plan_lab
from lab_pipelines.turns import Visit
from resources.budget_guard import BudgetGuard
from resources.chart_values import component_arguments
from resources.cluster import Progress
from resources.labs import Labs
from resources.spending import Place, needs_gpu, refusal
from resources.warehouse import Warehouse


def require_within_budget(
    labs: Labs, spec: LabSpec, visits: Sequence[Visit], *, pace: str, region: str, sheet: PriceSheet
) -> None:
    """Raise `Failure` where the run could cost more than the deployment's budget; what it may is what its spec allows.

    A run whose cost can't be bounded is refused too. Without a budget nothing is computed.
    """
    if labs.budget_usd is None:
        return
    budget = Decimal(labs.budget_usd)
    plan = plan_lab(
        spec,
        sheet,
        component_arguments,
        target=cast(Target, labs.target),
        pace_name=pace,
        visits=visits,
        region=region,
    )
    shorter = "a shorter pace (LABS_PACE), fewer variants (LABS_VARIANT) or fewer turns (LABS_TURNS)"
    remedy = f"raise LABS_BUDGET_USD, or choose {shorter}"
    if plan.at_most_usd is None:
        raise Failure(
            f"the cost of {spec.id} can't be bounded, so a budget of {budget:f} USD can't be kept: "
            f"{'; '.join(plan.unknown)}. Unset LABS_BUDGET_USD to run it all the same",
            allow_retries=False,
        )
    if plan.at_most_usd > budget:
        raise Failure(
            f"{spec.id} may cost up to {plan.at_most_usd:f} USD (expected: {plan.expected_usd:f} USD), more than the "
            f"budget of {budget:f} USD; {remedy}",
            allow_retries=False,
        )


def require_budget_left(
    guard: BudgetGuard, place: Place, spec: LabSpec, variants: Sequence[Variant], *, run_id: str, progress: Progress
) -> None:
    """Raise `Failure` where the month's budget or the lab's is spent, for a run that needs a GPU; the refusal is a row.

    Computed now, from the lake, the leases and the pools: no sensor needs to be alive. Budgets that can't be read
    refuse too, since nobody knows what they would have said.
    """
    try:
        budgets = guard.budgets()
    except SpecError as error:
        raise Failure(f"the budgets can't be read: {error} (LABS_BUDGETS)", allow_retries=False) from None
    if guard.why_idle(budgets, place.target) or not any(needs_gpu(spec.nodes_of(variant)) for variant in variants):
        return
    asking = Holding(spec.id, run_id, gpu=True, usd_per_h=None)
    refused = refusal(place, budgets, guard.mode, asking, budgets_file=guard.budgets_file, progress=progress)
    if refused is not None:
        raise Failure(refused, allow_retries=False)


@contextmanager
def told_when_cut(warehouse: Warehouse, *, target: str, lab: str, run_id: str) -> Iterator[None]:
    """Whatever fails in the block, once the budget guard has cut the lab's run, fails with the guard's reason.

    A run finds its stack gone in many ways: a lost lease, a connection refused, a pod that isn't there. The stack may
    be another run's (`hold_minutes`); the lab's lease is one, so what was cut since the block began is this.
    """
    began = datetime.now(UTC)
    try:
        yield
    except Exception as error:
        marks = warehouse.query(
            "SELECT reason FROM run_marks WHERE mark = 'cut' AND (run_id = $run_id OR recorded_at >= $began) "
            "ORDER BY recorded_at DESC",
            {"run_id": run_id, "began": began},
            within={"target": target, "lab": lab},
        )
        if not marks:
            raise
        raise Failure(
            f"{marks[0]['reason']}. Its rows stay and count for nothing but its cost; raise the budget of {lab} or of "
            f"the month (LABS_BUDGETS; labs budget shows them) and run it again. It noticed by: {error}",
            allow_retries=False,
        ) from error
