"""`labs cost`: what labs cost. Doesn't belong here: what its commands do (the modules `cost_*`)."""

from __future__ import annotations

import typer

from lab_pipelines.cli import cost_export

app = typer.Typer(help="What labs cost: estimate, bill, sheet, export.", no_args_is_help=True)
app.command("export")(cost_export.export)
