"""A small HTTP/1.1 server that answers completions exactly as a test says: byte by byte, stamped, or broken.

Belongs here: writing to the socket what a real server might, and remembering what was asked. It binds 127.0.0.1.
Doesn't belong here: any model of an engine's timing (lab_pipelines/engine).

As a program (`python -m tests.support.sse_server --ttft 0.2 --itl 0.02`) it prints its base URL, streams stamped
tokens to all comers in phase, as a batching engine does, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    """One request."""

    number: int
    """0, 1, … over the server's life."""
    connection: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at_ns: int
    """CLOCK_MONOTONIC when its last byte had been read."""


@dataclass
class Reply:
    """Writes one answer. Every write is flushed, so that it makes a segment of its own."""

    writer: asyncio.StreamWriter
    request: Received
    keep_alive: bool = True
    chunked: bool = True

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, *, content_type: str = "text/event-stream", **headers: str) -> None:
        """Status line and headers; `x_labs_clock="…"` becomes `x-labs-clock: …`."""
        lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if self.chunked and "content_length" not in headers:
            lines.append("transfer-encoding: chunked")
        if not self.keep_alive:
            lines.append("connection: close")
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def stamped_head(self) -> None:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        await self.head(x_labs_received_ns=str(self.request.at_ns), x_labs_clock=boot_id)

    async def body(self, data: bytes) -> None:
        """One piece of the body, as one HTTP chunk where the answer is chunked."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    async def event(self, chunk: dict[str, Any] | str) -> None:
        await self.body(event(chunk))

    async def end(self) -> None:
        if self.chunked:
            await self.raw(b"0\r\n\r\n")

    async def refuse(self, status: int, body: bytes, *, content_type: str = "application/json") -> None:
        await self.head(status, content_type=content_type, content_length=str(len(body)))
        await self.raw(body)

    def abort(self) -> None:
        """Reset the connection."""
        self.keep_alive = False
        self.writer.transport.abort()


def event(chunk: dict[str, Any] | str) -> bytes:
    """The bytes of one event."""
    return f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n".encode()


def text(value: str, *, finish_reason: str | None = None) -> dict[str, Any]:
    """A completion's chunk with one choice."""
    return {"id": "c", "choices": [{"index": 0, "text": value, "finish_reason": finish_reason}], "usage": None}


def usage(request: Received, output_tokens: int) -> dict[str, Any]:
    """The last chunk, which has no choice."""
    counts = {"prompt_tokens": len(request.body["prompt"]), "completion_tokens": output_tokens}
    return {"id": "c", "choices": [], "usage": counts}


Behaviour = Callable[[Received, Reply], Awaitable[None]]


def completion(*, ttft_s: float = 0.0, itl_s: float = 0.0, tokens_per_event: int = 1) -> Behaviour:
    """A well-behaved stamped stream of `max_tokens` tokens.

    As in a batching engine, all streams advance at the same moments, and of several requests that come at once a
    few are admitted at each of them (two prompts of 512 tokens fill a step of 1,024).
    """

    async def behave(request: Received, reply: Reply) -> None:
        tokens: int = request.body["max_tokens"]
        await reply.stamped_head()
        await asyncio.sleep(ttft_s + request.number // 2 % 16 * itl_s)
        middle = event(text(" a" * tokens_per_event))  # rendered once, to keep the server out of what is measured
        for first in range(0, tokens, tokens_per_event):
            if itl_s:
                await asyncio.sleep(itl_s - time.monotonic() % itl_s)
            left = tokens - first
            chunk = middle if left > tokens_per_event else event(text(" a" * left, finish_reason="length"))
            await reply.body(b": sent_ns=%d\n%b" % (time.monotonic_ns(), chunk))
        await reply.event(usage(request, tokens))
        await reply.event("[DONE]")
        await reply.end()

    return behave


class SseServer:
    """Serves `behaviour` on a free loopback port, in a thread of its own, inside a `with` block."""

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.base_url = ""
        self._behaviour = behaviour
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the test server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._tls)
        port = server.sockets[0].getsockname()[1]
        self.base_url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        try:
            while (request := await self._read(reader, connection)) is not None:
                reply = Reply(writer, request)
                await self._behaviour(request, reply)
                if not reply.keep_alive:
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or this server is being stopped
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Received | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        at_ns = time.monotonic_ns()
        request = Received(
            len(self.received), connection, first.split(" ")[1], headers, json.loads(body) if body else {}, at_ns
        )
        self.received.append(request)
        return request


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ttft", type=float, default=0.2, help="seconds")
    parser.add_argument("--itl", type=float, default=0.02, help="seconds")
    given = parser.parse_args()
    with SseServer(completion(ttft_s=given.ttft, itl_s=given.itl)) as serving:
        print(serving.base_url, flush=True)
        sys.stdin.read()
