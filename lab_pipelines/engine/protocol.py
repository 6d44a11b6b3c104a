"""OpenAI's completions and chat completions as vLLM 0.32 speaks them: requests in, events and errors out.

Belongs here: validation, token counting, the length of an output, the bytes of a response.
Doesn't belong here: HTTP (api.py) and time (pacer.py).

What a modelled output is: its length is exact, its text means nothing. Each token is one word of a fixed vocabulary,
chosen by position and prompt, so that the same prompt gives the same text. A text prompt counts one token per four
bytes of UTF-8, rounded up; a chat adds four per message and three for the reply's start, as chat templates do.
Unless `ignore_eos` is set, an output ends by itself after 64 to 512 tokens, a number drawn from the prompt's hash, but
not before `min_tokens`. Sampling parameters (temperature, top_p, seed, …) are checked, and change neither length nor
text. Whatever would need a real model (n > 1, logprobs, echo, tools, structured output, …) is refused by name.
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lab_pipelines.catalog.steps import TextKind
from lab_pipelines.engine.args import EngineArgs
from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.engine.served import FinishReason

Kind = Literal["completion", "chat"]
DONE = b"data: [DONE]\n\n"

_COMPLETION_MAX_TOKENS = 16
"""vLLM's default for completions. A chat may fill the context."""
_EOS_SHORTEST, _EOS_LONGEST = 64, 512
_VOCABULARY = (
    "a and are as at batch be block by cache can chunk cost for from goes gpu has hot idle if in is it key last less "
    "load long memory more new next node not of on one or out pool queue rate read run same serve so stage step that "
    "the then this time to token two user value wait when with work"
)
_PIECES = [f" {word}" for word in _VOCABULARY.split()]
_PIECE_BYTES = [piece.encode() for piece in _PIECES]


class ApiError(Exception):
    """A request that is answered with an error. The body has vLLM's shape."""

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self._error = {"message": message, "type": kind, "param": param, "code": status}

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self._error}).encode()


class _StreamOptions(BaseModel):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Body(BaseModel):
    """Fields that both endpoints share. Others are ignored, as in vLLM, unless `_refuse_unmodelled` knows them."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: Annotated[int, Field(ge=0)] = 0
    ignore_eos: bool = False
    n: int | None = 1
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


# Strict, so that a list of texts isn't read as numbers; left to right, so that the first fit ends the trying.
_TokenIds = list[Annotated[int, Field(ge=0, strict=True)]]


class _CompletionBody(_Body):
    truncate_prompt_tokens: int | None = None
    prompt: Annotated[_TokenIds | list[_TokenIds] | str | list[str] | None, Field(union_mode="left_to_right")] = None


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[dict[str, Any]] | None = None


class _ChatBody(_Body):
    messages: list[_Message]
    max_completion_tokens: int | None = None


_COMPLETION: TypeAdapter[_CompletionBody] = TypeAdapter(_CompletionBody)
_CHAT: TypeAdapter[_ChatBody] = TypeAdapter(_ChatBody)


@dataclass(frozen=True)
class Job:
    """A valid request: what the engine is to do, and how the answer is to look."""

    kind: Kind
    request_id: str
    model: str
    created: int
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    finish_reason: FinishReason
    stream: bool
    include_usage: bool
    continuous_usage: bool
    seed: int
    """Where in the vocabulary its text begins."""
    text: TextKind = "prose"
    """What its output is taken to consist of, which decides how well a draft guesses it."""
    hashes: tuple[int, ...] = ()
    """Keys of the prompt's full blocks, where the engine caches prefixes."""


def parse(kind: Kind, body: bytes, args: EngineArgs, *, text: str | None = None) -> Job:
    """The job that a POST's body asks for; `text` is the kind of text that its client says it is.

    Raises `ApiError`: 400 for what is invalid, 404 for an unknown model.
    """
    request = _validated(kind, body)
    model = request.model or args.served_model_names[0]
    if model not in args.served_model_names:
        raise ApiError(404, f"The model `{model}` does not exist.", kind="NotFoundError", param="model")
    _refuse_unmodelled(request)
    _check_sampling(request)
    if text is not None and text not in get_args(TextKind):
        raise ApiError(400, f"x-labs-text {text!r} is none of {', '.join(get_args(TextKind))}.")
    if isinstance(request, _ChatBody):
        prompt_tokens, identity = _chat_prompt(request)
        asked = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    else:
        prompt_tokens, identity = _prompt(request, args)
        # vLLM's default stands for an absent max_tokens; a null means "as many as fit".
        given = "max_tokens" in request.model_fields_set
        asked = request.max_tokens if given else _COMPLETION_MAX_TOKENS
        prompt_tokens, identity = _truncated(request, prompt_tokens, identity, asked, args)
    max_tokens = _max_tokens(asked, prompt_tokens, args.max_model_len)
    if request.min_tokens > max_tokens:
        raise ApiError(
            400,
            f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {request.min_tokens}.",
            param="min_tokens",
        )
    seed = zlib.crc32(identity)
    natural = max(_EOS_SHORTEST + seed % (_EOS_LONGEST - _EOS_SHORTEST + 1), request.min_tokens)
    ends_itself = not request.ignore_eos and natural <= max_tokens
    options = request.stream_options
    return Job(
        kind=kind,
        request_id=f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
        model=model,
        created=int(time.time()),
        prompt_tokens=prompt_tokens,
        output_tokens=natural if ends_itself else max_tokens,
        max_tokens=max_tokens,
        finish_reason="stop" if ends_itself else "length",
        stream=bool(request.stream),
        include_usage=options is not None and options.include_usage,
        continuous_usage=options is not None and options.include_usage and options.continuous_usage_stats,
        seed=seed,
        text=cast(TextKind, text or "prose"),
        hashes=_block_hashes(identity, prompt_tokens) if args.prefix_caching else (),
    )


def _truncated(
    request: _CompletionBody, prompt_tokens: int, identity: bytes, asked: int | None, args: EngineArgs
) -> tuple[int, bytes]:
    """The prompt's last tokens, as many as `truncate_prompt_tokens` says; -1 keeps as many as the model takes."""
    keep = request.truncate_prompt_tokens
    if keep is None:
        return prompt_tokens, identity
    if keep < -1 or keep == 0:
        raise ApiError(400, f"truncate_prompt_tokens must be -1 or at least 1, got {keep}.", param="prompt")
    if keep == -1:
        keep = max(args.max_model_len - (asked or 1), 1)
    if keep > args.max_model_len:
        raise ApiError(
            400,
            f"truncate_prompt_tokens value ({keep}) is greater than max_model_len ({args.max_model_len}). Please, "
            "select a smaller truncation size.",
            param="prompt",
        )
    if keep >= prompt_tokens:
        return prompt_tokens, identity
    return keep, identity[-keep * (len(identity) // prompt_tokens) :]


def _block_hashes(identity: bytes, prompt_tokens: int) -> tuple[int, ...]:
    """A key for each full block of a prompt, of all that comes before its end: equal prompts have equal keys."""
    width = len(identity) / prompt_tokens
    keys, digest = [], blake2b(digest_size=8)
    for block in range(prompt_tokens // BLOCK_TOKENS):
        digest.update(identity[round(block * BLOCK_TOKENS * width) : round((block + 1) * BLOCK_TOKENS * width)])
        keys.append(int.from_bytes(digest.digest()))
    return tuple(keys)


def count_text_tokens(text: str) -> int:
    """One token per four bytes of UTF-8, rounded up."""
    return -(-len(text.encode("utf-8", errors="surrogatepass")) // 4)


def usage(job: Job, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def full_response(job: Job) -> bytes:
    """The body of a response that is not streamed."""
    size = len(_PIECES)
    text = "".join(_PIECES[(job.seed + index) % size] for index in range(job.output_tokens))
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": job.finish_reason, "stop_reason": None}
    if job.kind == "chat":
        choice["message"] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
        name = "chat.completion"
    else:
        choice["text"] = text
        name = "text_completion"
    return json.dumps(
        {
            "id": job.request_id,
            "object": name,
            "created": job.created,
            "model": job.model,
            "choices": [choice],
            "usage": usage(job, job.output_tokens),
        }
    ).encode()


class Events:
    """The streamed events of one job. All but a word and, if asked for, the running usage is rendered once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        name = "chat.completion.chunk" if job.kind == "chat" else "text_completion"
        head = (
            f'data: {{"id":"{job.request_id}","object":"{name}","created":{job.created},'
            f'"model":{json.dumps(job.model)},"choices":['
        )
        if job.kind == "chat":
            opening, closing = '{"index":0,"delta":{"content":"', '"},"logprobs":null,"finish_reason":%s%s}]'
            reason = ',"stop_reason":null'
        else:
            opening = '{"index":0,"text":"'
            closing = (
                '","logprobs":null,"finish_reason":%s,"stop_reason":null,"prompt_token_ids":null,"token_ids":null%s}]'
            )
            reason = ""
        end = "" if job.continuous_usage else "}\n\n"
        self._head = (head + opening).encode()
        self._tail = (closing % ("null", "") + end).encode()
        self._last_tail = (closing % (f'"{job.finish_reason}"', reason) + end).encode()
        self._bare_head = head
        self._size = len(_PIECE_BYTES)

    def tokens(self, first: int, end: int) -> bytes:
        """One event with the tokens from `first` to before `end`, counted from 0."""
        job = self._job
        tail = self._last_tail if end == job.output_tokens else self._tail
        text = b"".join(_PIECE_BYTES[(job.seed + index) % self._size] for index in range(first, end))
        event = self._head + text + tail
        return event + self._usage_end(end) if job.continuous_usage else event

    def opening(self) -> bytes | None:
        """The event before the first token: a chat names the role, a completion has none."""
        if self._job.kind != "chat":
            return None
        role = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        event = (self._bare_head + role).encode()
        return event + (self._usage_end(0) if self._job.continuous_usage else b"}\n\n")

    def closing(self) -> list[bytes]:
        """The events after the last token: the usage if it was asked for, and the end."""
        if not self._job.include_usage:
            return [DONE]
        return [(self._bare_head + "]").encode() + self._usage_end(self._job.output_tokens), DONE]

    def _usage_end(self, completion_tokens: int) -> bytes:
        return b',"usage":' + json.dumps(usage(self._job, completion_tokens), separators=(",", ":")).encode() + b"}\n\n"


def _validated(kind: Kind, body: bytes) -> _CompletionBody | _ChatBody:
    adapter = _CHAT if kind == "chat" else _COMPLETION
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        raise ApiError(400, f"The body is not valid JSON: {first['msg']}", kind="Bad Request")
    places = [".".join(str(part) for part in problem["loc"]) or "body" for problem in problems]
    # A union reports one problem per alternative; the field is said once.
    shown = "; ".join(f"{place}: {problem['msg']}" for place, problem in list(zip(places, problems, strict=True))[:4])
    param = str(first["loc"][0]) if first["loc"] else None
    raise ApiError(400, f"{len(problems)} validation error(s): {shown}", kind="Bad Request", param=param)


def _refuse_unmodelled(request: _Body) -> None:
    if request.n not in (None, 1):
        raise ApiError(400, f"n={request.n} is not modelled; only 1 is.", param="n")
    extra = request.model_extra or {}
    for name in (
        *("logprobs", "top_logprobs", "prompt_logprobs", "echo", "suffix", "use_beam_search", "tools", "functions"),
        *("structured_outputs", "guided_json", "prompt_embeds"),
    ):
        if extra.get(name) not in (None, False, [], {}):
            raise ApiError(400, f"{name} is not modelled; leave it out, or ask a real engine.", param=name)
    form = extra.get("response_format")
    if form is not None and form != {"type": "text"}:
        raise ApiError(400, "response_format is not modelled but for text; leave it out.", param="response_format")


def _check_sampling(request: _Body) -> None:
    if request.temperature is not None and request.temperature < 0:
        raise ApiError(400, f"temperature must be non-negative, got {request.temperature}.", param="temperature")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise ApiError(400, f"top_p must be in (0, 1], got {request.top_p}.", param="top_p")
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "Stream options can only be defined when `stream=True`.", param="stream_options")
    for stop in [request.stop] if isinstance(request.stop, str) else request.stop or []:
        if not stop:
            raise ApiError(400, "stop cannot contain an empty string.", param="stop")
        # The text is words of small letters; any other stop string can't occur, and so changes nothing.
        if all(character == " " or "a" <= character <= "z" for character in stop):
            raise ApiError(
                400,
                f"stop {stop!r} could occur in a modelled text, whose words mean nothing; leave it out, or use "
                "one with a capital, a digit or a sign.",
                param="stop",
            )


def _prompt(request: _CompletionBody, args: EngineArgs) -> tuple[int, bytes]:
    prompt = request.prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], (list, str)):
        if len(prompt) > 1:
            raise ApiError(
                400, f"{len(prompt)} prompts in one request are not modelled; send one request each.", param="prompt"
            )
        prompt = prompt[0]
    if not prompt:
        raise ApiError(400, "The prompt is empty; give a text or a list of token ids.", param="prompt")
    if isinstance(prompt, str):
        return count_text_tokens(prompt), prompt.encode("utf-8", errors="surrogatepass")
    ids = cast(list[int], prompt)
    vocabulary = args.model.architecture.vocabulary
    if max(ids) >= vocabulary:
        raise ApiError(400, f"Token id {max(ids)} is out of vocabulary ({vocabulary} tokens).", param="prompt")
    return len(ids), array("q", ids).tobytes()


def _chat_prompt(request: _ChatBody) -> tuple[int, bytes]:
    if not request.messages:
        raise ApiError(400, "messages is empty; give at least one.", param="messages")
    total, identity = 3, b""
    for message in request.messages:
        content = message.content or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            text = part.get("text")
            if part.get("type") != "text" or not isinstance(text, str):
                raise ApiError(
                    400, f"content of type {part.get('type')!r} is not modelled; only text is.", param="messages"
                )
            total += count_text_tokens(text)
            identity += text.encode("utf-8", errors="surrogatepass")
        total += 4
    return total, identity


def _max_tokens(asked: int | None, prompt_tokens: int, max_model_len: int) -> int:
    if asked is not None and asked < 1:
        raise ApiError(400, f"max_tokens must be at least 1, got {asked}.", param="max_tokens")
    wanted = 1 if asked is None else asked
    if prompt_tokens + wanted > max_model_len:
        raise ApiError(
            400,
            f"This model's maximum context length is {max_model_len} tokens. However, you requested {wanted} output "
            f"tokens and your prompt contains {prompt_tokens} input tokens, for a total of {prompt_tokens + wanted} "
            "tokens. Shorten the prompt or ask for fewer output tokens.",
            param="input_tokens",
        )
    return max_model_len - prompt_tokens if asked is None else asked
