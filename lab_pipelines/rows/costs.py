"""Rows of `cost_records`: estimates from a list price.

Doesn't belong here: the parts that they are of (../cost.py), or what a bill adds to them (../reconcile.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab_pipelines.catalog.prices import UnitPrice
from lab_pipelines.cost import CostPart
from lab_pipelines.rows.common import Row

NOT_BILLED: Row = {
    "x_estimated_usd": None,
    "x_billed_usd": None,
    "x_delta_usd": None,
    "x_billed_at": None,
    "x_bill_state": None,
}
"""The columns of `cost_records` that an estimate leaves empty."""


def cost_rows(
    parts: Sequence[CostPart],
    *,
    shared: Mapping[str, Any],
    sku: str | None,
    price: UnitPrice | None,
    pool: str | None = None,
    how: str | None = None,
) -> list[Row]:
    """`cost_records` of one lane: an estimate from a list price. `shared` are the columns that every table begins with.

    `price` is None where none is known. `how` says in words where the node time is from, unless it is all the lab's.
    """
    known = price.source if price else "no price is known for the machine"
    split = "node time shared equally among the requests in flight, the rest idle"
    method = "; ".join(one for one in (known, how, split) if one)
    return [
        {
            **shared,
            "ChargePeriodStart": part.started_at,
            "ChargePeriodEnd": part.ended_at,
            "BillingCurrency": "USD",
            "ListUnitPrice": price.usd if price else None,
            "PricingQuantity": part.node_hours,
            "PricingUnit": "node-hour",
            "ListCost": part.usd,
            "BilledCost": None,
            "SkuId": sku,
            "RegionId": price.region if price else None,
            "x_priority": price.priority if price else None,
            "x_pool": pool,
            "x_part": part.part,
            "x_step": part.step,
            "x_stage": part.stage,
            "x_state": "estimated",
            "x_method": method,
            "x_price_low": price.usd_low if price else None,
            "x_price_high": price.usd_high if price else None,
            **NOT_BILLED,
        }
        for part in parts
    ]
