"""What every server process of a local stack shares: its log, its socket, its announcement, its end.

Belongs here: the conventions by which a stack's processes are started and found. Doesn't belong here: what a server
answers (engine/api.py, standins/), or starting its process (resources/).

A server binds ports of loopback, 0 for one that the kernel chooses, and then writes its announcement: a JSON file with
its pid and URLs, published whole. In a pod, where its ports are known beforehand, it binds all addresses instead, needs
no announcement, and logs to the container's output. SIGTERM and SIGINT end it at once, open exchanges included. Its log
has one JSON object per line: `ts` (Unix seconds), `level`, `event`, and the event's own fields.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HOST = "127.0.0.1"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

JSON = (b"content-type", b"application/json")
METRICS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
"""Prometheus's text format."""


class JsonLog:
    """One JSON object per line, each written at once."""

    def __init__(self, path: Path | None) -> None:
        """To the end of a file; None: to standard output."""
        # A pipe's sys.stdout would keep lines back until a block is full.
        self._file = (
            path.open("a", encoding="utf-8", buffering=1)
            if path
            else os.fdopen(sys.stdout.fileno(), "a", encoding="utf-8", buffering=1, closefd=False)
        )

    def write(self, level: str, event: str, **fields: Any) -> None:
        line = {"ts": time.time(), "level": level, "event": event, **fields}
        self._file.write(json.dumps(line) + "\n")


def positive(text: str) -> float:
    """A command line's positive number. Raises `argparse.ArgumentTypeError`."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def in_a_folder(text: str) -> Path:
    """A command line's file that the process will write. Raises `argparse.ArgumentTypeError`."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: its folder doesn't exist; create it first")
    return path


def log_target(text: str) -> Path | None:
    """A command line's log: a file, or `-` for standard output. Raises `argparse.ArgumentTypeError`."""
    return None if text == "-" else in_a_folder(text)


def listen(port: int, option: str, *, host: str = HOST) -> socket.socket:
    """A listening socket, on loopback unless told otherwise. Raises `OSError` that names `option` and the remedy."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"{option} {port} can't be bound on {host}: {error.strerror}; give another, or 0") from None
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


def announce(path: Path, urls: Mapping[str, str]) -> None:
    """Publish the process's pid and `urls`. Its sockets listen already, so whoever reads this file can connect."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps({"pid": os.getpid(), **urls}), encoding="utf-8")
    draft.replace(path)


def event_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


class Exchange:
    """The response side of one HTTP exchange, remembering what was said."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.content_length = 0

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def reply(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.content_length = len(body)
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.write(body, more=False)


class Server(uvicorn.Server):
    """A uvicorn server on a socket that listens already. Several may share a process; signals are not its business."""

    def __init__(self, app: App, *, protocol: type[HttpToolsProtocol] = HttpToolsProtocol) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="critical",
                timeout_graceful_shutdown=0,
                timeout_keep_alive=75,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def stop_on_signals(servers: Sequence[Server]) -> Callable[[], None]:
    """Let SIGTERM and SIGINT end `servers` at once; what is returned does the same."""

    def stop() -> None:
        for server in servers:
            server.should_exit = server.force_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stop


async def serve(servers: Sequence[Server], sockets: Sequence[socket.socket]) -> None:
    """Answer on `sockets`, one server each, until they are told to stop."""
    # A full collection walks everything that was imported, tens of milliseconds in which nothing is sent.
    gc.collect()
    gc.freeze()
    await asyncio.gather(*(server.serve([listener]) for server, listener in zip(servers, sockets, strict=True)))


def run(app: App, listener: socket.socket) -> None:
    """One application on one socket, until SIGTERM or SIGINT."""

    async def until_told_to_stop() -> None:
        server = Server(app)
        stop_on_signals([server])
        await serve([server], [listener])

    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(until_told_to_stop())
