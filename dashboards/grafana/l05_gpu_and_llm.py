"""L05: engine and GPU on one page, the dashboard that the rest of the year looks at."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import llm, pods
from dashboards.grafana.gpu import gpu_section
from dashboards.grafana.panels import LogQL, PanelBuilder, PromQL, log_lines, number
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
                    llm.answers(),
                    llm.refusals(),
                ],
            ),
            gpu_section(),
            Section("Cold start", _cold_start()),
        ],
    )


def _cold_start() -> list[PanelBuilder]:
    return [
        pods.ready(),
        pods.from_creation_to_ready(),
        llm.age(),
        number(
            "Targets up",
            "Scrape targets of the namespace that answer: in a cluster that is the engine after its cold start.",
            PromQL("sum(up{$NS})"),
            unit="none",
        ),
        llm.kv_cache_as_sized(),
        log_lines(
            "Cold start in the log",
            "vLLM's lines on loading the weights, sizing the cache and listening; the modelled server's lines of its "
            "phases.",
            LogQL('{$NS} |~ "Model loading took|init engine|Application startup complete|cold_start"'),
        ),
    ]
