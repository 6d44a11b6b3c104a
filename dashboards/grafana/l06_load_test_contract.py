"""L06: the numbers of the load test's contract while the load runs."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import llm
from dashboards.grafana.gpu import gpu_section
from dashboards.grafana.shell import SCALED_TIME, Section, lab_dashboard


def build() -> Dashboard:
    return lab_dashboard(
        "L06",
        uid="l06-load-test-contract",
        about=f"The lab's measures while its load runs; the record is the warehouse's. {SCALED_TIME}",
        namespaces_of="vllm:num_requests_running",
        sections=[
            Section(
                "The contract",
                [
                    llm.throughput(),
                    llm.ttft(),
                    llm.inter_token_latency(),
                    llm.queue(),
                    llm.kv_cache(),
                    llm.finished_and_preempted(),
                ],
            ),
            gpu_section(),
        ],
    )
