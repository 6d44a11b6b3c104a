"""The lake's files and the views' definitions as DuckDB takes them.

Doesn't belong here: who asks (warehouse_core.py) or keeps a copy (snapshot.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resources.contract import WarehouseError
from resources.lake import Lake

if TYPE_CHECKING:
    import duckdb

CREATES = re.compile(r"CREATE (?:VIEW|MACRO) (\w+)", re.IGNORECASE)
"""What a file of views makes: views, and what several of them say alike."""
_VIEW = re.compile(r"CREATE VIEW (\w+)", re.IGNORECASE)


def create_views(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], *, as_tables: bool = False) -> None:
    """Run the files. One may use another in any order: what fails is tried again after the rest.

    `as_tables`: what each view gives now is kept, and not asked again.
    """
    import duckdb

    pending = list(files)
    while pending:
        failed: dict[Path, duckdb.Error] = {}
        for path in pending:
            connection.execute("BEGIN")
            try:
                sql = path.read_text(encoding="utf-8")
                connection.execute(_VIEW.sub(r"CREATE TABLE \1", sql) if as_tables else sql)
                connection.execute("COMMIT")
            except duckdb.Error as error:
                connection.execute("ROLLBACK")
                if as_tables and not isinstance(error, duckdb.CatalogException):
                    raise  # no view is missing: a file of the lake can't be read
                failed[path] = error
        if len(failed) == len(pending):
            reasons = "\n".join(f"{path}: {error}" for path, error in failed.items())
            raise WarehouseError(f"views that can't be created:\n{reasons}")
        pending = list(failed)


@contextmanager
def explained(lake: Lake) -> Iterator[None]:
    """Turn DuckDB's errors into ours: a damaged file of the lake is named, otherwise DuckDB's own words stand."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        # A damaged page is met with any of a dozen errors; a wrong question with one of these alone.
        asking = isinstance(error, duckdb.ParserException | duckdb.CatalogException | duckdb.BinderException)
        damage = [] if asking else lake.find_damage()
        raise WarehouseError("\n".join(damage) or str(error)) from None


def read_parquet(files: list[Path], *, union: bool) -> str:
    listed = ", ".join(_literal(path) for path in files)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = {str(union).lower()})"


def _literal(path: Path) -> str:
    """A path as a SQL string that DuckDB doesn't take for a pattern."""
    escaped = re.sub(r"([\[*?])", r"[\1]", str(path)).replace("'", "''")
    return f"'{escaped}'"


def quoted(name: str) -> str:
    return f'"{name}"'
