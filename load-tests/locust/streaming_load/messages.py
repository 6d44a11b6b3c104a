"""What goes on the wire: the bytes of every request of a plan, head and body.

Belongs here: HTTP's request line and headers, and which shape's turn it is.
Doesn't belong here: the JSON of a completion and its prompt (prompts.py), sending it (exchange.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from streaming_load.exchange import Exchange
from streaming_load.plan import CompletionShape, HttpShape, Plan, Shape, TracedShape
from streaming_load.prompts import RequestBodies, TracedBodies, read_prompts
from streaming_load.schedule import Mix

Render = Callable[[str, int], bytes]
"""Request id, turn → the whole request, or its body. Of a trace the turn is the row."""


class Messages:
    """Makes requests ready to be sent; whatever doesn't change from one to the next is rendered once."""

    def __init__(self, plan: Plan) -> None:
        """Reads the prompts. Raises `PlanError` for a fixture that doesn't fit its shape."""
        self._shapes = plan.shapes
        self._rows = plan.trace.rows if plan.trace is not None else None
        self._mix = Mix([shape.weight for shape in plan.shapes])
        self._render = [_renderer(plan, shape) for shape in plan.shapes]
        self.names = [_name(shape) for shape in plan.shapes]
        """Method and path of each shape."""

    def exchange(
        self,
        request_id: str,
        turn: int,
        *,
        scheduled: float,
        user_index: int | None,
        number: int,
        stage: int | None = None,
        counted: bool = True,
    ) -> Exchange:
        """A request of the shape whose `turn` it is, to be sent now. Every `request_id` has a prompt of its own."""
        index = self._mix.shape(turn)
        shape = self._shapes[index]
        row = self._rows[turn] if self._rows is not None else None
        return Exchange(
            request_id=request_id,
            message=self._render[index](request_id, turn),
            timeout_s=shape.timeout_wall_s,
            scheduled=scheduled,
            sent=time.monotonic(),
            user_index=user_index,
            shape=index,
            streamed=shape.streamed,
            expect=shape.expect,
            stage=stage,
            number=number,
            counted=counted,
            asked=None if row is None else (row.input_tokens, row.output_tokens),
        )


def _name(shape: Shape) -> tuple[str, str]:
    return ("GET", shape.path) if isinstance(shape, HttpShape) else ("POST", "/completions")


def _renderer(plan: Plan, shape: Shape) -> Render:
    url = urlsplit(plan.base_url)
    host = url.netloc.rpartition("@")[2]
    if isinstance(shape, HttpShape):
        get = f"GET {url.path.rstrip('/')}{shape.path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n".encode()
        return lambda request_id, turn: get
    body = _bodies(plan, shape)
    head = (
        f"POST {url.path}/completions HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "Content-Type: application/json\r\n"
        "Accept: text/event-stream\r\n"
        "x-labs-stamps: 1\r\n"
        f"x-labs-text: {shape.text}\r\n"
        "Content-Length: "
    ).encode()

    def post(request_id: str, turn: int) -> bytes:
        content = body(request_id, turn)
        return b"%b%d\r\n\r\n%b" % (head, len(content), content)

    return post


def _bodies(plan: Plan, shape: CompletionShape | TracedShape) -> Render:
    model = plan.model or ""
    if isinstance(shape, TracedShape):
        assert plan.trace is not None
        traced, rows = TracedBodies(plan.prompt_key, model, plan.step, shape), plan.trace.rows
        return lambda request_id, turn: traced.body(request_id, rows[turn])
    return RequestBodies(plan.prompt_key, model, shape, read_prompts(Path(shape.prompts), shape.input_tokens)).body
