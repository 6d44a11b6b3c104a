"""The GPU's sensors follow the load: exactly, however often they are read."""

from __future__ import annotations

import pytest

from lab_pipelines.engine import tables
from lab_pipelines.engine.gpu_state import GpuState
from lab_pipelines.engine.roofline import Shares

T4 = tables.hardware("T4")
FULL = Shares(busy=1.0, compute=0.4, memory=0.7)


def test_an_idle_gpu_is_cool_slow_and_draws_idle_power() -> None:
    reading = GpuState(T4, 0.0).read(1000.0)
    assert (reading.busy, reading.power_w, reading.temperature_c) == (0, 10, 35)
    assert reading.energy_j == pytest.approx(10 * 1000)
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (300, 405)


def test_a_busy_gpu_settles_at_its_power_limit_and_its_temperature() -> None:
    gpu = GpuState(T4, 0.0)
    gpu.set_load(0.0, FULL)
    reading = gpu.read(1000.0)
    assert reading.busy == pytest.approx(1)
    assert (reading.compute, reading.memory) == (pytest.approx(0.4), pytest.approx(0.7))
    assert reading.power_w == pytest.approx(70)
    assert reading.temperature_c == pytest.approx(72)
    assert reading.sm_clock_mhz == 1590
    assert reading.memory_temperature_c == 0, "a T4 has no such sensor"


def test_power_reacts_in_seconds_and_temperature_in_minutes() -> None:
    gpu = GpuState(T4, 0.0)
    gpu.set_load(0.0, FULL)
    soon = gpu.read(3.0)
    assert soon.power_w > 65
    assert soon.temperature_c < 40


def test_energy_never_falls_and_lies_between_idle_and_limit() -> None:
    gpu, last, now = GpuState(T4, 0.0), 0.0, 0.0
    for index in range(200):
        gpu.set_load(now, FULL if index % 3 else Shares(0.2, 0.1, 0.1))
        now += 0.037 * (1 + index % 5)
        energy = gpu.read(now).energy_j
        assert last < energy
        last = energy
    assert 10 * now < last < 70 * now


def test_readings_do_not_disturb_power_and_energy() -> None:
    watched, unwatched = GpuState(T4, 0.0), GpuState(T4, 0.0)
    for gpu in (watched, unwatched):
        gpu.set_load(1.0, FULL)
    for tenth in range(10, 60):
        watched.read(tenth / 10)
    seen, fresh = watched.read(6.0), unwatched.read(6.0)
    assert seen.energy_j == pytest.approx(fresh.energy_j)
    assert seen.power_w == pytest.approx(fresh.power_w)
    assert seen.temperature_c == pytest.approx(fresh.temperature_c)


def test_an_older_moment_changes_nothing() -> None:
    gpu = GpuState(T4, 10.0)
    gpu.set_load(20.0, FULL)
    assert gpu.read(15.0) == gpu.read(20.0)
