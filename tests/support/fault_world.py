"""One cell of the fault matrix: a cluster, its node pools, neighbours in both, a run, its fault, and the reaper's tick.

Belongs here: what a cell goes through, and what is seen before and after. Doesn't belong here: which cells there are
(fault_cells.py), or what a run does (fault_run.py).
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from resources import ownership, processes
from tests.support import azure_arm, sse_server
from tests.support import fault_setting as setting
from tests.support.azure_arm import AzureArm
from tests.support.fault_cells import Cell, Fault, Service
from tests.support.fault_forker import Forker, environ
from tests.support.kube import http
from tests.support.kube.kubelet import Delays, PodProcess
from tests.support.kube.store import Key
from tests.support.kube_api import KubeApi
from tests.support.lab_cluster import GPU_TAINT, IMAGE

Json = dict[str, Any]

GONE_WITHIN_S = 5.0
"""For what a deletion has begun."""
SILENCE_S = 0.3
"""How long a run waits for an answer of a server that gives none."""


@dataclass
class Outcome:
    """What became of a cell. Texts name objects, pools and processes."""

    cell: Cell
    fired: int
    ended: str
    said: str
    left: list[str]
    """Of ours, when the run had ended and nobody had cleaned up."""
    too_early: list[str]
    """What a tick on another machine changed while the lease was still good."""
    reaped: list[str]
    still: list[str]
    """Of ours, after the tick."""
    touched: list[str]
    """Not ours, and not as it was."""
    run_s: float
    tick_s: float
    log: str
    trace: str


@dataclass
class Injector:
    """Lets the fault happen when its request arrives, and remembers that it did."""

    fault: Fault
    matches: Callable[[str, Service, str, str], bool]
    world: World
    part: str = ""
    pid: int = 0
    fired: int = 0
    cured: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begins(self, pid: int, part: str) -> None:
        self.pid, self.part = pid, part

    def kubernetes(self, method: str, path: str) -> http.Fault | None:
        if not self._happens("kubernetes", method, path):
            return None
        fault, pattern = self.fault, re.compile("")
        if fault.how in ("answer", "answer for good"):
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            body = http.status_object(fault.status, fault.message, fault.code)
            return http.Fault(method, pattern, 0, 1, fault.status, body, headers)
        if fault.how in ("drop", "drop for good"):
            return http.Fault(method, pattern, 0, 1, drop=True, carried_out=fault.carried_out)
        return http.Fault(method, pattern, 0, 1, silent=True) if fault.how == "silence" else None

    def azure(self, method: str, path: str) -> azure_arm.Fault | None:
        if not self._happens("azure", method, path):
            return None
        fault, pattern = self.fault, re.compile("")
        if fault.how in ("answer", "answer for good"):
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            body = json.dumps({"error": {"code": fault.code, "message": fault.message}})
            return azure_arm.Fault(method, pattern, fault.status, body, headers, 0, 1, False)
        if fault.how in ("drop", "drop for good"):
            return azure_arm.Fault(method, pattern, None, "", {}, 0, 1, fault.carried_out)
        return None

    def engine(self, method: str, path: str) -> None:
        self._happens("engine", method, path)

    def _happens(self, service: Service, method: str, path: str) -> bool:
        """Whether this request is the one, or one after it that has the same fate."""
        with self._lock:
            if self.cured:
                return False
            lasting = self.fault.how in ("answer for good", "silence", "drop for good")
            if self.fired and lasting:
                return self.fault.how == "drop for good" or service == self.world.cell.step.service
            if self.fired >= self.fault.times or not self.matches(self.part, service, method, path):
                return False
            self.fired += 1
        match self.fault.how:
            case "kill" | "lose machine":
                os.kill(self.pid, signal.SIGKILL)
            case "signal":
                os.kill(self.pid, self.fault.signal)
            case "fill disk":
                # Not a byte more into any file, for the run and whatever it starts from now on.
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, 0))
            case "expire":
                self.world.api.expire_next_watch()
            case "take over":
                self.world.take_over()
            case _:
                pass
        return True


class World:
    """Everything around one run."""

    def __init__(self, cell: Cell, folder: Path, forker: Forker) -> None:
        self.cell, self.folder, self._forker = cell, folder, forker
        self.api, self.arm = KubeApi(delays=Delays(start_s=0.1)), AzureArm()
        self._before: dict[str, str] = {}
        self._neighbours = list[subprocess.Popen[bytes]]()

    def go(self) -> Outcome:
        """The whole cell: run, fault, tick."""
        cell = self.cell
        injector = Injector(cell.fault, self._matches, self)
        self.injector = injector
        with ExitStack() as stack:
            stack.enter_context(self.api)
            stack.enter_context(self.arm)
            stack.enter_context(self._served())
            stack.enter_context(self._settled())
            self.api.on_request, self.arm.on_request = injector.kubernetes, injector.azure
            began = time.monotonic()
            ended = self._forker.run(self._order("run"), injector.begins)
            run_s = time.monotonic() - began
            injector.cured = True
            too_early = list[str]()
            if cell.fault.how == "lose machine":
                _end(self._processes())
                too_early = self._too_early()
            left = self._ours()
            tick, tick_s = self._tick(elsewhere=cell.fault.how == "lose machine")
            self._settle()
            return Outcome(
                cell=cell,
                fired=injector.fired,
                ended=ended["ended"],
                said=ended.get("said", ""),
                left=left,
                too_early=too_early,
                reaped=tick,
                still=self._ours(),
                touched=self._touched(),
                run_s=run_s,
                tick_s=tick_s,
                log=(self.folder / "data" / "run.log").read_text(),
                trace=ended.get("trace", ""),
            )

    def _matches(self, part: str, service: Service, method: str, path: str) -> bool:
        step = self.cell.step
        return (part, service, method) == (step.part, step.service, step.method) and bool(re.search(step.path, path))

    def _order(self, do: str, **more: Any) -> Json:
        return {
            "do": do,
            "data_dir": str(self.folder / "data"),
            "kubeconfig": str(self.folder / "kubeconfig"),
            "azure": self.arm.url,
            "azure_token": self.arm.token,
            "image": IMAGE,
            "read_timeout_s": SILENCE_S if self.cell.fault.how == "silence" else None,
            "spec": setting.SPECS[self.cell.step.stack].model_dump(mode="json"),
            **more,
        }

    # --- The tick ---

    def _tick(self, *, elsewhere: bool, aged: bool = True) -> tuple[list[str], float]:
        """What one tick removed. On the run's own machine it comes at once: the run's death is seen. `elsewhere` nobody
        can see that, so `aged`: the lease's time is over."""
        if elsewhere and aged:
            self._age()
        more: Json = {"host": "a-third-machine", "data_dir": str(self.folder / "elsewhere")} if elsewhere else {}
        Path(more.get("data_dir", self.folder)).mkdir(exist_ok=True)
        began = time.monotonic()
        said = self._forker.run(self._order("tick", **more), lambda pid, part: None)
        assert said["ended"] == "well", f"the tick: {said}"
        return [name for one in said["reaped"] for name in one["removed"]], time.monotonic() - began

    def _too_early(self) -> list[str]:
        """What a tick elsewhere changes while the lease is good, since nobody there knows of the death."""
        before = {name for name in self._world() if not name.startswith(("pods/", "nodes/"))}, self.arm.counts()
        self._tick(elsewhere=True, aged=False)
        now = self._world()
        return [name for name in before[0] if name not in now] + [
            f"pool {name}: {count} → {self.arm.counts()[name]}"
            for name, count in before[1].items()
            if self.arm.counts()[name] != count
        ]

    def _age(self) -> None:
        """As if the time of the run's lease had passed."""
        with self.api.store.changed:
            there = self.api.store.get(Key("namespaces", "", setting.LAB))
            if there is not None:
                labels = {**there["metadata"]["labels"], ownership.EXPIRES_LABEL: str(int(time.time()) - 60)}
                self.api.store.put(
                    Key("namespaces", "", setting.LAB), {**there, "metadata": {**there["metadata"], "labels": labels}}
                )

    def _settle(self) -> None:
        """Let what the tick has begun come to its end."""
        self.arm.end_operations()
        deadline = time.monotonic() + GONE_WITHIN_S
        while self._ours() and time.monotonic() < deadline:
            time.sleep(0.02)  # the double's controllers tell of no end

    # --- What there is ---

    def _world(self) -> dict[str, str]:
        """Every object and every pool, byte for byte."""
        with self.api.store.changed:
            objects = {
                "/".join(key): json.dumps(self.api.store.get(key), sort_keys=True)
                for key in self.api.store.everything()
                if key.resource != "events"
            }
        pools = {f"pool {name}": json.dumps(self.arm.properties(name), sort_keys=True) for name in self.arm.counts()}
        return objects | pools

    def _ours(self) -> list[str]:
        """What there is more than before: objects, nodes, processes."""
        objects = [name for name in self._world() if name not in self._before]
        counts = self.arm.counts()
        nodes = [f"{counts[name]} nodes of {name}" for name in self._our_pools if counts[name]]
        return [*objects, *nodes, *(_described(one) for one in self._processes())]

    @property
    def _our_pools(self) -> set[str]:
        """Those that the run may change, and that are empty without it."""
        return setting.POOLS.keys() - {"t4"} if self.cell.fault.how == "take over" else set(setting.POOLS)

    def _touched(self) -> list[str]:
        """What was there before, or is another's, and is no longer as it was."""
        ours = {f"pool {name}" for name in self._our_pools}
        kept = {name: said for name, said in self._before.items() if name not in ours}
        now = self._world()
        changed = _differences(kept, {name: now[name] for name in kept if name in now})
        dead = [f"process {one.args}" for one in self._neighbours if one.poll() is not None]
        return changed + dead

    def _processes(self) -> list[psutil.Process]:
        """Every process that came of the run."""
        return _found(lambda environ: environ.get("LABS_DATA_DIR") == str(self.folder / "data"))

    # --- Before the run ---

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """The cluster with its neighbours, each as it stays."""
        api, arm = self.api, self.arm
        (self.folder / "data").mkdir(parents=True)
        api.kubeconfig(self.folder)
        api.make_node("system-0")
        api.install_crds()
        for name, sku in setting.POOLS.items():
            arm.add(name, vmSize=sku)
        arm.on_count = self._nodes
        setting.add_neighbours(api, arm)
        state_dir = self.folder / "data" / "state" / "aks"
        for place in (state_dir, self.folder / "another"):
            # As a port-forward of another lab's run on this machine, and one of another checkout.
            marked = {**environ(), **processes.marker(place, setting.OTHERS)}
            self._neighbours.append(subprocess.Popen(["sleep", "600"], env=marked))
        self._before = self._world()
        while (now := self._world()) != self._before:
            self._before = now
        try:
            yield
        finally:
            for one in self._neighbours:
                one.kill()
                one.wait()
            _end(self._processes())

    def _nodes(self, pool: str, count: int) -> None:
        """The Node objects of a pool's machines."""
        if pool not in setting.POOLS:
            return
        there = [key for key in self.api.stored() if key[0] == "nodes" and key[2].startswith(f"{pool}-")]
        for number in range(len(there), count):
            labels = {"node.kubernetes.io/instance-type": setting.POOLS[pool]}
            self.api.make_node(f"{pool}-{number}", gpus=1, cpu="8", memory="64Gi", labels=labels, taints=[GPU_TAINT])
        for resource_, _, name in there[count:]:
            with self.api.store.changed:
                self.api.store.delete(Key(resource_, "", name))

    @contextmanager
    def _served(self) -> Iterator[None]:
        """The server in the engine's pods."""

        async def behave(request: sse_server.Received, reply: sse_server.Reply) -> None:
            self.injector.engine("POST", request.path)
            if request.body.get("stream"):
                await sse_server.completion()(request, reply)
            else:
                await reply.refuse(200, json.dumps({"choices": [{"text": " a"}]}).encode())

        if self.cell.step.stack == "bare":
            yield
            return
        with sse_server.SseServer(behave) as server:
            address = urlsplit(server.base_url)
            assert address.hostname is not None and address.port is not None
            ports = {8000: (address.hostname, address.port)}
            self.api.plays(lambda pod: PodProcess(ports=ports), image=IMAGE)
            yield

    def take_over(self) -> None:
        """As the reaper and another run's start, after the lease of a run whose machine had been asleep."""
        with self.api.store.changed:
            for key in list(self.api.store.everything(setting.LAB)):
                self.api.store.remove(key)
            self.api.store.remove(Key("namespaces", "", setting.LAB))
        setting.add_taker(self.api, self.arm)
        time.sleep(0.1)  # what the removed pods' owners still had to do
        self._before = {name: said for name, said in self._world().items() if not name.startswith("nodes//a100-")}


def _differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    names = sorted(before.keys() | now.keys())
    return [f"{name}: {before.get(name)} → {now.get(name)}" for name in names if before.get(name) != now.get(name)]


def _found(is_one: Callable[[dict[str, str]], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if is_one(process.environ()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _described(process: psutil.Process) -> str:
    try:
        return f"process {' '.join(process.cmdline())[:60]}"
    except psutil.Error:
        return "a process that is just ending"


def _end(found: list[psutil.Process]) -> None:
    for process in found:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(found, timeout=5)
