"""A load replayed in virtual time: the schedule, the turns and the end of a stage are the load generator's own.

Belongs here: users and arrivals as events on the world's clock. Doesn't belong here: what a schedule is and when a
stage ends (load-tests/locust/streaming_load, the load generator's modules), the engine (world.py).

A client takes its time too, and which requests share a step hangs on milliseconds: over HTTP, a user's next request
arrives while the engine's next step is under way, and joins the one after it. So the delays below are part of the
model. They were seen with the load generator and the local server on one machine, in wall seconds; beside a stack that
runs several times as fast each is as many times longer (`World.client_scale`). Nothing else of a client is modelled.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, cast

from streaming_load.plan import CompletionShape, Plan, Stage, TracedShape
from streaming_load.schedule import Mix, offsets, sample
from streaming_load.stages import ClosedWatch, OpenWatch, StageWatch
from streaming_load.traces import HASHED_TOKENS, TraceRow

from lab_pipelines.catalog.steps import TextKind
from lab_pipelines.engine.core import ContextOverflowError
from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.rehearsal.world import VirtualRequest, World

TRANSIT_S = 0.0015
"""From a user's last token to the arrival of its next request at the engine: what client and server take together."""
SETTLE_S = 1e-6
"""Added to a moment at which time alone ends a stage, so that rounding doesn't leave it just before its end."""
NOTICE_S = 0.0002
"""From a stage's end to its being noticed by what begins the next one. A user sends its next request sooner."""
FIRST_START_S = 0.005
"""From a stage's beginning to the first request of its first new user, who is created and connects in between: 2.5 to
7.6 ms were seen with the load generator, the median of five stages."""
START_EVERY_S = 0.002
"""Between two new users, as in the load generator's locustfile."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 5.0
"""A user's pause after a failure, as in the load generator's locustfile."""

Outcome = Literal["ok", "http_error", "timeout", "cut"]
Action = Callable[[float], None]


@dataclass
class Ticket:
    """One request of the load, and what came of it. Seconds are Unix time, virtual."""

    request_id: str
    shape: int
    user: _User | None
    user_index: int | None
    stage: Stage
    number: int
    scheduled_s: float
    counted: bool
    sent_s: float | None = None
    """None: it is due, and waits for its turn."""
    finished_s: float | None = None
    outcome: Outcome | None = None
    http_status: int | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    request: VirtualRequest | None = None
    asked: tuple[int, int] | None = None
    """Tokens in and out that it asks for, where these aren't its shape's: in a trace."""


@dataclass
class _User:
    index: int
    requests: int = 0
    backoff_s: float = 0.0
    active: bool = True
    open: Ticket | None = None


@dataclass(frozen=True)
class AppliedStage:
    stage: Stage
    started_s: float
    ended_s: float
    why: str
    """It ended."""


class Replay:
    """One load step, walked from its first request to its last."""

    def __init__(self, plan: Plan, world: World, *, progress: Callable[[str], None]) -> None:
        if world.engine is None:
            raise ValueError("a load needs an engine that is up")
        self._plan, self._world, self._progress = plan, world, progress
        self._scale = world.client_scale
        self._server = world.engine
        self._rows = plan.trace.rows if plan.trace is not None else None
        self._mix = Mix([shape.weight for shape in plan.shapes])
        self._events: list[tuple[float, int, Action]] = []
        self._order = count()
        self._tickets: list[Ticket] = []
        self._open: dict[str, Ticket] = {}
        self._users: list[_User] = []
        self._user_indices = count()
        self._waiting: deque[Ticket] = deque()
        """Due in an open loop, while as many as may be are open."""
        self._watch: StageWatch | None = None
        self._position = 0

    def run(self) -> tuple[list[Ticket], list[AppliedStage]]:
        """Apply every stage. All requests, in the order in which they were made, and the stages."""
        applied = []
        edge_s = self._world.now_s
        for position, stage in enumerate(self._plan.stages):
            self._position = position
            begin = self._begin_open if self._plan.open_loop else self._begin_closed
            watch = self._watch = begin(stage, edge_s)
            why = self._until_stage_ends(watch)
            applied.append(AppliedStage(stage, edge_s, self._world.now_s, why))
            edge_s = self._world.now_s
            where = f"{position + 1}/{len(self._plan.stages)}"
            self._progress(f"{watch.line(edge_s, position=where)} · ended: {why}")
        self._cut(edge_s)
        return self._tickets, applied

    def event_times(self, ticket: Ticket) -> list[float]:
        """When each event of a request's answer came, as far as its sender has seen it. Empty for a refusal."""
        if ticket.request is None or ticket.finished_s is None:
            return []
        times = self._server.replica.event_times(ticket.request)
        if ticket.outcome in ("cut", "timeout"):
            return [event_s for event_s in times if event_s <= ticket.finished_s]
        return times

    def _until_stage_ends(self, watch: StageWatch) -> str:
        while (why := watch.end(self._world.now_s)) is None:
            now_s = self._world.now_s
            self._next_event(now_s + watch.next_change(now_s) + SETTLE_S)
        noticed_s = self._world.now_s + NOTICE_S * self._scale
        while self._world.now_s < noticed_s:
            self._next_event(noticed_s)
        return why

    def _next_event(self, until_s: float) -> None:
        """Let time pass to the next event, or to `until_s`."""
        world, events = self._world, self._events
        if ended := world.advance(min(until_s, events[0][0]) if events else until_s):
            for request in ended:
                self._at(world.ended_s, self._finish(request))
            return
        while events and events[0][0] <= world.now_s:
            at_s, _, action = heapq.heappop(events)
            action(at_s)

    def _at(self, at_s: float, action: Action) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), action))

    # closed loops

    def _begin_closed(self, stage: Stage, started_s: float) -> StageWatch:
        wanted = stage.users or 0
        for user in self._users[wanted:]:
            user.active = False
            if user.open is not None:
                self._end(user.open, started_s, "cut", error="the load ended")
        del self._users[wanted:]
        for number in range(wanted - len(self._users)):
            user = _User(next(self._user_indices))
            self._users.append(user)
            begins_s = started_s + (FIRST_START_S + number * START_EVERY_S) * self._scale
            self._at(begins_s, self._send_of(user))
        return ClosedWatch(stage, started_at=started_s)

    def _send_of(self, user: _User) -> Action:
        def send(at_s: float) -> None:
            if not user.active:
                return
            number, user.requests = user.requests, user.requests + 1
            turn = user.index + number
            ticket = Ticket(
                request_id=f"{self._plan.step}-{user.index}-{number}",
                shape=self._mix.shape(turn),
                user=user,
                user_index=user.index,
                stage=self._plan.stages[self._position],
                number=number,
                scheduled_s=at_s,
                counted=True,
            )
            user.open = ticket
            self._tickets.append(ticket)
            self._send(ticket, at_s)

        return send

    # open loops

    def _begin_open(self, stage: Stage, started_s: float) -> StageWatch:
        schedule = enumerate(offsets(self._plan, stage))
        counting = sample(self._plan, stage).requests
        self._schedule_next(schedule, stage, started_s, counting, self._position)
        return OpenWatch(self._plan, stage, started_at=started_s)

    def _schedule_next(
        self, schedule: Iterator[tuple[int, float]], stage: Stage, started_s: float, counting: int, position: int
    ) -> None:
        found = next(schedule, None)
        if found is None:
            return
        number, offset_s = found

        def due(at_s: float) -> None:
            if self._position != position:  # the next stage has begun, and its own schedule with it
                return
            ticket = Ticket(
                request_id=f"{self._plan.step}-s{stage.stage}-{number}",
                shape=self._mix.shape(number),
                user=None,
                user_index=number if self._plan.profile == "burst" else None,
                stage=stage,
                number=number,
                scheduled_s=at_s,
                counted=number < counting,
                asked=None if self._rows is None else self._rows[number][1:3],
            )
            self._tickets.append(ticket)
            if len(self._open) < (self._plan.max_in_flight or 1):
                self._send(ticket, at_s)
            else:
                self._waiting.append(ticket)
            self._schedule_next(schedule, stage, started_s, counting, position)

        self._at(started_s + offset_s, due)

    # one request

    def _send(self, ticket: Ticket, at_s: float) -> None:
        shape = self._plan.shapes[ticket.shape]
        ticket.sent_s = at_s
        if isinstance(shape, TracedShape):
            assert self._rows is not None
            row = self._rows[ticket.number]
            tokens_in, tokens_out, hashes = row.input_tokens, row.output_tokens, self._hashes_of_row(row)
        else:
            assert isinstance(shape, CompletionShape)
            tokens_in = shape.input_tokens if shape.truncate_to is None else min(shape.input_tokens, shape.truncate_to)
            tokens_out, hashes = shape.output_tokens, self._hashes(shape, tokens_in)
        arrives_s = at_s + TRANSIT_S * self._scale
        request = VirtualRequest(
            tokens_in,
            tokens_out,
            arrived_s=arrives_s,
            request_id=ticket.request_id,
            text=cast(TextKind, shape.text),
            hashes=hashes,
            ticket=ticket,
        )
        self._open[ticket.request_id] = ticket
        try:
            self._server.replica.submit(request)
        except ContextOverflowError as error:
            status, outcome = 400, cast(Outcome, "ok" if shape.expect == 400 else "http_error")
            self._at(arrives_s, self._refuse(ticket, status, outcome, str(error)))
            return
        ticket.request = request
        self._at(at_s + shape.timeout_wall_s, self._time_out(ticket))

    def _hashes(self, shape: CompletionShape, kept: int) -> tuple[Any, ...]:
        """Keys of the blocks that lie in the shape's shared prefix; what comes after it is each request's own."""
        if not self._server.model.limits.prefix_caching or kept < shape.input_tokens:
            return ()
        return tuple((shape.prompts, block) for block in range(shape.shared_prefix_tokens // BLOCK_TOKENS))

    def _hashes_of_row(self, row: TraceRow) -> tuple[Any, ...]:
        """Keys of a traced prompt's full blocks; each of the trace's ids stands for all before it, too."""
        if not self._server.model.limits.prefix_caching or row.hash_ids is None:
            return ()
        full = row.input_tokens // BLOCK_TOKENS
        return tuple(
            (self._plan.step, row.hash_ids[block * BLOCK_TOKENS // HASHED_TOKENS], block) for block in range(full)
        )

    def _finish(self, request: VirtualRequest) -> Action:
        def finish(at_s: float) -> None:
            ticket: Ticket = request.ticket
            if ticket.outcome is not None:
                return
            shape = self._plan.shapes[ticket.shape]
            ok = shape.expect == 200
            ticket.http_status = 200
            ticket.input_tokens, ticket.output_tokens = request.prompt_tokens, request.output_tokens
            self._end(ticket, at_s, "ok" if ok else "http_error")

        return finish

    def _refuse(self, ticket: Ticket, status: int, outcome: Outcome, message: str) -> Action:
        def refuse(at_s: float) -> None:
            ticket.http_status = status
            self._end(ticket, at_s, outcome, error=None if outcome == "ok" else message)

        return refuse

    def _time_out(self, ticket: Ticket) -> Action:
        def time_out(at_s: float) -> None:
            if ticket.outcome is None:
                shape = self._plan.shapes[ticket.shape]
                self._end(ticket, at_s, "timeout", error=f"no end of the answer after {shape.timeout_wall_s:g} s")

        return time_out

    def _end(self, ticket: Ticket, at_s: float, outcome: Outcome, *, error: str | None = None) -> None:
        """A request has come to its end; what waits for that goes on."""
        ticket.finished_s, ticket.outcome, ticket.error = at_s, outcome, error
        self._open.pop(ticket.request_id, None)
        request = ticket.request
        if outcome in ("cut", "timeout") and request is not None:
            self._leave(ticket, request, at_s)
        if self._watch is not None:
            if self._plan.open_loop:
                self._watch.request_finished(stage=ticket.stage.stage, number=ticket.number)
            else:
                self._watch.request_finished(sent_at=ticket.sent_s)
        user = ticket.user
        if user is not None:
            user.open = None
            if outcome == "ok":
                user.backoff_s = 0.0
                self._send_of(user)(at_s)
            elif outcome != "cut":
                user.backoff_s = min(max(2 * user.backoff_s, FIRST_BACKOFF_S), LONGEST_BACKOFF_S)
                self._at(at_s + user.backoff_s * self._scale, self._send_of(user))
        elif self._waiting:
            self._send(self._waiting.popleft(), at_s)

    def _leave(self, ticket: Ticket, request: VirtualRequest, at_s: float) -> None:
        """A sender has gone: what it had got by then, and the engine drops the rest."""
        tokens = self._world.abort(request, at_s)
        ticket.http_status = 200  # sent ahead of the first token
        if got := self.event_times(ticket):
            # A step that was under way still gave it tokens; nobody read them.
            ticket.output_tokens = round(tokens * len(got) / len(self._server.replica.event_times(request)))

    def _cut(self, at_s: float) -> None:
        """The load has ended: what is open is cut, and what was due and not sent is recorded as cut too."""
        self._watch = None
        for user in self._users:
            user.active = False
        waiting, self._waiting = list(self._waiting), deque()
        for ticket in [*self._open.values()]:
            self._end(ticket, at_s, "cut", error="the load ended")
        for ticket in waiting:
            ticket.sent_s = at_s
            self._end(ticket, at_s, "cut", error="the load ended before it was sent")
