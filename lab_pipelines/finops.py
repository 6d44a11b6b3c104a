"""What a token and a request cost. Pure: rows in, rows out.

Belongs here: cost per unit of work. Doesn't belong here: the split of node time (cost.py), or reading and writing rows
(assets/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lab_pipelines.cost import PARTS, CostError, Row


@dataclass(frozen=True)
class StageWork:
    """What one stage got done: successful requests, and tokens of the stage's window."""

    step: str
    stage: int
    users: int | None
    """None: the stage has a rate."""
    requests: int
    input_tokens: int
    output_tokens: int


def sheet_rows(
    costs: Sequence[Mapping[str, Any]], work: Sequence[StageWork], *, shared: Mapping[str, Any], sku: str | None
) -> list[Row]:
    """`finops_sheet` of one session: a row per stage, and one for the whole session (step and stage None).

    `costs` are the session's `cost_records` of one state. A stage's cost is the node time of its window, idle
    included; the session's has the cold start and the time between stages on top, and all stages' work. Raises
    `CostError` when `costs` mix states, or known and unknown prices.
    """
    if len({row["x_state"] for row in costs}) > 1:
        raise CostError("cost_records of several states (estimated, billed) can't be added up; choose one")
    if len({row["ListCost"] is None for row in costs}) > 1:
        raise CostError("some cost_records of the session have a price and some have none")
    rows = [
        {
            **shared,
            "step": one.step,
            "stage": one.stage,
            "users": one.users,
            "sku": sku,
            **_sheet([row for row in costs if (row["x_step"], row["x_stage"]) == (one.step, one.stage)], [one]),
        }
        for one in work
    ]
    return [*rows, {**shared, "step": None, "stage": None, "users": None, "sku": sku, **_sheet(costs, work)}]


def usd_per(usd: Decimal | None, amount: float) -> float | None:
    """`usd` / `amount`; None where no price is known or nothing was done, since neither is free nor infinite."""
    return float(usd) / amount if usd is not None and amount else None


def _sheet(costs: Sequence[Mapping[str, Any]], work: Sequence[StageWork]) -> Row:
    hours = {part: sum((r["PricingQuantity"] for r in costs if r["x_part"] == part), Decimal()) for part in PARTS}
    priced = bool(costs) and costs[0]["ListCost"] is not None
    usd = {
        part: sum((r["ListCost"] for r in costs if r["x_part"] == part), Decimal()) if priced else None
        for part in PARTS
    }
    total_hours = sum(hours.values(), Decimal())
    total_usd = sum((r["ListCost"] for r in costs), Decimal()) if priced else None
    requests = sum(w.requests for w in work)
    input_tokens, output_tokens = sum(w.input_tokens for w in work), sum(w.output_tokens for w in work)
    return {
        "requests": requests,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "node_hours": float(total_hours),
        "usd": total_usd,
        **{f"{part}_usd": usd[part] for part in PARTS},
        "usd_per_1k_output_tokens": usd_per(total_usd, output_tokens / 1000),
        "usd_per_1k_tokens": usd_per(total_usd, (input_tokens + output_tokens) / 1000),
        "usd_per_request": usd_per(total_usd, requests),
        "idle_share": float(hours["idle"] / total_hours) if total_hours else None,
    }
