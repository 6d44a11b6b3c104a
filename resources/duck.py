"""DuckDB as this project uses it: in UTC, offline, one engine for all that a process asks.

Doesn't belong here: what is asked (contract.py, warehouse_core.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def connect(path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of our own: in UTC, and never reaching for extensions over the network."""
    import duckdb

    connection = duckdb.connect(
        str(path) if path else ":memory:",
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@cache
def engine() -> duckdb.DuckDBPyConnection:
    """One in-memory DuckDB for all questions and checks of a process: to start one takes 14 ms, longer than to ask."""
    return connect()


@contextmanager
def own_schema() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees nothing but what it makes itself, and leaves nothing behind. Threads don't meet."""
    name = f"q{uuid.uuid4().hex}"
    with engine().cursor() as connection:
        connection.execute(f"CREATE SCHEMA {name}; SET schema = '{name}'; SET TimeZone = 'UTC'")
        try:
            yield connection
        finally:
            connection.execute(f"SET schema = 'main'; DROP SCHEMA {name} CASCADE")
