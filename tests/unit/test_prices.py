"""A node-hour has a price with a source, or a clear error; it is never free by accident."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lab_pipelines.catalog.loader import CATALOG_DIR, SpecError, load_catalog
from lab_pipelines.catalog.prices import UnknownPriceError, load_prices
from lab_pipelines.deployment import Deployment
from lab_pipelines.engine.tables import all_hardware
from resources.billing import PriceSheetBilling

T4 = "Standard_NC4as_T4_v3"


def test_a_price_is_exactly_what_the_sheet_says() -> None:
    prices = load_prices()
    assert prices.price(T4, "eastus").on_demand == Decimal("0.526")
    assert prices.price(T4, "centralus").spot == Decimal("0.0653")
    assert prices.price("Standard_NC40ads_H100_v5", "eastus").spot is None


def test_every_price_is_positive_and_spot_is_below_on_demand() -> None:
    for name, sku in load_prices().skus.items():
        for region, price in sku.prices.items():
            assert price.on_demand > 0, (name, region)
            assert price.spot is None or 0 < price.spot < price.on_demand, (name, region)


def test_machines_with_more_of_the_same_gpu_cost_more() -> None:
    skus = load_prices().skus
    for region in ("eastus", "westus2", "centralus"):
        one, two, four = (skus[f"Standard_NC{n}ads_A100_v4"].prices[region].on_demand for n in (24, 48, 96))
        assert two / one == pytest.approx(2, rel=0.001), region
        assert four / one == pytest.approx(4, rel=0.001), region


def test_the_v100_stays_as_history_and_is_not_offered() -> None:
    prices = load_prices()
    assert str(prices.sku("Standard_NC6s_v3").retired) == "2025-09-30"
    assert prices.price("Standard_NC6s_v3", "eastus").on_demand == Decimal("3.060")
    assert "Standard_NC6s_v3" not in prices.offered()


def test_every_lab_asks_for_machines_that_are_offered_in_the_default_region() -> None:
    prices = load_prices()
    asked = {nodes.sku: lab.id for lab in load_catalog().labs() for nodes in lab.nodes}
    assert asked
    for sku, lab in asked.items():
        assert sku in prices.offered(), lab
        assert prices.price(sku, Deployment.region).on_demand > 0


def test_no_lab_asks_for_more_gpus_than_a_machine_has() -> None:
    prices = load_prices()
    for lab in load_catalog().labs():
        for nodes in lab.nodes:
            assert nodes.gpus <= prices.sku(nodes.sku).gpus, lab.id


def test_a_machine_without_gpus_names_none_and_twice_its_size_costs_twice_as_much() -> None:
    small, large = (load_prices().skus[f"Standard_D{n}s_v5"] for n in (4, 8))
    assert (small.gpu, small.gpus, large.gpu, large.gpus) == (None, 0, None, 0)
    assert large.vcpus == 2 * small.vcpus
    assert large.memory_gib == 2 * small.memory_gib
    for region, price in small.prices.items():
        assert large.prices[region].on_demand == 2 * price.on_demand, region


def test_gpus_bear_the_names_that_the_engine_model_gives_them() -> None:
    priced = {sku.gpu for sku in load_prices().skus.values()}
    assert set(all_hardware()) <= priced


@pytest.mark.parametrize(
    ("sku", "region", "said"),
    [
        ("Standard_NC4as_T4", "eastus", f"no SKU 'Standard_NC4as_T4'; it has: {T4}"),
        (T4, "East US", f"no price of {T4} in region 'East US'; it has: eastus, westus2, centralus. Set LABS_REGION"),
        ("Standard_NC40ads_H100_v5", "westus2", "it has: eastus"),
    ],
)
def test_an_unknown_sku_or_region_is_an_error_that_names_the_known_ones(sku: str, region: str, said: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        PriceSheetBilling(region=region).node_hour_price(sku)
    assert said in str(caught.value)


def test_a_machine_without_a_sku_has_no_price_rather_than_a_price_of_zero() -> None:
    assert PriceSheetBilling().node_hour_price(None) is None


def test_a_price_carries_its_source_and_date() -> None:
    price = PriceSheetBilling(region="westus2").node_hour_price(T4)
    assert price is not None
    assert (price.sku, price.region, price.usd) == (T4, "westus2", Decimal("0.526"))
    assert "as of 2024/2025" in price.source
    assert "skypilot-catalog" in price.source


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{on_demand: 0.526, spot: 0.0627}", "{on_demand: 0, spot: 0.0627}", "eastus.on_demand: "),
        ("{on_demand: 0.526, spot: 0.0627}", "{on_demand: null}", "eastus.on_demand: "),
        ("{on_demand: 0.526, spot: 0.0627}", "{spot: 0.0627}", "eastus.on_demand: is required and missing"),
        ("as_of: 2024/2025", "as_of: lately", "as_of: "),
        ("retired: 2025-09-30", "retired: 'yes'", "Standard_NC6s_v3.retired: "),
        ("{gpu: T4, gpus: 1, vcpus: 4", "{gpus: 1, vcpus: 4", "Standard_NC4as_T4_v3: gpu: 1 GPUs named None"),
        ("{gpus: 0, vcpus: 4", "{gpu: T4, gpus: 0, vcpus: 4", "Standard_D4s_v5.gpu: 0 GPUs named T4"),
    ],
)
def test_a_wrong_sheet_is_refused_by_file_line_and_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (CATALOG_DIR / "prices.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "prices.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_prices(path)
    assert "prices.yaml:" in str(caught.value)
    assert said in str(caught.value)
