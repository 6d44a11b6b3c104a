"""`labs run`, `status`, `show-run`, `report`: run a lab, and what came of the runs so far.

Doesn't belong here: how Dagster's command is run (launch.py), any rule about labs or numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.ask import TRY_SQL
from lab_pipelines.cli.console import (
    INTERRUPTED,
    WRONG_CALL,
    explained,
    fail,
    print_json,
    print_table,
    say,
)
from lab_pipelines.cli.options import (
    JsonOption,
    LabArgument,
    PaceOption,
    TargetOption,
    TurnsOption,
    VariantOption,
    chosen_pace,
    chosen_variants,
    chosen_visits,
    dagster_home,
    known_lab,
    refuse_target,
    settings_for,
    warehouse_of,
)
from lab_pipelines.cli.places import left_of, require_usable
from lab_pipelines.deployment import Deployment

if TYPE_CHECKING:
    from lab_pipelines.catalog.identity import Identity
    from lab_pipelines.catalog.loader import Catalog
    from lab_pipelines.cli.launch import Ended, Record
    from resources.warehouse_core import PlainWarehouse

_SQL = Path(__file__).parent
_FIRST = "make demo"
"""What to do where nothing has been run yet."""


# labs run


def run(
    lab: LabArgument,
    variant: VariantOption = None,
    target: TargetOption = None,
    pace: PaceOption = None,
    turns: TurnsOption = None,
) -> None:
    """Run a lab through Dagster: deploy, load, measure, price, release."""
    from lab_pipelines.catalog.loader import LabNotWrittenError, SpecError, load_catalog
    from lab_pipelines.cli.launch import materialize_command, reasons, supervise

    with explained(SpecError, LabNotWrittenError):
        settings, catalog = settings_for(target), load_catalog()
        known_lab(catalog, lab)
        spec = catalog.spec(lab)
    refuse_target(spec, settings.target)
    variants = chosen_variants(spec, settings.target, variant or settings.variant)
    require_usable(settings)
    chosen = {
        "LABS_TARGET": settings.target,
        "LABS_VARIANT": ",".join(one.id for one in variants),
        "LABS_PACE": chosen_pace(spec, settings.target, pace or settings.pace),
        "LABS_TURNS": str(chosen_visits(spec, variants, turns or settings.turns)[-1].trial),
    }
    home = dagster_home()
    command = materialize_command(lab)
    log = settings.data_dir / "runs" / "commands" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{lab}-{os.getpid()}.log"
    say(f"{lab} · {spec.title}", style="bold")
    listed = ", ".join(one.id for one in variants)
    repeated = "" if chosen["LABS_TURNS"] == "1" else f" · {chosen['LABS_TURNS']} turns"
    where = f"target {chosen['LABS_TARGET']} · pace {chosen['LABS_PACE']}"
    say(f"{where} · variant{'s'[: len(variants) > 1]} {listed}{repeated}")
    # The child's working directory is the repository, so a relative folder of the caller's must not reach it.
    paths = {"DAGSTER_HOME": str(home), "LABS_DATA_DIR": str(settings.data_dir)}
    ended = supervise(
        command,
        environ={**os.environ, **paths, **chosen},
        log=log,
        show=lambda record: _progress(record, lab),
        on_interrupt=lambda count: _interrupted(lab, count),
    )
    if ended.interrupted:
        _fail_interrupted(settings, lab, log)
    if ended.code != 0:
        said = reasons(ended, home=home, log=log) or [f"Dagster ended with code {ended.code} and gave no reason"]
        _refresh(settings)
        first = said[0] if said[0].startswith(lab) else f"{lab} failed: {said[0]}"
        fail("\n".join([first, *said[1:], f"everything it printed: {log}", *_events_of(ended)]))
    _print_results(settings, catalog.spec(lab), ended.run_id)


def _progress(record: Record, lab: str) -> None:
    warning = "warning: " if record.level == "WARNING" else ""
    typer.echo(f"{record.time}  {record.step:17} {warning}{record.message.removeprefix(f'{lab} · ')}")


def _interrupted(lab: str, count: int) -> None:
    if count == 1:
        typer.echo(f"labs: interrupted; {lab}'s stack is being released", err=True)
    else:
        typer.echo(f"labs: still releasing {lab}'s stack; it ends by itself", err=True)


def _fail_interrupted(settings: Deployment, lab: str, log: Path) -> None:
    left = left_of(settings, lab)
    state = f"its lease is still there ({left})" if left else "nothing of it is left running"
    fail(f"{lab} was interrupted; {state}. Everything it printed: {log}", code=INTERRUPTED)


def _refresh(settings: Deployment) -> None:
    """Bring the rows of a run that ended early into labs.duckdb, which only a finished run does by itself."""
    from resources.contract import WarehouseError

    try:
        warehouse_of(settings).rebuild()
    except WarehouseError as error:
        typer.echo(f"labs: labs.duckdb stays as it was: {error}", err=True)


def _events_of(ended: Ended) -> list[str]:
    return [f"all events: make ui, run {ended.run_id}"] if ended.run_id else []


def _print_results(settings: Deployment, lab: Identity, run_id: str | None) -> None:
    from lab_pipelines.cli.run_table import print_section
    from lab_pipelines.report.read import read_sections
    from resources.contract import WarehouseError

    with explained(WarehouseError):
        warehouse = warehouse_of(settings)
        sections = [one for one in read_sections(warehouse) if one.overview["run_id"] == run_id]
        steps = _steps(warehouse, run_id)
    say()
    for section in sections:
        print_section(section)
    if steps and not sections:
        _print_steps(steps)
    _print_next(settings, lab, staged=bool(sections))


# labs show-run


def show_run(lab: LabArgument, target: TargetOption = None, as_json: JsonOption = False) -> None:
    """The newest run of a lab: its table, where its numbers come from, and where to look next."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.cli.run_table import print_section
    from lab_pipelines.report.read import read_sections
    from resources.contract import WarehouseError

    with explained(WarehouseError, SpecError):
        settings = settings_for(target)
        identity = known_lab(load_catalog(), lab)
        warehouse = warehouse_of(settings)
        found = [s for s in read_sections(warehouse) if s.lab == lab and s.overview["target"] == settings.target]
        section = next(iter(found), None)  # they come newest first, by when they were recorded
        run_id = section.overview["run_id"] if section else warehouse.latest_run_id("events", lab, settings.target)
        steps = _steps(warehouse, run_id)
    if not steps and section is None:
        fail(
            f"{lab} has no run on target {settings.target} yet: labs run {lab} ({_FIRST} does so for L06), or give "
            "--target"
        )
    if as_json:
        print_json({"lab": lab, "run_id": run_id, "steps": steps, **(asdict(section) if section else {})})
        return
    say(f"{lab} · {identity.title}", style="bold")
    if section:
        print_section(section)
    else:
        _print_steps(steps)
    _print_next(settings, identity, staged=section is not None)


def _steps(warehouse: PlainWarehouse, run_id: str | None) -> list[dict[str, Any]]:
    return warehouse.query((_SQL / "run_steps.sql").read_text(encoding="utf-8"), {"run_id": run_id})


def _print_steps(steps: list[dict[str, Any]]) -> None:
    from lab_pipelines.report.wording import duration, provenance_line

    say(provenance_line(steps[0]))
    lines = [[step["name"], step["kind"], step["outcome"], duration(step["duration_s"])] for step in steps]
    print_table(["step", "kind", "outcome", "took"], lines, right=[3])


def _print_next(settings: Deployment, lab: Identity, *, staged: bool) -> None:
    page = settings.data_dir / "report" / "year_in_numbers.html"
    question = TRY_SQL if staged else f"select name, outcome, duration_s from events where lab = '{lab.id}'"
    say(f"\nReport  {page if page.exists() else 'not written yet: make report'}")
    say("Next    make ui")
    say(f'        make sql Q="{question}"')


# labs status


def status(as_json: JsonOption = False) -> None:
    """Each lab's newest run, the stacks that are up, and how far the year is."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.cli.lab_page import status_of
    from lab_pipelines.cli.stacks import stacks
    from resources.contract import WarehouseError

    with explained(WarehouseError, SpecError):
        settings, catalog = Deployment.from_env(os.environ), load_catalog()
        labs = catalog.labs()
        newest = _newest_runs(settings)
        up = stacks(settings.data_dir / "state")
    counts = {
        "labs": len(labs),
        "complete": sum(status_of(lab) == "complete" for lab in labs),
        "with_results": len({row["lab"] for row in newest if row["finished"]}),
    }
    if as_json:
        print_json({**counts, "newest_runs": newest, "stacks": [asdict(stack) for stack in up]})
        return
    if newest:
        columns = ["lab", "title", "target", "provenance", "pace", "when (UTC)", "run", "verdicts"]
        print_table(columns, [_status_line(catalog, row) for row in newest], whole=[0, 5])
        say()
    for stack in up:
        say(f"{stack.lab}: stack {stack.state}; lease until {stack.expires_at:%Y-%m-%d %H:%M} UTC (run {stack.run_id})")
    if not up:
        say("no stack is up on this machine")
    say(f"{counts['complete']} of {counts['labs']} labs are complete, {counts['with_results']} have results")
    if not newest:
        say(f"nothing has been run yet. First: {_FIRST}, or labs run L06")


def _newest_runs(settings: Deployment) -> list[dict[str, Any]]:
    from resources.contract import WarehouseError
    from resources.snapshot import SNAPSHOT, open_snapshot

    path = settings.data_dir / SNAPSHOT
    if not path.exists():
        return []
    with open_snapshot(path) as connection:
        import duckdb

        try:
            cursor = connection.execute((_SQL / "newest_runs.sql").read_text(encoding="utf-8"))
        except duckdb.Error as error:
            raise WarehouseError(f"{path} is of another version ({error}); labs report builds it anew") from None
        columns = [column[0] for column in cursor.description or []]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _status_line(catalog: Catalog, row: Mapping[str, Any]) -> list[str]:
    from lab_pipelines.report.wording import verdict_counts

    title = catalog.lab(row["lab"]).title if row["lab"] in catalog.ids else "not in the catalogue any more"
    when = row["requested_at"].astimezone(UTC)
    ended = "finished" if row["finished"] else "ended early" if row["released"] else "not released"
    failed = f", {row['failed_steps']} steps failed" if row["failed_steps"] else ""
    where = [row["target"], row["provenance"], row["pace"], f"{when:%Y-%m-%d %H:%M}"]
    return [row["lab"], title, *where, f"{ended}{failed}", verdict_counts(row) or "none"]


# labs report


def report(
    lab: Annotated[str | None, typer.Option("--lab", help="Write this lab's page alone, e.g. L23.")] = None,
    phase: Annotated[int | None, typer.Option("--phase", min=1, max=8, help="Write this phase's page alone.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; default: report, beside the lake.")
    ] = None,
) -> None:
    """Write the year in numbers from what the warehouse holds, and build labs.duckdb anew; or one page of it alone."""
    from lab_pipelines.baseline import BaselineError
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.report.write import ReportError, write_lab, write_phase, write_report
    from resources.contract import WarehouseError

    if lab is not None and phase is not None:
        fail("--lab and --phase each write one page; give one of them", code=WRONG_CALL)
    with explained(WarehouseError, SpecError, BaselineError, ReportError):
        settings, catalog = Deployment.from_env(os.environ), load_catalog()
        warehouse, folder = warehouse_of(settings), out or settings.data_dir / "report"
        if lab is not None:
            known_lab(catalog, lab)
            typer.echo(write_lab(warehouse, catalog, lab, folder))
            return
        if phase is not None:
            typer.echo(write_phase(warehouse, catalog, phase, folder))
            return
        files = write_report(warehouse, catalog, folder)
        warehouse.rebuild()
    typer.echo(f"{files.labs_with_results} of {files.labs} labs have results, {files.stages} stages in all")
    typer.echo("\n".join(str(path) for path in (files.html, files.markdown, *files.phases)))
