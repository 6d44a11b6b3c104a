"""`labs cost reattribute`: estimate what sessions cost anew, by today's prices and by what is known of shared nodes.

Doesn't belong here: the estimate (lab_pipelines/attribution.py).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_answer, print_json
from lab_pipelines.cli.options import JsonOption, known_lab, warehouse_of
from lab_pipelines.deployment import TARGETS, Deployment


def reattribute(
    lab: Annotated[str | None, typer.Option(help="This lab alone, e.g. L06; unset: every lab.")] = None,
    target: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(TARGETS)}; unset: every target that has runs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate all closed sessions anew; what became another is written, and holds from then on."""
    from lab_pipelines.attribution import labs_with_sessions
    from lab_pipelines.attribution import reattribute as estimate_anew
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.catalog.prices import UnknownPriceError
    from lab_pipelines.lanes import CostError
    from resources.billing import PriceSheetBilling
    from resources.contract import WarehouseError

    if target is not None and target not in TARGETS:
        fail(f"--target {target}: expected one of {', '.join(TARGETS)}", code=WRONG_CALL)
    with explained(SpecError, WarehouseError, CostError, UnknownPriceError):
        if lab is not None:
            known_lab(load_catalog(), lab)
        settings = Deployment.from_env(os.environ)
        warehouse = warehouse_of(settings)
        where = [
            (there, of_lab)
            for there, of_lab in labs_with_sessions(warehouse)
            if target in (None, there) and lab in (None, of_lab)
        ]
        # Of any age: an estimate of what is past can be no fresher than what is known.
        billing = PriceSheetBilling(region=settings.region, data_dir=str(settings.data_dir), lake_url=settings.lake_url)
        price_of = billing.node_hour_price
        found = estimate_anew(warehouse, where, price_of=price_of, now=datetime.now(UTC))
        if found.changed or found.sheets:
            warehouse.rebuild()
    if as_json:
        print_json(
            {"sessions": found.sessions, "changed": [one._asdict() for one in found.changed], "sheets": found.sheets}
        )
        return
    if found.changed:
        columns = ["lab", "target", "session", "USD before", "USD now"]
        print_answer(columns, [(*one[:3], _usd(one.before), _usd(one.after)) for one in found.changed])
    known = [one for one in found.changed if one.before is not None and one.after is not None]
    other = [one for one in known if one.before != one.after]
    by = sum(((one.after or 0) - (one.before or 0) for one in other), Decimal())
    new = len(found.changed) - len(known)
    first = f"; {new} had no price or no estimate before, or have none now" if new else ""
    typer.echo(
        f"{found.sessions} sessions, {len(found.changed)} estimated anew, {len(other)} of them cost another sum, "
        f"by {by:+.6f} USD together{first}; {found.sheets} sheets written"
    )


def _usd(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"{amount:.6f}"
