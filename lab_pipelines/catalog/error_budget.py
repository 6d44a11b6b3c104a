"""When the numbers of a run are not to be believed: the bounds of its asset checks.

Doesn't belong here: the load generator's own bounds (client_budget.py), or the checks (assets/checks.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from lab_pipelines.catalog.client_budget import ClientBudget
from lab_pipelines.catalog.fields import checked_promql
from lab_pipelines.catalog.strict import Name, SpecModel, Text


class Total(SpecModel):
    """A counter of a component's that must agree with what the client counted over each load step on it."""

    component: Name = "vllm"
    client: Literal["output_tokens", "requests_ok"]
    counter: Text
    """A plain selector, no function: the increase is computed from the raw samples, resets included."""

    @field_validator("counter")
    @classmethod
    def _has_selector(cls, value: str) -> str:
        return checked_promql(value, placeholders={"selector"}, form="selector")


class ErrorBudget(SpecModel):
    """When a run's numbers are not to be believed: bounds of asset checks, of which all but `client` block."""

    error_rate: float = Field(ge=0, le=1)
    prometheus_disagreement: float = Field(gt=0, le=1)
    totals: list[Total]
    """Empty for a lab whose load nothing counts on the server's side."""
    client: ClientBudget = Field(default_factory=ClientBudget)
    """Bounds of the load generator's own error. A stage over them blocks nothing, and has no valid requests."""
