"""The pods of a load in a cluster, played on this machine: each container as a process, with its own folders.

Belongs here: what a kubelet and a pod network do for them: volumes, the environment, names of services.
Doesn't belong here: the API server (kube_api.py), or what the pods should do.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_pipelines.deployment import REPO_ROOT
from resources.kube_reach import Service, service_of
from tests.support.kube.kubelet import PodProcess
from tests.support.kube.store import Key
from tests.support.kube_api import KubeApi

Json = dict[str, Any]
VOLUMES_WITHIN_S = 30.0


@dataclass
class LoadPods:
    """`start` plays a pod of a load; `root_of` says where a service answers on loopback, e.g. `http://127.0.0.1:8000`."""

    api: KubeApi
    folder: Path
    root_of: Callable[[Service], str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """By the pod's name."""

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._master_port = str(probe.getsockname()[1])
            """In place of the port that every master has, each in a pod of its own."""

    def start(self, pod: Json) -> PodProcess:
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]
        mounts = self._mounted(pod, container)
        log = self.folder / name / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *container["command"][1:], *self._arguments(container["args"], mounts)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPO_ROOT,
                env={**os.environ, **_environment(pod, container, mounts)},
            )
        self.processes[name] = process
        return PodProcess(
            log=lambda: log.read_text(encoding="utf-8", errors="replace"),
            stop=lambda: _stop(process),
            wait=process.wait,
        )

    def _mounted(self, pod: Json, container: Json) -> dict[str, Path]:
        """Mount path → folder on this machine. A ConfigMap that isn't there yet is waited for, as a kubelet does."""
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {}
        for mount in container["volumeMounts"]:
            folder = mounts[mount["mountPath"]] = self.folder / pod["metadata"]["name"] / mount["name"]
            folder.mkdir(parents=True)
            if (source := volumes[mount["name"]].get("configMap")) is not None:
                key = Key("configmaps", pod["metadata"]["namespace"], source["name"])
                with self.api.store.changed:
                    assert self.api.store.changed.wait_for(lambda key=key: self.api.store.get(key), VOLUMES_WITHIN_S)
                    found = self.api.store.get(key)
                assert found is not None
                for name, text in found["data"].items():
                    (folder / name).write_text(self._resolved(text), encoding="utf-8")
        return mounts

    def _resolved(self, plan: str) -> str:
        content = json.loads(plan)
        service = service_of(content["base_url"])
        assert service is not None, plan
        content["base_url"] = content["base_url"].replace(service.url, self.root_of(service), 1)
        return json.dumps(content)

    def _arguments(self, arguments: list[str], mounts: Mapping[str, Path]) -> list[str]:
        made, former = [], ""
        for one in arguments:
            if former == "--master-host":
                made.append("127.0.0.1")
            elif former in ("--master-port", "--master-bind-port"):
                made.append(self._master_port)
            else:
                made.append(_here(one, mounts))
            former = one
        return [*made, *(["--master-bind-host", "127.0.0.1"] if "--master" in arguments else [])]


def _here(text: str, mounts: Mapping[str, Path]) -> str:
    """A path of the container as one of this machine; anything else as it is."""
    for path, folder in mounts.items():
        if text == path or text.startswith(f"{path}/"):
            return f"{folder}{text.removeprefix(path)}"
    return text


def _environment(pod: Json, container: Json, mounts: Mapping[str, Path]) -> dict[str, str]:
    made = {}
    for one in container["env"]:
        if "value" in one:
            made[one["name"]] = _here(one["value"], mounts)
        else:
            assert one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
            made[one["name"]] = pod["metadata"]["name"]
    return made


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
