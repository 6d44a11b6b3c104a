"""Request bodies with an exact number of prompt tokens, none of which a prefix cache has seen before.

Belongs here: the fixture, the nonce, the JSON of a completion request.
Doesn't belong here: making fixtures (load-tests/prompts/generate.py).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from streaming_load.plan import CompletionShape, PlanError

FIRST_ID, LAST_ID = 300, 999
"""Ids that every real vocabulary has, and that are neither bytes nor special tokens."""
NONCE_TOKENS = 8
"""700^8 nonces. A prefix cache is keyed by whole blocks from the prompt's start, so a new start is a new prompt."""


def nonce(run_id: str, request_id: str) -> list[int]:
    """The first token ids of a request's prompt: the same for the same request, and for no other."""
    name = json.dumps([run_id, request_id])
    digest = hashlib.blake2b(name.encode(), digest_size=2 * NONCE_TOKENS).digest()
    ids = LAST_ID - FIRST_ID + 1
    return [FIRST_ID + int.from_bytes(digest[at : at + 2]) % ids for at in range(0, len(digest), 2)]


def read_prompts(path: Path, input_tokens: int) -> list[list[int]]:
    """The fixture's prompts. Raises `PlanError` unless each is `input_tokens` ids within 300…999."""
    try:
        prompts = json.loads(path.read_text(encoding="utf-8"))["prompts"]
    except OSError as error:
        raise PlanError(f"prompts: {path} can't be read ({error.strerror}); name a file below load-tests/") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"prompts: {path} is not JSON with a list `prompts` ({error!r})") from error
    if not prompts:
        raise PlanError(f"prompts: {path} holds no prompt")
    for position, prompt in enumerate(prompts):
        if len(prompt) != input_tokens:
            raise PlanError(
                f"prompts: prompt {position} of {path} has {len(prompt)} tokens, but the plan's input_tokens is "
                f"{input_tokens}; name a fixture of that length, or add one to load-tests/prompts/generate.py"
            )
        if not all(isinstance(token, int) and FIRST_ID <= token <= LAST_ID for token in prompt):
            raise PlanError(f"prompts: prompt {position} of {path} has ids outside {FIRST_ID}…{LAST_ID}")
    return prompts


class RequestBodies:
    """The JSON of every completion of one shape.

    All but the nonce is rendered once: encoding 512 ids takes longer than sending them, and would be late by that.
    """

    def __init__(self, run_id: str, model: str, shape: CompletionShape, prompts: list[list[int]]) -> None:
        self._run_id = run_id
        shared = shape.shared_prefix_tokens
        self._nonce_tokens = min(NONCE_TOKENS, shape.input_tokens - shared)
        own = shared + self._nonce_tokens
        head = json.dumps({"model": model})[:-1] + ', "prompt": ['
        # What all prompts share must be the same whichever of the fixture's prompts follows.
        head += "".join(f"{token}, " for token in prompts[0][:shared])
        options = json.dumps(
            {
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": shape.output_tokens,
                "min_tokens": shape.output_tokens,
                "ignore_eos": True,
                "temperature": shape.temperature,
                **({"truncate_prompt_tokens": shape.truncate_to} if shape.truncate_to is not None else {}),
            }
        )
        self._head = head.encode()
        self._tails = [
            "".join(f", {token}" for token in prompt[own:]).encode() + b"], " + options[1:].encode()
            for prompt in prompts
        ]

    def body(self, request_id: str, turn: int) -> bytes:
        """The body of one request; its prompt is the fixture's `turn`-th, beginning anew after the last."""
        start = nonce(self._run_id, request_id)[: self._nonce_tokens]
        return self._head + ", ".join(map(str, start)).encode() + self._tails[turn % len(self._tails)]
