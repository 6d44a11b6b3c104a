"""The price sheet: what a node of each SKU costs per hour in each region, and where that number comes from.

Belongs here: the typed form of prices.yaml and of the sheets that a refresh writes, looking a price up, its bounds and
its age.
Doesn't belong here: which sheets there are (prices_stored.py), reading Azure's list (prices_retail.py), what a lab
spent (cost.py) or a cloud's bill (resources/billing.py).
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lab_pipelines.catalog.loader import CATALOG_DIR, read_model
from lab_pipelines.catalog.strict import SpecModel, Text, matching

Confidence = Literal["A", "B", "C"]
"""A: read in the primary source; B: an excerpt, a secondary or a stale source; C: not read again."""


Priority = Literal["on_demand", "spot"]
"""How a machine is rented: until it is given back, or until Azure wants it back."""
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
SHOWN_PRIORITY: dict[Priority, str] = {"on_demand": "on-demand", "spot": "spot"}
MILLIONTH = Decimal("0.000001")
"""Prices are kept to a millionth of a dollar, as Azure gives them."""


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


class StalePriceError(LookupError):
    """The sheet has a price that is older than the deployment allows. The message names its date and the remedy."""


def _exact(value: object) -> object:
    # YAML reads 0.526 as a binary float; its shortest decimal form is what the file says.
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _amount(value: object) -> Decimal:
    amount = _exact(value)
    if not isinstance(amount, Decimal):
        raise ValueError(f"expected an amount in USD, e.g. 500, but found {reprlib.repr(value)}")
    return amount


Usd = Annotated[Decimal, BeforeValidator(_amount), Field(gt=0, max_digits=18, decimal_places=6)]


def _first_day(text: str) -> date:
    year, month, day = [*(int(part) for part in text.split("-")), 1, 1][:3]
    return date(year, month, day)


def _a_date(text: str) -> str:
    days = [_first_day(part) for part in text.split("/")]
    if days != sorted(days):
        raise ValueError("the interval ends before it begins")
    return text


AsOf = Annotated[
    str,
    matching(
        r"^[0-9]{4}(-[0-9]{2}){0,2}(/[0-9]{4}(-[0-9]{2}){0,2})?$",
        "a year, month or day such as 2026-03-01, or two of them with / between",
    ),
    AfterValidator(_a_date),
]
"""A year, month or day, or an interval of two, as ISO 8601 writes them."""


class Bound(SpecModel):
    """One limit of what a price may really be: so many times a price of the same SKU and region."""

    times: Annotated[Decimal, BeforeValidator(_exact), Field(gt=0)]
    of: Priority
    by: Text
    """Who says so: a source, or `judgement:` and the project's own reason."""


class PriceBounds(SpecModel):
    """Limits of one priority's prices. Where several are given, the narrowest holds."""

    low: list[Bound] = Field(min_length=1)
    high: list[Bound] = Field(min_length=1)


class Bounds(SpecModel):
    on_demand: PriceBounds
    spot: PriceBounds
    on_demand_refreshed: PriceBounds | None = None
    """Of a sheet that is refreshed from Azure's own list; None: those of this one."""

    def of(self, priority: Priority) -> PriceBounds:
        return self.on_demand if priority == "on_demand" else self.spot


class OtherFigure(SpecModel):
    """What another source says that one of the prices is. The bounds are widened to include it."""

    priority: Priority
    usd: Usd
    source: Text


class Origin(SpecModel):
    """Where one price comes from, and of when."""

    source: Text
    as_of: AsOf
    effective_from: date | None = None
    """The day since which Azure's list has this price; None where the source doesn't say."""
    bounds: PriceBounds | None = None
    """None: those of the sheet."""


class RegionPrice(SpecModel):
    """USD per node-hour. `spot` is None where the source reports none."""

    on_demand: Usd
    spot: Usd | None = None
    others: list[OtherFigure] = Field(default_factory=list)
    origins: dict[Priority, Origin] = Field(default_factory=dict)
    """Of the prices that don't come from the sheet's own source on its own date."""

    def usd(self, priority: Priority) -> Decimal | None:
        return self.on_demand if priority == "on_demand" else self.spot


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
    """All prices of one source, or several sheets laid over one another; each price then has its own origin."""

    source: Text
    as_of: AsOf
    fetched_at: datetime | None = None
    """When a refresh asked for it; None for the committed sheet."""
    currency: Literal["USD"]
    on_demand_confidence: Confidence
    spot_confidence: Confidence
    bounds: Bounds
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
        usd = found.usd(priority)
        if usd is None:
            raise UnknownPriceError(
                f"the price sheet has no spot price of {sku} in region {region!r}; run labs prices refresh, add it to "
                f"lab_pipelines/catalog/prices.yaml with its source, or rent the machine on demand"
            )
        origin = self.origin(sku, region, priority)
        low, high = _range(found, priority, usd, origin.bounds or self.bounds.of(priority))
        return UnitPrice(
            sku=sku,
            region=region,
            priority=priority,
            usd=usd,
            usd_low=low,
            usd_high=high,
            source=f"{SHOWN_PRIORITY[priority]} list price as of {origin.as_of}, {origin.source}",
        )

    def origin(self, sku: str, region: str, priority: Priority) -> Origin:
        """Where that price comes from, and of when. Raises `UnknownPriceError` for an unknown SKU or region."""
        return self.price(sku, region).origins.get(priority) or Origin(source=self.source, as_of=self.as_of)

    def require_fresh(self, price: UnitPrice, *, max_age_days: int, today: date) -> None:
        """Raise `StalePriceError` for a price that may be older than `max_age_days`, or is dated in the future."""
        as_of = self.origin(price.sku, price.region, price.priority).as_of
        age = age_days(as_of, today)
        if 0 <= age <= max_age_days:
            return
        how_old = f"may be {age} days old" if age > 0 else "is dated in the future"
        raise StalePriceError(
            f"the {SHOWN_PRIORITY[price.priority]} price of {price.sku} in {price.region} is as of {as_of} and "
            f"{how_old}; at most {max_age_days} days are allowed (LABS_PRICE_MAX_AGE_DAYS). "
            f"Run labs prices refresh --region {price.region}"
        )

    def price(self, sku: str, region: str) -> RegionPrice:
        """The price of `sku` in `region`, also of a retired one. Raises `UnknownPriceError`."""
        prices = self.sku(sku).prices
        if region not in prices:
            raise UnknownPriceError(
                f"the price sheet has no price of {sku} in region {region!r}; it has: {', '.join(prices)}. "
                f"Set LABS_REGION to one of them, run labs prices refresh --region REGION, or add the price to "
                f"lab_pipelines/catalog/prices.yaml with its source"
            )
        return prices[region]


def age_days(as_of: str, today: date) -> int:
    """Days since the first day that `as_of` may mean: what it leaves open counts as the oldest.

    Negative for a date that is more than a day ahead; a day is left to clocks and time zones.
    """
    age = (today - _first_day(as_of.partition("/")[0])).days
    return 0 if age == -1 else age


def _range(found: RegionPrice, priority: Priority, usd: Decimal, bounds: PriceBounds) -> tuple[Decimal, Decimal]:
    """Between which amounts the price lies: the narrowest limits, widened to all that some source says."""
    said = [usd, *(other.usd for other in found.others if other.priority == priority)]
    low = max(_amounts(found, bounds.low), default=usd)
    high = min(_amounts(found, bounds.high), default=usd)
    return min([low, *said]), max([high, *said])


def _amounts(found: RegionPrice, bounds: Sequence[Bound]) -> list[Decimal]:
    # From a price that there isn't, no limit follows.
    bases = [(bound.times, found.usd(bound.of)) for bound in bounds]
    amounts = [(times * base).quantize(MILLIONTH) for times, base in bases if base is not None]
    return [max(amount, MILLIONTH) for amount in amounts]


@cache
def load_prices(path: Path = CATALOG_DIR / "prices.yaml") -> PriceSheet:
    """The price sheet in `path`, which isn't read again. Raises `SpecError` that names file, line and field."""
    return read_model(path, PriceSheet)
