"""The panels of an LLM server that several labs share, from vLLM's own series.

Belongs here: vLLM as of 0.32. Doesn't belong here: the GPU below it (gpu.py), what one lab alone looks at.
"""

from __future__ import annotations

from dashboards.grafana.panels import PanelBuilder, PromQL, lines, number, quantiles, rows

QUEUE_LIMIT = 10
"""Requests waiting at which L03's alert fires."""


def throughput() -> PanelBuilder:
    return lines(
        "Token throughput",
        "Tokens generated, and prompt tokens of requests that reached their first token.",
        PromQL("sum(rate(vllm:generation_tokens_total{$NS}[$__rate_interval]))", "output tokens/s"),
        PromQL("sum(rate(vllm:prompt_tokens_total{$NS}[$__rate_interval]))", "prompt tokens/s"),
        unit="short",
    )


def ttft() -> PanelBuilder:
    return lines(
        "Time to first token",
        "From arrival at the server, so without the client's network; queueing is part of it.",
        *quantiles("vllm:time_to_first_token_seconds", 0.5, 0.95, 0.99),
        unit="s",
        logarithmic=True,
    )


def inter_token_latency() -> PanelBuilder:
    return lines(
        "Inter-token latency",
        "Time between two output tokens of one request.",
        *quantiles("vllm:inter_token_latency_seconds", 0.5, 0.95),
        unit="s",
    )


def queue() -> PanelBuilder:
    return lines(
        "Requests running and waiting",
        "Waiting requests are the queue that TTFT pays for. The line is the limit of L03's alert.",
        PromQL("sum(vllm:num_requests_running{$NS})", "running"),
        PromQL("sum(vllm:num_requests_waiting{$NS})", "waiting"),
        unit="short",
        limit=QUEUE_LIMIT,
    )


def kv_cache() -> PanelBuilder:
    return lines(
        "KV cache in use",
        "Share of the KV blocks that hold tokens. At 1 the scheduler must let requests wait, or preempt one.",
        PromQL("avg(vllm:kv_cache_usage_perc{$NS})", "mean of the replicas"),
        PromQL("max(vllm:kv_cache_usage_perc{$NS})", "fullest replica"),
        unit="percentunit",
        maximum=1,
    )


def finished_and_preempted() -> PanelBuilder:
    return lines(
        "Finished requests and preemptions",
        "A preempted request loses its KV blocks and pays its prefill again.",
        PromQL(
            "sum by (finished_reason) (rate(vllm:request_success_total{$NS}[$__rate_interval]))",
            "{{finished_reason}} requests/s",
        ),
        PromQL("sum(rate(vllm:num_preemptions_total{$NS}[$__rate_interval]))", "preemptions/s"),
        unit="short",
    )


def end_to_end() -> PanelBuilder:
    return lines(
        "End-to-end latency",
        "From arrival to the last token.",
        *quantiles("vllm:e2e_request_latency_seconds", 0.5, 0.95),
        unit="s",
    )


def where_time_goes() -> PanelBuilder:
    return lines(
        "Where a request's time goes",
        "Mean seconds per finished request: waiting for a place, computing the prompt, generating.",
        *(
            PromQL(
                f"sum(rate(vllm:request_{part}_time_seconds_sum{{$NS}}[$__rate_interval])) / "
                f"sum(rate(vllm:request_{part}_time_seconds_count{{$NS}}[$__rate_interval]))",
                part,
            )
            for part in ("queue", "prefill", "decode")
        ),
        unit="s",
        stacked=True,
    )


def tokens_per_step() -> PanelBuilder:
    return lines(
        "Tokens per engine step",
        "How much one step computes: decodes give one token each, a prefill gives its whole chunk.",
        *quantiles("vllm:iteration_tokens_total", 0.5, 0.95),
        unit="short",
    )


def prefix_cache() -> PanelBuilder:
    return lines(
        "Prefix cache hit rate",
        "Share of the looked-up prompt tokens that were cached. Empty while prefix caching is off.",
        PromQL(
            "sum(rate(vllm:prefix_cache_hits_total{$NS}[$__rate_interval])) / "
            "(sum(rate(vllm:prefix_cache_queries_total{$NS}[$__rate_interval])) > 0)",
            "hits",
        ),
        unit="percentunit",
        maximum=1,
    )


def answers() -> PanelBuilder:
    return lines(
        "HTTP answers",
        "By status, of the completion endpoints. Health checks and scrapes are left out.",
        PromQL('sum by (status) (rate(http_requests_total{$NS,handler=~"/v1/.*"}[$__rate_interval]))', "{{status}}"),
        unit="reqps",
    )


def refusals() -> PanelBuilder:
    return lines(
        "Refused before the queue",
        "Requests that a limit on the queue turned away. Zero unless such a limit is set.",
        PromQL("sum by (reason) (rate(vllm:admission_rejections_total{$NS}[$__rate_interval]))", "{{reason}}"),
        unit="reqps",
    )


def age() -> PanelBuilder:
    return number(
        "Engine's age",
        "Since the oldest process started, in wall time. It falls back to zero at a restart.",
        PromQL("max(time() - process_start_time_seconds{$NS})"),
        unit="s",
    )


def kv_cache_as_sized() -> PanelBuilder:
    return rows(
        "KV cache as the engine sized it",
        "What the cold start left for the cache after the weights: blocks, their size, and tokens in all.",
        PromQL(
            "max by (pod, gpu_memory_utilization, num_gpu_blocks, block_size, kv_cache_size_tokens, "
            "kv_cache_max_concurrency) (vllm:cache_config_info{$NS})"
        ),
        hide=("Value",),
        width=24,
    )
