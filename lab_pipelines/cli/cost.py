"""`labs cost`: what labs cost. Doesn't belong here: what each command does (cost_*.py)."""

from __future__ import annotations

import typer

from lab_pipelines.cli import cost_floor, cost_sheet

app = typer.Typer(help="What labs cost: estimate, bill, sheet, export.", no_args_is_help=True)
app.command("sheet")(cost_sheet.sheet)
app.command("floor")(cost_floor.floor)
