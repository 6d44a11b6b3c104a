"""Request bodies with an exact number of prompt tokens, none of which a prefix cache has seen before.

Belongs here: the fixture, the nonce, the JSON of a completion request.
Doesn't belong here: making fixtures (load-tests/prompts/generate.py).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from streaming_load.plan import CompletionShape, PlanError, TracedShape
from streaming_load.traces import HASHED_TOKENS, TraceRow

FIRST_ID, LAST_ID = 300, 999
"""Ids that every real vocabulary has, and that are neither bytes nor special tokens."""
NONCE_TOKENS = 8
"""700^8 nonces. A prefix cache is keyed by whole blocks from the prompt's start, so a new start is a new prompt."""


def nonce(run_id: str, request_id: str) -> list[int]:
    """The first token ids of a request's prompt, or of a trace's block: the same for the same one, and for no other."""
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
        head = _head(model)
        # What all prompts share must be the same whichever of the fixture's prompts follows.
        head += "".join(f"{token}, " for token in prompts[0][:shared])
        truncated = {} if shape.truncate_to is None else {"truncate_prompt_tokens": shape.truncate_to}
        options = _options(shape.output_tokens, shape.temperature, **truncated)
        self._head = head.encode()
        self._tails = ["".join(f", {token}" for token in prompt[own:]).encode() + options for prompt in prompts]

    def body(self, request_id: str, turn: int) -> bytes:
        """The body of one request; its prompt is the fixture's `turn`-th, beginning anew after the last."""
        start = nonce(self._run_id, request_id)[: self._nonce_tokens]
        return self._head + ", ".join(map(str, start)).encode() + self._tails[turn % len(self._tails)]


class TracedBodies:
    """The JSON of every completion of a trace: prompts of any length, alike as far as the trace's are.

    A prompt consists of blocks of 512 tokens, each a nonce and what all blocks have in common. Of a trace that has
    hashes each id's nonce is made from the run, the step and that id; else every request's blocks are its own.
    """

    def __init__(self, run_id: str, model: str, step: str, shape: TracedShape) -> None:
        self._run_id, self._step = run_id, step
        self._temperature = shape.temperature
        self._head = _head(model).encode()
        rest = [token for part in range(HASHED_TOKENS // NONCE_TOKENS - 1) for token in nonce("rest", str(part))]
        self._rest = _written(rest)

    def body(self, request_id: str, row: TraceRow) -> bytes:
        """The body of the request that is `row` of the trace."""
        blocks = -(-row.input_tokens // HASHED_TOKENS)
        if row.hash_ids is None:
            written = self._block(request_id) * blocks
        else:
            written = b"".join(self._block(json.dumps([self._step, one])) for one in row.hash_ids)
        # Every id has three digits, so that each takes as many bytes.
        prompt = written[: row.input_tokens * _ID_BYTES].removeprefix(b", ")
        return self._head + prompt + _options(row.output_tokens, self._temperature)

    def _block(self, name: str) -> bytes:
        return _written(nonce(self._run_id, name)) + self._rest


_ID_BYTES = len(f", {LAST_ID}")


def _written(ids: list[int]) -> bytes:
    return "".join(f", {token}" for token in ids).encode()


def _head(model: str) -> str:
    """A body's JSON up to the prompt's first id."""
    return json.dumps({"model": model})[:-1] + ', "prompt": ['


def _options(output_tokens: int, temperature: float, **more: int) -> bytes:
    """A body's JSON after the prompt's last id."""
    options = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": output_tokens,
        "min_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": temperature,
        **more,
    }
    return b"], " + json.dumps(options)[1:].encode()
