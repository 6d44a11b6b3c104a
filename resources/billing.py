"""What a node-hour costs, wherever the answer comes from.

Belongs here: the abstract `Billing`, and the price sheet as the first of its kind.
Doesn't belong here: splitting a session's cost (lab_pipelines/cost.py) or the prices themselves (catalog/prices.yaml).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal

from dagster import ConfigurableResource
from pydantic import BaseModel, ConfigDict

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.deployment import Deployment


class NodeHourPrice(BaseModel):
    """The price of one node for one hour, and how it is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: str
    region: str
    usd: Decimal
    source: str
    """Where the number comes from and of what date, in words; it goes into `cost_records.x_method`."""


class Billing(ConfigurableResource, ABC):
    """A source of prices for one region."""

    region: str = Deployment.region

    @abstractmethod
    def node_hour_price(self, sku: str | None) -> NodeHourPrice | None:
        """The price of a node-hour of `sku` in `region`; None exactly when `sku` is None.

        None means that the machine's price is not known, as with an endpoint that isn't ours: its cost is a gap,
        never zero. Raises `lab_pipelines.catalog.prices.UnknownPriceError` for a SKU or region without a price.
        """


class PriceSheetBilling(Billing):
    """On-demand list prices from the catalog's price sheet."""

    def node_hour_price(self, sku: str | None) -> NodeHourPrice | None:
        if sku is None:
            return None
        sheet = load_prices()
        return NodeHourPrice(
            sku=sku,
            region=self.region,
            usd=sheet.price(sku, self.region).on_demand,
            source=f"on-demand list price as of {sheet.as_of}, {sheet.source}",
        )
