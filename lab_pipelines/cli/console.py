"""How `labs` prints: tables, JSON, and a mistake as one message with an exit code.

Doesn't belong here: what is printed (the commands), how numbers read (lab_pipelines/report/wording.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from lab_pipelines.deployment import DeploymentError
from lab_pipelines.report.wording import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CANT, WRONG_CALL, CLEANED, INTERRUPTED = 1, 2, 3, 130
"""Exit codes: it can't be done or failed; the call is wrong; something was left behind, and is gone; interrupted."""
ROWS_SHOWN = 200
"""Longest answer that is printed as a table; --csv and --json print all of it."""
NO_TERMINAL_WIDTH = 10_000
"""Columns when the output goes to a file or a pipe: nothing is cut there."""
WIDTH_NEEDED = 80
"""Terminal columns with which every table is complete."""


def fail(message: str, *, code: int = CANT) -> NoReturn:
    """End the program with `message` on stderr. Raises `typer.Exit`."""
    typer.echo(f"labs: {printable(message)}", err=True)
    raise typer.Exit(code)


@contextmanager
def explained(*errors: type[Exception]) -> Iterator[None]:
    """One of `errors`, or a wrong setting in the environment, ends in its message and an exit code."""
    try:
        yield
    except DeploymentError as error:
        fail(str(error), code=WRONG_CALL)
    except errors as error:
        fail(str(error))


def console() -> Console:
    """Stdout, as wide as the terminal; without one, too wide to cut anything."""
    from rich.console import Console

    terminal = Console()
    if not terminal.is_terminal:
        return Console(width=NO_TERMINAL_WIDTH)
    # A narrower terminal wraps lines, which is still better than figures cut down to "1…".
    return Console(width=max(terminal.width, WIDTH_NEEDED))


def say(text: str = "", *, style: str = "") -> None:
    """One line on stdout. Square brackets are text, not markup; the terminal wraps, so that it can be copied whole."""
    from rich.text import Text

    console().print(Text(printable(text), style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    """`value` as JSON: what JSON doesn't know as text, decimals as numbers."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows of any query as a table, the first `ROWS_SHOWN` of them."""
    if not columns:
        return
    shown = rows[:ROWS_SHOWN]
    numeric = [n for n in range(len(columns)) if any(isinstance(row[n], int | float | Decimal) for row in shown)]
    print_table(columns, [[_shown(value) for value in row] for row in shown], right=numeric)
    if not rows:
        say("no row", style="dim")
    if len(rows) > ROWS_SHOWN:
        say(f"the first {ROWS_SHOWN} rows; --csv and --json print all")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    whole: Sequence[int] = (),
    styles: Sequence[str] = (),
) -> None:
    """Cells of text under their columns. `right` are aligned to the right, `whole` are never wrapped."""
    from rich.text import Text

    table = _table()
    for number, column in enumerate(columns):
        table.add_column(
            Text(printable(column)),
            justify="right" if number in right else "left",
            overflow="fold",
            no_wrap=number in whole,
        )
    for number, row in enumerate(rows):
        table.add_row(*(Text(printable(cell)) for cell in row), style=styles[number] if styles else None)
    console().print(table)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """After an empty line, names and their values, one below the other."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(name, style="bold"), Text(printable(value)))
    say()
    console().print(table)


def print_list(title: str, lines: Sequence[str]) -> None:
    """A titled list; nothing at all where there is nothing to list."""
    if lines:
        say(f"\n{title}", style="bold")
        for line in lines:
            say(f"- {line}")


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


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
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
