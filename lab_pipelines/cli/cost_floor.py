"""`labs cost floor`: is a replica that never leaves worth it? Doesn't belong here: the model (scale_to_zero.py)."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption
from lab_pipelines.deployment import Deployment

_MONTH_H = 730
"""Hours of a month, as clouds' price pages count them: 8,760 / 12."""


def floor(
    sku: Annotated[str, typer.Argument(help="Machine type of the replica, e.g. Standard_NC4as_T4_v3.")],
    cold_start: Annotated[float, typer.Option(help="Seconds from a request to a warm replica.", min=0)],
    per_hour: Annotated[str, typer.Option(help="Requests per hour, comma-separated.")] = "1,6,60",
    cooldown: Annotated[float, typer.Option(help="Seconds without a request until it goes to zero.", min=0)] = 0.0,
    patience: Annotated[float, typer.Option(help="Seconds that a request may wait without a breach.", min=0)] = 2.0,
    breach_usd: Annotated[float, typer.Option(help="What a breach costs.", min=0)] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Compare a floor of no replica with a floor of one, for sparse requests at random times."""
    from lab_pipelines.catalog.loader import SpecError
    from lab_pipelines.catalog.prices import UnknownPriceError
    from lab_pipelines.report.wording import duration, percent, short
    from lab_pipelines.scale_to_zero import SparseTraffic
    from resources.contract import WarehouseError
    from resources.price_sheets import known_prices

    with explained(SpecError, WarehouseError):
        settings = Deployment.from_env(os.environ)
        sheet = known_prices(settings.data_dir, settings.lake_url)
    try:
        rates = [float(rate) for rate in per_hour.split(",")]
        price = sheet.unit_price(sku, settings.region)
        at = [SparseTraffic(rate, cold_start, float(price.usd), cooldown, patience) for rate in rates]
    except UnknownPriceError as error:
        fail(str(error), code=WRONG_CALL)
    except ValueError:
        fail(f"--per-hour {per_hour}: expected numbers above zero, comma-separated, e.g. 1,6,60", code=WRONG_CALL)
    from_per_h = at[0].floor_pays_from_per_h(breach_usd)
    found = [
        {
            "per_h": one.per_h,
            "held_share": one.held_share,
            "usd_per_h": one.usd_per_h * one.held_share,
            "usd_per_h_with_floor": one.usd_per_h,
            "breaches_per_h": one.breaches_per_h,
            "breach_share": one.breach_share,
            "waited_p99_s": one.waited_s(0.99),
            "premium_usd_per_month": one.floor_premium_usd_per_h * _MONTH_H,
            "premium_per_breach_usd": one.premium_per_breach_usd,
            "floor_is_cheaper": from_per_h is not None and one.per_h >= from_per_h,
        }
        for one in at
    ]
    if as_json:
        print_json(
            {
                "sku": sku,
                "region": price.region,
                "usd_per_h": price.usd,
                "source": price.source,
                "floor_pays_from_per_h": from_per_h,
                "at": found,
            }
        )
        return
    columns = [
        "requests/h",
        "held",
        "USD/h",
        "in breach",
        "wait p99",
        "floor, USD/month",
        "USD/breach avoided",
        "floor",
    ]
    lines = [
        [
            short(one["per_h"]),
            percent(one["held_share"]),
            short(one["usd_per_h"]),
            percent(one["breach_share"]),
            duration(one["waited_p99_s"]),
            short(one["premium_usd_per_month"]),
            short(one["premium_per_breach_usd"]),
            "1" if one["floor_is_cheaper"] else "0",
        ]
        for one in found
    ]
    print_table(columns, lines, right=range(len(columns)))
    pays = "never pays" if from_per_h is None else f"pays from {short(from_per_h)} requests per hour on"
    node = f"a node of {sku} in {price.region} {short(price.usd)} USD per hour"
    say(f"a floor of one {pays}, if a breach costs {short(breach_usd)} USD and {node}")
    say(f"modelled: {price.source}; requests at random times, one replica, service times not counted (docs/finops.md)")
