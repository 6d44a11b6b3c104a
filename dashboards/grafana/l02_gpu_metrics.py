"""L02: the GPU section that later labs reuse, the rest of the twelve DCGM series, and which pod sees which GPU."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.gpu import TWELVE, gpu_section, memory_busy
from dashboards.grafana.panels import PanelBuilder, PromQL, lines, number, rows
from dashboards.grafana.shell import Section, lab_dashboard


def build() -> Dashboard:
    return lab_dashboard(
        "L02",
        uid="l02-gpu-metrics",
        about="What dcgm-exporter says of a GPU. The GPU section returns in the dashboards of the labs that follow.",
        namespaces_of="DCGM_FI_DEV_GPU_UTIL",
        sections=[gpu_section(), Section("The rest of the twelve series", _rest()), Section("Who sees what", _views())],
    )


def _rest() -> list[PanelBuilder]:
    by_gpu = "GPU {{gpu}} {{pod}}"
    return [
        memory_busy(),
        lines(
            "Memory clock",
            "Constant under load; a lower one is an idle GPU's.",
            PromQL("max by (gpu, pod) (DCGM_FI_DEV_MEM_CLOCK{$NS}) * 1e6", by_gpu),
            unit="hertz",
        ),
        lines(
            "GPU memory free",
            "What another process could still take.",
            PromQL("min by (gpu, pod) (DCGM_FI_DEV_FB_FREE{$NS})", by_gpu),
            unit="mbytes",
        ),
        lines(
            "Power from the energy counter",
            "Mean draw between two scrapes, from a counter of millijoules. Unlike the power panel it misses no peak.",
            PromQL(
                "max by (gpu, pod) (rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{$NS}[$__rate_interval])) / 1000", by_gpu
            ),
            unit="watt",
        ),
        lines(
            "Video decoder",
            "Zero unless a model takes video, or somebody else is on the GPU.",
            PromQL("max by (gpu, pod) (DCGM_FI_DEV_DEC_UTIL{$NS})", by_gpu),
            unit="percent",
            maximum=100,
        ),
        lines(
            "Errors",
            "The last XID error's number, and PCIe transfers repeated per second. Zero is the only good value.",
            PromQL("max by (gpu, pod) (DCGM_FI_DEV_XID_ERRORS{$NS})", "XID, GPU {{gpu}} {{pod}}"),
            PromQL(
                "max by (gpu, pod) (rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{$NS}[$__rate_interval]))",
                "PCIe replays/s, GPU {{gpu}} {{pod}}",
            ),
            unit="short",
        ),
    ]


def _views() -> list[PanelBuilder]:
    names = "|".join(TWELVE)
    return [
        number(
            "Series of the twelve",
            "How many of the twelve DCGM series this namespace has. Fewer than twelve: a sensor that the GPU lacks, or "
            "a counter file that leaves them out.",
            PromQL(f'count(count by (__name__) ({{__name__=~"{names}",$NS}}))'),
            unit="none",
            steps=(("red", None), ("green", float(len(TWELVE)))),
        ),
        number(
            "GPUs of the cluster",
            "All that have an exporter, whoever uses them: the view from the nodes.",
            PromQL("count(DCGM_FI_DEV_GPU_UTIL{})"),
            unit="none",
        ),
        number(
            "GPUs held by a pod",
            "Those that the exporter found in a pod, in any namespace: the view from the pods. The difference to the "
            "cluster's is idle and paid for.",
            PromQL('count(DCGM_FI_DEV_GPU_UTIL{pod!=""})'),
            unit="none",
        ),
        rows(
            "GPUs of this namespace",
            "One row per GPU that a pod here holds.",
            PromQL("max by (gpu, UUID, modelName, pod, container) (DCGM_FI_DEV_FB_USED{$NS})"),
        ),
        lines(
            "How full the kernels are",
            "Share of cycles in which the tensor cores and the memory interface worked. Utilisation can read 100 % "
            "while both are low.",
            PromQL("max by (gpu, pod) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{$NS})", "tensor cores, GPU {{gpu}} {{pod}}"),
            PromQL("max by (gpu, pod) (DCGM_FI_PROF_DRAM_ACTIVE{$NS})", "memory, GPU {{gpu}} {{pod}}"),
            unit="percentunit",
            maximum=1,
            width=24,
        ),
    ]
