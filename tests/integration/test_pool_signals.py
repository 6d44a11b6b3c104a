"""The two signals, asked of a real Prometheus over a cluster's series; and a whole tick over a thousand pools."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.gpu_policy import Signal, load_policy
from lab_pipelines.sensors.gpu_scale_to_zero import Memory, Sensed, tick
from resources import processes
from resources.pool_signals import PoolSignals
from resources.prometheus_blocks import PrometheusBlocks
from resources.telemetry import TelemetryError
from resources.warehouse import Warehouse
from tests.support.node_pools import FilePools, LeasedCluster, node_pool
from tests.support.pool_signals import node, openmetrics, series

Lines = Iterator[tuple[str, str]]
AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AT_S = AT.timestamp()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Lines], str]]:
    """Series to the URL of a Prometheus that has them."""
    folder = tmp_path_factory.mktemp("prometheus")
    count = iter(range(100))

    def served(lines: Lines) -> str:
        blocks = PrometheusBlocks(folder / str(number := next(count)), processes.marker(folder, f"lease-{number}"))
        text = folder / f"{number}.txt"
        text.write_text(openmetrics(lines), encoding="utf-8")
        blocks.add(text)
        return blocks.serve()

    yield served
    for marked in processes.find_marked(folder).values():
        processes.end(marked)


def a_node(pool: str, number: int = 0, *, util: float | None = 0.0, age_s: float = 5) -> Lines:
    """One node, its GPU's exporter unless `util` is None."""
    name = node(pool, number)
    yield from series("kube_node_info", {"node": name}, 1, at_s=AT_S - 5)
    if util is not None:
        labels = {"Hostname": name, "gpu": "0", "UUID": f"GPU-{name}", "namespace": "gpu", "pod": f"dcgm-{number}"}
        yield from series("DCGM_FI_DEV_GPU_UTIL", labels, util, at_s=AT_S - age_s)


def a_pod(
    pool: str, name: str, number: int = 0, *, running: float | None = 0, waiting: float | None = 0,
    phase: str = "Running", age_s: float = 5,
) -> Lines:  # fmt: skip
    """A pod that holds a GPU, its engine's gauges unless they are None."""
    pod = {"namespace": "lab-06", "pod": name}
    held = {**pod, "node": node(pool, number), "container": "vllm", "resource": "nvidia_com_gpu", "unit": "integer"}
    yield from series("kube_pod_container_resource_requests", held, 1, at_s=AT_S - 5)
    yield from series("kube_pod_status_phase", {**pod, "phase": phase}, 1, at_s=AT_S - 5)
    for gauge, value in {"running": running, "waiting": waiting}.items():
        if value is not None:
            labels = {**pod, "model_name": "phi-3", "engine": "0"}
            yield from series(f"vllm:num_requests_{gauge}", labels, value, at_s=AT_S - age_s)


def cluster() -> Lines:
    yield from a_node("idle")
    yield from a_pod("idle", "vllm-idle")
    yield from a_node("busy", util=93)
    yield from a_pod("busy", "vllm-busy", running=2, waiting=5)
    yield from a_node("empty")
    yield from a_node("finished")
    yield from a_pod("finished", "job", running=None, waiting=None, phase="Succeeded")
    yield from a_node("silent")
    yield from a_pod("silent", "triton", running=None, waiting=None)
    yield from a_node("half")
    yield from a_pod("half", "vllm-half", waiting=None)
    yield from a_node("two", 0)
    yield from a_node("two", 1, util=None)
    yield from a_pod("two", "vllm-two-0")
    yield from a_pod("two", "vllm-two-1", 1)
    yield from a_node("old", age_s=12)
    yield from a_pod("old", "vllm-old", age_s=11)
    # Between two looks there was work, which is over by now.
    yield from a_node("burst", util=None)
    yield from a_pod("burst", "vllm-burst")
    yield from (
        ("DCGM_FI_DEV_GPU_UTIL", f'DCGM_FI_DEV_GPU_UTIL{{Hostname="{node("burst")}",gpu="0"}} {value} {AT_S - ago_s}')
        for ago_s, value in ((60, 0), (45, 88), (30, 0), (15, 0), (5, 0))
    )
    yield from series("kube_node_info", {"node": "aks-system-1-vmss000000"}, 1, at_s=AT_S - 5)
    yield from series("kube_node_info", {"node": "kind-worker"}, 1, at_s=AT_S - 5)


@pytest.fixture(scope="module")
def seen(serve: Callable[[Lines], str]) -> dict[str, tuple[Signal, Signal]]:
    url = serve(cluster())
    nodes = dict.fromkeys(
        ["idle", "busy", "empty", "finished", "silent", "half", "old", "burst", "unknown"], 1
    ) | {"two": 2}  # fmt: skip
    return PoolSignals(prometheus_url=url).read(nodes, at=AT)


QUIET = Signal(value=0.0, age_s=5.0, reporting=1, expected=1)


def test_an_idle_and_a_busy_pool(seen: dict[str, tuple[Signal, Signal]]) -> None:
    assert seen["idle"] == (QUIET, QUIET)
    assert [signal.value for signal in seen["busy"]] == [7.0, 93.0]


def test_a_pool_on_which_no_pod_holds_a_gpu_has_no_request_and_that_is_known(
    seen: dict[str, tuple[Signal, Signal]],
) -> None:
    nothing = Signal(value=0.0, age_s=5.0, reporting=0, expected=0)
    assert seen["empty"][0] == seen["finished"][0] == nothing


@pytest.mark.parametrize("pool", ["silent", "half"])
def test_a_pod_with_a_gpu_that_does_not_say_what_it_serves_is_missing_not_idle(
    seen: dict[str, tuple[Signal, Signal]], pool: str
) -> None:
    requests, _ = seen[pool]
    assert (requests.reporting, requests.expected) == (0, 1)


def test_a_node_whose_gpu_is_not_heard_from_is_counted(seen: dict[str, tuple[Signal, Signal]]) -> None:
    requests, utilisation = seen["two"]
    assert (requests.reporting, requests.expected) == (2, 2)
    assert (utilisation.reporting, utilisation.expected) == (1, 2)


def test_the_age_is_that_of_the_samples_themselves(seen: dict[str, tuple[Signal, Signal]]) -> None:
    assert [signal.age_s for signal in seen["old"]] == [11.0, 12.0]


def test_work_between_two_looks_is_seen(seen: dict[str, tuple[Signal, Signal]]) -> None:
    assert [signal.value for signal in seen["burst"]] == [0.0, 88.0]


def test_a_pool_that_prometheus_does_not_know_has_no_sample(seen: dict[str, tuple[Signal, Signal]]) -> None:
    assert seen["unknown"] == (Signal(None, None, 0, 0), Signal(None, None, 0, 1))


def test_a_prometheus_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        signals = PoolSignals(prometheus_url=f"http://127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.3)
        with pytest.raises(TelemetryError, match=r"did not answer|could not answer"):
            signals.read({"t4": 1}, at=AT)


def test_without_a_prometheus_the_setting_is_named() -> None:
    with pytest.raises(TelemetryError, match="LABS_PROMETHEUS_URL"):
        PoolSignals().read({"t4": 1}, at=AT)


POOLS, PODS_EACH = 1_000, 10


def many() -> Lines:
    for number in range(POOLS):
        pool = f"p{number}"
        yield from a_node(pool)
        for pod in range(PODS_EACH):
            yield from a_pod(pool, f"vllm-{number}-{pod}", running=float(number % 2))


@pytest.mark.alone
@pytest.mark.slow
def test_a_tick_decides_each_of_a_thousand_pools_with_ten_thousand_pods(
    serve: Callable[[Lines], str], tmp_path: Path
) -> None:
    pools = FilePools(folder=str(tmp_path))
    pools.put(*[node_pool(f"p{number}") for number in range(POOLS)])
    sensed = Sensed(
        cluster=LeasedCluster(data_dir=str(tmp_path)),
        node_pools=pools,
        pool_signals=PoolSignals(prometheus_url=serve(many())),
        warehouse=Warehouse(data_dir=str(tmp_path / "data")),
        policy=load_policy(),
        mode="dry-run",
        target="aks",
        region="eastus",
        sheet=load_prices(),
    )
    memory, decisions = tick(sensed, Memory(), now=AT, progress=print)
    assert len(memory.histories) == POOLS
    rules = [decision.rule for decision in decisions]
    assert (rules.count("in_use"), rules.count("not_idle_long_enough")) == (POOLS // 2, POOLS // 2)
