"""Azure's public list of retail prices over HTTP, and the price sheet that is made of its answers.

Belongs here: asking (filter, pages, waiting when the list says so), and which answers become a sheet.
Doesn't belong here: which rows are a price (lab_pipelines/catalog/prices_retail.py), where sheets are kept
(catalog/prices_stored.py), what was really billed.

The API is documented as Azure Retail Prices overview, and needs no account. Since version 2023-01-01-preview the values
of a filter count in exactly their letters; `or` and `not` are refused. So each machine type is asked for alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lab_pipelines.catalog.loader import one_line
from lab_pipelines.catalog.prices import (
    PRIORITIES,
    SHOWN_PRIORITY,
    Bounds,
    Origin,
    PriceSheet,
    Priority,
    RegionPrice,
)
from lab_pipelines.catalog.prices_retail import Quote, quotes, short_name
from resources.azure_errors import retry_after_s

if TYPE_CHECKING:
    import requests

API_VERSION = "2023-01-01-preview"
PATH = "/api/retail/prices"
SOURCE = f"Azure Retail Prices API {API_VERSION}"
MOST_PAGES = 100
"""Of one question. A machine type has some dozen rows in a region; a page of the list holds at least 100."""
ATTEMPTS = 5
BACKOFF_S = 1.0
"""Before the second attempt where the list says nothing; twice as long before each further one."""
WAIT_S = 120.0
"""The longest that one refresh waits in all because the list asks it to, or is away."""
CONNECT_S, READ_S = 10.0, 30.0
_PASSING = {408, 429, 500, 502, 503, 504}


class RetailPricesError(RuntimeError):
    """The list can't be had as a whole. The message says what was asked and what came."""


class RetailPrices:
    """A client of the list at `base_url`. `sleep` takes seconds."""

    def __init__(self, base_url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        import requests

        self._base_url, self._sleep, self._waited = base_url.rstrip("/"), sleep, 0.0
        self._session = requests.Session()

    def rows(self, *, sku: str, region: str) -> list[Any]:
        """Every row of the list for a machine type in a region. Raises `RetailPricesError`.

        Some rows have blanks in the machine type's name, and aren't found by it; where it finds no Spot or no on-demand
        row, the list is asked by the name that it shows to people, too.
        """
        place = f"serviceName eq 'Virtual Machines' and armRegionName eq '{_quoted(region)}'"
        kind = "priceType eq 'Consumption'"
        found = self._pages(f"{place} and armSkuName eq '{_quoted(sku)}' and {kind}")
        now = datetime.now(UTC)
        if len(quotes(found, sku=sku, region=region, now=now)[0]) < len(PRIORITIES):
            found += self._pages(f"{place} and contains(skuName, '{_quoted(short_name(sku))}') and {kind}")
        return found

    def _pages(self, filter_: str) -> list[Any]:
        url, parameters = f"{self._base_url}{PATH}", {"api-version": API_VERSION, "currencyCode": "'USD'"}
        rows, seen = list[Any](), set[str]()
        link: str | None = None
        while link is None or link:
            answer = self._page(link or url, None if link else {**parameters, "$filter": filter_})
            items, link = answer.get("Items"), answer.get("NextPageLink") or ""
            if not isinstance(items, list) or not isinstance(link, str):
                raise RetailPricesError(f"{self._base_url}: an answer without a list of Items, asked for {filter_}")
            rows += items
            if link in seen or len(seen) >= MOST_PAGES:
                raise RetailPricesError(f"{self._base_url}: its pages don't end, asked for {filter_}")
            if link and _origin(link) != _origin(self._base_url):
                raise RetailPricesError(f"{self._base_url}: its next page is at {one_line(link)}, another server")
            seen.add(link)
        return rows

    def _page(self, url: str, parameters: Mapping[str, str] | None) -> Mapping[str, Any]:
        """One page. What may pass is asked for again, within `ATTEMPTS` and `WAIT_S`. Raises `RetailPricesError`."""
        import requests

        for attempt in range(1, ATTEMPTS + 1):
            wait = BACKOFF_S * 2 ** (attempt - 1)
            try:
                answer = self._session.get(
                    url,
                    params=parameters,
                    timeout=(CONNECT_S, READ_S),
                    allow_redirects=False,
                    headers={"Accept": "*/*"},
                )
            except requests.RequestException as error:
                said = f"can't be reached ({type(error).__name__})"
            else:
                if answer.status_code == 200:
                    return self._read(answer)
                said = f"answered {answer.status_code} {one_line(answer.reason or '')}".rstrip()
                if answer.status_code not in _PASSING:
                    raise RetailPricesError(f"{self._base_url} {said}: {one_line(answer.text)[:200]}")
                wait = retry_after_s(answer.headers.get("Retry-After"), default=wait)
            if attempt == ATTEMPTS:
                raise RetailPricesError(f"{self._base_url} {said}, {ATTEMPTS} times; try again later")
            self._wait(wait, said)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, seconds: float, said: str) -> None:
        if self._waited + seconds > WAIT_S:
            raise RetailPricesError(
                f"{self._base_url} {said}, and may be asked again in {seconds:.0f} s; a refresh waits "
                f"{WAIT_S:.0f} s in all. Try again later"
            )
        self._waited += seconds
        self._sleep(seconds)

    def _read(self, answer: requests.Response) -> Mapping[str, Any]:
        import json

        try:
            # As decimals: a price is what the text says.
            read = json.loads(answer.content, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise RetailPricesError(f"{self._base_url}: an answer that is no JSON ({one_line(str(error))})") from None
        if not isinstance(read, dict):
            raise RetailPricesError(f"{self._base_url}: an answer that is no JSON object")
        return read


@dataclass(frozen=True)
class Change:
    """A price that was asked for: what was known before, and what the list says now."""

    sku: str
    region: str
    priority: Priority
    old: Decimal | None
    """None: no price was known."""
    new: Decimal

    @property
    def percent(self) -> Decimal | None:
        return None if self.old is None else (self.new / self.old - 1) * 100


@dataclass(frozen=True)
class Refreshed:
    """What a refresh brought."""

    sheet: PriceSheet
    changes: list[Change]
    """Every price that was found, changed or not."""
    problems: list[str]
    """Every price that was asked for and not found, one line each. What was known of it stays, with its date."""


def refresh(
    client: RetailPrices,
    known: PriceSheet,
    newest: PriceSheet | None,
    *,
    skus: Sequence[str],
    regions: Sequence[str],
    progress: Callable[[str], None],
) -> Refreshed:
    """Ask the list for each of `skus` in each of `regions`; `newest` is the last refreshed sheet.

    The sheet has what was found now and, with its own date, what `newest` has beside. Raises `RetailPricesError` when
    one answer can't be had, or when nothing at all was found: then there is no sheet.
    """
    now = datetime.now(UTC)
    changes, problems = list[Change](), list[str]()
    prices = _carried(newest, known)
    asked = [(sku, region) for region in regions for sku in skus]
    for number, (sku, region) in enumerate(asked, start=1):
        found, missing = quotes(client.rows(sku=sku, region=region), sku=sku, region=region, now=now)
        said = ", ".join(f"{SHOWN_PRIORITY[p]} {q.usd.normalize():f}" for p, q in found.items()) or "no price"
        progress(f"{number}/{len(asked)} {sku} in {region}: {said}")
        problems += missing.values()
        former = prices.get(sku, {}).get(region)
        on_demand = found["on_demand"].usd if "on_demand" in found else former.on_demand if former else None
        if found and on_demand is None:
            problems.append(
                f"{sku} in {region}: a spot price alone, which isn't kept: nothing says what it may rise to"
            )
            continue
        if on_demand is not None:
            prices.setdefault(sku, {})[region] = _region_price(on_demand, found, former, today=now.date())
        old = known.skus[sku].prices.get(region)
        changes += [Change(sku, region, p, old.usd(p) if old else None, q.usd) for p, q in found.items()]
    if not changes:
        raise RetailPricesError(f"the list has no price of what was asked for; first: {problems[0]}")
    sheet = PriceSheet(
        source=SOURCE,
        as_of=f"{now:%Y-%m-%d}",
        fetched_at=now,
        currency="USD",
        on_demand_confidence="A",
        spot_confidence="B",
        bounds=Bounds(on_demand=known.bounds.on_demand_refreshed or known.bounds.on_demand, spot=known.bounds.spot),
        skus={name: known.skus[name].model_copy(update={"prices": each}) for name, each in prices.items()},
    )
    return Refreshed(sheet, changes, problems)


def _carried(newest: PriceSheet | None, known: PriceSheet) -> dict[str, dict[str, RegionPrice]]:
    """The prices of the last refreshed sheet, each with its own date, of the machine types that are still known."""
    if newest is None:
        return {}
    return {
        name: {region: _dated(price, newest) for region, price in sku.prices.items()}
        for name, sku in newest.skus.items()
        if name in known.skus
    }


def _dated(price: RegionPrice, sheet: PriceSheet) -> RegionPrice:
    own = Origin(source=sheet.source, as_of=sheet.as_of)
    given: list[Priority] = [p for p in PRIORITIES if price.usd(p) is not None]
    return price.model_copy(update={"origins": {p: price.origins.get(p, own) for p in given}})


def _region_price(
    on_demand: Decimal, found: Mapping[Priority, Quote], former: RegionPrice | None, *, today: date
) -> RegionPrice:
    """What was found, and what else was known, each with its date."""
    origins = dict(former.origins) if former else {}
    for priority, quote in found.items():
        source = f"{SOURCE}, meter {quote.meter}" if quote.meter else SOURCE
        origins[priority] = Origin(source=source, as_of=today.isoformat(), effective_from=quote.effective_from)
    spot = found["spot"].usd if "spot" in found else former.spot if former else None
    return RegionPrice(on_demand=on_demand, spot=spot, origins=origins)


def _quoted(value: str) -> str:
    """A value within the quotes of an OData filter."""
    return value.replace("'", "''")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return parts.scheme, None, None
    return parts.scheme, parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)
