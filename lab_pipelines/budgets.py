"""What the labs may cost: the budgets, the parts of them at which something happens, and the time that they are for.

Belongs here: the typed form of budgets.yaml, and periods. Doesn't belong here: what was spent (resources/spending.py),
what follows from it (budget_guard.py), or the budget of one run's plan (assets/budget.py, LABS_BUDGET_USD).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lab_pipelines.catalog.loader import load_catalog, read_model
from lab_pipelines.catalog.prices import Usd
from lab_pipelines.catalog.strict import SpecModel

BUDGETS_FILE = Path(__file__).with_suffix(".yaml")
MONTH = "month"
"""The scope of all labs together; every other scope is a lab's id."""

CountedTarget = Literal["local", "kubernetes", "aks"]
"""Not `rehearsal`: its rows carry the virtual time of the lab's date, which is no month of anybody's money."""
Percent = Annotated[float, Field(gt=0, le=1000)]


@dataclass(frozen=True)
class Period:
    """From `start` to just before `end`, in UTC."""

    start: datetime
    end: datetime


class Budgets(SpecModel):
    """budgets.yaml, which says what each field is for. Amounts are in USD; None is no limit."""

    month_usd: Usd | None = None
    lab_usd: Usd | None = None
    labs: dict[str, Usd] = Field(default={})
    warn_percent: Percent = 80
    refuse_percent: Percent = 100
    cut_percent: Percent = 120
    margin_percent: Annotated[float, Field(ge=0, lt=100)] = 5
    refuse_unknown: bool = False
    targets: list[CountedTarget] = Field(default=["kubernetes", "aks"])

    @field_validator("labs")
    @classmethod
    def _labs_exist(cls, labs: dict[str, Decimal]) -> dict[str, Decimal]:
        known = load_catalog().ids
        if unknown := sorted(labs.keys() - set(known)):
            raise ValueError(f"{', '.join(unknown)} is no lab; the year has {known[0]} to {known[-1]}")
        return labs

    @model_validator(mode="after")
    def _in_order(self) -> Budgets:
        if not self.margin_percent < self.warn_percent <= self.refuse_percent <= self.cut_percent:
            raise ValueError(
                "margin_percent must be below warn_percent, and warn, refuse and cut_percent in that order"
            )
        return self

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self.month_usd is not None or self.lab_usd is not None or bool(self.labs)

    def of(self, scope: str) -> Decimal | None:
        """The budget of the month (`MONTH`) or of a lab; None: no limit."""
        return self.month_usd if scope == MONTH else self.labs.get(scope, self.lab_usd)


def load_budgets(path: Path = BUDGETS_FILE) -> Budgets:
    """The budgets in `path`, read now. Raises `SpecError` that names file, line and field."""
    return read_model(path, Budgets)


def period_of(scope: str, now: datetime) -> Period:
    """The month of UTC that `now` lies in for `MONTH`, the year of UTC for a lab.

    A lab is one experiment, whose repeats may lie in several months: its budget is of the year.
    """
    now = now.astimezone(UTC)
    if scope == MONTH:
        following = (now.year + now.month // 12, now.month % 12 + 1)
        return Period(datetime(now.year, now.month, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC))
    return Period(datetime(now.year, 1, 1, tzinfo=UTC), datetime(now.year + 1, 1, 1, tzinfo=UTC))
