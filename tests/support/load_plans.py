"""Plans as a load process reads them, for tests that need one around a stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streaming_load.plan import HttpShape, Plan, ProfileKind, Stage, Trace, TracedShape
from streaming_load.traces import HASHED_TOKENS, replayed


def gets(profile: ProfileKind, *stages: Stage, **changes: Any) -> Plan:
    """A plan of plain GETs in one shape."""
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "step": "traffic",
        "base_url": "http://127.0.0.1:1",
        "model": None,
        "profile": profile,
        "arrivals": "even",
        "burstiness": None,
        "max_in_flight": None if profile in ("ramp", "constant") else 512,
        "shapes": (HttpShape("http", 1.0, "/status/200", 200, 5.0),),
        "stages": stages,
    }
    return Plan(**{**fields, **changes})


def traced(
    folder: Path,
    requests: Sequence[tuple[float, int, int] | tuple[float, int, int, Sequence[int]]],
    *,
    per_wall_s: float = 1.0,
    longest_s: float = 99.0,
    **changes: Any,
) -> Plan:
    """A plan that replays a trace of (seconds, tokens in, tokens out, ids of 512-token blocks if any are shared)."""
    lines, own = [], 1_000_000
    for at_s, tokens_in, tokens_out, *shared in requests:
        blocks = -(-tokens_in // HASHED_TOKENS)
        ids = list(shared[0]) if shared else list(range(own, own := own + blocks))
        record = {"timestamp": at_s * 1000, "input_length": tokens_in, "output_length": tokens_out, "hash_ids": ids}
        lines.append(json.dumps(record))
    path = folder / "trace.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    window: dict[str, Any] = {"start_s": 0.0, "duration_s": None, "max_input_tokens": 9999, "max_output_tokens": 9999}
    found = replayed(path, "mooncake", **window)
    trace = Trace(str(path), "mooncake", per_wall_s=per_wall_s, clipped=found.clipped, digest=found.digest, **window)
    hold_s = found.length_s / per_wall_s
    stage = Stage(0, None, len(found.rows) / hold_s, hold_s, len(found.rows), longest_s)
    shape = TracedShape("traced", 1.0, temperature=0.0, timeout_wall_s=600.0)
    return gets("trace", stage, **{"model": "m", "shapes": (shape,), "trace": trace, **changes})
