"""How a client reaches a pod through the API server: port-forward over a WebSocket, and the proxy of HTTP requests.

Belongs here: both protocols, as the kubernetes package and curl speak them. Doesn't belong here: where a pod's ports
are (kubelet.py). Sources: RFC 6455; channels of v4.channel.k8s.io: two for each port, data and errors, each of which
begins with the port as two bytes, little end first.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support.kube import statuses
from tests.support.kube.kinds import Json
from tests.support.kube.kubelet import Address

PROTOCOL = "v4.channel.k8s.io"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "upgrade", "host", "authorization", "te", "trailer")


def forward(handler: BaseHTTPRequestHandler, ports: Sequence[int], address_of: Callable[[int], Address | None]) -> None:
    """Take over the connection of a request for a port-forward, until either side ends it."""
    key = handler.headers["Sec-WebSocket-Key"].encode()
    handler.send_response(101)
    accepted = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    upgraded = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accepted}
    for name, value in {**upgraded, "Sec-WebSocket-Protocol": PROTOCOL}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.close_connection = True
    lock = threading.Lock()

    def send(payload: bytes, opcode: int = _BINARY) -> None:
        with lock, contextlib.suppress(OSError):
            handler.wfile.write(_frame(payload, opcode))
            handler.wfile.flush()

    sockets: dict[int, socket.socket] = {}
    pumps: list[threading.Thread] = []
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            send(bytes([channel]) + struct.pack("<H", port))
        address = address_of(port)
        try:
            if address is None:
                raise ConnectionRefusedError(
                    f"failed to connect to localhost:{port} inside namespace: connection refused"
                )
            sockets[2 * index] = socket.create_connection(address)
        except OSError as error:
            send(bytes([2 * index + 1]) + f"error forwarding port {port}: {error}".encode())
            continue
        pumps.append(threading.Thread(target=_pump, args=(sockets[2 * index], 2 * index, send), daemon=True))
    for pump in pumps:
        pump.start()

    def close_with_the_last() -> None:
        for pump in pumps:
            pump.join()
        with contextlib.suppress(OSError, ValueError):  # the client has closed the whole of it already
            send(b"", _CLOSE)
            handler.connection.shutdown(socket.SHUT_RDWR)

    if pumps:
        threading.Thread(target=close_with_the_last, daemon=True).start()
    with contextlib.suppress(OSError):  # the pod, or the client, went away: the end all the same
        _take_in(handler.rfile, sockets, send)
    for local in sockets.values():
        with contextlib.suppress(OSError):
            local.shutdown(socket.SHUT_RDWR)
        local.close()


def _take_in(stream: BufferedIOBase, sockets: Mapping[int, socket.socket], send: Callable[[bytes, int], None]) -> None:
    """Pass on what the client sends, until it ends."""
    while (frame := _read(stream)) is not None and frame[0] != _CLOSE:
        opcode, payload = frame
        if opcode == _PING:
            send(payload, _PONG)
        elif payload and (local := sockets.get(payload[0])) is not None:
            local.sendall(payload[1:])


def _pump(local: socket.socket, channel: int, send: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError, ValueError):  # of either side, also where the client's file is closed
        while data := local.recv(65536):
            send(bytes([channel]) + data)


def _frame(payload: bytes, opcode: int) -> bytes:
    if len(payload) < 126:
        head = struct.pack("!BB", 0x80 | opcode, len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, len(payload))
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, len(payload))
    return head + payload


def _read(stream: BufferedIOBase) -> tuple[int, bytes] | None:
    """The next frame of a client; None at the end of the connection."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length == 126:
        [length] = struct.unpack("!H", stream.read(2))
    elif length == 127:
        [length] = struct.unpack("!Q", stream.read(8))
    mask = stream.read(4) if head[1] & 0x80 else b"\0\0\0\0"
    data = stream.read(length)
    whole = int.from_bytes(data, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return head[0] & 0x0F, whole.to_bytes(length, "big")


def proxy(handler: BaseHTTPRequestHandler, address: Address, path: str, body: bytes) -> None:
    """Pass one request on to a pod and its answer back, piece by piece. Raises `OSError` if nobody answers."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    try:
        headers = _passed_on(handler.headers)
        connection.request(handler.command, path, body=body or None, headers=headers)
        answer = connection.getresponse()
        handler.send_response(answer.status)
        for name, value in _passed_on(answer.headers).items():
            if name.lower() != "content-length":
                handler.send_header(name, value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while piece := answer.read1(65536):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")
    finally:
        connection.close()


def _passed_on(headers: Message) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def behind(service: Json, port: int | str | None, pods: Sequence[Json]) -> tuple[Json, int | str | None]:
    """A ready pod of a service, and its port behind a port of the service. Raises `RefusedError` if there is none."""
    name, ports = service["metadata"]["name"], service["spec"].get("ports") or []
    wanted = str(port) if port is not None else None
    found = next((one for one in ports if wanted in (None, str(one["port"]), one.get("name"))), None)
    selector = service["spec"].get("selector") or {}
    ready = [
        one
        for one in pods
        if statuses.is_ready(one) and selector.items() <= (one["metadata"].get("labels") or {}).items()
    ]
    if found is None or not ready or not selector:
        raise RefusedError(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')
    return ready[0], found.get("targetPort", found["port"])


def number_of(pod: Json, port: int | str | None) -> int | None:
    """The number of a pod's port, by its name or number; the first one if none is said."""
    declared = [one for container in pod["spec"]["containers"] for one in container.get("ports") or []]
    if port is None:
        return declared[0]["containerPort"] if declared else 80
    if str(port).isdigit():
        return int(port)
    return next((one["containerPort"] for one in declared if one.get("name") == port), None)
