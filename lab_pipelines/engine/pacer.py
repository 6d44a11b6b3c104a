"""Drives the scheduler on the wall clock: each step's tokens leave when the modelled GPU would have computed them.

Belongs here: deadlines, the streams that wait for tokens, and feeding /metrics and the GPU's sensors.
Doesn't belong here: what a step is (core.py) or an HTTP response (api.py).

While there is work, a step ends one duration / time_scale after the deadline of the step before it, not after the
moment it was really delivered: a late step shortens the wait for the next, so lateness can't add up to drift. All
lateness is counted in `labs_engine_late_seconds_total`.

Times are seconds on CLOCK_MONOTONIC; histograms get differences of them times `time_scale`, so stack seconds as they
really passed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Literal

from lab_pipelines.engine.core import Engine, Step
from lab_pipelines.engine.gpu_state import IDLE, GpuState
from lab_pipelines.engine.observer import StepObserver
from lab_pipelines.engine.protocol import Job
from lab_pipelines.engine.roofline import StepCost
from lab_pipelines.engine.served import Finished, FinishReason, Served
from lab_pipelines.engine.vllm_metrics import VllmMetrics


class StreamCutError(Exception):
    """The request was aborted; no more tokens will come."""


class Stream(Served):
    """A request with someone waiting for its tokens. Its times are on CLOCK_MONOTONIC, in wall seconds."""

    __slots__ = ("_waiter", "done", "job", "ready")

    def __init__(self, job: Job, arrived_s: float) -> None:
        super().__init__(
            job.prompt_tokens,
            job.output_tokens,
            arrived_s=arrived_s,
            max_tokens=job.max_tokens,
            finish_reason=job.finish_reason,
            hashes=job.hashes,
        )
        self.job = job
        self.ready = 0
        """Tokens that may be sent."""
        self.done = False
        self._waiter: asyncio.Future[None] | None = None

    async def until_done(self) -> None:
        """Wait for the last token. Raises `StreamCutError`."""
        while not self.done:
            await self.more_than(self.ready)

    async def more_than(self, sent: int) -> int:
        """Wait until more than `sent` tokens are ready; their number. Raises `StreamCutError`."""
        while self.ready <= sent:
            if self.state == "aborted":
                raise StreamCutError
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.ready

    def wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


class Pacer:
    """One engine on the wall clock."""

    def __init__(
        self,
        engine: Engine[Stream],
        cost: StepCost,
        metrics: VllmMetrics,
        gpu: GpuState,
        *,
        time_scale: float,
        on_finished: Callable[[Finished], None],
    ) -> None:
        self._engine = engine
        self._cost = cost
        self._metrics = metrics
        self._gpu = gpu
        self._scale = time_scale
        self._on_finished = on_finished
        self._arrival = asyncio.Event()
        self._observer = StepObserver(engine, metrics, scale=time_scale, on_finished=self._finished)

    def stack_now(self) -> float:
        """Stack seconds on the clock that the GPU's sensors run on."""
        return time.monotonic() * self._scale

    def submit(self, stream: Stream) -> None:
        """Queue a request; it can join the next step."""
        self._engine.add(stream)
        self._arrival.set()

    def abort(self, stream: Stream) -> None:
        """Drop a request whose client has gone. Nothing happens if it has ended."""
        if self._engine.abort(stream):
            self._observer.aborted(stream)
            self._on_finished(self._summary(stream, "abort", time.monotonic()))
            stream.wake()

    async def run(self) -> None:
        """Step for ever; ends by being cancelled."""
        deadline = Deadline(asyncio.get_running_loop())
        ends = time.monotonic()
        try:
            while True:
                if not self._engine.has_work:
                    self._gpu.set_load(self.stack_now(), IDLE)
                    self._arrival.clear()
                    await self._arrival.wait()
                    ends = time.monotonic()
                started = ends
                step = self._engine.step()
                self._gpu.set_load(self.stack_now(), self._cost.shares(step.batch, step.duration_s))
                ends = started + step.duration_s / self._scale
                await deadline.wait(ends)
                now = time.monotonic()
                self._metrics.late_wall_s.inc(max(0.0, now - ends))
                self._deliver(step, started, now)
        finally:
            deadline.close()

    def _deliver(self, step: Step[Stream], started: float, now: float) -> None:
        for stream in step.admitted:
            if stream.scheduled_s is None:
                stream.scheduled_s = started
        emitted = step.emitted or {}
        for stream in self._engine.decoding:
            stream.ready += emitted.get(stream, 1)
            stream.wake()
        for stream in step.finished:
            stream.ready += emitted.get(stream, 1)
            stream.done = True
            stream.wake()
        # The streams' tasks run before this does, so that no token waits for its own bookkeeping.
        asyncio.get_running_loop().call_soon(self._observer.step, step, started, now)

    def _finished(self, stream: Stream, now: float) -> None:
        self._on_finished(self._summary(stream, stream.finish_reason, now))

    def _summary(self, stream: Stream, reason: FinishReason | Literal["abort"], now: float) -> Finished:
        return Finished.of(
            stream,
            request_id=stream.job.request_id,
            model=stream.job.model,
            reason=reason,
            output_tokens=stream.ready,
            ended_s=now,
            scale=self._scale,
        )


class Deadline:
    """Waits for a moment on CLOCK_MONOTONIC with a Linux timerfd.

    Event loops round their timers to milliseconds, which at a time scale of five is a seventh of a T4's token time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._libc = ctypes.CDLL(None, use_errno=True)
        nonblocking_cloexec = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, nonblocking_cloexec)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._fired = asyncio.Event()
        loop.add_reader(self._fd, self._on_fire)

    async def wait(self, moment: float) -> None:
        """Return at `moment`; when it has passed, at once, but not without letting others run."""
        if moment <= time.monotonic():
            await asyncio.sleep(0)
            return
        self._fired.clear()
        whole = int(moment)
        # struct itimerspec: the interval, then the first expiry, each as seconds and nanoseconds.
        timer = (ctypes.c_long * 4)(0, 0, whole, int((moment - whole) * 1e9))
        absolute = 1
        if self._libc.timerfd_settime(self._fd, absolute, ctypes.byref(timer), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        await self._fired.wait()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _on_fire(self) -> None:
        os.read(self._fd, 8)
        self._fired.set()
