"""`labs`: ask the warehouse, show a run, write the report, pin a baseline.

Belongs here: arguments, what is printed, exit codes (0 done, 1 it can't be done, 2 the call is wrong).
Doesn't belong here: any rule about labs or numbers. Materializing labs is Dagster's command line.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab_pipelines.deployment import REPO_ROOT, TARGETS, Deployment, DeploymentError
from lab_pipelines.report.wording import printable

if TYPE_CHECKING:
    from lab_pipelines.report.read import Section
    from resources.warehouse import Warehouse

QUERIES_DIR = REPO_ROOT / "warehouse" / "queries"
ROWS_SHOWN = 200
"""Longest answer that is printed as a table; --csv and --json print all of it."""
NO_TERMINAL_WIDTH = 10_000
"""Columns when the output goes to a file or a pipe: nothing is cut there."""
COMFORTABLE_WIDTH, WIDTH_NEEDED = 96, 80
"""Terminal columns with which the table of `show-run` is airy, and with which it is complete."""
_TRY_SQL = "select users, output_tokens_per_s, ttft_p95_s from stage_table order by users"

app = typer.Typer(
    name="labs",
    help="78 LLM-serving labs: ask the warehouse, show a run, write the report, pin a baseline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
baseline_app = typer.Typer(help="Pinned baselines in results/baselines.", no_args_is_help=True)
app.add_typer(baseline_app, name="baseline")

TargetOption = Annotated[str | None, typer.Option(help=f"One of {', '.join(TARGETS)}; unset: LABS_TARGET, or local.")]


def main() -> None:
    app()


@app.command()
def sql(
    question: Annotated[
        str, typer.Argument(help="SQL, a file of SQL, or the name of a file in warehouse/queries.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Ask labs.duckdb, read-only."""
    if as_json and as_csv:
        _fail("--json and --csv exclude each other; give one", code=2)
    statement = _statement(question.strip())
    with _mistakes_explained():
        from resources.warehouse import SNAPSHOT, open_snapshot

        path = Deployment.from_env(os.environ).data_dir / SNAPSHOT
        if not path.exists():
            _fail(f"{path} does not exist yet: run `make demo`, which runs a lab and builds it")
        with open_snapshot(path) as connection:
            import duckdb

            try:
                cursor = connection.execute(statement)
                columns = [column[0] for column in cursor.description or []]
                rows = cursor.fetchall() if as_json or as_csv else cursor.fetchmany(ROWS_SHOWN + 1)
            except duckdb.Error as error:
                _fail(str(error))
    if as_json:
        objects = [dict(zip(columns, map(_plain, row), strict=True)) for row in rows]
        typer.echo(json.dumps(objects, indent=2, ensure_ascii=False))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        _print_answer(columns, rows)


@app.command("show-run")
def show_run(
    lab: Annotated[str, typer.Argument(help="E.g. L06.")],
    target: TargetOption = None,
) -> None:
    """The newest run of a lab: its table, where its numbers come from, and where to look next."""
    with _mistakes_explained():
        from lab_pipelines.catalog.loader import load_catalog
        from lab_pipelines.report.read import read_sections

        settings, chosen = _settings(target)
        identity = load_catalog().labs.get(lab)
        if identity is None:
            _unknown_lab(lab)
        warehouse = _warehouse(settings)
        found = [s for s in read_sections(warehouse) if s.lab == lab and s.overview["target"] == chosen]
        if not found:
            _fail(
                f"{lab} has no run on target {chosen} yet: materialize it (make demo does so for L06), or give --target"
            )
        section = max(found, key=lambda s: s.overview["started_at"])
    _print_run(section, f"{lab} · {identity.title}")
    page = settings.data_dir / "report" / "year_in_numbers.html"
    out = _console()
    out.print(Text(f"\nReport  {page if page.exists() else 'not written yet: make report'}"), soft_wrap=True)
    out.print(Text("Next    make ui"))
    out.print(Text(f'        make sql Q="{_TRY_SQL}"'), soft_wrap=True)


@app.command()
def report() -> None:
    """Write the year in numbers from what the warehouse holds."""
    with _mistakes_explained():
        from lab_pipelines.catalog.loader import load_catalog
        from lab_pipelines.report.write import write_report

        settings = Deployment.from_env(os.environ)
        files = write_report(_warehouse(settings), load_catalog(), settings.data_dir / "report")
    typer.echo(f"{files.labs_with_results} of {files.labs} labs have results, {files.stages} stages in all")
    typer.echo(f"{files.html}\n{files.markdown}")


@baseline_app.command("pin")
def pin_baseline(
    lab: Annotated[str, typer.Argument(help="E.g. L06.")],
    target: TargetOption = None,
    again: Annotated[bool, typer.Option("--again", help="Pin a further one; the former ones stay.")] = False,
) -> None:
    """Pin the numbers of a lab's newest run as a file that is never changed."""
    with _mistakes_explained():
        from lab_pipelines import baseline
        from lab_pipelines.catalog.loader import load_catalog

        settings, chosen = _settings(target)
        catalog = load_catalog()
        if lab not in catalog.labs:
            _unknown_lab(lab)
        pinned = baseline.pin(
            _warehouse(settings),
            catalog.spec(lab),
            target=chosen,
            again=again,
            directory=baseline.BASELINES_DIR,
        )
    typer.echo(f"pinned run {pinned.content['run_id']} as {pinned.path}\nsha256 {pinned.digest}; commit the file")


@baseline_app.command("show")
def show_baselines() -> None:
    """Every pinned baseline, oldest first; the last one of a lab and target is the one to compare with."""
    with _mistakes_explained():
        from lab_pipelines import baseline

        folders = sorted(path for path in baseline.BASELINES_DIR.glob("*/*") if path.is_dir())
        pinned = [
            one
            for folder in folders
            for one in baseline.history(folder.parent.name, folder.name, baseline.BASELINES_DIR)
        ]
    if not pinned:
        typer.echo("no baseline is pinned yet: labs baseline pin L06")
        return
    columns = ("lab", "target", "engine", "provenance", "pace", "time_scale", "run_id", "pinned_at")
    lines = [(*(one.content[c] for c in columns), one.path.name, one.digest[:12]) for one in pinned]
    _print_answer([*columns, "file", "digest"], lines)


@baseline_app.command("verify")
def verify_baselines() -> None:
    """Check that every pinned file is what was pinned, and that none is missing."""
    with _mistakes_explained():
        from lab_pipelines import baseline

        checked = baseline.verify(baseline.BASELINES_DIR)
    typer.echo(f"{len(checked)} baselines, every one as it was pinned")


def _statement(question: str) -> str:
    """The SQL that `question` stands for: itself, unless it is one word."""
    if not question:
        _fail(f'ask something: make sql Q="{_TRY_SQL}", or one of these by name\n{_known_questions()}', code=2)
    if re.search(r"\s", question):
        return question
    named = QUERIES_DIR / f"{question.removesuffix('.sql')}.sql"
    path = next((p for p in (Path(question), named) if p.is_file()), None)
    if path is None:
        _fail(
            f"{question!r} is neither SQL, nor a file, nor one of these questions:\n{_known_questions()}",
            code=2,
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{path} can't be read: {error}")


def _known_questions() -> str:
    files = sorted(QUERIES_DIR.glob("*.sql"))
    width = max((len(file.stem) for file in files), default=0)
    return "\n".join(
        f"  {file.stem:{width}}  {file.read_text(encoding='utf-8').splitlines()[0].removeprefix('-- ')}"
        for file in files
    )


def _settings(target: str | None) -> tuple[Deployment, Any]:
    """The process's settings, and the target that was asked for on the command line, else theirs."""
    environ = os.environ if target is None else {**os.environ, "LABS_TARGET": target}
    if target is not None and target not in TARGETS:
        _fail(f"--target {target}: expected one of {', '.join(TARGETS)}", code=2)
    settings = Deployment.from_env(environ)
    return settings, settings.target


def _warehouse(settings: Deployment) -> Warehouse:
    from resources.warehouse import Warehouse

    return Warehouse(data_dir=str(settings.data_dir))


def _unknown_lab(lab: str) -> NoReturn:
    from lab_pipelines.catalog.loader import load_catalog

    labs = load_catalog().labs
    _fail(f"there is no lab {lab!r}; the year has {min(labs)} to {max(labs)}", code=2)


def _print_run(section: Section, title: str) -> None:
    from lab_pipelines.report.stage_table import COLUMNS, ladders, notes, stage_cells
    from lab_pipelines.report.wording import ROUGH, effect, gap_place, provenance_line

    out = _console()
    out.print(Text(title, style="bold"))
    out.print(Text(provenance_line(section.overview)))
    for rows in ladders(section.stages):
        cells = stage_cells(rows)
        gap = 1 if out.width >= COMFORTABLE_WIDTH else 0
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0), pad_edge=False)
        for column in COLUMNS:
            header = "\n".join(column.header.replace(",", "").split())
            table.add_column(header, justify="right", no_wrap=True, vertical="bottom")
        for line in cells:
            table.add_row(*(Text(f"{ROUGH * cell.rough}{cell.text}") for cell in line))
        out.print(table)
        for note in notes(cells):
            out.print(Text(note, style="dim"))
    for finding in section.findings:
        out.print(Text(f"{finding['verdict']}: {finding['claim']} ({effect(finding)})"))
    for gap in section.gaps:
        out.print(Text(f"gap: {gap['measure']}, {gap_place(gap)}: {gap['reason']}", style="dim"))


def _print_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    out = _console()
    if not columns:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = rows[:ROWS_SHOWN]
    for number, column in enumerate(columns):
        numeric = any(isinstance(row[number], int | float | Decimal) for row in shown)
        table.add_column(Text(printable(column)), justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text(printable(_shown(value))) for value in row))
    out.print(table)
    if len(rows) > ROWS_SHOWN:
        out.print(Text(f"the first {ROWS_SHOWN} rows; --csv and --json print all"))


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 6:
        return f"[{', '.join(_shown(v) for v in value[:5])}, … {len(value)} in all]"
    if isinstance(value, list):
        return f"[{', '.join(_shown(v) for v in value)}]"
    return str(value)


def _plain(value: Any) -> Any:
    """A value of an answer as JSON knows it."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _console() -> Console:
    terminal = Console()
    if not terminal.is_terminal:
        return Console(width=NO_TERMINAL_WIDTH)
    # A narrower terminal wraps lines, which is still better than figures cut down to "1…".
    return Console(width=max(terminal.width, WIDTH_NEEDED))


@contextmanager
def _mistakes_explained() -> Iterator[None]:
    """A user's mistake, or a file that isn't as it should be, ends in its message and an exit code."""
    from lab_pipelines.baseline import BaselineError
    from lab_pipelines.catalog.loader import LabNotWrittenError, SpecError
    from resources.lake import WarehouseError

    try:
        yield
    except DeploymentError as error:
        _fail(str(error), code=2)
    except (WarehouseError, BaselineError, SpecError, LabNotWrittenError) as error:
        _fail(str(error))


def _fail(message: str, *, code: int = 1) -> NoReturn:
    typer.echo(f"labs: {printable(message)}", err=True)
    raise typer.Exit(code)
