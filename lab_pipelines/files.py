"""Files that appear whole or not at all, and are never overwritten.

Belongs here: the one way in which the lake and the baselines bring a file into being, and a lock among processes.
Doesn't belong here: what is in the files (resources/lake.py, baseline.py).

A writer holds a lock on its temporary file for as long as it lives, whatever machine or container it lives in, as
far as the file system shares its locks. So a temporary file that can be locked belongs to a dead writer.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""Suffix of a file that is being written. No reader looks at it."""


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write to the stream; `path` appears with all of it, on disk, when the block ends, and never if it raises.

    Raises `FileExistsError` when `path` exists by then: whoever was first wins, also among processes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, stream = _open_temporary(path)
    with stream:
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            # A link fails where a rename would replace.
            os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock `path` alone among all processes; the kernel frees a dead holder's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep_temporaries(directory: Path) -> list[Path]:
    """Remove what dead writers left anywhere below `directory`; a live writer's file is left alone."""
    swept = []
    for path in directory.rglob(f".*{TEMPORARY}"):
        try:
            with path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):  # alive, or done since we listed it
            continue
        swept.append(path)
    return swept


def sync_directory(directory: Path) -> None:
    """Make the directory's entries survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
        stream = temporary.open("xb")
        fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return temporary, stream
        # A sweeper came between the two calls and took the file for a dead writer's.
        stream.close()
