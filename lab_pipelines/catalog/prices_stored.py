"""The price sheets there are: the committed one, and those that `labs prices refresh` wrote below the data folder.

Belongs here: laying the newest refreshed sheet over the committed one, and a sheet's file. It is never changed; former
ones stay as history.
Doesn't belong here: what is in a sheet (prices.py), keeping it (resources/price_sheets.py), asking Azure
(resources/retail_prices.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.prices import PRIORITIES, Origin, PriceSheet, RegionPrice, Sku, load_prices

FOLDER = "prices"
"""Below the data folder."""
PREFIX = "azure-retail-"
_HEADER = "# What Azure's list of retail prices said. Written by labs prices refresh and never changed.\n"


def prices_in(data_dir: Path | str | None) -> PriceSheet:
    """The prices that a deployment with this data folder knows: the newest refreshed ones, else the committed ones.

    None: the committed ones. Raises `SpecError` that names file, line and field of a damaged sheet.
    """
    newest = newest_in(data_dir) if data_dir is not None else None
    return load_prices() if newest is None else _laid_over(newest)


def newest_in(data_dir: Path | str) -> Path | None:
    """The file of the newest refreshed sheet; None where there is none yet."""
    # Names are times, so that their order is that of time.
    return max((Path(data_dir) / FOLDER).glob(f"{PREFIX}*.yaml"), default=None)


def sheet_path(data_dir: Path | str, name: str) -> Path:
    return Path(data_dir) / FOLDER / name


def as_file(sheet: PriceSheet) -> tuple[str, bytes]:
    """A refreshed sheet's file name, which is its time, and its content."""
    import yaml

    fetched_at = (sheet.fetched_at or datetime.now(UTC)).astimezone(UTC)
    content = yaml.safe_dump(_plain(sheet.model_dump(exclude_defaults=True)), sort_keys=False, width=120)
    return f"{PREFIX}{fetched_at:%Y%m%dT%H%M%S.%fZ}.yaml", (_HEADER + content).encode()


def laid_over(newer: PriceSheet, older: PriceSheet) -> PriceSheet:
    """Each price of `newer`, and of `older` what it lacks; every price keeps its source and date. Pure.

    The machines, and what is known of them, are those of `older`.
    """
    skus = {name: _sku(sku, newer.skus.get(name), newer) for name, sku in older.skus.items()}
    return older.model_copy(update={"skus": skus, "fetched_at": newer.fetched_at})


@cache
def _laid_over(path: Path) -> PriceSheet:
    return laid_over(load_prices(path), load_prices())


def _sku(older: Sku, newer: Sku | None, sheet: PriceSheet) -> Sku:
    if newer is None:
        return older
    prices = dict(older.prices)
    for region, price in newer.prices.items():
        prices[region] = _price(price, older.prices.get(region), sheet)
    return older.model_copy(update={"prices": prices})


def _price(newer: RegionPrice, older: RegionPrice | None, sheet: PriceSheet) -> RegionPrice:
    origins = dict(older.origins) if older else {}
    kept = [] if older is None else [other for other in older.others if newer.usd(other.priority) is None]
    for priority in PRIORITIES:
        if newer.usd(priority) is not None:
            own = newer.origins.get(priority) or Origin(source=sheet.source, as_of=sheet.as_of)
            origins[priority] = own.model_copy(update={"bounds": own.bounds or sheet.bounds.of(priority)})
    return RegionPrice(
        on_demand=newer.on_demand,
        spot=newer.spot if newer.spot is not None or older is None else older.spot,
        others=[*newer.others, *kept],
        origins=origins,
    )


def _plain(value: Any) -> Any:
    """As YAML writes it; prices as the shortest number that reads back as the same decimal."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
