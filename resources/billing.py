"""What a node-hour costs, wherever the answer comes from.

Belongs here: the abstract `Billing`, and the price sheet as the first of its kind.
Doesn't belong here: splitting a session's cost (lab_pipelines/cost.py) or the prices themselves (catalog/prices.yaml).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from dagster import ConfigurableResource

from lab_pipelines.catalog.prices import Priority, UnitPrice, load_prices
from lab_pipelines.deployment import Deployment


class Billing(ConfigurableResource, ABC):
    """A source of prices for one region."""

    region: str = Deployment.region

    @abstractmethod
    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        """The price of a node-hour of `sku` in `region`; None exactly when `sku` is None.

        None means that the machine's price is not known, as with an endpoint that isn't ours: its cost is a gap,
        never zero. Raises `lab_pipelines.catalog.prices.UnknownPriceError` for a SKU or region without a price.
        """


class PriceSheetBilling(Billing):
    """List prices from the catalog's price sheet."""

    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        return None if sku is None else load_prices().unit_price(sku, self.region, priority)
