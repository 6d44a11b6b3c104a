"""Write the prompt fixtures: `python load-tests/prompts/generate.py` makes every file below again, byte for byte.

A prompt is a list of token ids, because text doesn't survive decoding and encoding with the same length. The ids
lie in 300…999: above the byte tokens and special tokens with which vocabularies begin, and low enough that every
real vocabulary has them.
"""

from __future__ import annotations

import random
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FIRST_ID, LAST_ID = 300, 999
SEED = 6
"""The lab that the first fixture was made for."""


def fixture(input_tokens: int, prompts: int) -> str:
    """JSON with `prompts`: so many lists of `input_tokens` ids, one list a line so that a change shows in a diff."""
    numbers = random.Random(f"{SEED}/{input_tokens}")
    # Only random() promises the same sequence in every version of Python; randint() and choices() don't.
    ids = LAST_ID - FIRST_ID + 1
    lists = [[FIRST_ID + int(numbers.random() * ids) for _ in range(input_tokens)] for _ in range(prompts)]
    lines = ",\n".join(f"  [{', '.join(map(str, prompt))}]" for prompt in lists)
    return f'{{"prompts": [\n{lines}\n]}}\n'


FIXTURES = {
    "fixed-32.json": (32, 32),
    "fixed-128.json": (128, 32),
    "fixed-512.json": (512, 32),
    "fixed-1152.json": (1152, 8),
    "fixed-1536.json": (1536, 8),
    "fixed-2048.json": (2048, 8),
    "fixed-5000.json": (5000, 2),
}
"""File name: input tokens, prompts. Each request's prompt begins with a nonce of its own, so that few are enough."""


if __name__ == "__main__":
    for name, (input_tokens, prompts) in FIXTURES.items():
        (FOLDER / name).write_text(fixture(input_tokens, prompts), encoding="utf-8")
        print(FOLDER / name)
