"""A stamped OpenAI server on loopback that costs little and says afterwards what it sent, and when.

    python -m benchmarks.rivals_server --ttft 0.2 --itl 0.02 --log LOG.ndjson [--freeze-at 5 --freeze-for 5]

It prints its port and ends when its standard input does; then it writes LOG, a line per request: `id` (which every
event of its answer carried), `asked_as`, `received_ns`, `sent_ns` (one per token), by CLOCK_MONOTONIC. All streams
advance in phase, as those of a batching engine do: at each tick of `itl` every open stream gets an event of one token,
each in a write of its own. A stream's first event is that of the first tick at which `ttft` is over. Told to freeze, it
does so after its first request, and says when on its standard output: two stamps, before and after.

Who sends `x-labs-stamps: 1` also gets the stamps in the answer, as our modelled server gives them. Doesn't belong
here: who asks (rivals_tools.py), what the stamps are held against (rivals.py).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop
from streaming_load.sse import STAMP_DIGITS

MODEL = "loopback"
_HOST_CLOCK = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(slots=True)
class Stream:
    """One answer under way."""

    id: str
    connection: Connection
    received_ns: int
    tokens: int
    before: bytes
    """What an event begins with; the stamp follows where one was asked for."""
    after: bytes
    end: bytes
    """What follows the last token's event."""
    stamped: bool
    asked_as: str
    """What names the request: `x-request-id`, or the first ids of a prompt that is a list of them, or nothing."""
    sent_ns: list[int] = field(default_factory=list)


class Engine:
    """Advances every stream at every tick."""

    def __init__(self, *, ttft_s: float, itl_s: float) -> None:
        self.all: list[Stream] = []
        self.first_came: Callable[[], object] | None = None
        """Called with the first request, once."""
        self._ttft_ns, self._itl_s = int(ttft_s * 1e9), itl_s
        self._waiting: list[Stream] = []
        self._open: list[Stream] = []
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time()
        self._tick()

    def add(self, stream: Stream) -> None:
        if self.first_came is not None:
            self.first_came()
            self.first_came = None
        self.all.append(stream)
        self._waiting.append(stream)

    def _tick(self) -> None:
        if self._waiting:
            due = time.monotonic_ns() - self._ttft_ns
            ready = [stream for stream in self._waiting if stream.received_ns <= due]
            if ready:
                self._open += ready
                self._waiting = [stream for stream in self._waiting if stream.received_ns > due]
        now, ended = time.monotonic_ns, False
        for stream in self._open:
            stamp = now()
            stream.sent_ns.append(stamp)
            written = stream.connection.write(
                b"%b%0*d%b" % (stream.before, STAMP_DIGITS, stamp, stream.after) if stream.stamped else stream.before
            )
            if len(stream.sent_ns) == stream.tokens or not written:
                stream.connection.write(stream.end)
                stream.connection.busy, ended = False, True
        if ended:
            self._open = [stream for stream in self._open if stream.connection.busy]
        self._next = max(self._next + self._itl_s, self._loop.time())
        self._loop.call_at(self._next, self._tick)


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a benchmark's clients speak it: one request at a time, lengths given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self._descriptor = -1
        self._transport: asyncio.Transport | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._descriptor = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self._buffer) < whole:
            return
        received_ns = time.monotonic_ns()
        body = bytes(self._buffer[end + 4 : whole])
        del self._buffer[:whole]
        method, path, _ = first.split(" ")
        if method == "POST":
            self._complete(path, headers, json.loads(body), received_ns)
        else:
            self._say({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def write(self, data: bytes) -> bool:
        """Past the event loop's buffer, which would hold it until the whole tick is over. False: nobody reads it."""
        if self._transport is None:
            return False
        written = 0
        if not self._transport.get_write_buffer_size():
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                pass
            except OSError:
                return False
        if written < len(data):
            self._transport.write(data[written:])
        return True

    def _complete(self, path: str, headers: dict[str, str], body: dict[str, Any], received_ns: int) -> None:
        tokens = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        identity = f"c{len(self._engine.all)}"
        chat = path.endswith("/chat/completions")
        prompt = body.get("prompt") or body.get("messages") or ""
        asked_as = headers.get("x-request-id") or name_of(prompt)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": tokens, "total_tokens": len(prompt) + tokens}
        if not body.get("stream"):
            self._engine.all.append(
                Stream(identity, self, received_ns, 0, b"", b"", b"", stamped=False, asked_as=asked_as)
            )
            message = {"message": {"role": "assistant", "content": " a"}} if chat else {"text": " a"}
            self._say({"id": identity, "choices": [{"index": 0, **message, "finish_reason": "length"}], "usage": usage})
            return
        stamped = headers.get("x-labs-stamps") == "1"
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
        if stamped:
            head += f"x-labs-received-ns: {received_ns}\r\nx-labs-clock: {_HOST_CLOCK}\r\n"
        event = _event(identity, chat=chat, text=" a", finish=None)
        stamp = b"0" * STAMP_DIGITS  # all are padded, so that a stream's events are equally long and rendered once
        before, _, after = _chunk(b": sent_ns=%b\n%b" % (stamp, event) if stamped else event).partition(stamp)
        last = _event(identity, chat=chat, text="", finish="length")
        counts = json.dumps({"id": identity, "model": MODEL, "choices": [], "usage": usage})
        end = b"".join(map(_chunk, (last, b"data: %b\n\n" % counts.encode(), b"data: [DONE]\n\n", b"")))
        self.busy = True
        self.write(head.encode() + b"\r\n")
        self._engine.add(Stream(identity, self, received_ns, tokens, before, after, end, stamped, asked_as))

    def _say(self, content: dict[str, Any]) -> None:
        text = json.dumps(content)
        self.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()
        )


def name_of(prompt: Any) -> str:
    """Of a prompt that is a list of token ids: its first eight, which our load generator gives to no other request."""
    return "-".join(map(str, prompt[:8])) if isinstance(prompt, list) and all(type(i) is int for i in prompt) else ""


def _event(identity: str, *, chat: bool, text: str, finish: str | None) -> bytes:
    said: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
    chunk = {
        "id": identity,
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _chunk(content: bytes) -> bytes:
    """A chunk of HTTP; an empty one ends the answer."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def _freeze(seconds: float) -> None:
    """The whole process stands still, as one whose driver hangs: nothing is accepted, read or written."""
    began = time.monotonic_ns()
    time.sleep(seconds)  # in the event loop, on purpose
    print(began, time.monotonic_ns(), flush=True)


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    engine = Engine(ttft_s=options.ttft, itl_s=options.itl)
    server = await loop.create_server(lambda: Connection(engine), "127.0.0.1", 0, backlog=1024)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    if options.freeze_for:
        engine.first_came = lambda: loop.call_later(options.freeze_at, _freeze, options.freeze_for)
    gc.collect()
    gc.freeze()
    gc.disable()
    print(server.sockets[0].getsockname()[1], flush=True)
    await over.wait()
    with Path(options.log).open("w", encoding="ascii") as log:
        for stream in engine.all:
            line = {
                "id": stream.id,
                "asked_as": stream.asked_as,
                "received_ns": stream.received_ns,
                "sent_ns": stream.sent_ns,
            }
            log.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals_server", description=__doc__)
    parser.add_argument("--ttft", type=float, default=0.2, help="seconds")
    parser.add_argument("--itl", type=float, default=0.02, help="seconds")
    parser.add_argument("--log", required=True)
    parser.add_argument("--freeze-at", type=float, default=5.0, help="seconds after the first request")
    parser.add_argument("--freeze-for", type=float, default=0.0, help="seconds; 0: never")
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
