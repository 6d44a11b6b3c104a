"""A double of Azure's list of retail prices over real HTTP, for the real client on loopback.

Belongs here: the list's questions and answers as its public documentation and the programs that read it show them: a
`$filter` whose values count in exactly their letters (`eq`, `contains`, `and`; anything else is refused with 400),
pages with `NextPageLink`, and the many rows that a machine type has; and faults to order.
Doesn't belong here: anything that no test of ours asks for. It holds no recording of the real list.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from typer.testing import CliRunner

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.cli import app

PATH = "/api/retail/prices"
Row = dict[str, Any]


def row(sku: str, usd: float, *, region: str = "eastus", kind: str = "", **fields: Any) -> Row:
    """One row as the list has it. `kind` is what its name ends with, as `Spot`; `fields` replaces any."""
    name = " ".join([sku.removeprefix("Standard_").replace("_", " "), *([kind] if kind else [])])
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": usd,
        "unitPrice": usd,
        "armRegionName": region,
        "location": region,
        "effectiveStartDate": "2021-11-01T00:00:00Z",
        "meterId": f"meter-{name}-{region}".replace(" ", "-"),
        "meterName": name,
        "productId": "DZH318Z0BQ4L",
        "skuId": "DZH318Z0BQ4L/00B4",
        "productName": "Virtual Machines Series",
        "skuName": name,
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": sku,
        **fields,
    }


def machine(sku: str, on_demand: float, spot: float | None, *, region: str = "eastus") -> list[Row]:
    """All that the list has of one machine type in a region: what is wanted is neither first nor last."""
    rows = [
        row(sku, round(on_demand * 1.5, 6), region=region, productName="Virtual Machines Series Windows"),
        row(sku, round(on_demand / 5, 6), region=region, kind="Low Priority"),
        row(sku, on_demand, region=region),
        row(sku, on_demand * 5000, region=region, type="Reservation", reservationTerm="1 Year"),
        row(sku, round(on_demand * 0.9, 6), region=region, type="DevTestConsumption"),
        row(sku, round(on_demand * 1.1, 6), region=region, productName="Series Cloud Services"),
        row(sku, round(on_demand * 1.2, 6), region=region, effectiveStartDate="9999-01-01T00:00:00Z"),
        row(sku, round(on_demand * 1.3, 6), region=region, isPrimaryMeterRegion=False),
    ]
    if spot is not None:
        windows = {"productName": "Virtual Machines Series Windows"}
        rows.insert(1, row(sku, round(spot * 2, 6), region=region, kind="Spot", **windows))
        rows.insert(4, row(sku, spot, region=region, kind="Spot"))
    return rows


def whole_list() -> list[Row]:
    """All that the list has of every machine type that the committed sheet offers, at that sheet's prices."""
    skus = {name: sku for name, sku in load_prices().skus.items() if sku.retired is None}
    return [
        one
        for name, sku in skus.items()
        for region, price in sku.prices.items()
        for one in machine(
            name, float(price.on_demand), None if price.spot is None else float(price.spot), region=region
        )
    ]


@dataclass
class Fault:
    """What becomes of the next request: a status with headers and a body."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class RetailPricesDouble:
    """The server; a context manager."""

    rows: list[Row] = field(default_factory=list)
    page_rows: int = 3
    """Few, so that every question has pages."""
    faults: list[Fault] = field(default_factory=list)
    """What the next requests get, one each."""
    fault_after: int = 0
    """So many requests are answered before the first fault."""
    endless: bool = False
    """The last page names itself as the next one."""
    elsewhere: str | None = None
    """Another server, at which the next page is said to be."""
    asked: list[str] = field(default_factory=list)
    """The path and query of each request that arrived."""

    def __enter__(self) -> RetailPricesDouble:
        handler = type("Handler", (_Handler,), {"double": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, target: str) -> Fault:
        """What is sent for a request; its faults first."""
        self.asked.append(target)
        if self.faults and len(self.asked) > self.fault_after:
            return self.faults.pop(0)
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path != PATH or query.get("api-version") != "2023-01-01-preview":
            return Fault(404, "{}")
        filter_, skip = query.get("$filter", ""), int(query.get("$skip", "0"))
        terms = list(_terms(filter_))
        if None in terms:
            return Fault(400, json.dumps({"Error": {"Code": "BadRequest", "Message": "Invalid OData parameters"}}))
        found = [one for one in self.rows if all(term is not None and _holds(one, *term) for term in terms)]
        page = found[skip : skip + self.page_rows]
        more = skip + self.page_rows < len(found)
        link = f"{self.elsewhere or self.url}{PATH}?api-version={query['api-version']}&$filter={quote(filter_)}"
        after = skip + self.page_rows if more else skip
        return Fault(
            200,
            json.dumps(
                {
                    "BillingCurrency": "USD",
                    "CustomerEntityId": "Default",
                    "CustomerEntityType": "Retail",
                    "Items": page,
                    "NextPageLink": f"{link}&$skip={after}" if more or self.endless else None,
                    "Count": len(page),
                }
            ),
        )


_TERM = re.compile(r"(\w+) eq '((?:[^']|'')*)'|contains\((\w+), ?'((?:[^']|'')*)'\)")
_FIELDS = {"priceType": "type"}


def _terms(filter_: str) -> Iterator[tuple[str, str, bool] | None]:
    """Each condition as field, value and whether it need only be contained; None for one that the list refuses."""
    for part in filter_.split(" and "):
        match = _TERM.fullmatch(part)
        if match is None:
            yield None
        elif match[1]:
            yield _FIELDS.get(match[1], match[1]), match[2].replace("''", "'"), False
        else:
            yield _FIELDS.get(match[3], match[3]), match[4].replace("''", "'"), True


def _holds(one: Row, name: str, value: str, within: bool) -> bool:
    had = str(one.get(name, ""))
    return value in had if within else value == had


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer's second packet waits 40 ms for the first one's receipt
    double: RetailPricesDouble

    def do_GET(self) -> None:
        sent = self.double.answer(self.path)
        content = sent.body.encode()
        self.send_response(sent.status)
        for name, value in {"Content-Type": "application/json", **sent.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: what arrived is in `asked`."""


def refresh_prices(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have today's prices in `data_dir`, as a person gets them: by the command, here from the double's list."""
    with RetailPricesDouble(rows=whole_list(), page_rows=100) as double, monkeypatch.context() as own:
        own.setenv("LABS_DATA_DIR", str(data_dir))
        own.setenv("LABS_RETAIL_PRICES_URL", double.url)
        done = CliRunner().invoke(app, ["prices", "refresh", "--region", "eastus"])
    assert done.exit_code == 0, done.output
