"""The modelled GPUs' exporter: the default set of NVIDIA's dcgm-exporter, by name, type and labels.

Belongs here: which series exist and which reading feeds which. Doesn't belong here: the readings (gpu_state.py).

FB_USED is what vLLM reserves at start-up, weights and KV cache alike: gpu_memory_utilization of the memory, whatever
the load. XID errors, replays and the video engines stay at zero.
"""

from __future__ import annotations

from lab_pipelines.engine.exposition import Counter, Gauge, Metric, render
from lab_pipelines.engine.gpu_state import GpuState
from lab_pipelines.engine.tables import Hardware

_MIB = 1024**2

_GAUGES = {
    "DCGM_FI_DEV_SM_CLOCK": "SM clock, MHz.",
    "DCGM_FI_DEV_MEM_CLOCK": "Memory clock, MHz.",
    "DCGM_FI_DEV_MEMORY_TEMP": "Memory temperature, degrees Celsius; 0 without a sensor.",
    "DCGM_FI_DEV_GPU_TEMP": "GPU temperature, degrees Celsius.",
    "DCGM_FI_DEV_POWER_USAGE": "Power, watts.",
    "DCGM_FI_DEV_GPU_UTIL": "Time with a kernel running, percent.",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "Memory bandwidth in use, percent.",
    "DCGM_FI_DEV_ENC_UTIL": "Video encoder, percent.",
    "DCGM_FI_DEV_DEC_UTIL": "Video decoder, percent.",
    "DCGM_FI_DEV_XID_ERRORS": "Last XID error.",
    "DCGM_FI_DEV_FB_FREE": "Memory free, MiB.",
    "DCGM_FI_DEV_FB_USED": "Memory used, MiB.",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "Time with a kernel running, share.",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "FLOPs done of the peak's, share.",
    "DCGM_FI_PROF_DRAM_ACTIVE": "Memory bandwidth in use, share.",
    "DCGM_FI_PROF_PCIE_TX_BYTES": "Sent to the other GPUs, bytes/s.",
    "DCGM_FI_PROF_PCIE_RX_BYTES": "Got from the other GPUs, bytes/s.",
}


class DcgmMetrics:
    """The series of an engine's GPUs. `used_bytes` of each one's memory are taken for as long as the server lives.

    All of them do the same at the same time, so that one state stands for each.
    """

    def __init__(self, hardware: Hardware, state: GpuState, *, used_bytes: float, gpus: int = 1) -> None:
        series = [
            {
                "gpu": str(number),
                "UUID": f"GPU-modelled-{hardware.name.lower()}" + (f"-{number}" if number else ""),
                "device": f"nvidia{number}",
                "modelName": hardware.product,
                "Hostname": "modelled-node",
            }
            for number in range(gpus)
        ]
        self._state = state
        self._gauges = {name: Gauge(name, text, series) for name, text in _GAUGES.items()}
        # dcgm-exporter's counters have neither the _total suffix nor a _created series; vLLM's have both.
        self._energy = Counter(
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy, millijoules.", series, suffix="", created=False
        )
        self._energies = [self._energy.child(**labels) for labels in series]
        replays = Counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "PCIe replays.", series, suffix="", created=False)
        self._metrics: list[Metric] = [*self._gauges.values(), self._energy, replays]
        self._gauges["DCGM_FI_DEV_FB_USED"].set_all(round(used_bytes / _MIB))
        self._gauges["DCGM_FI_DEV_FB_FREE"].set_all(round((hardware.memory_bytes.value - used_bytes) / _MIB))
        self._energy_mj = 0.0

    def render(self, now_s: float) -> bytes:
        """The text of a scrape at `now_s` stack seconds on the state's clock."""
        reading = self._state.read(now_s)
        for name, value in {
            "DCGM_FI_DEV_SM_CLOCK": reading.sm_clock_mhz,
            "DCGM_FI_DEV_MEM_CLOCK": reading.memory_clock_mhz,
            "DCGM_FI_DEV_MEMORY_TEMP": round(reading.memory_temperature_c),
            "DCGM_FI_DEV_GPU_TEMP": round(reading.temperature_c),
            "DCGM_FI_DEV_POWER_USAGE": round(reading.power_w, 3),
            "DCGM_FI_DEV_GPU_UTIL": round(100 * reading.busy),
            "DCGM_FI_DEV_MEM_COPY_UTIL": round(100 * reading.memory),
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": round(reading.busy, 6),
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": round(reading.compute, 6),
            "DCGM_FI_PROF_DRAM_ACTIVE": round(reading.memory, 6),
            "DCGM_FI_PROF_PCIE_TX_BYTES": round(reading.link_bytes_per_s),
            "DCGM_FI_PROF_PCIE_RX_BYTES": round(reading.link_bytes_per_s),
        }.items():
            self._gauges[name].set_all(value)
        energy_mj = reading.energy_j * 1000
        for energy in self._energies:
            energy.inc(energy_mj - self._energy_mj)
        self._energy_mj = energy_mj
        return render(self._metrics)
