"""The place of one rehearsal: a clock of its own, the engine that is up, and the series that its scrapes leave.

Belongs here: letting virtual time pass, and what a Prometheus would have seen meanwhile.
Doesn't belong here: requests and their schedule (load.py), what an asset asks of a target (resources/*_rehearsal.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lab_pipelines.catalog.steps import TextKind
from lab_pipelines.engine.blocks import Key
from lab_pipelines.engine.core import Leap, Step
from lab_pipelines.engine.dcgm_metrics import DcgmMetrics
from lab_pipelines.engine.drafts import accepted_drafts
from lab_pipelines.engine.gpu_state import IDLE, GpuState
from lab_pipelines.engine.observer import StepObserver
from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.roofline import StepCost
from lab_pipelines.engine.served import Finished, FinishReason
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.vllm_metrics import VllmMetrics
from lab_pipelines.rehearsal.scrapes import Scrapes, ScrapeTarget

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

SCRAPE_EVERY_S = 5.0
"""Between two scrapes, virtual seconds."""
GPU_EXPORTER = "dcgm-exporter"

Series = Callable[[float], Iterable[tuple[str, float]]]
"""Series with all of their labels, as they are at a Unix time."""


class VirtualRequest(Tracked):
    """A request of a rehearsed load. `ticket` is whatever its sender needs to know it by."""

    __slots__ = ("request_id", "text", "ticket")

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        *,
        arrived_s: float,
        request_id: str,
        text: TextKind = "prose",
        hashes: Sequence[Key] = (),
        ticket: Any = None,
    ) -> None:
        super().__init__(prompt_tokens, output_tokens, arrived_s=arrived_s, hashes=hashes)
        self.request_id = request_id
        self.text: TextKind = text
        self.ticket = ticket


class LogLine(NamedTuple):
    """What a component had to say, and when."""

    component: str
    at_s: float
    said: Finished


class _Observer:
    """Tells vLLM's series and the GPU's sensors of every step."""

    def __init__(self, steps: StepObserver[VirtualRequest], gpu: GpuState, cost: StepCost) -> None:
        self._steps, self._gpu, self._cost = steps, gpu, cost

    def step(self, step: Step[Any], started_s: float, ended_s: float) -> None:
        self._gpu.set_load(started_s, self._cost.shares(step.batch, step.duration_s))
        self._steps.step(step, started_s, ended_s)

    def leap(self, leap: Leap, started_s: float, ended_s: NDArray[float64]) -> None:
        steps, batch = len(ended_s), leap.batch
        # The sensors' window is longer than a step: the leap's middle stands for all of it.
        middle = batch._replace(context=batch.context + batch.decodes * (steps // 2))
        mean_s = (float(ended_s[-1]) - started_s) / steps
        self._gpu.set_load(started_s, self._cost.shares(middle, mean_s))
        self._steps.leap(leap, started_s, ended_s)

    def idle(self, since_s: float) -> None:
        self._gpu.set_load(since_s, IDLE)


@dataclass
class VirtualEngine:
    """A server that is up: its engine, and its two metrics pages."""

    name: str
    model: EngineModel
    replica: Replica[VirtualRequest]
    steps: StepObserver[VirtualRequest]
    metrics: VllmMetrics
    exporter: DcgmMetrics
    pages: tuple[ScrapeTarget, ScrapeTarget]
    """Of the engine, and of its GPUs' exporter."""


class World:
    """`now_s` is Unix time, and moves only by `advance`. What is drawn follows from `seed`.

    `client_scale`: stack seconds that pass in a second of the client's.
    """

    def __init__(self, folder: Path, *, start_s: float, namespace: str, seed: int, client_scale: float = 1.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.client_scale = client_scale
        self.seed = seed
        self.now_s = start_s
        self.namespace = namespace
        self.scrapes = Scrapes(folder)
        self.engine: VirtualEngine | None = None
        self.log: list[LogLine] = []
        self.extra: list[Series] = []
        """Series beside the engine's, e.g. those of kube-state-metrics."""
        self.changed = 0
        """Grows whenever there is something new to ask Prometheus about."""
        self._known: set[str] = set()
        self._next_scrape_s = start_s
        self._scraped_s = start_s - SCRAPE_EVERY_S

    def bring_up(self, name: str, model: EngineModel, *, trial: int = 1) -> None:
        """An engine that answers from now on. Each turn of a run draws anew what is drawn."""
        engine = model.engine(accepted_drafts(model, lambda request: request.text, seed=self.seed + trial - 1))
        metrics = VllmMetrics(model.args, model.memory, time_scale=1.0)
        gpu = GpuState(model.hardware, self.now_s)
        steps: StepObserver[VirtualRequest] = StepObserver(engine, metrics, on_finished=self._finished)
        observer = _Observer(steps, gpu, model.cost)
        self.engine = VirtualEngine(
            name=name,
            model=model,
            replica=Replica(engine, model.cost, start_s=self.now_s, observer=observer),
            steps=steps,
            metrics=metrics,
            exporter=DcgmMetrics(model.hardware, gpu, used_bytes=model.used_bytes, gpus=model.gpus),
            pages=(ScrapeTarget(self._labels(name)), ScrapeTarget(self._labels(GPU_EXPORTER))),
        )
        self._known.add(name)
        self._next_scrape_s = self.now_s  # Prometheus finds a new target at its next scrape; let that be now

    def take_down(self) -> None:
        """The engine is gone, and its series with it."""
        self.scrape()
        self.engine = None

    def advance(self, until_s: float) -> list[VirtualRequest]:
        """Let time pass, to `until_s` at most: the requests that ended first on the way, at `ended_s`; or none of them.

        While requests are returned the clock stands; ask again to go on.
        """
        while True:
            edge_s = min(until_s, self._next_scrape_s)
            if self.engine is not None and (ended := self.engine.replica.advance(edge_s)):
                return ended
            if edge_s >= self._next_scrape_s:
                self.now_s = max(self.now_s, edge_s)
                self.scrape()
                self._next_scrape_s = edge_s + SCRAPE_EVERY_S
            if edge_s >= until_s:
                self.now_s = max(self.now_s, until_s)
                return []

    @property
    def ended_s(self) -> float:
        """When the requests that `advance` returned last ended."""
        return self.engine.replica.now_s if self.engine is not None else self.now_s

    def scrape(self) -> None:
        """What Prometheus would see now. A step that began before now counts as ended: it is told of at its end."""
        self.changed += 1
        # Two scrapes of one series never bear the same millisecond.
        at_s = self._scraped_s = max(self.now_s, self.ended_s, self._scraped_s + 0.001)
        for name in sorted(self._known):
            up = self.engine is not None and self.engine.name == name
            self.scrapes.add_series(at_s, [(f"up{{{self._labels(name)}}}", float(up))])
        if self.engine is not None:
            engine_page, gpu_page = self.engine.pages
            self.scrapes.add(at_s, engine_page, self.engine.metrics.render())
            self.scrapes.add(at_s, gpu_page, self.engine.exporter.render(at_s))
        for series in self.extra:
            self.scrapes.add_series(at_s, series(at_s))

    def _labels(self, job: str) -> str:
        return f'instance="{job}",job="{job}",namespace="{self.namespace}"'

    def abort(self, request: VirtualRequest, at_s: float) -> int:
        """Drop a request whose sender has gone; the tokens that it had got. Nothing happens if it has ended."""
        engine = self.engine
        assert engine is not None
        tokens = engine.replica.engine.generated_tokens(request)
        served = request.state in ("waiting", "prefilling", "decoding")
        engine.replica.abort(request)
        if served:
            engine.steps.aborted(request)
            self._log(request, "abort", tokens, at_s)
        return tokens

    def _finished(self, request: VirtualRequest, ended_s: float) -> None:
        self._log(request, request.finish_reason, request.output_tokens, ended_s)

    def _log(
        self, request: VirtualRequest, reason: FinishReason | Literal["abort"], tokens: int, ended_s: float
    ) -> None:
        engine = self.engine
        assert engine is not None
        said = Finished.of(
            request,
            request_id=request.request_id,
            model=engine.model.args.served_model_names[0],
            reason=reason,
            output_tokens=tokens,
            ended_s=ended_s,
        )
        self.log.append(LogLine(engine.name, ended_s, said))
