"""The GPU section that every dashboard of a lab with a GPU embeds, and the twelve DCGM series of L02.

Belongs here: NVIDIA's dcgm-exporter as seen in panels. Doesn't belong here: the engine's own series (llm.py).

In a cluster the exporter knows which pod holds a GPU and labels the series with that pod's `namespace` and `pod`. They
survive the scrape only with `honorLabels: true` in its ServiceMonitor; otherwise Prometheus puts the exporter's own
namespace there and moves the pod's to `exported_namespace`, and these panels are empty.
"""

from __future__ import annotations

from dashboards.grafana.panels import PanelBuilder, PromQL, lines
from dashboards.grafana.shell import Section

MEMORY_LIMIT = 0.90
"""Share of GPU memory at which L03's alert fires."""
T4_POWER_LIMIT_W = 70
"""Board power of a T4, from its data sheet."""

TWELVE = {
    "DCGM_FI_DEV_GPU_UTIL": "percent of time in which a kernel ran",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "percent of time in which memory was read or written",
    "DCGM_FI_DEV_DEC_UTIL": "percent, video decoder",
    "DCGM_FI_DEV_FB_USED": "MiB of GPU memory in use",
    "DCGM_FI_DEV_FB_FREE": "MiB of GPU memory free",
    "DCGM_FI_DEV_SM_CLOCK": "MHz, streaming multiprocessors",
    "DCGM_FI_DEV_MEM_CLOCK": "MHz, memory",
    "DCGM_FI_DEV_GPU_TEMP": "degrees Celsius",
    "DCGM_FI_DEV_POWER_USAGE": "watts",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "millijoules since the driver was loaded, a counter",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "PCIe transfers repeated, a counter",
    "DCGM_FI_DEV_XID_ERRORS": "number of the last driver error, 0 without one",
}
"""The twelve series that L02 asks for, all in etc/default-counters.csv of dcgm-exporter 4.5.3-4.8.2.

DCGM_FI_DEV_MEMORY_TEMP is in that file too but not here: a T4 has no sensor for it, and exporters since 4.1 leave the
series of a missing sensor out (NVIDIA/dcgm-exporter, issue 460).
"""


def gpu_section() -> Section:
    """Utilisation, memory, power, temperature and SM clock of the namespace's GPUs."""
    return Section("GPU", [_utilisation(), memory_share(), _memory_used(), _power(), _temperature(), _sm_clock()])


def _utilisation() -> PanelBuilder:
    return lines(
        "GPU utilisation",
        "Share of time in which a kernel ran. It says nothing about how full the kernels were.",
        PromQL("max by (gpu, pod) (DCGM_FI_DEV_GPU_UTIL{$NS})", "GPU {{gpu}} {{pod}}"),
        unit="percent",
        maximum=100,
    )


def memory_share() -> PanelBuilder:
    """The condition of L03's alert on GPU memory."""
    return lines(
        "GPU memory, share in use",
        "Memory in use of what DCGM counts as used or free. An engine that reserves its memory at the start is flat "
        "here whatever its load. The line is the limit of L03's alert.",
        PromQL(
            "max by (gpu, pod) (DCGM_FI_DEV_FB_USED{$NS} / (DCGM_FI_DEV_FB_USED{$NS} + DCGM_FI_DEV_FB_FREE{$NS}))",
            "GPU {{gpu}} {{pod}}",
        ),
        unit="percentunit",
        maximum=1,
        limit=MEMORY_LIMIT,
    )


def memory_busy() -> PanelBuilder:
    return lines(
        "GPU memory busy",
        "Share of time in which memory was read or written, at whatever bandwidth. Decoding is bound by memory: high "
        "here and low compute is how an LLM usually runs.",
        PromQL("max by (gpu, pod) (DCGM_FI_DEV_MEM_COPY_UTIL{$NS})", "GPU {{gpu}} {{pod}}"),
        unit="percent",
        maximum=100,
    )


def _memory_used() -> PanelBuilder:
    return lines(
        "GPU memory in use",
        "Weights, KV cache and whatever else holds memory on the GPU.",
        PromQL("max by (gpu, pod) (DCGM_FI_DEV_FB_USED{$NS})", "GPU {{gpu}} {{pod}}"),
        unit="mbytes",
    )


def _power() -> PanelBuilder:
    return lines(
        "Power",
        f"Draw of the board. A T4 holds itself below {T4_POWER_LIMIT_W} W, the line, by lowering its clock.",
        PromQL("max by (gpu, pod) (DCGM_FI_DEV_POWER_USAGE{$NS})", "GPU {{gpu}} {{pod}}"),
        unit="watt",
        limit=T4_POWER_LIMIT_W,
    )


def _temperature() -> PanelBuilder:
    return lines(
        "Temperature",
        "Of the GPU. A rise that the load does not explain is a question for the data centre's cooling.",
        PromQL("max by (gpu, pod) (DCGM_FI_DEV_GPU_TEMP{$NS})", "GPU {{gpu}} {{pod}}"),
        unit="celsius",
    )


def _sm_clock() -> PanelBuilder:
    return lines(
        "SM clock",
        "A clock that falls while the GPU is busy is throttling, by power or by heat: look left.",
        PromQL("max by (gpu, pod) (DCGM_FI_DEV_SM_CLOCK{$NS}) * 1e6", "GPU {{gpu}} {{pod}}"),
        unit="hertz",
    )
