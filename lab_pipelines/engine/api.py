"""The modelled server's HTTP: vLLM's endpoints and the GPU exporter's, as plain ASGI applications.

Belongs here: routing, reading bodies, writing streams, noticing clients that leave, stamps.
Doesn't belong here: what a body means (protocol.py), when a token is due (pacer.py), sockets and signals (serve.py).

Stamps: a client on the same machine may send `x-labs-stamps: 1` to learn its own lag. It then gets, in the headers, the
time at which its request had been received in full and the machine's boot id, which says whose CLOCK_MONOTONIC that is;
and, before each event and in the same write, a comment with the time of the write. Without it, nothing is added.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from lab_pipelines.engine.args import EngineArgs
from lab_pipelines.engine.dcgm_metrics import DcgmMetrics
from lab_pipelines.engine.pacer import Pacer, Stream, StreamCutError
from lab_pipelines.engine.protocol import ApiError, Events, Kind, full_response, parse
from lab_pipelines.engine.vllm_metrics import ProcessMetrics, VllmMetrics
from lab_pipelines.loopback import JSON, METRICS, Exchange, Receive, Scope, Send

RECEIVED_NS = "labs.received_ns"
"""Key of the ASGI scope: CLOCK_MONOTONIC in ns at which the request had been read in full (serve.py)."""
MAX_BODY_BYTES = 32 * 1024 * 1024
VLLM_VERSION = "0.32.0"
_GENERATING: dict[str, Kind] = {"/v1/completions": "completion", "/v1/chat/completions": "chat"}
_READING = ("/v1/models", "/health", "/version", "/metrics")
_UNCOUNTED = ("/health", "/version", "/metrics")
"""Paths that vLLM's HTTP instrumentation leaves out."""
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ClientGoneError(Exception):
    """The client closed its connection before the request was complete."""


class VllmApi:
    """vLLM's endpoints over one pacer."""

    def __init__(
        self, args: EngineArgs, pacer: Pacer, metrics: VllmMetrics, process: ProcessMetrics, *, time_scale: float
    ) -> None:
        self._args = args
        self._pacer = pacer
        self._metrics = metrics
        self._process = process
        self._scale = time_scale
        self._started = int(time.time())
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        path, method = scope["path"], scope["method"]
        exchange = Exchange(send)
        try:
            await self._answer(path, method, scope, receive, exchange)
        except ApiError as error:
            await exchange.reply(error.status, error.body, JSON)
        except (ClientGoneError, StreamCutError):
            return  # nobody is left to answer
        if path not in _UNCOUNTED:
            known = path in _GENERATING or path in _READING
            self._process.http_done(
                handler=path if known else "none",
                method=method,
                status=exchange.status,
                bytes_in=int(_header(scope, b"content-length") or 0),
                bytes_out=exchange.content_length,
                duration_s=(time.monotonic() - started) * self._scale,
            )

    async def _answer(self, path: str, method: str, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        if kind := _GENERATING.get(path):
            if method != "POST":
                raise ApiError(405, "Method Not Allowed", kind="Method Not Allowed")
            await self._generate(kind, scope, receive, exchange)
            return
        if path not in _READING:
            raise ApiError(404, "Not Found", kind="Not Found")
        if method not in ("GET", "HEAD"):
            raise ApiError(405, "Method Not Allowed", kind="Method Not Allowed")
        if path == "/metrics":
            # The other tasks get their turn between the two halves, so that a scrape holds no token up for long.
            process = self._process.render()
            await asyncio.sleep(0)
            await exchange.reply(200, process + self._metrics.render(), METRICS)
        elif path == "/health":
            await exchange.reply(200, b"", JSON)
        elif path == "/version":
            # A vLLM's answer has the version alone; whoever asks learns here that this is the model of one.
            await exchange.reply(200, json.dumps({"version": VLLM_VERSION, "engine": "modelled-vllm"}).encode(), JSON)
        else:
            await exchange.reply(200, self._models(), JSON)

    async def _generate(self, kind: Kind, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        body = await _read_body(receive)
        received_ns: int = scope[RECEIVED_NS]
        stamped = _header(scope, b"x-labs-stamps") == b"1"
        stamps: list[tuple[bytes, bytes]] = []
        if stamped:
            stamps = [(b"x-labs-received-ns", str(received_ns).encode()), (b"x-labs-clock", self._boot_id)]
        text = _header(scope, b"x-labs-text")
        job = parse(kind, body, self._args, text=text.decode("latin-1") if text else None)
        stream = Stream(job, received_ns / 1e9)
        self._pacer.submit(stream)
        gone = asyncio.ensure_future(_until_gone(receive))
        # Also called when the response has ended; then the stream has too, and there is nothing to abort.
        gone.add_done_callback(lambda _: self._pacer.abort(stream))
        try:
            if job.stream:
                await exchange.start(200, [_EVENTS, *stamps])
                speculates = self._args.draft is not None
                await _write_events(stream, exchange, stamped=stamped, together=speculates)
            else:
                await stream.until_done()
                await exchange.reply(200, full_response(job), JSON, *stamps)
        finally:
            gone.cancel()

    def _models(self) -> bytes:
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self._started,
                "owned_by": "vllm",
                "root": self._args.model.name,
                "parent": None,
                "max_model_len": self._args.max_model_len,
                "permission": [],
            }
            for name in self._args.served_model_names
        ]
        return json.dumps({"object": "list", "data": cards}).encode()


class DcgmApi:
    """The GPU exporter's one endpoint."""

    def __init__(self, metrics: DcgmMetrics, stack_now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._stack_now = stack_now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/metrics":
            await Exchange(send).reply(200, self._metrics.render(self._stack_now()), METRICS)
        else:
            await Exchange(send).reply(404, b"not found; this exporter has /metrics\n", METRICS)


async def _write_events(stream: Stream, exchange: Exchange, *, stamped: bool, together: bool) -> None:
    """One event per token, as soon as it is ready, or with `together` one for all that are; they share a write."""
    events, sent, total = Events(stream.job), 0, stream.job.output_tokens
    opening = events.opening()
    while sent < total:
        ready = await stream.more_than(sent)
        # A step that yields several tokens of one request streams them in one event, as vLLM does.
        ends = [ready] if together else range(sent + 1, ready + 1)
        batch = []
        for end in ends:
            batch.append(events.tokens(sent, end))
            sent = end
        if opening is not None:
            batch.insert(0, opening)
            opening = None
        if sent == total:
            batch += events.closing()
        if stamped:
            stamp = b": sent_ns=%d\n" % time.monotonic_ns()
            batch = [stamp + event for event in batch]
        await exchange.write(b"".join(batch), more=sent < total)


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", kind="Request Entity Too Large")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)
