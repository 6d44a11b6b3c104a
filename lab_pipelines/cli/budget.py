"""`labs budget`: what each budget is, what was spent of it, what follows, and what the guard has decided.

Doesn't belong here: the guard's own decisions (lab_pipelines/budget_guard.py), what was spent (resources/spending.py),
or what one run may cost (`labs plan`, LABS_BUDGET_USD).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, TargetOption, settings_for
from lab_pipelines.cli.places import Place, place_of

if TYPE_CHECKING:
    from lab_pipelines.budget_guard import Verdict
    from lab_pipelines.budgets import Budgets
    from lab_pipelines.deployment import BudgetMode
    from resources.node_pools import NodePool

app = typer.Typer(help="Budgets of the month and of each lab: what was spent of them, and what follows.")


@app.callback(invoke_without_command=True)
def budget(context: typer.Context, target: TargetOption = None, as_json: JsonOption = False) -> None:
    """Every budget: spent, open, committed to, its state, and what happens next."""
    if context.invoked_subcommand is not None:
        return
    from lab_pipelines.catalog.loader import SpecError
    from resources.cluster import ClusterError
    from resources.contract import WarehouseError
    from resources.spending import look

    with explained(ClusterError, WarehouseError, SpecError):
        place = place_of(settings_for(target))
        guard = place.budget_guard
        budgets = guard.budgets()
        idle = guard.why_idle(budgets, place.settings.target)
        found = look(place.money, budgets) if budgets.limited and place.settings.target in budgets.targets else None
    verdicts = found.verdicts if found else []
    lines = [_line(one, budgets, guard.mode if idle is None else "off") for one in verdicts]
    if as_json:
        print_json({"target": place.settings.target, "guard": guard.mode, "idle": idle, "budgets": lines})
        return
    if lines:
        columns = ["budget", "USD", "spent", "of it open", "of it pools", "committed", "state", "until", "what follows"]
        print_table(columns, [_cells(line) for line in lines], right=[1, 2, 3, 4, 5], whole=[0])
        for line in lines:
            for gap in line["unknown"]:
                say(f"{line['budget']}: not told, and in no sum: {gap}")
    say(idle or f"\nthe guard may {_MAY[guard.mode]} (LABS_BUDGET_GUARD={guard.mode}); budgets: {guard.budgets_file}")


_MAY: Mapping[str, str] = {
    "warn": "warn",
    "refuse": "warn, and refuse new GPU leases",
    "cut": "warn, refuse new GPU leases, and end what runs",
}


def _line(verdict: Verdict, budgets: Budgets, mode: BudgetMode) -> dict[str, Any]:
    spend = verdict.spend
    return {
        "budget": verdict.scope,
        "budget_usd": verdict.budget_usd,
        "spent_usd": spend.spent_usd,
        "closed_usd": spend.closed_usd,
        "open_usd": spend.open_usd,
        "pools_usd": spend.pools_usd,
        "projected_usd": spend.projected_usd,
        "committed_usd": spend.committed_usd,
        "billed_more_usd": spend.billed_more_usd,
        "unknown": list(spend.unknown),
        "state": verdict.state,
        "until": verdict.period.end,
        "next": _next(verdict, budgets, mode),
    }


def _next(verdict: Verdict, budgets: Budgets, mode: BudgetMode) -> str:
    """What the state means now, or the next amount at which something happens."""
    if mode == "off":
        return "nothing: it isn't guarded"
    if verdict.state == "cut" and mode == "cut":
        return "what runs is ended"
    if verdict.refuses and mode != "warn":
        return "new GPU leases are refused"
    following = {"ok": ("warning", budgets.warn_percent), "warn": ("refusal", budgets.refuse_percent)}
    if verdict.state not in following:
        return "it is only told"
    name, percent = following[verdict.state]
    return f"{name} at {float(verdict.budget_usd) * percent / 100:.2f}"


def _cells(line: Mapping[str, Any]) -> list[str]:
    money = ("budget_usd", "spent_usd", "open_usd", "pools_usd", "committed_usd")
    amounts = [f"{line[name]:.2f}" for name in money]
    return [line["budget"], *amounts, line["state"], f"{line['until']:%Y-%m-%d}", line["next"]]


@app.command()
def decisions(
    last: Annotated[int, typer.Option("--last", min=1, help="How many, the newest first.")] = 20,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the guard has decided: changes of state, refusals, cuts and what came of them."""
    from resources.contract import WarehouseError

    with explained(WarehouseError):
        rows = place_of(settings_for(target)).money.log.last(last)
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("no decision is on record on this target")
        return
    columns = ["at (UTC)", "budget", "action", "of", "outcome", "reason"]
    print_table(columns, [_decision_cells(row) for row in rows], whole=[0, 1, 2])


def _decision_cells(row: Mapping[str, Any]) -> list[str]:
    why = f"{row['reason']}; {row['detail']}" if row["detail"] else row["reason"]
    of = row["of_lab"] or row["of_pool"] or ""
    return [f"{row['tick_at']:%Y-%m-%d %H:%M:%S}", row["scope"], row["action"], of, row["outcome"] or "", why]


def refuse_gpu(place: Place, pool: NodePool) -> None:
    """End the program where the month's budget is spent, and the pool's machines have GPUs."""
    from lab_pipelines.budget_guard import Holding
    from lab_pipelines.catalog.loader import SpecError
    from resources.contract import WarehouseError
    from resources.spending import has_gpu, refusal

    guard = place.budget_guard
    with explained(SpecError, WarehouseError):
        budgets = guard.budgets()
        if guard.why_idle(budgets, place.settings.target) or not has_gpu(pool.vm_size):
            return
        asking = Holding(pool.name, None, gpu=True, usd_per_h=None)
        said = refusal(place.money, budgets, guard.mode, asking, budgets_file=guard.budgets_file, progress=say)
    if said is not None:
        fail(said)
