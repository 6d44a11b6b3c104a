"""Keeps a sensor's decisions: at once in a file beside the lake, then an hour of them as one file of the lake.

A tick a minute would be half a million files a year in the lake, and every question opens each file once. A batch's
name is made with its first row, so publishing it twice, because a process died between publishing and removing the
batch, is the lake's own no-op.

Doesn't belong here: what is in a row (lab_pipelines/gpu_decisions.py, budget_decisions.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from lab_pipelines.gpu_decisions import ALL_LABS, TABLE
from lab_pipelines.rows.common import Row
from resources.lake import Within
from resources.warehouse_core import WarehouseCore

PUBLISH_AFTER = timedelta(hours=1)


class DecisionLog:
    """The decisions of one target, below the data folder of `warehouse`. Any number of processes may write.

    They are rows of `table`, each about what its column `about` names.
    """

    def __init__(self, warehouse: WarehouseCore, target: str, *, table: str = TABLE, about: str = "pool") -> None:
        self._warehouse, self._target, self._table, self._about = warehouse, target, table, about
        self._folder = Path(warehouse.data_dir) / "state" / table / target

    def append(self, rows: Sequence[Row], *, now: datetime) -> None:
        """Write `rows` down. They are on disk when this returns, whatever dies then. Raises `OSError`."""
        if not rows:
            return
        with self._locked():
            batches = self._batches()
            path = batches[-1] if batches else self._folder / f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.jsonl"
            lines = "".join(f"{json.dumps(row, default=_plain)}\n" for row in rows)
            with path.open("ab+") as batch:
                if batch.seek(0, os.SEEK_END):
                    batch.seek(-1, os.SEEK_END)
                    if batch.read() != b"\n":
                        batch.write(b"\n")  # a writer died within its line; that line is left out, not this one
                batch.write(lines.encode())
                batch.flush()
                os.fsync(batch.fileno())

    def newest(self) -> dict[str, Row]:
        """The last row about each, published or not. Raises `WarehouseError`."""
        sql = (
            f"FROM {self._table} WHERE target = ? "
            f"QUALIFY row_number() OVER (PARTITION BY {self._about} ORDER BY recorded_at DESC) = 1"
        )
        waiting, published = self._read_with(sql, [self._target])
        # What waits is later than whatever is published.
        return {row[self._about]: row for row in [*published, *waiting]}

    def last(self, number: int) -> list[Row]:
        """The newest rows, published or not, the newest first. Raises `WarehouseError`."""
        sql = f"FROM {self._table} WHERE target = ? ORDER BY recorded_at DESC LIMIT ?"
        waiting, published = self._read_with(sql, [self._target, number])
        return sorted([*waiting, *published], key=lambda row: row["recorded_at"], reverse=True)[:number]

    def _read_with(self, sql: str, params: Sequence[object]) -> tuple[list[Row], list[Row]]:
        """The rows that wait, and what the lake answers to `sql`: nobody publishes a batch between the two."""
        within: Within = {"target": self._target}
        with self._locked():
            waiting = [row for path in self._batches() for row in self._read(path)]
            return waiting, self._warehouse.query(sql, params, within=within)

    def publish(self, *, now: datetime, at_once: bool = False) -> int:
        """Publish batches that are an hour old, or all; how many rows. Raises `WarehouseError`, the batch kept."""
        published = 0
        with self._locked():
            for path in self._batches():
                began = datetime.strptime(path.stem.split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                if not at_once and now - began < PUBLISH_AFTER:
                    continue
                rows = list(self._read(path))
                run_id = f"{self._table.removesuffix('_decisions')}-{path.stem}"
                self._warehouse.publish(
                    self._table,
                    [{**row, "run_id": run_id} for row in rows],
                    target=self._target,
                    lab=ALL_LABS,
                    run_id=run_id,
                )
                path.unlink()
                published += len(rows)
        return published

    def _read(self, path: Path) -> Iterator[Row]:
        """The rows of a batch, their times and decimals as the table has them."""
        types = self._warehouse.lake.table(self._table).types
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a writer that was killed: its tick wrote nothing else
            yield {name: _typed(value, types.get(name, "")) for name, value in row.items()}

    def _batches(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Ticks may overlap; a killed holder's lock is freed by the kernel."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{value!r} is in no column of a decision")


def _typed(value: Any, kind: str) -> Any:
    """A value of JSON as its column has it."""
    if value is None or not isinstance(value, str):
        return value
    if kind.startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    return Decimal(value) if kind.startswith("DECIMAL") else value
