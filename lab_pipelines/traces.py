"""What a load step's trace holds: how many requests, over what time, of which length.

Belongs here: from a spec's words to the file, read once per process as long as it doesn't change. Doesn't belong here:
the formats (load-tests/locust/streaming_load/traces.py) or replaying (the load generator, rehearsal/load.py).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from streaming_load.traces import Replayed, TraceFormat, replayed

from lab_pipelines.catalog.steps import TracedRequest, TraceReplay
from lab_pipelines.deployment import REPO_ROOT


def replayed_by(profile: TraceReplay, request: TracedRequest, *, root: Path = REPO_ROOT) -> Replayed:
    """The part of the trace that a step replays. Raises `TraceError`, which names file, line and remedy."""
    path = root / profile.file
    state = path.stat() if path.exists() else None
    return _read(
        path,
        None if state is None else (state.st_mtime_ns, state.st_size),
        profile.format,
        start_s=profile.start_s,
        duration_s=profile.duration_s,
        max_input_tokens=request.max_input_tokens,
        max_output_tokens=request.max_output_tokens,
    )


@lru_cache(maxsize=8)
def _read(path: Path, state: tuple[int, int] | None, form: TraceFormat, **window: Any) -> Replayed:
    """`state` is part of the key, so that a file that was changed is read again."""
    return replayed(path, form, **window)
