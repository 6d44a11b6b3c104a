"""A lake on object storage, or wherever else fsspec reaches: the truth is there, and this machine has a mirror of it.

Belongs here: files at a URL (list, fetch, create, remove), and the lake that keeps a mirror of them.
Doesn't belong here: what a file of the lake is (lake.py), or how it is asked (warehouse_core.py), both of which see the
mirror's folder alone.

A published file never changes, so a mirrored one can't be out of date, and each is fetched once. What there is, is
asked anew each time: another machine may have published since (docs/decisions/0019-a-mirror-of-the-lake.md).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lab_pipelines.files import new_file
from resources.contract import Table, WarehouseError
from resources.lake import Lake, Within, can_be_published

if TYPE_CHECKING:
    import pyarrow as pa

MIRRORS = "mirrors"
"""Folder below data_dir with one mirror for each lake that this machine has used."""
FETCHED_AT_ONCE = 32
"""Files of one lake that are in memory and under way together; a lab's are some hundred kilobytes each."""


_SHOWN = 300
"""Characters of a driver's own error that a message shows."""
_INSTALL = "install the URL's driver (for Azure: the extra `aks`)"
_CHECK = "check LABS_LAKE_URL, the network, and who you are there (for Azure: az login, or the pod's identity)"


def open_lake(url: str | None, data_dir: Path, schema_dir: Path) -> Lake:
    """The lake at `url`, with its mirror below `data_dir`; None or a `file://` URL: a folder, without a mirror.

    Nothing is asked of the network yet. Raises `WarehouseError` for a URL whose driver is missing.
    """
    if url is None:
        return Lake(data_dir / "lake", schema_dir)
    if urlsplit(url).scheme == "file":
        return Lake(Path(url2pathname(urlsplit(url).path)), schema_dir)
    return MirroredLake(_remote(url), data_dir / MIRRORS / sha256(url.encode()).hexdigest()[:12], schema_dir)


@cache
def _remote(url: str) -> RemoteFiles:
    return RemoteFiles(url)


class RemoteFiles:
    """The files below a URL, by their path relative to it. Every method raises `WarehouseError` in one line."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._explained():
            from fsspec.core import url_to_fs

            # Nothing that fsspec remembers of an earlier look or another user of the process
            self._files, root = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
            self._root = str(root).rstrip("/")

    def sizes(self, folder: str) -> dict[str, int]:
        """Every file anywhere below `folder`, with its size in bytes; none where there is no such folder."""
        with self._explained():
            try:
                found = self._files.find(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return {}
        cut = len(self._root) + 1
        return {path[cut:]: int(info["size"]) for path, info in found.items()}

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The contents of the files, fetched side by side where the driver can."""
        with self._explained():
            found = self._files.cat([f"{self._root}/{path}" for path in paths])
        cut = len(self._root) + 1
        return {path[cut:]: content for path, content in found.items()}

    def create(self, path: str, content: bytes) -> bool:
        """Make a new file, whole or not at all; False, with nothing written, if there is one already.

        Atomic where the store is asked in one request whether there is one (Azure, S3, Google: If-None-Match). Another
        driver looks first and writes then.
        """
        target = f"{self._root}/{path}"
        with self._explained():
            try:
                try:
                    self._files.pipe_file(target, content, mode="create")
                except FileNotFoundError:  # where folders are more than parts of a name; elsewhere nobody asks for them
                    self._files.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
                    self._files.pipe_file(target, content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, folder: str) -> None:
        """Remove every file below `folder`, which is no table's. Idempotent."""
        with self._explained(), suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{folder}", recursive=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        azure = sys.modules.get("azure.core.exceptions")
        kinds = (OSError, ValueError, ImportError, *((azure.AzureError,) if azure else ()))
        try:
            yield
        except (FileExistsError, FileNotFoundError):
            raise
        except kinds as error:
            said = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
            remedy = _INSTALL if isinstance(error, ImportError) else _CHECK
            raise WarehouseError(f"the lake {self.url} can't be reached: {said}; {remedy}") from None


class MirroredLake(Lake):
    """A lake at a URL. Its `root` is the mirror: files that were looked at or published here."""

    def __init__(self, remote: RemoteFiles, mirror: Path, schema_dir: Path) -> None:
        super().__init__(mirror, schema_dir)
        self.remote = remote

    def files(self, table: Table, within: Within | None = None) -> list[Path]:
        with self._named_by_url():
            return super().files(table, within)

    def find_damage(self) -> list[str]:
        return [line.replace(str(self.root), self.remote.url) for line in super().find_damage()]

    def _create(self, path: Path, data: pa.Table) -> bool:
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = pa.BufferOutputStream()
        pq.write_table(data, buffer, compression="zstd")
        content = buffer.getvalue().to_pybytes()
        key = path.relative_to(self.root).as_posix()
        if self.remote.create(key, content):
            self._keep(path, content)
            return True
        self._fetch([key])
        return False

    def _require_same(self, path: Path, new: pa.Table) -> None:
        with self._named_by_url():
            super()._require_same(path, new)

    def _listed(self, table: Table, within: Within) -> list[Path]:
        """As of a folder, with what the mirror lacks fetched first; what is in the mirror alone doesn't count."""
        if not can_be_published(within):
            return []
        folder = PurePosixPath(table.name)
        if "target" in within:
            folder /= f"target={within['target']}"
            if "lab" in within:
                folder /= f"lab={within['lab']}"
        sizes = {
            path: size
            for path, size in self.remote.sizes(str(folder)).items()
            if path.endswith(".parquet") and _may_hold(PurePosixPath(path), within)
        }
        self._fetch([path for path, size in sizes.items() if not _is_whole(self.root / path, size)])
        return sorted(self.root / path for path in sizes)

    def _fetch(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), FETCHED_AT_ONCE):
            for path, content in self.remote.read(paths[start : start + FETCHED_AT_ONCE]).items():
                self._keep(self.root / path, content)

    @staticmethod
    def _keep(path: Path, content: bytes) -> None:
        if not _is_whole(path, len(content)):
            path.unlink(missing_ok=True)
        with suppress(FileExistsError), new_file(path) as stream:  # another process of this machine fetched it, too
            stream.write(content)

    @contextmanager
    def _named_by_url(self) -> Iterator[None]:
        try:
            yield
        except WarehouseError as error:
            raise WarehouseError(str(error).replace(str(self.root), self.remote.url)) from None


def _may_hold(path: PurePosixPath, within: Within) -> bool:
    """Whether a file may hold rows of `within`, by its name alone. Without `within`: wherever it lies."""
    named = {f"{name}={value}" for name, value in within.items() if name != "run_id"}
    return named <= set(path.parent.parts) and path.name.startswith(within.get("run_id", ""))


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
