"""The warehouse: publishes rows into the lake, answers SQL over it, and keeps labs.duckdb for people.

Belongs here: a question to the lake, with its tables and views as one DuckDB.
Doesn't belong here: checking rows (contract.py) and writing them (lake.py), labs.duckdb (snapshot.py), any particular
question (warehouse/views, queries), or Dagster (warehouse.py): the command line asks without importing it.

The lake is the truth. labs.duckdb is a copy that may be deleted at any time: DuckDB lets one process write or many
read, so the pipeline asks the lake, and people ask the copy that `rebuild` swaps in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lab_pipelines.deployment import REPO_ROOT
from resources.contract import Row, WarehouseError
from resources.duck import own_schema
from resources.lake import Lake, Within
from resources.lake_audit import require_sound
from resources.lake_remote import open_lake
from resources.lake_sql import CREATES, create_views, explained, quoted, read_parquet
from resources.snapshot import SNAPSHOT, rebuild

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

SCHEMA_DIR = str(REPO_ROOT / "warehouse" / "schema")
VIEWS_DIR = str(REPO_ROOT / "warehouse" / "views")


class WarehouseCore:
    """What can be done with the warehouse below `data_dir`. Any number of processes may use it at once."""

    data_dir: str
    schema_dir: str
    views_dir: str
    lake_url: str | None
    """Where the lake is; None: the folder `lake` below `data_dir`. See lake_remote.py."""

    @property
    def snapshot_path(self) -> Path:
        """Where `rebuild` puts labs.duckdb."""
        return Path(self.data_dir) / SNAPSHOT

    @property
    def lake(self) -> Lake:
        """The files themselves."""
        return open_lake(self.lake_url, Path(self.data_dir), Path(self.schema_dir))

    def publish(
        self, table: str, rows: Sequence[Row], *, target: str, lab: str, run_id: str, part: str | None = None
    ) -> Path:
        """Publish `rows` of one run as one immutable file, and return its path. No rows make a file without rows.

        Every row gives every column of the table's DDL, None where nothing is known. `part` tells several files of
        one run and table apart, e.g. a variant.

        A name is published once. Publishing it again is a no-op when the rows are the same in everything but
        `recorded_at`, so a retried step may repeat what it computed; it raises when they differ, since results that
        differ belong to a new run. Raises `WarehouseError` that names table, row, column and remedy.
        """
        return self.lake.publish(table, rows, target=target, lab=lab, run_id=run_id, part=part)

    def query(
        self, sql: str, params: Sequence[object] | Mapping[str, object] = (), *, within: Within | None = None
    ) -> list[dict[str, Any]]:
        """The answer to `sql` over the lake as it is now: one dict per row, times as aware UTC datetimes.

        `params` fill the `?` of `sql`, or by name its `$name`. The tables hold the rows `within` what is given
        alone, e.g. one run: what asks about a run then takes as long after a year of runs as after the first.
        Raises `WarehouseError` for wrong SQL, a damaged file, or two columns of the same name.
        """
        with self._lake_database(sql, within) as connection:
            return _rows(connection.execute(sql, _given(params)))

    def answers(self, questions: Mapping[str, str], *, sound: bool = False) -> dict[str, list[dict[str, Any]]]:
        """The answers to several questions, by their names, over one state of the lake; rows as in `query`.

        Each view that they use is worked out once, however many of them use it: a page asks twenty questions, and ten
        of them read every request. `sound`: rows that can't be true stop the answer (lake_audit.py). Raises
        `WarehouseError` as `query` does.
        """
        with self._lake_database(";\n".join(questions.values()), kept=True, sound=sound) as connection:
            return {name: _rows(connection.execute(sql)) for name, sql in questions.items()}

    def frame(
        self, sql: str, params: Sequence[object] | Mapping[str, object] = (), *, within: Within | None = None
    ) -> pd.DataFrame:
        """As `query`, as a DataFrame."""
        with self._lake_database(sql, within) as connection:
            return connection.execute(sql, _given(params)).df()

    def table(
        self, sql: str, params: Sequence[object] | Mapping[str, object] = (), *, within: Within | None = None
    ) -> pa.Table:
        """As `query`, as an Arrow table: for many rows of numbers."""
        with self._lake_database(sql, within) as connection:
            return connection.sql(sql, params=_given(params)).to_arrow_table()  # without the copy that `execute` makes

    @contextmanager
    def database(self, sql: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The DuckDB that `query` asks, with the tables and views that `sql` names: for an answer that is too large
        for rows in memory. DuckDB's errors within the block are `WarehouseError`s, as in `query`.
        """
        with self._lake_database(sql) as connection:
            yield connection

    def latest_run_id(self, table: str, lab: str, target: str, *, prefer: str | None = None) -> str | None:
        """The run that wrote to `table` last, by `recorded_at`; `prefer` if that run has rows there; else None."""
        found = self.query(
            f'SELECT run_id FROM "{self.lake.table(table).name}" WHERE lab = ? AND target = ? '
            "GROUP BY run_id ORDER BY run_id IS NOT DISTINCT FROM ? DESC, max(recorded_at) DESC, run_id LIMIT 1",
            [lab, target, prefer],
            within={"lab": lab, "target": target},
        )
        return found[0]["run_id"] if found else None

    def rebuild(self) -> Path:
        """Bring labs.duckdb up to date with lake, schema and views; its path. See `snapshot.rebuild`."""
        return rebuild(self.snapshot_path, self.lake, sorted(Path(self.views_dir).glob("*.sql")))

    @contextmanager
    def _lake_database(
        self, sql: str, within: Within | None = None, *, kept: bool = False, sound: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """An in-memory DuckDB whose tables are views of the lake's files, listed once; only what `sql` may name.

        Our own views are made as tables where they are to be `kept`; before that the rows are held to what can be true,
        where they are to be `sound`. Binding every view took 60 of the 72 ms of a small question, and a lab with many
        stages asks hundreds.
        """
        lake = self.lake
        # Of one run's files: another run's name may begin with this one's.
        where = f" WHERE run_id = '{within['run_id']}'" if within and "run_id" in within else ""
        views = [_view_file(path) for path in sorted(Path(self.views_dir).glob("*.sql"))]
        definitions = {name.lower(): view.text for view in views for name in view.creates}
        named = _named(sql, {**dict.fromkeys(lake.tables, ""), **definitions})
        with own_schema() as connection, explained(lake):
            for table in lake.tables.values():
                if table.name not in named:
                    continue
                files = {path: lake.columns(table, path) for path in lake.files(table, within)}
                if not files:
                    connection.execute(table.ddl)
                    continue
                existing = frozenset[str]().union(*files.values())
                columns = ", ".join(
                    f"CAST({quoted(column) if column in existing else 'NULL'} AS {kind}) AS {quoted(column)}"
                    for column, kind in table.types.items()
                )
                same = len(set(files.values())) == 1  # then DuckDB need not open every file to learn their columns
                source = read_parquet(list(files), union=not same)
                connection.execute(f"CREATE VIEW {quoted(table.name)} AS SELECT {columns} FROM {source}{where}")
            if sound:
                require_sound(connection, {name: lake.tables[name] for name in lake.tables if name in named}, lake.root)
            create_views(connection, [view.path for view in views if named & view.creates], as_tables=kept)
            yield connection


@dataclass(frozen=True)
class PlainWarehouse(WarehouseCore):
    """A warehouse for programs outside of a Dagster run."""

    data_dir: str
    schema_dir: str = SCHEMA_DIR
    views_dir: str = VIEWS_DIR
    lake_url: str | None = None


class _ViewFile(NamedTuple):
    path: Path
    text: str
    creates: frozenset[str]


def _view_file(path: Path) -> _ViewFile:
    return _read_view_file(path, path.stat().st_mtime_ns)


@cache
def _read_view_file(path: Path, changed_ns: int) -> _ViewFile:
    text = path.read_text(encoding="utf-8")
    return _ViewFile(path, text, frozenset(CREATES.findall(text)))


def _named(sql: str, definitions: Mapping[str, str]) -> set[str]:
    """The tables, views and macros whose names stand in `sql`, or in the definition of one that does.

    Too many do no harm: a word of a comment costs a few milliseconds. A question that names none gets them all.
    """
    found: set[str] = set()
    pending = [sql]
    while pending:
        new = {word for word in re.findall(r"\w+", pending.pop().lower()) if word in definitions} - found
        found |= new
        pending += [definitions[name] for name in new]
    return found or set(definitions)


def _given(params: Sequence[object] | Mapping[str, object]) -> list[object] | Mapping[str, object]:
    """As DuckDB takes them: in order, or by name."""
    return params if isinstance(params, Mapping) else list(params)


def _rows(answer: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in answer.description or []]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise WarehouseError(f"the answer has several columns named {', '.join(sorted(repeated))}; rename with AS")
    return [{name: _in_utc(value) for name, value in zip(names, row, strict=True)} for row in answer.fetchall()]


def _in_utc(value: Any) -> Any:
    # DuckDB's times carry pytz's UTC; the standard library's compares and prints the same everywhere.
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value
