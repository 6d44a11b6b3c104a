"""The `labs` program: its commands in the order in which `labs --help` lists them.

Doesn't belong here: what a command does (the other modules of this package).
"""

from __future__ import annotations

import typer

from lab_pipelines.cli import (
    ask,
    baselines,
    blog,
    budget,
    catalogue,
    checking,
    cleanup,
    cost,
    drift,
    forecast,
    gpu,
    lab_page,
    plans,
    prices,
    regress,
    runs,
)

_CATALOGUE, _RUNS, _RESULTS, _LEFT = "The year", "Runs", "Results", "Nothing left running"

app = typer.Typer(
    name="labs",
    help="78 LLM-serving labs: what they are, what they cost, what came of them.",
    epilog="Exit codes: 0 done; 1 it can't be done, or failed; 2 a wrong call; 3 ci-guard cleaned up; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("list", rich_help_panel=_CATALOGUE)(catalogue.list_labs)
app.command("show", rich_help_panel=_CATALOGUE)(lab_page.show)
app.command("calendar", rich_help_panel=_CATALOGUE)(catalogue.calendar)
app.command("validate", rich_help_panel=_CATALOGUE)(checking.validate)
app.command("plan", rich_help_panel=_RUNS)(plans.plan)
app.add_typer(prices.app, name="prices", rich_help_panel=_CATALOGUE)
app.command("run", rich_help_panel=_RUNS)(runs.run)
app.command("status", rich_help_panel=_RUNS)(runs.status)
app.command("show-run", rich_help_panel=_RESULTS)(runs.show_run)
app.command("forecast", rich_help_panel=_RESULTS)(forecast.forecast)
app.command("regress", rich_help_panel=_RESULTS)(regress.regress)
app.command("drift", rich_help_panel=_RESULTS)(drift.drift)
app.command("sql", rich_help_panel=_RESULTS)(ask.sql)
app.command("report", rich_help_panel=_RESULTS)(runs.report)
app.command("blog", rich_help_panel=_RESULTS)(blog.blog)
app.add_typer(cost.app, name="cost", rich_help_panel=_RESULTS)
app.add_typer(gpu.app, name="gpu", rich_help_panel=_LEFT)
app.add_typer(budget.app, name="budget", rich_help_panel=_LEFT)
app.command("teardown", rich_help_panel=_LEFT)(cleanup.teardown)
app.command("reap", rich_help_panel=_LEFT)(cleanup.reap)
app.command("ci-guard", rich_help_panel=_LEFT)(cleanup.ci_guard)
app.add_typer(baselines.app, name="baseline", rich_help_panel=_RESULTS)


def main() -> None:
    """What the installed command `labs` calls."""
    app()
