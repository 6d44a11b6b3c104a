"""`labs cost export`: the cost records as a file of FOCUS 1.2, held to its rules before anybody sees it.

Doesn't belong here: which number is which column (warehouse/views/46_focus_cost_and_usage.sql), or the rules
(lab_pipelines/focus).

DuckDB writes the file from the lake, one row group after another, and it is the file as it was written that is held to
the rules. So its size doesn't matter to this process's memory, and nothing can go wrong between the check and the file.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail
from lab_pipelines.cli.options import TargetOption, day_of, known_lab, settings_for, warehouse_of
from lab_pipelines.files import new_file

if TYPE_CHECKING:
    from lab_pipelines.focus.rules import Rules
    from resources.warehouse_core import PlainWarehouse

_SQL = Path(__file__).parent
_STDOUT = "-"


class Format(StrEnum):
    csv = "csv"
    parquet = "parquet"


class State(StrEnum):
    best = "best"
    estimated = "estimated"
    billed = "billed"


@dataclass(frozen=True)
class _Written:
    """What became of an export, in the words that are printed about it."""

    rows: int
    money: list[str]
    left_out: list[str]


def export(
    file_format: Annotated[Format, typer.Option("--format", help="What kind of file.")] = Format.csv,
    out: Annotated[
        str | None, typer.Option(help=f"The file, or {_STDOUT} for stdout; unset: focus-VERSION-TARGET-STATE.FORMAT.")
    ] = None,
    state: Annotated[
        State, typer.Option(help="Estimates, bills, or of each session the bill where it has come.")
    ] = State.best,
    target: TargetOption = None,
    lab: Annotated[str | None, typer.Option(help="One lab alone, e.g. L06.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="First day of charges, in UTC, e.g. 2026-03-01.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day of charges, in UTC.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write what labs cost as FOCUS 1.2, for a FinOps tool."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.focus.rules import load_rules
    from resources.contract import WarehouseError

    first, last = (
        None if given is None else day_of(option, given) for option, given in (("--from", since), ("--to", until))
    )
    if first is not None and last is not None and first > last:
        fail(f"--from {since} comes after --to {until}; give the earlier day first", code=WRONG_CALL)
    with explained(WarehouseError, SpecError, OSError):
        settings, rules = settings_for(target), load_rules()
        if lab is not None:
            known_lab(load_catalog(), lab)
        chosen = {
            "target": settings.target,
            "lab": lab,
            "state": state.value,
            "since": _start(first),
            "until": _start(last and last + timedelta(days=1)),
        }
        path = Path(out or f"focus-{rules.version}-{settings.target}-{state.value}.{file_format.value}")
        if out != _STDOUT and path.exists() and not force:
            fail(f"{path} is there already; give another --out, or --force to replace it")
        with _place(path, to_stdout=out == _STDOUT, force=force) as place:
            written = _write(warehouse_of(settings), place, file_format, chosen, rules)
    to_stdout = out == _STDOUT
    head = f"{written.rows} rows of FOCUS {rules.version}, target {settings.target}, {state.value}"
    for line in [f"{'stdout' if to_stdout else path}: {head}", *written.money, *written.left_out]:
        typer.echo(line, err=to_stdout)


def _start(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


@contextmanager
def _place(path: Path, *, to_stdout: bool, force: bool) -> Iterator[Path]:
    """A file to write to, which ends where it was asked for when the block ends, and nowhere if it raises."""
    if to_stdout:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "export"
            yield written
            with written.open("rb") as stream:
                shutil.copyfileobj(stream, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    # Replacing takes a second name, since a new file never takes the place of another.
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}") if force else path
    with new_file(fresh) as stream:
        yield Path(stream.name)
    if force:
        fresh.replace(path)


def _write(
    warehouse: PlainWarehouse, place: Path, file_format: Format, chosen: Mapping[str, object], rules: Rules
) -> _Written:
    """Write the rows to `place` and hold the file to the rules. Ends the program where it has none or breaks one."""
    from lab_pipelines.focus.validate import find_violations

    rows_sql, left_out_sql = (_read(f"{name}.sql") for name in ("cost_export", "cost_export_left_out"))
    with warehouse.database(f"{rows_sql} {left_out_sql}") as connection:
        for name, value in chosen.items():
            connection.execute(f"SET VARIABLE {name} = $value", {"value": value})
        left_out = [_left_out(*row) for row in connection.execute(left_out_sql).fetchall()]
        connection.execute(f"COPY ({rows_sql}) TO '{_quoted(place)}' ({_options(file_format, chosen, rules)})")
        connection.execute(f"CREATE VIEW exported AS FROM {_read_back(file_format, place)}")
        money = connection.execute(_read("cost_export_money.sql")).fetchall()
        if not money:
            fail("\n".join([f"there is nothing to export: {_asked(chosen)}", *left_out]))
        if broken := find_violations(connection, "exported", rules, text=file_format is Format.csv):
            said = [f"the export would break rules of FOCUS {rules.version}, and was not written:", *map(str, broken)]
            fail("\n".join(said))
    return _Written(
        rows=sum(count for *_, count, _ in money),
        money=[
            f"{count} {provenance} rows, {state}: {cost} {currency}"
            for currency, state, provenance, count, cost in money
        ],
        left_out=left_out,
    )


def _options(file_format: Format, chosen: Mapping[str, object], rules: Rules) -> str:
    if file_format is Format.csv:
        return "FORMAT csv, HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ', USE_TMP_FILE false"
    # A FOCUS file says what it is without being read; CSV has no place for that but its name.
    about = {"focus_version": rules.version, "data_generator": "labs cost export", "x_state": chosen["state"]}
    listed = ", ".join(f"{name}: '{value}'" for name, value in about.items())
    return f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{listed}}}, USE_TMP_FILE false"


def _read_back(file_format: Format, place: Path) -> str:
    """The file as DuckDB reads it back."""
    if file_format is Format.parquet:
        return f"read_parquet('{_quoted(place)}')"
    # Nothing about the text is guessed, and a quoted empty field is an empty text.
    return (
        f"read_csv('{_quoted(place)}', header = true, all_varchar = true, "
        "delim = ',', quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false)"
    )


def _left_out(state: str, reason: str, records: int, usd: object) -> str:
    money = "" if usd is None else f", {usd} USD"
    return f"left out: {records} {state} records{money}: {reason}"


def _asked(chosen: Mapping[str, object]) -> str:
    lab = f"{chosen['lab']} on " if chosen["lab"] else ""
    kind = "" if chosen["state"] == "best" else f"{chosen['state']} "
    return f"{lab}target {chosen['target']} has no {kind}costs with a price"


def _read(name: str) -> str:
    return (_SQL / name).read_text(encoding="utf-8").strip().rstrip(";")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
