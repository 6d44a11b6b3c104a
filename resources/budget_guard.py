"""How far the budget guard may go, and by which budgets: the environment's settings.

Doesn't belong here: budgets (lab_pipelines/budgets.py), or what follows from them (lab_pipelines/budget_guard.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dagster import ConfigurableResource

from lab_pipelines.budgets import BUDGETS_FILE, Budgets, load_budgets
from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.deployment import BudgetMode


class BudgetGuard(ConfigurableResource):
    mode: BudgetMode = "refuse"
    """`LABS_BUDGET_GUARD`: a budget that somebody has set refuses by itself; that it ends runs has to be asked for."""
    budgets_file: str = str(BUDGETS_FILE)
    """`LABS_BUDGETS`."""

    def budgets(self) -> Budgets:
        """The budgets now. Raises `SpecError`."""
        path = Path(self.budgets_file)
        try:
            return load_budgets(path)
        except SpecError as error:
            if path.is_file():
                raise
            [problem] = error.problems
            message = f"{problem.message}; copy lab_pipelines/budgets.yaml"
            raise SpecError(replace(problem, path=f"LABS_BUDGETS: {problem.path}", message=message)) from None

    def why_idle(self, budgets: Budgets, target: str) -> str | None:
        """Why nothing is guarded on `target`, in words; None: something is."""
        if self.mode == "off":
            return "switched off (LABS_BUDGET_GUARD=off)"
        if target not in budgets.targets:
            return f"money on target {target} is modelled: no budget holds there ({self.budgets_file}: targets)"
        if not budgets.limited:
            return f"no budget is set: {self.budgets_file} has neither month_usd, lab_usd nor labs (LABS_BUDGETS)"
        return None
