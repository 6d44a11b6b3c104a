"""Locust's entry: users that send requests in a closed or an open loop, and a load shape that follows a plan.

    locust -f load-tests/locust/locustfile.py --headless --plan plan.json --records FOLDER

Belongs here: what ties streaming_load/ to Locust - users, shape, options, events. It runs as it is in one process,
with `--processes N`, and as master and workers on several machines: a user reports a finished request to whoever
runs the shape by Locust's own messages. In a closed loop no process needs to know the current stage, because the stage
of a request follows from its times and the stages' times (resources/load_records.py puts them together). In an open
loop the shape tells every process when a stage begins, and each sends its part of the schedule.
Doesn't belong here: HTTP, events, schedules, records (streaming_load/), or starting this (resources/load_locust.py).
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust import LoadTestShape, User, argument_parser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner, Runner, WorkerRunner
from streaming_load.exchange import Connection, Exchange
from streaming_load.messages import Messages
from streaming_load.open_loop import OpenLoop
from streaming_load.plan import Plan, PlanError, read_plan
from streaming_load.recorder import ProcessMeter, Recorder
from streaming_load.stages import ClosedWatch, OpenWatch, StageWatch

logger = logging.getLogger("locust.streaming_load")

REQUEST_FINISHED = "request-finished"
"""Message from the process of a user to the process of the shape: {sent_at} (Unix time) from a closed loop, {stage,
number} from an open one."""
SENDER_READY = "sender-ready"
"""Message from each process of an open loop to the process of the shape: {part}."""
STAGE_BEGINS = "stage-begins"
"""Message from the process of the shape to each process of an open loop: {stage, started_at} (Unix time)."""
STAGES_FILE = "stages.ndjson"
PROGRESS_EVERY_S = 5.0
START_EVERY_S = 0.002
"""Between two new users of one process. Thirty requests at the same instant measure how fast a server empties its
sockets: each waited 0.2 ms longer than the one before it."""
SENDERS_READY_WITHIN_S = 30.0
LEAD_S = 0.05
"""From announcing an open loop's first stage to its start, so that every process knows of it in time."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 5.0
EXIT_BROKEN = 3
"""Exit code when the load wasn't what the plan asked for: a lost worker, an error in this code, nobody listening."""


class LoadProcess:
    """What one Locust process holds while the load runs: set up by `on_init`, closed by `on_test_stop`."""

    def __init__(self, plan: Plan, options: Namespace, runner: Runner) -> None:
        self.plan = plan
        self.epoch = time.time() - time.monotonic()
        """Unix time minus the monotonic clock, taken once: a step of the system's clock moves no stamp."""
        self.folder = Path(options.records)
        self.index = runner.worker_index if isinstance(runner, WorkerRunner) else 0
        self.worker = "local"
        self.recorder: Recorder | None = None
        if isinstance(runner, MasterRunner):
            self.worker = "master"
        else:
            if isinstance(runner, WorkerRunner):
                self.worker = f"worker-{self.index}"
            self.messages = Messages(plan)
            self.recorder = Recorder(self.folder, worker=self.worker, epoch=self.epoch, on_record=self._count_in_locust)
        self.open_loop: OpenLoop | None = None
        self.meter = ProcessMeter(self.folder, worker=self.worker, epoch=self.epoch)
        self._users = 0
        self._next_start = 0.0

    def next_user_index(self, workers: int) -> int:
        """An index that no other user of any of the `workers` processes has."""
        ordinal, self._users = self._users, self._users + 1
        return ordinal * workers + self.index

    def wait_for_start(self) -> None:
        """Block a new user until its turn to send its first request."""
        now = time.monotonic()
        start, self._next_start = max(now, self._next_start), max(now, self._next_start) + START_EVERY_S
        gevent.sleep(start - now)

    def on_stage_begins(self, environment: Environment, msg: Message, **_: Any) -> None:
        """Receives STAGE_BEGINS, from this process or from the master."""
        assert self.open_loop is not None
        self.open_loop.begin(msg.data["stage"], msg.data["started_at"] - self.epoch)

    def close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
        self.meter.close()

    def _count_in_locust(self, record: dict[str, Any]) -> None:
        """Let Locust's own summary count the request. Its time is that of the whole answer, in milliseconds."""
        method, path = self.messages.names[record["shape"]]
        events.request.fire(
            request_type=method,
            name=path,
            response_time=record["finished_offset_s"] * 1000,
            response_length=record["output_tokens"] or 0,
            exception=None if record["outcome"] in ("ok", "cut") else RuntimeError(record["outcome"]),
            context={},
        )


process: LoadProcess
"""This process's own; set before the first user exists, and in a forked worker after the fork."""


class ClosedLoopUser(User):
    """Sends its next request as soon as the last one has ended: a closed loop.

    The scheduled time of a request is the moment at which the user became free for it. A failed request is an
    outcome, and followed by a growing pause, so that a dead server isn't hammered; after the pause it is free again.
    """

    def on_start(self) -> None:
        self._index = process.next_user_index(_workers(self.environment))
        self._connection = Connection(process.plan.base_url)
        self._connection.open()
        process.wait_for_start()
        self._requests = 0
        self._backoff_s = 0.0
        self._free = time.monotonic()

    def on_stop(self) -> None:
        self._connection.close()

    @task
    def send_requests(self) -> None:
        """One endless task: between two tasks Locust lets every other user run first, 0.6 ms at 32 users."""
        while True:
            self._request()

    def _request(self) -> None:
        recorder, runner = process.recorder, self.environment.runner
        assert recorder is not None and runner is not None
        recorder.wait_for_room()
        number, self._requests = self._requests, self._requests + 1
        exchange = process.messages.exchange(
            f"{process.plan.step}-{self._index}-{number}",
            self._index + number,
            scheduled=self._free,
            user_index=self._index,
            number=number,
        )
        exchange.turn, exchange.taken_up = self._free, time.monotonic()
        try:
            self._connection.perform(exchange)
        finally:
            recorder.add(exchange)
        runner.send_message(REQUEST_FINISHED, {"sent_at": exchange.sent + process.epoch})
        self._free = exchange.finished
        if exchange.succeeded:
            self._backoff_s = 0.0
        else:
            self._backoff_s = min(max(2 * self._backoff_s, FIRST_BACKOFF_S), LONGEST_BACKOFF_S)
            gevent.sleep(self._backoff_s)
            self._free = time.monotonic()


class OpenLoopUser(User):
    """One for each process: it sends that process's part of an open loop's schedule, and nobody waits for answers."""

    def on_start(self) -> None:
        runner, recorder, workers = self.environment.runner, process.recorder, _workers(self.environment)
        assert runner is not None and recorder is not None
        part = process.next_user_index(workers)
        self._loop = process.open_loop = OpenLoop(
            process.plan,
            process.messages,
            recorder,
            part=part,
            parts=workers,
            on_finished=self._finished,
            on_broken=self._broken,
        )
        self._loop.prepare()
        runner.send_message(SENDER_READY, {"part": part})

    def on_stop(self) -> None:
        self._loop.close()

    @task
    def follow_the_schedule(self) -> None:
        self._loop.run()

    def _finished(self, exchange: Exchange) -> None:
        assert self.environment.runner is not None
        self.environment.runner.send_message(REQUEST_FINISHED, {"stage": exchange.stage, "number": exchange.number})

    def _broken(self, greenlet: gevent.Greenlet) -> None:
        """An error in our own code, in a greenlet that Locust doesn't know: let it fail the load all the same."""
        error = greenlet.exception
        assert error is not None
        logger.error("%s", error, exc_info=error)
        self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)


class PlanShape(LoadTestShape):
    """The plan's stages, one after the other.

    Locust asks a shape once a second, and would end a stage up to a second late. But it only sleeps for what is left
    of the second after `tick` returned; so `tick` itself waits for the end of the stage, and the next one begins at
    once. (Only a stage that ends within a second of its predecessor's end waits for that second.) An open loop's users
    are the same from first to last, so one `tick` waits for all of its stages.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun = 0
        self._watch: StageWatch | None = None
        self._edge = 0.0
        """When the last stage ended, Unix time; the next one begins at that very moment."""
        self._news = Event()
        self._ready: set[int] = set()
        """Parts of an open loop whose sender is ready."""
        self._conductor: gevent.Greenlet | None = None

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Block until the current stage ends. Returns the next one's users and spawn rate, or None after the last."""
        if process.plan.open_loop:
            return self._open_tick()
        if self._watch is None:
            self._edge = _now()
        elif not self._wait_for_end(self._watch):
            return None
        stages = process.plan.stages
        if self._begun == len(stages):
            return None
        stage = stages[self._begun]
        self._begun += 1
        self._watch = ClosedWatch(stage, started_at=self._edge)
        # Locust starts and stops so many users a second; at the largest number a step takes place at once.
        return stage.users or 0, max(stage.users or 0 for stage in stages), [ClosedLoopUser]

    def on_request_finished(self, environment: Environment, msg: Message, **_: Any) -> None:
        """Receives REQUEST_FINISHED, from this process or from a worker."""
        if self._watch is not None:
            self._watch.request_finished(**msg.data)
            self._news.set()

    def on_sender_ready(self, environment: Environment, msg: Message, **_: Any) -> None:
        """Receives SENDER_READY, from this process or from a worker."""
        self._ready.add(msg.data["part"])
        self._news.set()

    def _open_tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Start the senders, one in each process; then wait for the end of all stages."""
        if self._conductor is None:
            assert self.runner is not None
            workers = _workers(self.runner.environment)
            self._conductor = gevent.spawn(self._conduct, workers)
            return workers, workers, [OpenLoopUser]
        self._conductor.get()
        return None

    def _conduct(self, workers: int) -> None:
        """Begin each stage of an open loop when the one before it has ended."""
        assert self.runner is not None
        if not self._wait_for_senders(workers):
            return
        self._edge = _now() + LEAD_S
        for position, stage in enumerate(process.plan.stages):
            self._begun += 1
            self._watch = OpenWatch(process.plan, stage, started_at=self._edge)
            self.runner.send_message(STAGE_BEGINS, {"stage": position, "started_at": self._edge})
            if not self._wait_for_end(self._watch):
                return

    def _wait_for_senders(self, workers: int) -> bool:
        """Whether every part of the schedule has a sender. The load is given up when one is missing."""
        deadline = _now() + SENDERS_READY_WITHIN_S
        while self._ready != set(range(workers)):
            if not self._workers_are_there():
                return False
            if _now() > deadline:
                return self._give_up(f"only parts {sorted(self._ready)} of {workers} are ready to send")
            self._news.clear()
            self._news.wait(1.0)
        return True

    def _wait_for_end(self, watch: StageWatch) -> bool:
        """Wait until the stage may end and write its line. False when the load has to be given up."""
        position = f"{self._begun}/{len(process.plan.stages)}"
        report_at = _now() + PROGRESS_EVERY_S
        while (end := watch.end(now := _now())) is None:
            if now >= report_at:
                report_at += PROGRESS_EVERY_S
                if not self._say(watch.line(now, position=position)):
                    return False
            if not self._workers_are_there():
                return False
            self._news.clear()
            self._news.wait(min(watch.next_change(now), report_at - now, 1.0))
        self._edge = now
        with (process.folder / STAGES_FILE).open("a", encoding="utf-8") as file:
            stage = {"stage": watch.stage.stage, "users": watch.stage.users}
            file.write(json.dumps({**stage, "started_at": watch.started_at, "ended_at": now}) + "\n")
        return self._say(f"{watch.line(now, position=position)} · ended: {end}")

    def _workers_are_there(self) -> bool:
        if isinstance(self.runner, MasterRunner):
            expected = _workers(self.runner.environment)
            if self.runner.worker_count < expected:
                return self._give_up(f"{self.runner.worker_count} of {expected} workers are left")
        return True

    def _say(self, line: str) -> bool:
        """Tell the listener. False, and the load is given up, when whoever started this is gone."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        try:
            os.write(options.progress_fd, f"{line}\n".encode())
        except BrokenPipeError:
            return self._give_up("nobody listens any more")
        return True

    def _give_up(self, reason: str) -> bool:
        """The load is not, or can't be, what the plan asks for. False."""
        assert self.runner is not None
        logger.error("%s; the load is given up", reason)
        self.runner.environment.process_exit_code = EXIT_BROKEN
        return False


@events.init_command_line_parser.add_listener
def on_parser(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Load plan")
    add: Callable[..., Any] = group.add_argument
    add("--plan", required=True, metavar="FILE", help="JSON of a LoadPlan (resources/load_generator.py)")
    add("--records", required=True, metavar="FOLDER", help="where requests, stages and CPU times are written")
    add("--progress-fd", type=int, default=sys.__stdout__.fileno() if sys.__stdout__ else 1, help="file descriptor")


@events.init.add_listener
def on_init(environment: Environment, runner: Runner, **_: Any) -> None:
    """Read the plan, open this process's files, and join shape and users."""
    global process  # noqa: PLW0603 - Locust's events and users share no other object
    options = environment.parsed_options
    assert options is not None
    try:
        process = LoadProcess(read_plan(Path(options.plan)), options, runner)
    except PlanError as error:
        sys.exit(str(error))
    except FileExistsError as error:
        sys.exit(f"--records {options.records} already holds {error.filename}; give an empty folder")
    except OSError as error:
        sys.exit(f"--records {options.records} can't be written ({error.strerror}); give an empty folder")
    if not isinstance(runner, WorkerRunner):
        assert isinstance(environment.shape_class, PlanShape)
        runner.register_message(REQUEST_FINISHED, environment.shape_class.on_request_finished)
        runner.register_message(SENDER_READY, environment.shape_class.on_sender_ready)
    if not isinstance(runner, MasterRunner):
        runner.register_message(STAGE_BEGINS, process.on_stage_begins)
    if isinstance(runner, WorkerRunner):
        _build_parser_once()
    # A full collection walks everything that Locust imported: some 50 ms in which no stream is read.
    gc.collect()
    gc.freeze()


@events.test_stop.add_listener
def on_test_stop(environment: Environment, **_: Any) -> None:
    """All users are gone, their last requests cut: write what is left."""
    process.close()


@events.quitting.add_listener
def on_quitting(environment: Environment, **_: Any) -> None:
    """Failed requests are results; an exception in a user is a defect of this program."""
    if environment.runner is not None and environment.runner.exceptions and environment.process_exit_code is None:
        environment.process_exit_code = EXIT_BROKEN


def _build_parser_once() -> None:
    """Let Locust's workers ask for the names of its own options without building its parser each time.

    On every message that changes the number of users a worker would build it anew for each of some seventy options, and
    read no stream meanwhile: 0.4 to 0.8 s at the beginning of every stage, seen on two busy cores.
    """
    argument_parser.default_args_dict = functools.cache(argument_parser.default_args_dict)
    argument_parser.default_args_dict()


def _workers(environment: Environment) -> int:
    """Processes that send requests; 1 without workers."""
    assert environment.parsed_options is not None
    return environment.parsed_options.expect_workers


def _now() -> float:
    return time.monotonic() + process.epoch
