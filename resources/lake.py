"""The lake: immutable Parquet files, one per table and run, that hold everything the labs have found out.

Belongs here: publishing files, listing them. Doesn't belong here: what rows must be like (contract.py), or questions,
views and labs.duckdb (warehouse_core.py).

A file is `lake/<table>/target=<target>/lab=<lab>/<run_id>[-<part>].parquet`. It is written once, and says its own
name in its metadata, so that a copy or a file of another origin is found out instead of being counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from lab_pipelines.files import new_file, sweep_temporaries
from resources.contract import Row, Table, WarehouseError, check_rows, contract

if TYPE_CHECKING:
    import pyarrow as pa

STAMP = b"lab_pipelines.path"
"""The key in a file's metadata below which it says its own name."""
_PATH_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Within(TypedDict, total=False):
    """Some rows of the lake: those that have all of these values."""

    target: str
    lab: str
    run_id: str


class Lake:
    """The files below one folder, under one data contract."""

    def __init__(self, root: Path, schema_dir: Path) -> None:
        self.root = root
        self.tables = contract(schema_dir)

    def table(self, name: str) -> Table:
        """The contract of one table. Raises `WarehouseError` that names the known ones."""
        if name not in self.tables:
            raise WarehouseError(f"there is no table {name!r}; the warehouse has: {', '.join(self.tables)}")
        return self.tables[name]

    def publish(
        self, table: str, rows: Sequence[Row], *, target: str, lab: str, run_id: str, part: str | None = None
    ) -> Path:
        """Check `rows` and publish them as one new file; its path. See `Warehouse.publish`."""
        name = f"{run_id}-{part}" if part else run_id
        for what, value in {"target": target, "lab": lab, "run_id": run_id, "part": part or name}.items():
            if not _PATH_PART.fullmatch(value):
                raise WarehouseError(f"{table}: {what}={value!r} can't be part of a path; use letters, digits, . _ -")
        checked = check_rows(self.table(table), rows, key={"target": target, "lab": lab, "run_id": run_id})
        path = self.root / table / f"target={target}" / f"lab={lab}" / f"{name}.parquet"
        if not self._create(path, checked.replace_schema_metadata({STAMP: self._stamp(path)})):
            self._require_same(path, checked)
        return path

    def files(self, table: Table, within: Within | None = None) -> list[Path]:
        """The table's files, each proven to be ours and to fit the contract. Raises `WarehouseError` otherwise.

        One wrong file stops every question: without it a number could be wrong, and nobody would know. Of `within`
        only the files that may hold its rows are looked at: no other can make its numbers wrong.
        """
        return [path for path in self._listed(table, within or {}) if self.columns(table, path)]

    def columns(self, table: Table, path: Path) -> frozenset[str]:
        """The columns that one file has. Raises `WarehouseError` when the file doesn't belong where it is."""
        status = path.stat()
        stamp, columns = _footer(path, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp(path):
            was = f"says that it is {stamp.decode()}" if stamp else "was not written by this warehouse"
            raise WarehouseError(f"{path} {was}. Move it out of the lake; it can't be counted there.")
        if missing := table.required - columns:
            raise WarehouseError(
                f"{path} lacks {', '.join(sorted(missing))}, which {table.source.name} now requires of every row. "
                f"Give the column a default for older files there, or allow NULL."
            )
        return columns

    def find_damage(self) -> list[str]:
        """Read every file in full; one line for each that can't be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        damage = []
        for table in self.tables.values():
            for path in self._listed(table, {}):
                try:
                    pq.ParquetFile(path).read()
                except (pa.ArrowException, OSError) as error:
                    damage.append(_damaged(path, error))
        return damage

    def sweep(self) -> list[Path]:
        """Remove the temporary files of dead writers."""
        return sweep_temporaries(self.root)

    def _create(self, path: Path, data: pa.Table) -> bool:
        """Write `data` as a new file, whole or not at all; False, with nothing written, if there is one already."""
        import pyarrow.parquet as pq

        if path.exists():  # spares the writing; the link below decides
            return False
        try:
            with new_file(path) as stream:
                pq.write_table(data, stream, compression="zstd")
        except FileExistsError:
            return False
        except OSError as error:
            where = "make its folder one that can be written to, or set LABS_DATA_DIR"
            raise WarehouseError(f"{path} can't be written ({error.strerror}): {where}") from error
        return True

    def _listed(self, table: Table, within: Within) -> list[Path]:
        if not within:  # wherever they lie: a file that is out of place is to be found out
            pattern = "**/*.parquet"
        elif can_be_published(within):
            target, lab, run_id = within.get("target", "*"), within.get("lab", "*"), within.get("run_id", "")
            pattern = f"target={target}/lab={lab}/{run_id}*.parquet"
        else:
            return []
        return sorted((self.root / table.name).glob(pattern))

    def _stamp(self, path: Path) -> bytes:
        return path.relative_to(self.root).as_posix().encode()

    def _require_same(self, path: Path, new: pa.Table) -> None:
        import pyarrow.parquet as pq

        old = pq.ParquetFile(path).read()
        # When a row was written is not what it says: a retry that computed the same again is welcome.
        if not old.drop_columns(["recorded_at"]).equals(new.drop_columns(["recorded_at"])):
            raise WarehouseError(
                f"{path} exists with other rows, and the lake never overwrites. Results that differ belong to a new "
                f"run: materialize again, so that they get a run_id of their own."
            )


def can_be_published(within: Within) -> bool:
    """Whether there can be a file of such rows: names with other characters were never published."""
    return all(_PATH_PART.fullmatch(str(value)) for value in within.values())


@cache
def _footer(path: Path, modified_ns: int, size: int) -> tuple[bytes, frozenset[str]]:
    """The stamp and the columns of one Parquet file. Files never change, so each is opened once per process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(_damaged(path, error)) from None
    return (schema.metadata or {}).get(STAMP, b""), frozenset(schema.names)


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())  # Arrow's has several lines
    return f"{path} can't be read as Parquet ({reason}). Restore it, or move it out of the lake and run its lab again."
