"""`labs prices`: what nodes cost, since when, and asking Azure's list anew.

Doesn't belong here: which rows of the list are a price (lab_pipelines/catalog/prices_retail.py), talking to it
(resources/retail_prices.py).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_list, print_table, say
from lab_pipelines.cli.options import JsonOption, settings_for

if TYPE_CHECKING:
    from lab_pipelines.catalog.prices import PriceSheet
    from resources.retail_prices import Change, Refreshed

app = typer.Typer(help="What nodes cost: see the prices, ask Azure's list anew.", no_args_is_help=True)


def _skus(incomplete: str) -> list[str]:
    from lab_pipelines.catalog.prices import load_prices

    return [name for name in load_prices().skus if name.lower().startswith(incomplete.lower())]


SkuOption = Annotated[
    list[str] | None, typer.Option("--sku", help="Only this machine type; may be repeated.", autocompletion=_skus)
]
RegionOption = Annotated[
    list[str] | None, typer.Option("--region", help="Only this region, e.g. eastus; may be repeated.")
]


@app.command()
def show(sku: SkuOption = None, region: RegionOption = None, as_json: JsonOption = False) -> None:
    """Every price that is known: on demand and spot, its bounds, its date and its source."""
    from lab_pipelines.catalog.loader import SpecError
    from lab_pipelines.catalog.prices import PRIORITIES, age_days
    from lab_pipelines.catalog.prices_stored import newest_in
    from resources.contract import WarehouseError
    from resources.price_sheets import known_prices

    with explained(SpecError, WarehouseError):
        settings = settings_for(None)
        sheet = known_prices(settings.data_dir, settings.lake_url)
    today = datetime.now(UTC).date()
    lines = list[dict[str, Any]]()
    for name in _known(sheet, sku) or sheet.skus:
        for place, price in sheet.sku(name).prices.items():
            if region and place not in region:
                continue
            for priority in PRIORITIES:
                if price.usd(priority) is None:
                    continue
                unit, origin = sheet.unit_price(name, place, priority), sheet.origin(name, place, priority)
                lines.append(
                    {
                        "sku": name,
                        "region": place,
                        "priority": priority,
                        "usd_per_hour": unit.usd,
                        "usd_low": unit.usd_low,
                        "usd_high": unit.usd_high,
                        "as_of": origin.as_of,
                        "age_days": age_days(origin.as_of, today),
                        "effective_from": origin.effective_from,
                        "source": origin.source,
                    }
                )
    if not lines:
        fail(f"no price is known in region {', '.join(region or [])}: labs prices refresh --region REGION asks for it")
    newest = newest_in(settings.data_dir)
    if as_json:
        print_json({"refreshed": newest, "max_age_days": settings.price_max_age_days, "prices": lines})
        return
    # One letter for a source: its whole name would fill every line.
    sources = list(dict.fromkeys(line["source"].partition(", meter ")[0] for line in lines))
    marks = {source: f"[{number}]" for number, source in enumerate(sources, start=1)}
    columns = ["machine", "region", "", "USD/h", "between", "as of", "days", "source"]
    print_table(columns, [_cells(line, marks) for line in lines], right=[3, 6], whole=[0])
    print_list("sources", [f"{mark} {source}" for source, mark in marks.items()])
    limit = settings.price_max_age_days
    allowed = "any age is allowed" if limit is None else f"at most {limit} days are allowed"
    say(f"\nrefreshed: {newest or 'never; labs prices refresh asks Azure'}; on target {settings.target} {allowed}")


def _cells(line: dict[str, Any], marks: dict[str, str]) -> list[str]:
    return [
        line["sku"],
        line["region"],
        line["priority"].replace("_", " "),
        _usd(line["usd_per_hour"]),
        f"{_usd(line['usd_low'])} to {_usd(line['usd_high'])}",
        line["as_of"],
        str(line["age_days"]),
        marks[line["source"].partition(", meter ")[0]],
    ]


@app.command()
def refresh(
    sku: SkuOption = None,
    region: RegionOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask Azure's public list for today's prices, and keep them as a dated sheet. Needs no account."""
    from lab_pipelines.catalog.loader import SpecError
    from lab_pipelines.catalog.prices import load_prices
    from resources import retail_prices
    from resources.contract import WarehouseError
    from resources.price_sheets import keep_sheet, known_prices, newest_sheet

    with explained(SpecError, WarehouseError, retail_prices.RetailPricesError):
        settings = settings_for(None)
        known = known_prices(settings.data_dir, settings.lake_url)
        newest = newest_sheet(settings.data_dir, settings.lake_url)
        chosen, regions = _asked(known, sku), _regions(known, region, settings.region)
        refreshed = retail_prices.refresh(
            retail_prices.RetailPrices(settings.retail_prices_url),
            known,
            load_prices(newest) if newest else None,
            skus=chosen,
            regions=regions,
            progress=lambda line: typer.echo(line, err=True),
        )
        path = None if dry_run else keep_sheet(refreshed.sheet, settings.data_dir, settings.lake_url)
    if as_json:
        changes = [_change(one) for one in refreshed.changes]
        print_json({"sheet": path, "prices": changes, "not_found": refreshed.problems})
        return
    _print(refreshed)
    say(f"\nkept as {path}" if path else "\nnothing was kept (--dry-run)")


def _asked(known: PriceSheet, sku: list[str] | None) -> list[str]:
    """The machine types to ask for. A retired one is history: whatever the list still says of it isn't a price."""
    chosen = _known(known, sku)
    for name in chosen:
        if retired := known.skus[name].retired:
            fail(f"--sku {name}: Azure retired it on {retired}; its price stays as it was", code=WRONG_CALL)
    return chosen or known.offered()


def _known(sheet: PriceSheet, sku: list[str] | None) -> list[str]:
    """`sku`, all of which the sheet has. Ends the program with the name that was probably meant."""
    for name in sku or []:
        if name in sheet.skus:
            continue
        meant = next((one for one in sheet.skus if one.lower() == name.strip().lower().replace(" ", "_")), None)
        hint = f"did you mean {meant}? Letters count" if meant else f"it has: {', '.join(sheet.skus)}"
        fail(f"--sku {name}: the price sheet has no such machine type; {hint}", code=WRONG_CALL)
    return list(dict.fromkeys(sku or []))


def _regions(known: PriceSheet, region: list[str] | None, own: str) -> list[str]:
    """The regions to ask for: those that are priced, and the deployment's own."""
    for name in region or []:
        if not re.fullmatch(r"[a-z0-9]+", name):
            fail(f"--region {name}: expected a region as Azure names it, e.g. eastus", code=WRONG_CALL)
    priced = [place for one in known.skus.values() for place in one.prices]
    return list(dict.fromkeys(region or [*priced, own]))


def _print(refreshed: Refreshed) -> None:
    moved = [one for one in refreshed.changes if one.old != one.new]
    if moved:
        say()
        columns = ["machine", "region", "", "was USD/h", "is USD/h", "change"]
        lines = [
            [
                one.sku,
                one.region,
                one.priority.replace("_", " "),
                "unknown" if one.old is None else _usd(one.old),
                _usd(one.new),
                "new" if one.percent is None else f"{one.percent:+.1f} %",
            ]
            for one in moved
        ]
        print_table(columns, lines, right=[3, 4, 5], whole=[0])
    say(f"\n{len(refreshed.changes)} prices found, {len(moved)} of them other than before")
    print_list("not found; what was known stays, with its date", refreshed.problems)


def _change(one: Change) -> dict[str, Any]:
    fields = {"sku": one.sku, "region": one.region, "priority": one.priority}
    return {**fields, "old_usd": one.old, "new_usd": one.new, "percent": one.percent}


def _usd(amount: Decimal) -> str:
    """At least three decimals, and as many as it has."""
    shown = f"{amount.normalize():f}"
    return shown if len(shown.partition(".")[2]) >= 3 else f"{amount:.3f}"
