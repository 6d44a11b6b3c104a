"""A lab's run on the target `aks` in short, and the reaper's tick, each in a process of its own, forked in no time.

Belongs here: what such a process does: what the assets do with the cluster, in their order, through the project's own
resources and `Walk`, under Dagster's own way of turning a signal into an exception. What isn't there is Dagster's
bookkeeping and Prometheus, which nothing of a stack hangs on; tests/crash/test_cluster_runs_killed.py has both.
Doesn't belong here: what goes wrong (fault_cells.py), or the judgement (fault_world.py).

    python -m tests.support.fault_run SOCKET

imports everything once and forks for each connection to the Unix socket: one line of JSON says what to do, and the
process tells of each part before it begins with it, and waits for an empty line in answer.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import azure.identity
import azure.mgmt.containerservice  # noqa: F401  imported once, before any fork
import duckdb  # noqa: F401
import kubernetes.stream  # noqa: F401
import pandas  # noqa: F401  Arrow does it
import pyarrow.parquet  # noqa: F401
from dagster import DagsterExecutionInterruptedError
from dagster._utils.interrupts import raise_interrupts_as

from assets.steps import Walk
from assets.variants import publish_opening, switch
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.turns import Visit
from resources import helm, kube_api, kube_deadlines
from resources.billing import PriceSheetBilling
from resources.cluster import StackOrder
from resources.cluster_kubernetes import KubernetesCluster
from resources.load_locust import LocustLoadGenerator
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse
from tests.support.azure_agent_pools import CLUSTER, RESOURCE_GROUP, SUBSCRIPTION
from tests.support.azure_pools import PoolsOverLoopback

PACE = "smoke"
RUN_ID = "run-of-the-cell"


class NoPrometheus(Telemetry):
    """Nobody scrapes the stacks of these runs."""

    def wait_for_scrape(self, *args: Any, **kwargs: Any) -> bool:
        return True


class Parent:
    """The other end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rw")
        self.order: dict[str, Any] = json.loads(self._file.readline())

    def begins(self, part: str) -> None:
        """Tell what comes next, and wait until that is known."""
        self.tell(part=part)
        self._file.readline()

    def tell(self, **said: Any) -> None:
        print(json.dumps(said), file=self._file, flush=True)


def main() -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    # Children end without being waited for; who asked notices by the connection's end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads can't be forked"
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _serve(Parent(connection))


def _serve(parent: Parent) -> None:
    order = parent.order
    os.environ["LABS_DATA_DIR"] = order["data_dir"]  # by which a test finds whatever comes of this process
    log = (Path(order["data_dir"]) / f"{order['do']}.log").open("a")  # until the process ends
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    parent.tell(pid=os.getpid())
    try:
        {"run": _run, "tick": _tick}[order["do"]](parent)
        parent.tell(ended="well")
    except BaseException as error:  # noqa: BLE001  also an interrupt: it is what the run ended with
        parent.tell(ended=type(error).__name__, said=str(error), trace=traceback.format_exc())
    try:
        atexit._run_exitfuncs()  # as an interpreter that ends; a forked one must not go back into the loop above
    finally:
        os._exit(0)


def _run(parent: Parent) -> None:
    """deployed_stack, load_run and metrics_snapshot in turn, as far as they do something to the cluster."""
    order = parent.order
    spec = LabSpec.model_validate(order["spec"])
    cluster, warehouse = _cluster(order), Warehouse(data_dir=order["data_dir"])

    def progress(line: str) -> None:
        print(line, flush=True)  # as Dagster's event log, it fails on a disk that is full

    with raise_interrupts_as(DagsterExecutionInterruptedError):
        parent.begins("deploy")
        first = StackOrder(
            spec=spec, variant=spec.variants[0], run_id=RUN_ID, pace_name=PACE, pace=spec.paces[PACE], hold=None
        )
        session = cluster.deploy(first, progress=progress)
        with cluster.released_on_error(spec.id):
            publish_opening(warehouse, session, spec.variants[0])
        with cluster.released_on_error(spec.id):
            session = cluster.attach(spec.id)
            for number, variant in enumerate(spec.variants):
                if number:
                    parent.begins("switch")
                    session = switch(
                        session, spec, Visit(variant, 1), cluster=cluster, warehouse=warehouse, progress=progress
                    )
                walk = Walk(
                    spec=spec,
                    variant=variant,
                    session=session,
                    cluster=cluster,
                    load_generator=LocustLoadGenerator(),
                    telemetry=NoPrometheus(),
                    billing=PriceSheetBilling(),
                    warehouse=warehouse,
                    progress=progress,
                    stages=[],
                )
                for step in spec.steps:
                    parent.begins(f"{variant.id}: {step.name}")
                    event = walk._do(step)
                    assert event["outcome"] == "ok", f"{step.name}: {event['detail']}"
        with cluster.released_on_error(spec.id):
            parent.begins("release")
            cluster.release(spec.id, run_id=cluster.sessions(spec.id)[-1].run_id)


def _tick(parent: Parent) -> None:
    """One tick of the reaper, which knows the cluster, the pools and where this machine marks its processes."""
    if host := parent.order.get("host"):
        socket.gethostname = lambda: host
    parent.begins("tick")
    parent.tell(reaped=[one.model_dump() for one in _cluster(parent.order).reap()])


def _cluster(order: dict[str, Any]) -> KubernetesCluster:
    _hasten(order["read_timeout_s"])
    pools = PoolsOverLoopback(
        subscription_id=SUBSCRIPTION,
        resource_group=RESOURCE_GROUP,
        cluster=CLUSTER,
        base_url=order["azure"],
        token=order["azure_token"],
        retry_s=0.01,
    )
    return KubernetesCluster(
        node_pools=pools,
        data_dir=order["data_dir"],
        target="aks",
        kubeconfig=order["kubeconfig"],
        engine="modelled",
        image=order["image"],
        prometheus_url="http://127.0.0.1:9",
    )


def _hasten(read_timeout_s: float | None) -> None:
    """The same waits, shorter: a cell is a second, and nothing here takes longer."""
    kube_api.RETRY_S = helm.LOOK_S = 0.05
    kube_api.READ_TIMEOUT_S = read_timeout_s or kube_api.READ_TIMEOUT_S
    kube_deadlines.TAKE_S = kube_deadlines.ASK_S = kube_deadlines.RELEASE_S = 3.0
    kube_deadlines.SCRAPED_S = 0.0
    kube_deadlines.NODES_S, kube_deadlines.READY_S = 4.0, 8.0


if __name__ == "__main__":
    main()
