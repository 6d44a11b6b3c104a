"""L05: engine and GPU on one page, the dashboard that the rest of the year looks at."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import llm, pods
from dashboards.grafana.gpu import gpu_section
from dashboards.grafana.panels import LogQL, PanelBuilder, PromQL, lines, log_lines, number, rows, states
from dashboards.grafana.shell import SCALED_TIME, Section, lab_dashboard


def build() -> Dashboard:
    return lab_dashboard(
        "L05",
        uid="l05-gpu-and-llm",
        about=f"vLLM and the GPU below it, from cold start to load. {SCALED_TIME}",
        namespaces_of="vllm:num_requests_running",
        logs=True,
        sections=[
            Section(
                "Engine",
                [
                    llm.throughput(),
                    llm.ttft(),
                    llm.inter_token_latency(),
                    llm.queue(),
                    llm.kv_cache(),
                    llm.finished_and_preempted(),
                    llm.end_to_end(),
                    llm.where_time_goes(),
                    llm.tokens_per_step(),
                    llm.prefix_cache(),
                    _answers(),
                    _refusals(),
                ],
            ),
            gpu_section(),
            Section("Cold start", _cold_start()),
        ],
    )


def _answers() -> PanelBuilder:
    return lines(
        "HTTP answers",
        "By status, of the completion endpoints. Health checks and scrapes are left out.",
        PromQL('sum by (status) (rate(http_requests_total{$NS,handler=~"/v1/.*"}[$__rate_interval]))', "{{status}}"),
        unit="reqps",
    )


def _refusals() -> PanelBuilder:
    return lines(
        "Refused before the queue",
        "Requests that a limit on the queue turned away. Zero unless such a limit is set.",
        PromQL("sum by (reason) (rate(vllm:admission_rejections_total{$NS}[$__rate_interval]))", "{{reason}}"),
        unit="reqps",
    )


def _cold_start() -> list[PanelBuilder]:
    return [
        states(
            "Ready",
            "Whether each pod passed its readiness probe. The first green is the end of the cold start.",
            PromQL('max by (pod) (kube_pod_status_ready{$NS,condition="true"})', "{{pod}}"),
            meanings={0: ("not ready", "orange"), 1: ("ready", "green")},
            width=8,
        ),
        pods.from_creation_to_ready(),
        number(
            "Engine's age",
            "Since the oldest process started, in wall time. It falls back to zero at a restart.",
            PromQL("max(time() - process_start_time_seconds{$NS})"),
            unit="s",
        ),
        number(
            "Targets up",
            "Scrape targets of the namespace that answer: in a cluster that is the engine after its cold start.",
            PromQL("sum(up{$NS})"),
            unit="none",
        ),
        rows(
            "KV cache as the engine sized it",
            "What the cold start left for the cache after the weights: blocks, their size, and tokens in all.",
            PromQL(
                "max by (pod, gpu_memory_utilization, num_gpu_blocks, block_size, kv_cache_size_tokens, "
                "kv_cache_max_concurrency) (vllm:cache_config_info{$NS})"
            ),
            hide=("Value",),
            width=24,
        ),
        log_lines(
            "Cold start in the log",
            "vLLM's lines on loading the weights, sizing the cache and listening; the modelled server's lines of its "
            "phases.",
            LogQL('{$NS} |~ "Model loading took|init engine|Application startup complete|cold_start"'),
        ),
    ]
