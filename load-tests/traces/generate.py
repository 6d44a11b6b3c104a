"""Write the synthetic traces: `python load-tests/traces/generate.py` makes every file below again, byte for byte.

They are made up, for tests and as examples of the two formats: nobody's traffic, and nothing should be concluded from
them. Real ones are far larger and aren't kept here; docs/load-generation.md says where they are described.

A minute of about two requests per second, more in its middle than at its ends. Of the Mooncake form each request
belongs to a conversation: every prompt begins with the same 512 tokens, and a later turn with all of the turn before.
"""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
SEED = "traces"
LENGTH_S = 60.0
REQUESTS = 120
BLOCK = 512


class Request(NamedTuple):
    at_s: float
    input_tokens: int
    output_tokens: int


def requests(numbers: random.Random) -> list[Request]:
    """In the order of time, the first at 0."""
    # The sum of two uniform numbers is a triangle: the middle of the minute is busiest. Only random() promises the same
    # sequence in every version of Python.
    times = sorted((numbers.random() + numbers.random()) / 2 * LENGTH_S for _ in range(REQUESTS))
    return [
        Request(at - times[0], _lognormal(numbers, 300, most=1500), _lognormal(numbers, 40, most=200)) for at in times
    ]


def _lognormal(numbers: random.Random, median: float, *, most: int) -> int:
    normal = math.sqrt(-2 * math.log(1.0 - numbers.random())) * math.cos(2 * math.pi * numbers.random())
    return min(max(round(median * math.exp(0.8 * normal)), 4), most)


def azure(form: str) -> str:
    """The CSV, with time stamps as in the traces of `2023` or `2024`."""
    start = datetime(2026, 3, 2, 9, 0, 0, 250_000, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for one in requests(random.Random(SEED)):
        at = start + timedelta(seconds=one.at_s)
        stamp = f"{at:%Y-%m-%d %H:%M:%S.%f}0" if form == "2023" else f"{at:%Y-%m-%d %H:%M:%S.%f+00:00}"
        lines.append(f"{stamp},{one.input_tokens},{one.output_tokens}")
    return "\n".join(lines) + "\n"


def mooncake() -> str:
    """The JSON lines."""
    numbers = random.Random(f"{SEED}/mooncake")
    lines, next_id = [], 1
    talks: list[tuple[int, list[int]]] = []  # of each conversation: prompt tokens so far, ids of its full blocks
    for one in requests(random.Random(SEED)):
        turn = int(numbers.random() * 3) > 0 and bool(talks)
        tokens, ids = talks.pop(int(numbers.random() * len(talks))) if turn else (BLOCK, [0])
        tokens += one.input_tokens
        ids = ids[: (tokens - one.input_tokens) // BLOCK]
        new = -(-tokens // BLOCK) - len(ids)
        ids, next_id = [*ids, *range(next_id, next_id + new)], next_id + new
        if tokens < 4 * BLOCK:
            talks.append((tokens, ids))
        request = {
            "timestamp": round(one.at_s * 1000),
            "input_length": tokens,
            "output_length": one.output_tokens,
            "hash_ids": ids,
        }
        lines.append(json.dumps(request))
    return "\n".join(lines) + "\n"


TRACES = {
    "synthetic-azure-2023.csv": lambda: azure("2023"),
    "synthetic-azure-2024.csv": lambda: azure("2024"),
    "synthetic-mooncake.jsonl": mooncake,
}


if __name__ == "__main__":
    for name, write in TRACES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
        print(FOLDER / name)
