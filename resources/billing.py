"""What a node-hour costs, wherever the answer comes from.

Belongs here: the abstract `Billing`, and the price sheet as the first of its kind.
Doesn't belong here: splitting a session's cost (lab_pipelines/cost.py), the prices themselves (catalog/prices.yaml) or
refreshing them (retail_prices.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import ClassVar

from dagster import ConfigurableResource

from lab_pipelines.bill import Answer, Window
from lab_pipelines.catalog.prices import PriceSheet, Priority, UnitPrice, load_prices
from lab_pipelines.deployment import Deployment
from resources.cluster import Progress
from resources.price_sheets import known_prices


class Billing(ConfigurableResource, ABC):
    """A source of prices for one region, and of the bill where somebody sends one."""

    gives_bill: ClassVar[bool] = False
    """Whether `ask_bill` has anybody to ask."""

    region: str = Deployment.region

    @abstractmethod
    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        """The price of a node-hour of `sku` in `region`; None exactly when `sku` is None.

        None means that the machine's price is not known, as with an endpoint that isn't ours: its cost is a gap,
        never zero. Raises `lab_pipelines.catalog.prices.UnknownPriceError` for a SKU or region without a price, and
        `StalePriceError` for one that is older than the deployment allows.
        """

    @abstractmethod
    def sheet(self) -> PriceSheet:
        """All list prices that the deployment knows, whatever their age, for what is said before anything is rented.

        Raises `SpecError` for a damaged sheet, `WarehouseError` where the lake that has the sheets can't be reached.
        """

    def listed_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        """As `node_hour_price`, of any age: what is past can be estimated by no fresher price than is known."""
        return None if sku is None else self.sheet().unit_price(sku, self.region, priority)

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
    """List prices: the newest that were refreshed below the data folder, else those of the catalog."""

    data_dir: str | None = None
    """None: the catalog's alone."""
    lake_url: str | None = None
    """Beside a lake at a URL the sheets are, too, so that every pod has them."""
    max_age_days: int | None = None
    """How old a price may be; None: as old as it is. What is estimated from it says its date either way."""

    def node_hour_price(self, sku: str | None, priority: Priority = "on_demand") -> UnitPrice | None:
        if sku is None:
            return None
        sheet = self.sheet()
        price = sheet.unit_price(sku, self.region, priority)
        if self.max_age_days is not None:
            sheet.require_fresh(price, max_age_days=self.max_age_days, today=datetime.now(UTC).date())
        return price

    def sheet(self) -> PriceSheet:
        return load_prices() if self.data_dir is None else known_prices(self.data_dir, self.lake_url)
