"""Rows of money: `cost_records`, and the bill's `bill_days`, `bill_asks` and `bill_shares`."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from lab_pipelines.catalog.prices import UnitPrice
from lab_pipelines.rows.costs import NOT_BILLED
from tests.support.rows.common import REQUESTED_AT, SKU, USD_PER_NODE_HOUR, Row, shared


def cost_row(**columns: Any) -> Row:
    return {
        **shared(),
        "ChargePeriodStart": REQUESTED_AT + timedelta(seconds=5),
        "ChargePeriodEnd": REQUESTED_AT + timedelta(seconds=25),
        "BillingCurrency": "USD",
        "ListUnitPrice": USD_PER_NODE_HOUR,
        "PricingQuantity": Decimal("0.027777778"),
        "PricingUnit": "node-hour",
        "ListCost": Decimal("0.014611111"),
        "BilledCost": None,
        "SkuId": SKU,
        "RegionId": "eastus",
        "x_priority": "on_demand",
        "x_pool": None,
        "x_part": "serve",
        "x_step": "ramp",
        "x_stage": 0,
        "x_state": "estimated",
        "x_method": "list price",
        "x_price_low": USD_PER_NODE_HOUR,
        "x_price_high": USD_PER_NODE_HOUR,
        **NOT_BILLED,
    } | columns


def billed(estimate: Row, usd: Decimal, **columns: Any) -> Row:
    """The row that a bill in dollars adds to an estimate."""
    said = {
        "x_state": "billed",
        "BilledCost": usd,
        "x_estimated_usd": estimate["ListCost"],
        "x_billed_usd": usd,
        "x_delta_usd": usd - estimate["ListCost"],
        "x_billed_at": estimate["recorded_at"],
        "x_bill_state": "settled",
    }
    return estimate | said | columns


def bill_day_row(**columns: Any) -> Row:
    """A line of a bill: what the machines of a pool cost on a day."""
    return {
        **_of_the_bill(),
        "usage_date": REQUESTED_AT.date(),
        "resource_id": "/subscriptions/s/resourcegroups/mc/providers/microsoft.compute/aks-t4-1-vmss",
        "pool": "t4",
        "tag_lab": "l06",
        "currency": "USD",
        "cost": Decimal("0.40"),
        "cost_usd": Decimal("0.40"),
        "asked_at": REQUESTED_AT + timedelta(days=2),
        "asked_from": REQUESTED_AT.date(),
        "asked_to": REQUESTED_AT.date(),
    } | columns


def bill_ask_row(**columns: Any) -> Row:
    """That a day of the bill was asked for."""
    return {
        **_of_the_bill(),
        **{name: bill_day_row()[name] for name in ("asked_at", "asked_from", "asked_to")},
        "scope": "subscriptions/s/resourceGroups/mc",
        "days_with_data": 1,
        "lines": 1,
        "calls": 1,
    } | columns


def bill_share_row(**columns: Any) -> Row:
    """A line that no rule could place."""
    line = ("usage_date", "resource_id", "pool", "tag_lab", "currency", "cost", "cost_usd")
    return {
        **_of_the_bill(),
        **{name: bill_day_row()[name] for name in line},
        "session_id": None,
        "reason": "no session of L06 held nodes that day",
    } | columns


def _of_the_bill() -> Row:
    return {
        **{"lab": "all", "run_id": "bill-1", "target": "aks", "provenance": "measured"},
        "recorded_at": REQUESTED_AT + timedelta(days=2),
    }


def unit_price(usd: Decimal = USD_PER_NODE_HOUR, **fields: Any) -> UnitPrice:
    known = {"sku": SKU, "region": "eastus", "priority": "on_demand", "source": "a price sheet"}
    return UnitPrice(**{**known, "usd": usd, "usd_low": usd, "usd_high": usd} | fields)
