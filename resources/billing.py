"""What a node-hour costs, wherever the answer comes from.

Belongs here: the abstract `Billing`, and the price sheet as the first of its kind.
Doesn't belong here: splitting a session's cost (lab_pipelines/cost.py) or the prices themselves (catalog/prices.yaml).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from dagster import ConfigurableResource

from lab_pipelines.bill import Answer, Window
from lab_pipelines.catalog.prices import Priority, UnitPrice, load_prices
from lab_pipelines.deployment import Deployment
from resources.cluster import Progress


class Billing(ConfigurableResource, ABC):
    """A source of prices for one region, and of the bill where somebody sends one."""

    gives_bill: ClassVar[bool] = False
    """Whether `ask_bill` has anybody to ask."""

    region: str = Deployment.region

    @abstractmethod
    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        """The price of a node-hour of `sku` in `region`; None exactly when `sku` is None.

        None means that the machine's price is not known, as with an endpoint that isn't ours: its cost is a gap,
        never zero. Raises `lab_pipelines.catalog.prices.UnknownPriceError` for a SKU or region without a price.
        """

    @property
    def bill_scope(self) -> str:
        """Whose bill `ask_bill` asks for."""
        raise NotImplementedError("nobody sends a bill here")

    def ask_bill(self, window: Window, *, within_s: float, progress: Progress) -> Answer:
        """What the bill says of each resource on each day of `window`, by its tag `lab`; done within `within_s`.

        Raises `ClusterError` when it can't be asked or read.
        """
        raise NotImplementedError("nobody sends a bill here")


class PriceSheetBilling(Billing):
    """List prices from the catalog's price sheet."""

    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        return None if sku is None else load_prices().unit_price(sku, self.region, priority)
