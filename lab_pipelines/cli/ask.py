"""`labs sql`: ask labs.duckdb, read-only. Doesn't belong here: the questions themselves (warehouse/queries)."""

from __future__ import annotations

import csv
import os
import re
import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from lab_pipelines.cli.console import ROWS_SHOWN, WRONG_CALL, explained, fail, print_answer, print_json
from lab_pipelines.cli.options import JsonOption
from lab_pipelines.deployment import REPO_ROOT, Deployment

QUERIES_DIR = REPO_ROOT / "warehouse" / "queries"
TRY_SQL = "select users, output_tokens_per_s, ttft_p95_s from stage_table order by users"


def _question_names(incomplete: str) -> list[str]:
    return sorted(path.stem for path in QUERIES_DIR.glob(f"{incomplete}*.sql"))


def sql(
    question: Annotated[
        str,
        typer.Argument(
            help="SQL, a file of SQL, or the name of a file in warehouse/queries.", autocompletion=_question_names
        ),
    ] = "",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Ask labs.duckdb, read-only."""
    if as_json and as_csv:
        fail("--json and --csv exclude each other; give one", code=WRONG_CALL)
    statement = _statement(question.strip())
    named = statement != question.strip()
    from resources.contract import WarehouseError
    from resources.snapshot import SNAPSHOT, open_snapshot

    with explained(WarehouseError):
        path = Deployment.from_env(os.environ).data_dir / SNAPSHOT
        with open_snapshot(path) as connection:
            import duckdb

            try:
                cursor = connection.execute(statement)
                columns = [column[0] for column in cursor.description or []]
                rows = cursor.fetchall() if as_json or as_csv else cursor.fetchmany(ROWS_SHOWN + 1)
            except duckdb.CatalogException as error:
                fail(f"{path} is older than this question: labs report builds it anew" if named else str(error))
            except duckdb.Error as error:
                fail(str(error))
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        print_answer(columns, rows)


def _statement(question: str) -> str:
    """The SQL that `question` stands for: itself, unless it is one word."""
    if not question:
        fail(f'ask something: make sql Q="{TRY_SQL}", or one of these by name\n{_known_questions()}', code=WRONG_CALL)
    if re.search(r"\s", question):
        return question
    named = QUERIES_DIR / f"{question.removesuffix('.sql')}.sql"
    path = next((p for p in (Path(question), named) if p.is_file()), None)
    if path is None:
        fail(
            f"{question!r} is neither SQL, nor a file, nor one of these questions:\n{_known_questions()}",
            code=WRONG_CALL,
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} can't be read: {error}")


def _known_questions() -> str:
    files = sorted(QUERIES_DIR.glob("*.sql"))
    width = max((len(file.stem) for file in files), default=0)
    return "\n".join(f"  {file.stem:{width}}  {_question_of(file.read_text(encoding='utf-8'))}" for file in files)


def _question_of(text: str) -> str:
    """What a file of SQL asks: its comment up to the first question mark, however it is broken into lines."""
    comment = takewhile(lambda line: line.startswith("--"), text.splitlines())
    asked, mark, _ = " ".join(line.removeprefix("--").strip() for line in comment).partition("?")
    return asked + mark
