"""What a server tells of its steps: feeds vLLM's series from them, for the pacer and for a replica alike.

Belongs here: which histogram gets which difference of times. Doesn't belong here: which series there are
(vllm_metrics.py), or any clock: whoever drives the engine says when a step began and ended.

A step costs O(1), apart from requests that begin or end in it: all decodes of a step got their former token when the
step before it ended, and so waited equally long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

from lab_pipelines.engine.core import Engine, Leap, Step
from lab_pipelines.engine.served import S
from lab_pipelines.engine.vllm_metrics import VllmMetrics

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray


class StepObserver(Generic[S]):
    """Feeds `metrics` with what `engine` did. `scale` turns a second of the driver's clock into stack seconds."""

    def __init__(
        self,
        engine: Engine[S],
        metrics: VllmMetrics,
        *,
        scale: float = 1.0,
        on_finished: Callable[[S, float], None] | None = None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._scale = scale
        self._on_finished = on_finished
        self._last_end_s = 0.0
        """Of the last step: when its decodes got their newest token."""

    def step(self, step: Step[S], started_s: float, ended_s: float) -> None:
        """Tell of one step."""
        metrics, scale, batch = self._metrics, self._scale, step.batch
        if batch.decodes:
            metrics.itl.observe((ended_s - self._last_end_s) * scale, batch.decodes)
        for request in step.preempted:
            if request.first_token_s is not None and request.last_token_s is None:
                request.last_token_s = self._last_end_s
        for request in step.admitted:
            self._admitted(request, started_s)
        # A client may leave while its prompt is computed. As with vLLM (v1/engine/output_processor.py), that step then
        # brings it no first token; its log line, written when it left, has no TTFT either.
        prefilled = [request for request in step.prefilled if request.state != "aborted"]
        prompt_tokens = sum(self._prefilled(request, ended_s) for request in prefilled)
        generated = batch.decodes if step.emitted is None else sum(step.emitted.values())
        generated += len(prefilled)
        metrics.steps.inc()
        metrics.generation_tokens.inc(generated)
        metrics.iteration_tokens.observe(prompt_tokens + generated)
        if step.preempted:
            metrics.preemptions.inc(len(step.preempted))
        if metrics.drafts is not None and batch.decodes:
            metrics.drafts.drafts.inc(batch.decodes)
            metrics.drafts.tokens.inc(batch.drafts)
            for counter, accepted in zip(metrics.drafts.accepted_at, step.accepted_at, strict=True):
                counter.inc(accepted)
            metrics.drafts.accepted.inc(sum(step.accepted_at))
        for request in step.finished:
            self._finished(request, ended_s)
        self._last_end_s = ended_s
        self.show_queue()

    def leap(self, leap: Leap, started_s: float, ended_s: NDArray[float64]) -> None:
        """Tell of many steps that only gave every decode a token."""
        import numpy as np

        metrics, decodes, steps = self._metrics, leap.batch.decodes, len(ended_s)
        # As `step` does: the first one's decodes have waited since the end of the step before the leap.
        waits_s = np.diff(ended_s, prepend=self._last_end_s) * self._scale
        metrics.itl.observe_all(waits_s, decodes)
        metrics.steps.inc(steps)
        metrics.generation_tokens.inc(decodes * steps)
        metrics.iteration_tokens.observe(decodes, steps)
        self._last_end_s = float(ended_s[-1])
        self.show_queue()

    def idle(self, since_s: float) -> None:
        """Nothing is left to do, and nothing to tell: the queue was shown when the last step ended."""

    def aborted(self, request: S) -> None:
        """Tell of a request that was dropped."""
        self._metrics.finished["abort"].inc()
        self.show_queue()

    def show_queue(self) -> None:
        """The gauges of what runs and waits now."""
        engine, metrics = self._engine, self._metrics
        metrics.running.set_all(engine.running)
        metrics.set_waiting(len(engine.waiting))
        metrics.kv_cache_usage.set_all(engine.used_blocks / engine.limits.kv_blocks)

    def _admitted(self, request: S, started_s: float) -> None:
        if request.scheduled_s is None:
            request.scheduled_s = started_s
        metrics, limits = self._metrics, self._engine.limits
        if limits.prefix_caching:
            metrics.cache_queries.inc(request.prompt_tokens)
            metrics.cache_hits.inc(request.cache_hit_tokens)
        if limits.offload_blocks:
            metrics.offload_queries.inc(request.prompt_tokens - request.cache_hit_tokens)
            metrics.offload_hits.inc(request.offload_hit_tokens)

    def _prefilled(self, request: S, ended_s: float) -> int:
        """Tell of a prompt that is computed, for the first time or again; its tokens if for the first time."""
        metrics, scale = self._metrics, self._scale
        if request.first_token_s is not None and request.last_token_s is not None:
            metrics.itl.observe((ended_s - request.last_token_s) * scale)
            request.last_token_s = None
            return 0
        request.first_token_s = ended_s
        metrics.ttft.observe((ended_s - request.arrived_s) * scale)
        found, loaded = request.cache_hit_tokens, request.offload_hit_tokens
        metrics.prompt_tokens.inc(request.prompt_tokens)
        metrics.prompt_tokens_computed.inc(request.prompt_tokens - found - loaded)
        metrics.prompt_tokens_hit.inc(found)
        metrics.prompt_tokens_loaded.inc(loaded)
        metrics.prompt_tokens_cached.inc(found + loaded)
        metrics.cached_on_device.inc(found)
        metrics.cached_on_host.inc(loaded)
        metrics.prefill_computed.observe(request.prompt_tokens - found - loaded)
        return request.prompt_tokens

    def _finished(self, request: S, ended_s: float) -> None:
        metrics, scale = self._metrics, self._scale
        assert request.scheduled_s is not None and request.first_token_s is not None
        decode_s = (ended_s - request.first_token_s) * scale
        output_tokens = request.output_tokens
        metrics.finished[request.finish_reason].inc()
        metrics.request_prompt_tokens.observe(request.prompt_tokens)
        metrics.request_generation_tokens.observe(output_tokens)
        metrics.max_generation_tokens.observe(request.max_tokens)
        metrics.params_n.observe(1)
        metrics.params_max_tokens.observe(request.max_tokens)
        metrics.e2e.observe((ended_s - request.arrived_s) * scale)
        metrics.queue_time.observe((request.scheduled_s - request.arrived_s) * scale)
        metrics.inference_time.observe((ended_s - request.scheduled_s) * scale)
        metrics.prefill_time.observe((request.first_token_s - request.scheduled_s) * scale)
        metrics.decode_time.observe(decode_s)
        metrics.tpot.observe(decode_s / (output_tokens - 1) if output_tokens > 1 else 0.0)
        metrics.request_preemptions.observe(request.preemptions)
        if self._on_finished is not None:
            self._on_finished(request, ended_s)
