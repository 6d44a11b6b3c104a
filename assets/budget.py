"""The budget of one run: a plan that allows more than that is refused before anything is rented.

Belongs here: the refusal. Doesn't belong here: the plan's arithmetic (lab_pipelines/plan.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import cast

from dagster import Failure

from lab_pipelines.catalog.prices import PriceSheet
from lab_pipelines.catalog.spec import LabSpec, Variant
from lab_pipelines.deployment import Target
from lab_pipelines.plan import plan_lab
from resources.chart_values import component_arguments
from resources.labs import Labs


def require_within_budget(
    labs: Labs, spec: LabSpec, variants: Sequence[Variant], *, pace: str, region: str, sheet: PriceSheet
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
        variants=variants,
        region=region,
    )
    remedy = "raise LABS_BUDGET_USD, choose a shorter pace (LABS_PACE), or fewer variants (LABS_VARIANT)"
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
