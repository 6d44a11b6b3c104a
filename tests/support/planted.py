"""Secrets that are known, and the search for them in everything that a run has written.

Belongs here: reading every kind of file and object that a run leaves, down to single cells, and finding a secret in
plain, in base64 or in a URL. Doesn't belong here: the runs, or where a secret may be (the tests say).
"""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.kube.store import Store

Secrets = Mapping[str, str]
"""What each is, and its value. A value is long and like no other text."""


def leaks(folder: Path, secrets: Secrets) -> list[str]:
    """Where below `folder` a secret is, each as `file: which`."""
    return sorted(
        {
            f"{path.relative_to(folder)}: {name}"
            for path in folder.rglob("*")
            if path.is_file()
            for text in _texts(path)
            for name in found_in(text, secrets)
        }
    )


def leaks_in_cluster(store: Store, secrets: Secrets, *, but_for: Collection[tuple[str, str]]) -> list[str]:
    """Which objects ever had a secret; `but_for`: (namespace, name) of the Secrets that are for it."""
    with store.changed:
        changes = [(change.key, change.after) for change in store.history]
    return sorted(
        {
            f"{'/'.join(key)}: {name}"
            for key, obj in changes
            if not (key.resource == "secrets" and (key.namespace, key.name) in but_for)
            for text in (json.dumps(obj), _helm_release(obj))
            for name in found_in(text, secrets)
        }
    )


def found_in(text: str, secrets: Secrets) -> list[str]:
    """Names of the secrets that are in a text, however written."""
    return [name for name, value in secrets.items() if any(form in text for form in _forms(value))]


def _forms(value: str) -> set[str]:
    encoded = set()
    for before in range(3):
        # In the middle of a longer text, base64 has one of three forms; its ends hang on the neighbours.
        whole = base64.b64encode(b"x" * before + value.encode()).decode()
        encoded.add(whole[4 if before else 0 : -4])
    return {value, quote(value, safe=""), *encoded}


def _texts(path: Path) -> Iterator[str]:
    """What is in a file, as texts; of a table or a database, cell by cell."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".duckdb":
        yield from _duckdb(path)
    elif path.read_bytes()[:15] == b"SQLite format 3":
        yield from _sqlite(path)
    yield path.read_bytes().decode(errors="replace")


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    yield str(table.schema.metadata)
    for row in table.to_pylist():
        yield from (str(cell) for cell in row.values())


def _duckdb(path: Path) -> Iterator[str]:
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        for schema, name in tables:
            for row in connection.execute(f'SELECT * FROM "{schema}"."{name}"').fetchall():
                yield from (str(cell) for cell in row)


def _sqlite(path: Path) -> Iterator[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                yield from (_unpacked(cell) for cell in row)


def _unpacked(cell: Any) -> str:
    """A cell as text; Dagster keeps snapshots compressed."""
    if not isinstance(cell, bytes):
        return str(cell)
    try:
        return zlib.decompress(cell).decode(errors="replace")
    except zlib.error:
        return cell.decode(errors="replace")


def _helm_release(obj: Mapping[str, Any]) -> str:
    """What Helm keeps of a release, which is compressed and twice in base64; nothing for any other object."""
    if obj.get("type") != "helm.sh/release.v1":
        return ""
    inner = base64.b64decode(base64.b64decode(obj["data"]["release"]))
    return gzip.decompress(inner).decode(errors="replace")
