"""The newest sheet lies over the committed one, price by price; each keeps its date, its source and its bounds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.catalog.prices import (
    Bounds,
    Origin,
    OtherFigure,
    PriceSheet,
    RegionPrice,
    StalePriceError,
    UnknownPriceError,
    age_days,
    load_prices,
)
from lab_pipelines.catalog.prices_stored import laid_over, newest_in, prices_in
from resources.billing import PriceSheetBilling
from resources.contract import WarehouseError
from resources.price_sheets import REMOTE_FOLDER, keep_sheet, known_prices

T4, T4X2, H100 = "Standard_NC4as_T4_v3", "Standard_NC8as_T4_v3", "Standard_NC40ads_H100_v5"


def refreshed(prices: dict[str, dict[str, RegionPrice]], *, at: datetime, **fields: Any) -> PriceSheet:
    """A sheet as a refresh makes it, of machines that the committed one knows."""
    known = load_prices()
    bounds = known.bounds
    return PriceSheet(
        **{
            "source": "a list",
            "as_of": f"{at:%Y-%m-%d}",
            "fetched_at": at,
            "currency": "USD",
            "on_demand_confidence": "A",
            "spot_confidence": "B",
            "bounds": Bounds(on_demand=bounds.on_demand_refreshed or bounds.on_demand, spot=bounds.spot),
            "skus": {sku: known.skus[sku].model_copy(update={"prices": each}) for sku, each in prices.items()},
            **fields,
        }
    )


AT = datetime(2026, 10, 5, 6, tzinfo=UTC)


def test_without_a_refresh_the_prices_are_the_committed_ones(tmp_path: Path) -> None:
    assert prices_in(tmp_path) is load_prices()
    assert prices_in(None) is load_prices()
    assert newest_in(tmp_path) is None


def test_the_newest_sheet_wins_price_by_price_and_the_rest_stays(tmp_path: Path) -> None:
    old = refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal("9"))}}, at=AT - timedelta(days=7))
    new = refreshed(
        {T4: {"eastus": RegionPrice(on_demand=Decimal("0.6"), spot=Decimal("0.2"))},
         T4X2: {"uksouth": RegionPrice(on_demand=Decimal("0.9"))}}, at=AT)  # fmt: skip
    for sheet in (new, old):  # the order of writing is nothing to go by
        keep_sheet(sheet, tmp_path, None)
    assert len(list((tmp_path / "prices").iterdir())) == 2
    sheet = prices_in(tmp_path)
    assert sheet.price(T4, "eastus").on_demand == Decimal("0.6")
    assert sheet.origin(T4, "eastus", "spot") == Origin(
        source="a list", as_of="2026-10-05", bounds=load_prices().bounds.spot
    )
    assert sheet.unit_price(T4, "eastus").source == "on-demand list price as of 2026-10-05, a list"
    assert sheet.unit_price(T4, "westus2") == load_prices().unit_price(T4, "westus2")
    assert sheet.unit_price(T4X2, "uksouth").usd == Decimal("0.9")
    assert sheet.offered() == load_prices().offered()
    with pytest.raises(UnknownPriceError, match="no spot price of Standard_NC8as_T4_v3 in region 'uksouth'"):
        sheet.unit_price(T4X2, "uksouth", "spot")


def test_a_sheet_without_a_spot_price_leaves_the_older_one_with_its_date_and_bounds_by_the_new_on_demand() -> None:
    newer = refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal("0.3"))}}, at=AT)
    sheet = laid_over(newer, load_prices())
    spot = sheet.unit_price(T4, "eastus", "spot")
    assert (spot.usd, spot.usd_low, spot.usd_high) == (Decimal("0.0627"), Decimal("0.03"), Decimal("0.3"))
    assert sheet.origin(T4, "eastus", "spot").as_of == "2024/2025"


def test_what_another_source_says_ends_with_the_price_that_it_contradicts() -> None:
    assert load_prices().unit_price(T4X2, "eastus").usd_high == Decimal("1.052")
    newer = refreshed({T4X2: {"eastus": RegionPrice(on_demand=Decimal("0.76"))}}, at=AT)
    price = laid_over(newer, load_prices()).unit_price(T4X2, "eastus")
    assert (price.usd_low, price.usd, price.usd_high) == (Decimal("0.76"), Decimal("0.76"), Decimal("0.76"))


def test_a_sheet_reads_back_as_it_was_written(tmp_path: Path) -> None:
    origin = Origin(source="a list, meter 1", as_of="2026-10-01", effective_from=date(2021, 11, 1))
    price = RegionPrice(
        on_demand=Decimal("0.526"),
        spot=Decimal("0.016806"),
        others=[OtherFigure(priority="spot", usd=Decimal("0.1"), source="another list")],
        origins={"on_demand": origin},
    )
    sheet = refreshed({T4: {"eastus": price}}, at=AT + timedelta(microseconds=7))
    path = keep_sheet(sheet, tmp_path, None)
    assert path.name == "azure-retail-20261005T060000.000007Z.yaml"
    assert load_prices(path) == sheet
    assert keep_sheet(sheet, tmp_path, None) == path  # the same again is no other sheet


def test_a_damaged_sheet_is_named_and_never_passed_over(tmp_path: Path) -> None:
    path = keep_sheet(refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal("0.6"))}}, at=AT), tmp_path, None)
    path.write_text(path.read_text().replace("on_demand: 0.6", "on_demand: 0"))
    with pytest.raises(SpecError, match=r"azure-retail-.*\.yaml:\d+: skus\..*on_demand: "):
        PriceSheetBilling(data_dir=str(tmp_path)).node_hour_price(T4)


def test_with_a_lake_elsewhere_every_machine_has_the_newest_sheet(tmp_path: Path) -> None:
    lake_url, here, there = (tmp_path / "lake").as_uri(), tmp_path / "here", tmp_path / "there"
    assert known_prices(there, lake_url) is load_prices()
    for usd, at in (("0.6", AT), ("0.7", AT + timedelta(days=7))):
        sheet = refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal(usd))}}, at=at)
        path = keep_sheet(sheet, here, lake_url)
        assert (tmp_path / "lake" / REMOTE_FOLDER / path.name).read_bytes() == path.read_bytes()
        billing = PriceSheetBilling(data_dir=str(there), lake_url=lake_url)
        price = billing.node_hour_price(T4)
        assert price is not None and price.usd == Decimal(usd)


def test_a_lake_that_is_lost_is_an_error_and_no_older_price(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file where a folder should be")
    with pytest.raises(WarehouseError, match="can't be reached"):
        sheet = refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal("0.6"))}}, at=AT)
        keep_sheet(sheet, tmp_path / "here", (tmp_path / "lake").as_uri())
    assert newest_in(tmp_path / "here") is None


# bounds


def test_every_committed_price_lies_within_bounds_that_somebody_stands_for() -> None:
    sheet = load_prices()
    for name, sku in sheet.skus.items():
        for region, found in sku.prices.items():
            price = sheet.unit_price(name, region)
            assert 0 < price.usd_low <= price.usd <= price.usd_high, (name, region)
            if found.spot is not None:
                spot = sheet.unit_price(name, region, "spot")
                assert 0 < spot.usd_low <= spot.usd <= spot.usd_high <= found.on_demand, (name, region)
    every = [sheet.bounds.on_demand, sheet.bounds.spot, sheet.bounds.on_demand_refreshed]
    assert all(bound.by for one in every if one for bound in [*one.low, *one.high])


def test_the_bounds_of_a_spot_price_can_be_worked_out_by_hand() -> None:
    # On demand 0.526: a tenth of that at least; at most the lower of 6.64 x 0.0627 = 0.416328 and 0.526.
    price = load_prices().unit_price(T4, "eastus", "spot")
    assert (price.usd_low, price.usd_high) == (Decimal("0.0526"), Decimal("0.416328"))
    # 6.64 x 0.2 = 1.328 is more than a standard machine costs.
    newer = refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal("0.526"), spot=Decimal("0.2"))}}, at=AT)
    assert laid_over(newer, load_prices()).unit_price(T4, "eastus", "spot").usd_high == Decimal("0.526")


@given(st.decimals("0.000001", "200", places=6), st.one_of(st.none(), st.decimals("0.000001", "200", places=6)))
def test_bounds_include_the_price_whatever_it_is(on_demand: Decimal, spot: Decimal | None) -> None:
    newer = refreshed({T4: {"eastus": RegionPrice(on_demand=on_demand, spot=spot)}}, at=AT)
    for price in (laid_over(newer, load_prices()).unit_price(T4, "eastus", p) for p in ("on_demand", "spot")):
        assert 0 < price.usd_low <= price.usd <= price.usd_high


# age


@pytest.mark.parametrize(
    ("as_of", "days"),
    [
        ("2026-10-05", 0),
        ("2026-10-06", 0),
        ("2026-10-07", -2),
        ("2026-09-05", 30),
        ("2026-09", 34),
        ("2026", 277),
        ("2024/2025", 1008),
        ("2026-10-01/2026-10-04", 4),
    ],
)
def test_what_a_date_leaves_open_counts_as_the_oldest_day(as_of: str, days: int) -> None:
    assert age_days(as_of, date(2026, 10, 5)) == days


@pytest.mark.parametrize("as_of", ["2026-13", "2026-02-30", "2025/2024"])
def test_a_date_that_is_none_is_refused(as_of: str) -> None:
    with pytest.raises(ValueError, match="as_of"):
        Origin(source="a list", as_of=as_of)


def test_a_stale_price_is_an_error_that_says_which_and_how_old_and_what_to_do(tmp_path: Path) -> None:
    billing = PriceSheetBilling(region="westus2", data_dir=str(tmp_path), max_age_days=30)
    with pytest.raises(StalePriceError) as caught:
        billing.node_hour_price(T4, "spot")
    said = str(caught.value)
    assert f"the spot price of {T4} in westus2 is as of 2024/2025 and may be " in said
    assert "at most 30 days are allowed (LABS_PRICE_MAX_AGE_DAYS). Run labs prices refresh --region westus2" in said
    assert "\n" not in said


@pytest.mark.parametrize(("days_old", "stale"), [(0, False), (30, False), (31, True), (-1, False), (-3, True)])
def test_the_limit_is_the_last_day_that_is_allowed(tmp_path: Path, days_old: int, stale: bool) -> None:
    at = datetime.now(UTC) - timedelta(days=days_old)
    keep_sheet(refreshed({T4: {"eastus": RegionPrice(on_demand=Decimal("0.6"))}}, at=at), tmp_path, None)
    billing = PriceSheetBilling(data_dir=str(tmp_path), max_age_days=30)
    if not stale:
        price = billing.node_hour_price(T4)
        assert price is not None and price.usd == Decimal("0.6")
        return
    with pytest.raises(StalePriceError, match="dated in the future" if days_old < 0 else "may be 31 days old"):
        billing.node_hour_price(T4)


def test_without_a_limit_the_price_says_its_date(tmp_path: Path) -> None:
    price = PriceSheetBilling(data_dir=str(tmp_path)).node_hour_price(T4)
    assert price is not None and "as of 2024/2025" in price.source
