"""`labs baseline`: pin, show and verify. Doesn't belong here: what may be pinned (lab_pipelines/baseline.py)."""

from __future__ import annotations

from typing import Annotated

import typer

from lab_pipelines.cli.console import explained, print_answer, print_json
from lab_pipelines.cli.options import JsonOption, LabArgument, TargetOption, known_lab, settings_for, warehouse_of
from lab_pipelines.words import counted

_COLUMNS = ("lab", "target", "engine", "provenance", "pace", "time_scale", "run_id", "pinned_at")

app = typer.Typer(help="Pinned baselines in results/baselines.", no_args_is_help=True)


@app.command()
def pin(
    lab: LabArgument,
    target: TargetOption = None,
    again: Annotated[bool, typer.Option("--again", help="Pin a further one; the former ones stay.")] = False,
) -> None:
    """Pin the numbers of a lab's newest run as a file that is never changed."""
    from lab_pipelines import baseline
    from lab_pipelines.baseline_rows import publish_baselines
    from lab_pipelines.catalog.loader import LabNotWrittenError, SpecError, load_catalog
    from resources.contract import WarehouseError

    with explained(WarehouseError, baseline.BaselineError, SpecError, LabNotWrittenError):
        settings, catalog = settings_for(target), load_catalog()
        known_lab(catalog, lab)
        warehouse = warehouse_of(settings)
        pinned = baseline.pin(
            warehouse,
            catalog.spec(lab),
            target=settings.target,
            again=again,
            directory=baseline.BASELINES_DIR,
        )
        publish_baselines(warehouse, baseline.BASELINES_DIR)
    typer.echo(f"pinned run {pinned.content['run_id']} as {pinned.path}\nsha256 {pinned.digest}; commit the file")


@app.command()
def show(as_json: JsonOption = False) -> None:
    """Every pinned baseline, oldest first; the last one of a lab and target is the one to compare with."""
    from lab_pipelines import baseline

    with explained(baseline.BaselineError):
        pinned = baseline.pinned(baseline.BASELINES_DIR)
    if as_json:
        print_json([{**one.content, "file": str(one.path), "digest": one.digest} for one in pinned])
    elif not pinned:
        typer.echo("no baseline is pinned yet: labs baseline pin L06")
    else:
        lines = [(*(one.content[c] for c in _COLUMNS), one.path.name, one.digest[:12]) for one in pinned]
        print_answer([*_COLUMNS, "file", "digest"], lines)


@app.command()
def verify() -> None:
    """Check that every pinned file is what was pinned, and that none is missing."""
    from lab_pipelines import baseline

    with explained(baseline.BaselineError):
        checked = baseline.verify(baseline.BASELINES_DIR)
    typer.echo(f"{counted(len(checked), 'baseline')}, every one as it was pinned")


@app.command()
def readme() -> None:
    """Write L06's pinned baseline into the README's table, between its markers."""
    from lab_pipelines import baseline
    from lab_pipelines.deployment import REPO_ROOT
    from lab_pipelines.report.readme import with_baseline
    from lab_pipelines.report.write import replace_file

    path = REPO_ROOT / "README.md"
    with explained(baseline.BaselineError):
        pinned = baseline.current("L06", "local", baseline.BASELINES_DIR)
        if pinned is None:
            raise baseline.BaselineError("L06 has no baseline on local: labs baseline pin L06")
        if not path.is_file():
            raise baseline.BaselineError(f"{path} is not there: the table is that of a checkout's README")
        before = path.read_text(encoding="utf-8")
        after = with_baseline(before, pinned.content)
    if after != before:
        replace_file(path, after)
    typer.echo(f"{path} {'has' if after == before else 'now has'} the numbers of {pinned.path}")
