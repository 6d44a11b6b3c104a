"""`labs cost bill` and `labs cost reconcile`: the cloud's bill as it is known, and asking for it at once.

Doesn't belong here: asking and keeping it (resources/bill_ledger.py), whose cost it is (lab_pipelines/reconcile.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, day_of, settings_for, targets, warehouse_of
from lab_pipelines.words import counted

if TYPE_CHECKING:
    from lab_pipelines.bill import Window
    from lab_pipelines.reconcile import Outcome
    from resources.bill_ledger import BillLedger, Told

FromOption = Annotated[str | None, typer.Option("--from", help="First day, e.g. 2026-03-01; unset: 62 days back.")]
ToOption = Annotated[str | None, typer.Option("--to", help="Last day; unset: yesterday, in UTC.")]
BillTargetOption = Annotated[
    str, typer.Option("--target", help="Whose bill; aks is the one target that gets one.", autocompletion=targets)
]
WITHIN_MINUTES = 30
GAPS_SHOWN = 5


def bill(
    first: FromOption = None, last: ToOption = None, target: BillTargetOption = "aks", as_json: JsonOption = False
) -> None:
    """What the bill says of each day, as far as it was asked for. Asks nobody."""
    from resources.contract import WarehouseError

    with explained(WarehouseError):
        settings = settings_for(target)
        days = _days(first, last)
        found = warehouse_of(settings).query(
            "FROM bill_by_day WHERE target = $target AND usage_date BETWEEN $first AND $last "
            "ORDER BY usage_date, currency",
            {"target": settings.target, "first": days.first, "last": days.last},
            within={"target": settings.target, "lab": "all"},
        )
    known = defaultdict[date, list[dict[str, Any]]](list)
    for row in found:
        known[row["usage_date"]].append(row)
    lines: list[dict[str, Any]] = []
    for day in days.days:
        lines += known.get(day) or [{"usage_date": day, "asked_at": None, "currency": None, "cost": None, "lines": 0}]
    if as_json:
        print_json([{**line, "state": _state(line)} for line in lines])
        return
    shown = [line for line in lines if line["asked_at"] is not None]
    if shown:
        _print_days(shown)
    totals = defaultdict[str, Decimal](Decimal)
    for line in shown:
        if line["cost"] is not None:
            totals[line["currency"]] += line["cost"]
    never = len(days.days) - len({line["usage_date"] for line in shown})
    say(f"\n{days}: {_amounts(totals)}; {counted(never, 'day')} never asked for")
    if never:
        say("ask: labs cost reconcile")


def _print_days(shown: Sequence[dict[str, Any]]) -> None:
    print_table(
        ["day", "cost", "", "lines", "state", "asked at (UTC)"],
        [
            [
                f"{line['usage_date']}",
                "" if line["cost"] is None else f"{line['cost']:.2f}",
                line["currency"] or "",
                f"{line['lines']}",
                _state(line),
                f"{line['asked_at']:%Y-%m-%d %H:%M}",
            ]
            for line in shown
        ],
        right=[1, 3],
    )


def reconcile(
    first: FromOption = None,
    last: ToOption = None,
    target: BillTargetOption = "aks",
    minutes: Annotated[int, typer.Option(min=1, help="Give up asking after so many.")] = WITHIN_MINUTES,
    as_json: JsonOption = False,
) -> None:
    """Ask for the bill of the days that are due, and hold the estimates against it."""
    from lab_pipelines.bill import BillError
    from lab_pipelines.cli.places import place_of
    from resources.bill_ledger import BillLedger
    from resources.cluster import ClusterError
    from resources.contract import WarehouseError

    with explained(ClusterError, WarehouseError, BillError):
        settings = settings_for(target)
        days = _days(first, last)
        billing = place_of(settings).billing
        if not billing.gives_bill:
            fail(f"target {settings.target} has no bill: its costs stay estimates; use --target aks", code=WRONG_CALL)
        ledger = BillLedger(warehouse_of(settings), settings.target)
        progress = _silent if as_json else say
        try:
            ledger.ask(billing, *days, within_s=minutes * 60.0, progress=progress)
        except ClusterError:
            # What was answered before Azure said no is worth holding against the estimates all the same.
            _tell(ledger, days, as_json=as_json)
            raise
        _tell(ledger, days, as_json=as_json)


def _silent(line: str) -> None:
    """With --json stdout is for JSON alone."""


def _tell(ledger: BillLedger, days: Window, *, as_json: bool) -> None:
    told = ledger.reconcile(*days, progress=_silent)
    labs = _by_lab(told.outcomes)
    if as_json:
        print_json(
            {
                "days": [*days],
                "labs": labs,
                "waiting": {one.session.session_id: one.waiting for one in told.outcomes if one.waiting},
                "unplaced": dict(told.unplaced),
                "gaps": told.gaps,
                "never_asked": told.never_asked,
            }
        )
        return
    if labs:
        _print_labs(labs)
    else:
        say(f"{days}: no session held nodes on target {ledger.target}")
    _tell_gaps(told, days)


def _print_labs(labs: Sequence[dict[str, Any]]) -> None:
    print_table(
        ["lab", "sessions", "estimate USD", "bill", "bill USD", "delta USD", "delta", "state"],
        [
            [
                one["lab"],
                f"{one['billed']} of {one['sessions']}",
                _usd(one["estimate_usd"]),
                _amounts(one["bill"]),
                _usd(one["bill_usd"]),
                _usd(one["delta_usd"], sign="+"),
                "" if one["delta_share"] is None else f"{one['delta_share']:+.1%}",
                one["state"],
            ]
            for one in labs
        ],
        right=[2, 3, 4, 5, 6],
    )


def _tell_gaps(told: Told, days: Window) -> None:
    if told.unplaced:
        say(f"\n{days}: {_amounts(told.unplaced)} of the bill is nobody's (bill_shares says why)")
    elif len(told.gaps) + len(told.never_asked) < len(days.days):
        say(f"\n{days}: all of the bill is some session's")
    for what, gaps in (("Azure has no data of", told.gaps), ("never asked for:", told.never_asked)):
        if gaps:
            more = f" and {len(gaps) - GAPS_SHOWN} more" if len(gaps) > GAPS_SHOWN else ""
            say(f"{what} {', '.join(map(str, gaps[:GAPS_SHOWN]))}{more}")
    waiting = [one for one in told.outcomes if one.waiting]
    for one in waiting[:GAPS_SHOWN]:
        say(f"{one.session.lab}, session {one.session.session_id}: not billed: {one.waiting}")
    if len(waiting) > GAPS_SHOWN:
        say(f"and {len(waiting) - GAPS_SHOWN} more sessions; --json has them all")


def _by_lab(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Sums of each lab's billed sessions. The estimate is theirs alone, so that it can be held against the bill."""
    labs = defaultdict[str, list[Any]](list)
    for one in outcomes:
        labs[one.session.lab].append(one)
    found = list[dict[str, Any]]()
    for lab, of_lab in sorted(labs.items()):
        rows = [row for one in of_lab for row in one.rows]
        bill = defaultdict[str, Decimal](Decimal)
        for row in rows:
            bill[row["BillingCurrency"]] += row["BilledCost"]
        estimate, billed, delta = (
            _sum(row[f"x_{what}_usd"] for row in rows) for what in ("estimated", "billed", "delta")
        )
        states = {row["x_bill_state"] for row in rows}
        found.append(
            {
                "lab": lab,
                "sessions": len(of_lab),
                "billed": sum(one.waiting is None for one in of_lab),
                "estimate_usd": estimate,
                "bill": dict(bill),
                "bill_usd": billed,
                "delta_usd": delta,
                "delta_share": delta / estimate if delta is not None and estimate else None,
                "state": "waiting" if not states else "settled" if states == {"settled"} else "provisional",
            }
        )
    return found


def _sum(amounts: Any) -> Decimal | None:
    """None for no amounts, and where one is not known."""
    found = list(amounts)
    return sum(found, Decimal()) if found and None not in found else None


def _usd(amount: Decimal | None, *, sign: str = "") -> str:
    return "unknown" if amount is None else format(amount, f"{sign}.2f")


def _amounts(amounts: Any) -> str:
    return ", ".join(f"{amount:.2f} {currency}" for currency, amount in sorted(amounts.items())) or "nothing"


def _state(line: dict[str, Any]) -> str:
    from lab_pipelines.bill import settled

    if line["asked_at"] is None:
        return "never asked for"
    if line["cost"] is None:
        return "gap: asked for, no data"
    return "settled" if settled(line["usage_date"], line["asked_at"]) else "provisional"


def _days(first: str | None, last: str | None) -> Window:
    """The days asked for on the command line. Ends the program for ones that make no question."""
    from lab_pipelines.bill import BillError, Window, check_days, ended_days

    usual, today = ended_days(datetime.now(UTC)), datetime.now(UTC).date()
    end = day_of("--to", last) if last else usual.last
    begin = day_of("--from", first) if first else min(usual.first, end)
    try:
        check_days(begin, end, today=today)
    except BillError as error:
        fail(str(error), code=WRONG_CALL)
    return Window(begin, end)
