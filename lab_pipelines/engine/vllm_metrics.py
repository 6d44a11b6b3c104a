"""The modelled server's /metrics: vLLM 0.32's series by name, type, labels and buckets, in stack seconds.

Belongs here: which series exist, and which event of a request or a step feeds which of them.
Doesn't belong here: the text format (exposition.py), the GPU's sensors (dcgm_metrics.py).

Series of features that the model doesn't have (multi-modal input, sleep) or doesn't use (prefix caching, KV
offloading) exist and stay at zero, as they do on a vLLM; those of speculation exist only where it is on. Three are
ours, with the prefix `labs_`. The http_* series are the ones of vLLM's HTTP instrumentation, and process_* and python_*
are this process's own; being few and fed once per request they come from prometheus_client.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client import Counter as ClientCounter
from prometheus_client import Histogram as ClientHistogram
from prometheus_client import Summary as ClientSummary

from lab_pipelines.engine.args import EngineArgs
from lab_pipelines.engine.exposition import Counter, CounterChild, Gauge, Histogram, Metric, render
from lab_pipelines.engine.memory import BLOCK_TOKENS, GIB, MemoryPlan

_TTFT_S = [
    *[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640],
    2560,
]
_PER_TOKEN_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
_REQUEST_S = [
    *[0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920],
    7680,
]
_ITERATION_TOKENS = [1, 8, *(2**power for power in range(4, 15))]
_HTTP_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60]
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")

# What vLLM's CacheConfig says of an ordinary CUDA set-up; the keys that depend on ours are filled in below.
_CACHE_CONFIG = {
    "_block_size_resolved": "True",
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "enable_prefix_caching": "False",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "False",
}


def one_two_five(maximum: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to `maximum`: vLLM's buckets for counts of tokens."""
    bounds: list[int] = []
    decade = 1
    while True:
        for mantissa in (1, 2, 5):
            if mantissa * decade > maximum:
                return bounds
            bounds.append(mantissa * decade)
        decade *= 10


class _Families:
    """Makes vLLM's families with their common labels, and keeps them in order for the scrape."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels
        self.metrics: list[Metric] = []

    def counter(self, name: str, text: str, **choices: tuple[str, ...]) -> Counter:
        made = Counter(f"vllm:{name}", text, _series(self._labels, choices))
        self.metrics.append(made)
        return made

    def gauge(self, name: str, text: str, **choices: tuple[str, ...]) -> Gauge:
        made = Gauge(f"vllm:{name}", text, _series(self._labels, choices))
        self.metrics.append(made)
        return made

    def histogram(self, name: str, text: str, bounds: list[float] | list[int]) -> Histogram:
        made = Histogram(f"vllm:{name}", text, self._labels, bounds)
        self.metrics.append(made)
        return made


@dataclass(frozen=True)
class Drafts:
    """The series of speculation; they exist only where there is some."""

    size: int
    drafts: CounterChild
    tokens: CounterChild
    accepted: CounterChild
    accepted_at: list[CounterChild]


class VllmMetrics:
    """The series of one server, to be fed by an observer (observer.py)."""

    def __init__(  # noqa: PLR0915 - one line for each series, in vLLM's order
        self, args: EngineArgs, memory: MemoryPlan, *, time_scale: float
    ) -> None:
        model = {"model_name": args.served_model_names[0]}
        labels = {**model, "engine": "0"}
        families = _Families(labels)
        counter, gauge, histogram = families.counter, families.gauge, families.histogram

        for estimate in ("flops", "read_bytes", "write_bytes"):
            counter(f"estimated_{estimate}_per_gpu", "Stays 0 unless vLLM's MFU metrics are on.")
        self.running = gauge("num_requests_running", "Requests in the batch.")
        self.waiting = gauge("num_requests_waiting", "Requests in the queue.")
        reasons = gauge("num_requests_waiting_by_reason", "Requests in the queue.", reason=("capacity", "deferred"))
        self._waiting_for_capacity = reasons.child(**labels, reason="capacity")
        sleep = gauge("engine_sleep_state", "Sleep state.", sleep_state=("awake", "weights_offloaded", "discard_all"))
        sleep.child(**labels, sleep_state="awake").set(1.0)
        self.kv_cache_usage = gauge("kv_cache_usage_perc", "Share of KV-cache blocks in use, 1 is all.")
        self.cache_queries = counter("prefix_cache_queries", "Tokens looked up in the prefix cache.").child(**labels)
        self.cache_hits = counter("prefix_cache_hits", "Tokens found in the prefix cache.").child(**labels)
        self.offload_queries = counter(
            "external_prefix_cache_queries", "Tokens looked up in the KV cache of CPU memory."
        ).child(**labels)
        self.offload_hits = counter(
            "external_prefix_cache_hits", "Tokens that came back from the KV cache of CPU memory."
        ).child(**labels)
        counter("mm_cache_queries", "Lookups; the model has no such cache.")
        counter("mm_cache_hits", "Hits; the model has no such cache.")
        self.preemptions = counter("num_preemptions", "Preemptions.").child(**labels)
        self.prompt_tokens = counter(
            "prompt_tokens", "Prompt tokens of requests that reached their first token."
        ).child(**labels)
        sources = counter(
            "prompt_tokens_by_source",
            "Prompt tokens by where their KV came from.",
            source=("local_compute", "local_cache_hit", "external_kv_transfer"),
        )
        self.prompt_tokens_computed = sources.child(**labels, source="local_compute")
        self.prompt_tokens_hit = sources.child(**labels, source="local_cache_hit")
        self.prompt_tokens_loaded = sources.child(**labels, source="external_kv_transfer")
        self.prompt_tokens_cached = counter("prompt_tokens_cached", "Prompt tokens found in a cache.").child(**labels)
        tiers = counter(
            "prompt_tokens_cached_by_source",
            "Prompt tokens found in a cache, by tier.",
            source=("device", "host", "p2p", "disk", "external_unspecified"),
        )
        self.cached_on_device = tiers.child(**labels, source="device")
        self.cached_on_host = tiers.child(**labels, source="host")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.").child(**labels)
        success = counter("request_success", "Requests that ended, by reason.", finished_reason=FINISHED_REASONS)
        self.finished = {reason: success.child(**labels, finished_reason=reason) for reason in FINISHED_REASONS}
        families.metrics.append(
            Counter(
                "vllm:admission_rejections",
                "Requests refused by a queue limit; the model has none.",
                _series(model, {"reason": ("max_num_queued_reqs", "max_num_queued_tokens")}),
            )
        )

        tokens = one_two_five(args.max_model_len)
        self.request_prompt_tokens = histogram("request_prompt_tokens", "Prompt tokens per request.", tokens)
        self.request_generation_tokens = histogram("request_generation_tokens", "Tokens out per request.", tokens)
        self.iteration_tokens = histogram("iteration_tokens_total", "Tokens per engine step.", _ITERATION_TOKENS)
        self.max_generation_tokens = histogram("request_max_num_generation_tokens", "Most tokens asked for.", tokens)
        self.params_n = histogram("request_params_n", "Parameter n.", [1, 2, 5, 10, 20])
        self.params_max_tokens = histogram("request_params_max_tokens", "Parameter max_tokens.", tokens)
        self.ttft = histogram("time_to_first_token_seconds", "Arrival to first token, stack seconds.", _TTFT_S)
        self.itl = histogram("inter_token_latency_seconds", "Token to token, stack seconds.", _PER_TOKEN_S)
        self.tpot = histogram(
            "request_time_per_output_token_seconds", "Mean after the first token, stack seconds.", _PER_TOKEN_S
        )
        self.e2e = histogram("e2e_request_latency_seconds", "Arrival to last token, stack seconds.", _REQUEST_S)
        self.queue_time = histogram("request_queue_time_seconds", "Arrival to first scheduled.", _REQUEST_S)
        self.inference_time = histogram("request_inference_time_seconds", "Scheduled to last token.", _REQUEST_S)
        self.prefill_time = histogram("request_prefill_time_seconds", "Scheduled to first token.", _REQUEST_S)
        self.decode_time = histogram("request_decode_time_seconds", "First token to last.", _REQUEST_S)
        self.request_preemptions = histogram(
            "request_num_preemptions", "Preemptions per request.", [1, 2, 3, 4, 5, 10, 20]
        )
        self.prefill_computed = histogram(
            "request_prefill_kv_computed_tokens", "Prompt tokens computed per request.", tokens
        )
        self.drafts: Drafts | None = None
        if args.draft is not None:
            positions = tuple(str(position) for position in range(args.draft.tokens))
            per_position = counter(
                "spec_decode_num_accepted_tokens_per_pos", "Accepted tokens per draft position.", position=positions
            )
            self.drafts = Drafts(
                size=args.draft.tokens,
                drafts=counter("spec_decode_num_drafts", "Drafts.").child(**labels),
                tokens=counter("spec_decode_num_draft_tokens", "Draft tokens.").child(**labels),
                accepted=counter("spec_decode_num_accepted_tokens", "Accepted draft tokens.").child(**labels),
                accepted_at=[per_position.child(**labels, position=position) for position in positions],
            )
        late = Counter(
            "labs_engine_late_seconds", "Wall seconds by which steps ended after their deadline, summed.", [labels]
        )
        self.late_wall_s = late.child(**labels)
        steps = Counter("labs_engine_steps", "Engine steps.", [labels])
        self.steps = steps.child(**labels)
        families.metrics += [
            Gauge("vllm:cache_config_info", "The KV cache's configuration.", [_cache_config(args, memory)], 1.0),
            late,
            steps,
            Gauge("labs_engine_time_scale", "Stack seconds per wall second.", [labels], time_scale),
        ]
        self._metrics = families.metrics

    def set_waiting(self, requests: int) -> None:
        """The queue's length; all of it waits for capacity."""
        self.waiting.set_all(requests)
        self._waiting_for_capacity.set(requests)

    def render(self) -> bytes:
        """The text of a scrape."""
        return render(self._metrics)


class ProcessMetrics:
    """What vLLM's HTTP instrumentation and prometheus_client say of the process, whatever it serves."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        GCCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        ProcessCollector(registry=self._registry)
        self._http_requests = ClientCounter(
            "http_requests", "Requests.", ["method", "status", "handler"], registry=self._registry
        )
        self._http_in = ClientSummary(
            "http_request_size_bytes", "Content length of requests.", ["handler"], registry=self._registry
        )
        self._http_out = ClientSummary(
            "http_response_size_bytes", "Content length of responses.", ["handler"], registry=self._registry
        )
        self._http_all = ClientHistogram(
            "http_request_duration_highr_seconds",
            "All requests, stack seconds.",
            buckets=_HTTP_S,
            registry=self._registry,
        )
        self._http_by_handler = ClientHistogram(
            "http_request_duration_seconds",
            "Requests by handler, stack seconds.",
            ["method", "handler"],
            buckets=[0.1, 0.5, 1],
            registry=self._registry,
        )

    def http_done(
        self, *, handler: str, method: str, status: int, bytes_in: int, bytes_out: int, duration_s: float
    ) -> None:
        """One HTTP exchange. `bytes_out` is the Content-Length header's value, 0 for a stream, which has none."""
        self._http_requests.labels(method=method, status=f"{status // 100}xx", handler=handler).inc()
        self._http_in.labels(handler=handler).observe(bytes_in)
        self._http_out.labels(handler=handler).observe(bytes_out)
        self._http_all.observe(duration_s)
        self._http_by_handler.labels(method=method, handler=handler).observe(duration_s)

    def render(self) -> bytes:
        """The text of a scrape."""
        return generate_latest(self._registry)


def _cache_config(args: EngineArgs, memory: MemoryPlan) -> dict[str, str]:
    tokens = memory.kv_blocks * BLOCK_TOKENS
    return {
        **_CACHE_CONFIG,
        "enable_prefix_caching": str(args.prefix_caching),
        "kv_offloading_size": str(args.offload_bytes / GIB) if args.offload_bytes else "None",
        "num_cpu_blocks": str(memory.offload_blocks) if memory.offload_blocks else "None",
        "engine": "0",
        "block_size": str(BLOCK_TOKENS),
        "effective_attention_block_size": str(BLOCK_TOKENS),
        "gpu_memory_utilization": str(args.gpu_memory_utilization),
        "kv_cache_max_concurrency": str(tokens / args.max_model_len),
        "kv_cache_size_tokens": str(tokens),
        "num_gpu_blocks": str(memory.kv_blocks),
    }


def _series(labels: dict[str, str], choices: dict[str, tuple[str, ...]]) -> list[dict[str, str]]:
    series = [labels]
    for name, values in choices.items():
        series = [{**one, name: value} for one in series for value in values]
    return series
