"""What a GPU's sensors would show while the engine model runs on it: utilisation, power, energy, temperature, clocks.

Belongs here: the pure state, advanced in stack seconds. Doesn't belong here: exporting it (dcgm_metrics.py).

The load is constant between two changes, so every step is a closed form, exact however far apart the readings are:
- a utilisation follows the load as a first-order lag with a time constant of one second, which stands for the
  driver's sampling window: u(t) = load + (u0 - load) * exp(-t / 1 s);
- power = idle + (limit - idle) * utilisation; energy is its integral;
- temperature follows idle + (loaded - idle) * utilisation with a time constant of 40 s.
The forms are simplifications (confidence C); the T4 in particular sits at its power limit under almost any load.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from lab_pipelines.engine.roofline import Shares
from lab_pipelines.engine.tables import Hardware

WINDOW_S = 1.0
THERMAL_S = 40.0
IDLE = Shares(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Reading:
    """One look at the sensors."""

    busy: float
    """Share of time with a kernel running, in [0, 1]."""
    compute: float
    memory: float
    link_bytes_per_s: float
    """To the other GPUs of its engine, and as much from them."""
    power_w: float
    energy_j: float
    """Since the GPU was first looked at."""
    temperature_c: float
    memory_temperature_c: float
    """0 where there is no sensor, as DCGM reports it."""
    sm_clock_mhz: float
    memory_clock_mhz: float


class GpuState:
    """One GPU, idle and cool at `now_s`. Times are stack seconds on any one clock that doesn't run backwards."""

    def __init__(self, hardware: Hardware, now_s: float) -> None:
        self._hardware = hardware
        self._now_s = now_s
        self._load = IDLE
        self._busy = self._compute = self._memory = self._link = 0.0
        self._energy_j = 0.0
        self._temperature_c = hardware.idle_temperature_c.value

    def set_load(self, now_s: float, load: Shares) -> None:
        """From now on the GPU works like this."""
        self._advance(now_s)
        self._load = load

    def read(self, now_s: float) -> Reading:
        """The sensors now."""
        self._advance(now_s)
        hardware, working = self._hardware, self._busy > 0.01
        return Reading(
            busy=self._busy,
            compute=self._compute,
            memory=self._memory,
            link_bytes_per_s=self._link,
            power_w=self._power_w(self._busy),
            energy_j=self._energy_j,
            temperature_c=self._temperature_c,
            memory_temperature_c=self._temperature_c + 2.0 if hardware.memory_sensor else 0.0,
            sm_clock_mhz=(hardware.sm_clock_mhz if working else hardware.idle_sm_clock_mhz).value,
            memory_clock_mhz=(hardware.memory_clock_mhz if working else hardware.idle_memory_clock_mhz).value,
        )

    def _advance(self, now_s: float) -> None:
        elapsed = now_s - self._now_s
        if elapsed <= 0:
            return
        self._now_s = now_s
        load, hardware = self._load, self._hardware
        decay, cooling = exp(-elapsed / WINDOW_S), exp(-elapsed / THERMAL_S)
        away = self._busy - load.busy
        # The integral of u(t), and the solution of dT/dt = (settled(u(t)) - T) / THERMAL_S.
        self._energy_j += elapsed * self._power_w(load.busy + away * WINDOW_S * (1 - decay) / elapsed)
        span_c = hardware.load_temperature_c.value - hardware.idle_temperature_c.value
        settled_c = hardware.idle_temperature_c.value + span_c * load.busy
        fast_c = span_c * away / (1 - THERMAL_S / WINDOW_S)
        self._temperature_c = settled_c + fast_c * decay + (self._temperature_c - settled_c - fast_c) * cooling
        self._busy = load.busy + away * decay
        self._compute = load.compute + (self._compute - load.compute) * decay
        self._memory = load.memory + (self._memory - load.memory) * decay
        self._link = load.link_bytes_per_s + (self._link - load.link_bytes_per_s) * decay

    def _power_w(self, busy: float) -> float:
        idle = self._hardware.idle_power_w.value
        return idle + (self._hardware.power_w.value - idle) * busy
