"""`labs prices` against a double of Azure's list: what is found is kept whole and dated, what isn't is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from lab_pipelines.catalog.prices import PRIORITIES, PriceSheet, load_prices
from lab_pipelines.catalog.prices_stored import newest_in, prices_in
from lab_pipelines.cli import app
from resources.retail_prices import ATTEMPTS, RetailPrices, RetailPricesError, refresh
from tests.support.command_line import own_environment, refused
from tests.support.retail_prices import Fault, RetailPricesDouble, Row, machine, row, whole_list

Labs = Callable[..., Result]
T4, T4X2, H100 = "Standard_NC4as_T4_v3", "Standard_NC8as_T4_v3", "Standard_NC40ads_H100_v5"


@pytest.fixture
def double() -> Iterator[RetailPricesDouble]:
    with RetailPricesDouble(rows=machine(T4, 0.55, 0.1837) + machine(T4X2, 0.752, 0.2)) as double:
        yield double


@pytest.fixture
def labs(double: RetailPricesDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    own_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LABS_RETAIL_PRICES_URL", double.url)
    return lambda *arguments: CliRunner().invoke(app, ["prices", *arguments])


def files(tmp_path: Path) -> list[Path]:
    """All that is in the folder of sheets, a temporary file too."""
    return sorted((tmp_path / "prices").iterdir()) if (tmp_path / "prices").exists() else []


def asked_on(tmp_path: Path) -> str:
    """The day that the newest sheet says it was asked for. Not the test's: days end while tests run."""
    fetched_at = prices_in(tmp_path).fetched_at
    assert fetched_at is not None and abs(datetime.now(UTC) - fetched_at) < timedelta(minutes=5)
    return f"{fetched_at:%Y-%m-%d}"


def ask(double: RetailPricesDouble, sku: str = T4, waits: list[float] | None = None) -> dict[str, Decimal]:
    """The prices of one machine type; what is waited for goes to `waits` and takes no time."""
    client = RetailPrices(double.url, sleep=(waits if waits is not None else []).append)
    done = refresh(client, load_prices(), None, skus=[sku], regions=["eastus"], progress=lambda line: None)
    return {one.priority: one.new for one in done.changes}


# What is kept


def test_a_refresh_keeps_a_dated_sheet_and_the_next_one_lies_over_it(
    labs: Labs, double: RetailPricesDouble, tmp_path: Path
) -> None:
    first = labs("refresh", "--region", "eastus", "--sku", T4, "--sku", T4X2)
    assert first.exit_code == 0, first.output
    assert "4 prices found, 3 of them other than before" in first.stdout
    assert "+4.6 %" in first.stdout and "+193.0 %" in first.stdout  # 0.55 / 0.526, 0.1837 / 0.0627
    assert f"1/2 {T4} in eastus: on-demand 0.55, spot 0.1837" in first.stderr
    double.rows = machine(T4, 0.6, 0.1, region="uksouth")
    second = labs("refresh", "--region", "uksouth", "--sku", T4)
    assert second.exit_code == 0, second.output
    assert len(files(tmp_path)) == 2

    sheet = prices_in(tmp_path)
    assert sheet.unit_price(T4, "uksouth").usd == Decimal("0.6")
    assert sheet.unit_price(T4, "eastus").usd == Decimal("0.55")  # asked for by the first refresh alone
    assert sheet.unit_price(T4X2, "eastus", "spot").usd == Decimal("0.2")
    origin = sheet.origin(T4, "eastus", "spot")
    assert (origin.as_of, str(origin.effective_from)) == (asked_on(tmp_path), "2021-11-01")
    assert origin.source == "Azure Retail Prices API 2023-01-01-preview, meter meter-NC4as-T4-v3-Spot-eastus"
    assert sheet.origin(T4, "westus2", "spot").as_of == "2024/2025"


def test_a_dry_run_says_what_would_change_and_keeps_nothing(labs: Labs, tmp_path: Path) -> None:
    done = labs("refresh", "--region", "eastus", "--sku", T4, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["sheet"] is None
    assert [(one["priority"], one["old_usd"], one["new_usd"]) for one in said["prices"]] == [
        ("on_demand", 0.526, 0.55),
        ("spot", 0.0627, 0.1837),
    ]
    assert not files(tmp_path)


def test_what_the_list_lacks_is_told_and_keeps_its_date(labs: Labs, double: RetailPricesDouble, tmp_path: Path) -> None:
    assert labs("refresh", "--region", "eastus", "--sku", T4).exit_code == 0
    double.rows = machine(T4, 0.56, None) + machine(H100, 6.98, None)
    double.rows += [row(T4X2, 0.7), row(T4X2, 0.8, meterId="another"), row(T4X2, 0.2, kind="Spot")]
    done = labs("refresh", "--region", "eastus", "--sku", T4, "--sku", H100, "--sku", T4X2)
    assert done.exit_code == 0, done.output
    assert f"- {T4} in eastus, spot: the list has no price" in done.stdout
    assert f"- {H100} in eastus, spot: the list has no price" in done.stdout
    assert f"- {T4X2} in eastus, on-demand: the list has several prices: 0.7, 0.8 USD" in done.stdout
    assert f"- {T4X2} in eastus: a spot price alone, which isn't kept" in done.stdout
    sheet = prices_in(tmp_path)
    assert sheet.unit_price(T4, "eastus").usd == Decimal("0.56")
    assert sheet.unit_price(T4, "eastus", "spot").usd == Decimal("0.1837")
    assert sheet.unit_price(T4X2, "eastus") == load_prices().unit_price(T4X2, "eastus")


def test_the_whole_committed_sheet_is_found_in_a_list_that_has_it(
    labs: Labs, double: RetailPricesDouble, tmp_path: Path
) -> None:
    double.rows = whole_list()
    done = labs("refresh", "--json")
    assert done.exit_code == 0, done.output
    known, sheet, today = load_prices(), prices_in(tmp_path), asked_on(tmp_path)
    for name in known.offered():
        for region, price in known.sku(name).prices.items():
            for priority in PRIORITIES:
                assert sheet.price(name, region).usd(priority) == price.usd(priority), (name, region, priority)
                if price.usd(priority) is not None:
                    assert sheet.origin(name, region, priority).as_of == today
    assert sheet.origin("Standard_NC6s_v3", "eastus", "on_demand").as_of == "2024/2025"  # retired: never asked for
    assert not [target for target in double.asked if "NC6s" in target]


# How it is asked


def test_names_with_blanks_are_found_by_the_name_for_people(double: RetailPricesDouble) -> None:
    for one in double.rows:
        one["armSkuName"] = one["armSkuName"].replace("_T4_", " T4 ")
    assert ask(double, T4X2) == {"on_demand": Decimal("0.752"), "spot": Decimal("0.2")}
    assert any("contains%28skuName" in target for target in double.asked)


def test_every_page_is_read_and_an_empty_one_ends_nothing(double: RetailPricesDouble) -> None:
    double.page_rows = 1
    assert ask(double) == {"on_demand": Decimal("0.55"), "spot": Decimal("0.1837")}
    assert len(double.asked) == len([one for one in machine(T4, 1, 1) if one["type"] == "Consumption"])
    link = f"{double.url}/api/retail/prices?api-version=2023-01-01-preview&$filter=armSkuName%20eq%20'{T4}'"
    double.faults = [Fault(200, json.dumps({"Items": [], "NextPageLink": link, "Count": 0}))]
    assert ask(double) == {"on_demand": Decimal("0.55"), "spot": Decimal("0.1837")}


def test_the_list_is_asked_again_after_as_long_as_it_says(double: RetailPricesDouble) -> None:
    waits = list[float]()
    double.faults = [Fault(429, headers={"Retry-After": "7"}), Fault(503), Fault(500)]
    assert ask(double, waits=waits)["on_demand"] == Decimal("0.55")
    assert waits == [7, 2, 4]


@pytest.mark.parametrize(
    ("faults", "said", "requests"),
    [
        ([Fault(429, headers={"Retry-After": "3600"})], "429 Too Many Requests, and may be asked again in 3600 s", 1),
        ([Fault(429, headers={"Retry-After": "0"})] * 9, f"429 Too Many Requests, {ATTEMPTS} times", ATTEMPTS),
        ([Fault(503)] * 9, f"503 Service Unavailable, {ATTEMPTS} times; try again later", ATTEMPTS),
        ([Fault(403, "blocked")], "403 Forbidden: blocked", 1),
        ([Fault(302, headers={"Location": "http://127.0.0.1:9/"})], "302 Found", 1),
        ([Fault(200, "<html>")], "an answer that is no JSON", 1),
        ([Fault(200, '{"Items": [')], "an answer that is no JSON", 1),
        ([Fault(200, "[" * 200_000)], "an answer that is no JSON", 1),
        ([Fault(200, "[]")], "an answer that is no JSON object", 1),
        ([Fault(200, '{"Items": null}')], "an answer without a list of Items", 1),
        ([Fault(200, '{"Items": [], "NextPageLink": 1}')], "an answer without a list of Items", 1),
    ],
)
def test_what_fails_is_one_line_and_leaves_no_sheet(
    labs: Labs,
    double: RetailPricesDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Fault],
    said: str,
    requests: int,
) -> None:
    monkeypatch.setattr("resources.retail_prices.BACKOFF_S", 0.001)
    assert labs("refresh", "--region", "eastus", "--sku", T4X2).exit_code == 0
    [kept], double.asked[:] = files(tmp_path), []
    double.faults = list(faults)
    failed = labs("refresh", "--region", "eastus", "--sku", T4, "--sku", T4X2)
    message = refused(failed, 1)
    assert said in message and message.count("\n") == 1
    assert len(double.asked) == requests
    assert files(tmp_path) == [kept]


def test_a_failure_halfway_leaves_no_sheet(labs: Labs, double: RetailPricesDouble, tmp_path: Path) -> None:
    assert labs("refresh", "--region", "eastus", "--sku", T4, "--dry-run").exit_code == 0
    double.fault_after = 2 * len(
        double.asked
    )  # all that the first machine type takes once more, and nothing of the second
    double.faults = [Fault(403, "no more")]
    failed = labs("refresh", "--region", "eastus", "--sku", T4, "--sku", T4X2)
    assert failed.exit_code == 1 and "403 Forbidden: no more" in failed.stderr
    assert f"1/2 {T4} in eastus: on-demand 0.55" in failed.stderr
    assert not files(tmp_path)


def test_pages_that_never_end_are_an_error(double: RetailPricesDouble) -> None:
    double.endless = True
    with pytest.raises(RetailPricesError, match="its pages don't end"):
        ask(double)
    assert len(double.asked) < 10


def test_a_next_page_at_another_server_is_not_asked_for(double: RetailPricesDouble) -> None:
    with RetailPricesDouble() as other:
        double.elsewhere = other.url
        with pytest.raises(RetailPricesError, match="another server"):
            ask(double)
        assert not other.asked


def test_a_server_that_is_away_is_told(labs: Labs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("resources.retail_prices.BACKOFF_S", 0.001)
    monkeypatch.setenv("LABS_RETAIL_PRICES_URL", "http://127.0.0.1:9")
    assert "can't be reached (ConnectionError), 5 times" in labs("refresh", "--sku", T4).stderr
    assert not files(tmp_path)


# Calls


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["refresh", "--sku", "standard_nc4as_t4_v3"], f"did you mean {T4}? Letters count"),
        (["refresh", "--sku", "Standard_NC4as T4 v3"], f"did you mean {T4}?"),
        (["refresh", "--sku", "Standard_X"], f"no such machine type; it has: {T4}, "),
        (["refresh", "--sku", "Standard_NC6s_v3"], "Azure retired it on 2025-09-30"),
        (["refresh", "--region", "East US"], "expected a region as Azure names it, e.g. eastus"),
        (["show", "--sku", "T4"], "no such machine type"),
    ],
)
def test_a_wrong_call_is_refused_before_the_list_is_asked(
    labs: Labs, double: RetailPricesDouble, arguments: list[str], said: str
) -> None:
    assert said in refused(labs(*arguments), 2)
    assert not double.asked


def test_show_says_price_bounds_date_and_source(labs: Labs, tmp_path: Path) -> None:
    assert labs("refresh", "--region", "eastus", "--sku", T4).exit_code == 0
    shown = labs("show", "--sku", T4, "--region", "eastus", "--region", "westus2")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines() if line.startswith(T4)]
    assert lines[1] == [T4, "eastus", "spot", "0.1837", "0.055", "to", "0.550", asked_on(tmp_path), lines[1][-2], "[1]"]
    assert lines[1][-2] in {"0", "1"}  # days since; 1 where one ended between the two commands
    assert lines[2][:8] == [T4, "westus2", "on", "demand", "0.526", "0.4997", "to", "0.5523"]
    assert "- [2] skypilot-org/skypilot-catalog" in shown.stdout
    assert str(newest_in(tmp_path)) in shown.stdout and "any age is allowed" in shown.stdout
    said = json.loads(labs("show", "--sku", T4, "--json").stdout)
    assert len(said["prices"]) == 6
    assert said["prices"][0]["effective_from"] == "2021-11-01"
    assert "in region mars" in refused(labs("show", "--region", "mars"), 1)


def test_the_plan_is_reckoned_with_the_refreshed_price(labs: Labs) -> None:
    assert labs("refresh", "--region", "eastus", "--sku", T4).exit_code == 0
    planned = CliRunner().invoke(app, ["plan", "L06", "--no-rehearsal", "--json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["nodes"][0]["usd_per_hour"] == 0.55


# Never zero, never silently missing

_AMOUNTS = st.sampled_from([0.526, 0.752, 0.0, -1.0, 1e-8, 0.0627])
_KINDS = st.sampled_from(["", "Spot", "Low Priority", "spot"])
_FIELDS = st.sampled_from(
    [{}, {"type": "Reservation"}, {"productName": "Series Windows"}, {"unitPrice": None}, {"armSkuName": T4.lower()},
     {"currencyCode": "EUR"}, {"isPrimaryMeterRegion": False}, {"effectiveStartDate": "9999-01-01"}, {"skuName": None}]
)  # fmt: skip
_LISTS = st.lists(st.builds(lambda usd, kind, more: row(T4, usd, kind=kind, **more), _AMOUNTS, _KINDS, _FIELDS))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_LISTS)
def test_every_price_that_was_asked_for_is_above_zero_or_told(double: RetailPricesDouble, rows: list[Row]) -> None:
    double.rows, double.page_rows = rows, 2
    client, known = RetailPrices(double.url), load_prices()
    try:
        done = refresh(client, known, None, skus=[T4], regions=["eastus"], progress=lambda line: None)
    except RetailPricesError as error:
        assert "the list has no price of what was asked for" in str(error)
        return
    found = {one.priority for one in done.changes}
    told = {priority for priority in PRIORITIES for text in done.problems if f", {_SHOWN[priority]}:" in text}
    assert found | told == set(PRIORITIES)
    assert all(one.new > 0 for one in done.changes)
    assert _prices_above_zero(done.sheet)


_SHOWN = {"on_demand": "on-demand", "spot": "spot"}


def _prices_above_zero(sheet: PriceSheet) -> bool:
    prices = [price for sku in sheet.skus.values() for price in sku.prices.values()]
    return all(price.on_demand > 0 and (price.spot is None or price.spot > 0) for price in prices)
