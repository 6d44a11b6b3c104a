"""`labs cost`: one program for everything about money. Doesn't belong here: what its commands do (cost_*.py)."""

from __future__ import annotations

import typer

from lab_pipelines.cli import cost_bill, cost_export, cost_floor, cost_reattribute, cost_sheet

app = typer.Typer(help="What labs cost: estimate, bill, sheet, export.", no_args_is_help=True)
app.command("sheet")(cost_sheet.sheet)
app.command("floor")(cost_floor.floor)
app.command("reattribute")(cost_reattribute.reattribute)
app.command()(cost_bill.bill)
app.command()(cost_bill.reconcile)
app.command("export")(cost_export.export)
