"""The price sheet: what a node of each SKU costs per hour in each region, and where that number comes from.

Belongs here: the typed form of prices.yaml and looking a price up.
Doesn't belong here: what a lab spent (cost.py) or a cloud's bill (resources/billing.py).
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from lab_pipelines.catalog.loader import CATALOG_DIR, read_model
from lab_pipelines.catalog.spec import SpecModel, Text

Confidence = Literal["A", "B", "C"]
"""A: read in the primary source; B: an excerpt, a secondary or a stale source; C: not read again."""


Priority = Literal["on_demand", "spot"]
"""How a machine is rented: until it is given back, or until Azure wants it back."""


class UnitPrice(BaseModel):
    """What one node costs for an hour in USD, between which bounds that is known, and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: str
    region: str
    priority: Priority
    usd: Decimal
    usd_low: Decimal
    usd_high: Decimal
    source: str
    """In words, with its date; it goes into `cost_records.x_method`."""


class UnknownPriceError(LookupError):
    """The sheet has no price for this SKU in this region. The message names what it has."""


def _exact(value: object) -> object:
    # YAML reads 0.526 as a binary float; its shortest decimal form is what the file says.
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


Usd = Annotated[Decimal, BeforeValidator(_exact), Field(gt=0, max_digits=18, decimal_places=6)]
AsOf = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}(-[0-9]{2}){0,2}(/[0-9]{4}(-[0-9]{2}){0,2})?$")]
"""A year, month or day, or an interval of two, as ISO 8601 writes them."""


class RegionPrice(SpecModel):
    """USD per node-hour. `spot` is None where the source reports none."""

    on_demand: Usd
    spot: Usd | None = None


class Sku(SpecModel):
    """One machine type. `retired`: the day since which Azure no longer offers it; it stays as history."""

    gpu: Text | None = None
    """None for a machine without GPUs."""
    gpus: int = Field(ge=0)
    vcpus: int = Field(ge=1)
    memory_gib: int = Field(ge=1)
    retired: date | None = None
    prices: dict[Text, RegionPrice] = Field(min_length=1)

    @model_validator(mode="after")
    def _gpus_have_a_name(self) -> Sku:
        if (self.gpu is None) != (self.gpus == 0):
            raise ValueError(f"gpu: {self.gpus} GPUs named {self.gpu}; name the GPU, or leave it out with `gpus: 0`")
        return self


class PriceSheet(SpecModel):
    """All prices of one source."""

    source: Text
    as_of: AsOf
    currency: Literal["USD"]
    on_demand_confidence: Confidence
    spot_confidence: Confidence
    skus: dict[Text, Sku] = Field(min_length=1)

    def offered(self) -> list[str]:
        """The SKUs that a new lab may ask for."""
        return [name for name, sku in self.skus.items() if sku.retired is None]

    def sku(self, name: str) -> Sku:
        """One machine type, also a retired one. Raises `UnknownPriceError`."""
        if name not in self.skus:
            raise UnknownPriceError(
                f"the price sheet has no SKU {name!r}; it has: {', '.join(self.offered())}. "
                f"Add it to lab_pipelines/catalog/prices.yaml with its source"
            )
        return self.skus[name]

    def unit_price(self, sku: str, region: str, priority: Priority = "on_demand") -> UnitPrice:
        """The price of a node-hour of `sku`, also of a retired one. Raises `UnknownPriceError`."""
        found = self.price(sku, region)
        usd = found.on_demand if priority == "on_demand" else found.spot
        if usd is None:
            raise UnknownPriceError(
                f"the price sheet has no spot price of {sku} in region {region!r}; add it to "
                f"lab_pipelines/catalog/prices.yaml with its source, or rent the machine on demand"
            )
        return UnitPrice(
            sku=sku,
            region=region,
            priority=priority,
            usd=usd,
            usd_low=usd,
            usd_high=usd,
            source=f"{'on-demand' if priority == 'on_demand' else 'spot'} list price as of {self.as_of}, {self.source}",
        )

    def price(self, sku: str, region: str) -> RegionPrice:
        """The price of `sku` in `region`, also of a retired one. Raises `UnknownPriceError`."""
        prices = self.sku(sku).prices
        if region not in prices:
            raise UnknownPriceError(
                f"the price sheet has no price of {sku} in region {region!r}; it has: {', '.join(prices)}. "
                f"Set LABS_REGION to one of them, or add the price to lab_pipelines/catalog/prices.yaml with its source"
            )
        return prices[region]


@cache
def load_prices(path: Path = CATALOG_DIR / "prices.yaml") -> PriceSheet:
    """The price sheet in `path`. Raises `SpecError` that names file, line and field."""
    return read_model(path, PriceSheet)
