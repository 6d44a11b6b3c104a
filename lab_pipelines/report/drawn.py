"""Pictures that were drawn for an earlier report: kept beside it, and taken again while they are the same.

A picture takes some 0.1 s, a report of 78 labs has a thousand, and every run writes it anew.
Doesn't belong here: what is drawn (charts.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from lab_pipelines.files import new_file

_Kept = tuple[Path, set[str]]
_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def kept_in(folder: Path, *, sweep: bool = True) -> Iterator[None]:
    """Within the block, pictures are taken from `folder` and put there. `sweep`: those that were not asked for go at
    its end."""
    folder.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    token = _kept.set((folder, used))
    try:
        yield
    finally:
        _kept.reset(token)
    # .svg: what versions left that kept pictures by their specification.
    for path in [*folder.glob("*.json"), *folder.glob("*.svg")] if sweep else []:
        if path.name not in used:
            path.unlink(missing_ok=True)


def drawn(spec: str, draw: Callable[[str], str], *, renderer: str) -> str:
    """What `draw` makes of `spec`, unless that is kept. `renderer` names what draws, and of which version."""
    kept = _kept.get()
    if kept is None:
        return draw(spec)
    folder, used = kept
    name = hashlib.sha256(renderer.encode() + b"\0" + spec.encode()).hexdigest() + ".json"
    used.add(name)
    path = folder / name
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        made = draw(spec)
        with suppress(FileExistsError), new_file(path) as stream:  # another process may have drawn the same
            stream.write(made.encode())
        return made
