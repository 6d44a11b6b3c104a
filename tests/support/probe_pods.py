"""Plays a pod whose container runs a Python script: the script for real, its volumes as folders, as whom it would be.

Belongs here: what kubelet, workload identity webhook and Secrets Store CSI driver do for such a pod. What Azure would
sign or hand out is made up; nothing here checks it. Doesn't belong here: the pod's life (kube/kubelet.py).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.kube.kubelet import PodProcess

Json = dict[str, Any]
Read = Callable[[str, str, str], Json | None]
"""An object of the cluster by resource, namespace and name."""

WANTS_IDENTITY = "azure.workload.identity/use"
IDENTITY_MOUNT = "/var/run/secrets/azure/tokens"
AUDIENCE = "api://AzureADTokenExchange"
TERMINATION_LOG = "/dev/termination-log"
VAULT_SECRET = "a-secret-of-the-vault"
RUNS_FOR_S = 60.0


def start(pod: Json, read: Read, folder: Path) -> PodProcess:
    """Start the pod's first container in `folder`."""
    container, namespace = pod["spec"]["containers"][0], pod["metadata"]["namespace"]
    account = pod["spec"].get("serviceAccountName", "default")
    volumes = {one["name"]: one for one in pod["spec"].get("volumes") or []}
    mounts = {TERMINATION_LOG: folder / "termination-log"}
    for number, mount in enumerate(container.get("volumeMounts") or []):
        at = folder / f"volume-{number}"
        at.mkdir(parents=True)
        _fill(at, volumes[mount["name"]], account, namespace, read)
        mounts[mount["mountPath"]] = at
    environ = _environ(container, namespace, read)
    if (pod["metadata"].get("labels") or {}).get(WANTS_IDENTITY) == "true":
        at = folder / "webhook"
        at.mkdir(parents=True)
        (at / "azure-identity-token").write_text(_token(account, namespace, AUDIENCE, 3600))
        mounts[IDENTITY_MOUNT] = at
        environ |= {"AZURE_FEDERATED_TOKEN_FILE": f"{IDENTITY_MOUNT}/azure-identity-token", "AZURE_CLIENT_ID": "client"}
    here = _mapped(mounts)
    command = [*container["command"], *(container.get("args") or [])]
    assert command[0] == "python", command
    process = subprocess.Popen(
        [sys.executable, *map(here, command[1:])],
        env={name: here(value) for name, value in environ.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = list[bytes]()

    def wait() -> int:
        output.append(process.communicate(timeout=RUNS_FOR_S)[0])
        return process.returncode

    left = mounts[TERMINATION_LOG]
    return PodProcess(
        log=lambda: b"".join(output).decode(),
        stop=process.kill,
        wait=wait,
        message=lambda: left.read_text() if left.exists() else "",
    )


def _fill(at: Path, volume: Json, account: str, namespace: str, read: Read) -> None:
    if config_map := volume.get("configMap"):
        found = read("configmaps", namespace, config_map["name"])
        assert found is not None, f"config map {config_map['name']} is not there"
        for name, text in found["data"].items():
            (at / name).write_text(text)
    for source in (volume.get("projected") or {}).get("sources") or []:
        token = source["serviceAccountToken"]
        (at / token["path"]).write_text(_token(account, namespace, token["audience"], token["expirationSeconds"]))
    if csi := volume.get("csi"):
        provider = csi["volumeAttributes"]["secretProviderClass"]
        found = read("secretproviderclasses.secrets-store.csi.x-k8s.io", namespace, provider)
        assert found is not None, f"SecretProviderClass {provider} is not there"
        (at / "huggingface-token").write_text(VAULT_SECRET)


def _environ(container: Json, namespace: str, read: Read) -> dict[str, str]:
    environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    for one in container.get("env") or []:
        if "value" in one:
            environ[one["name"]] = one["value"]
            continue
        reference = one["valueFrom"]["secretKeyRef"]
        found = read("secrets", namespace, reference["name"])
        assert found is not None, f"Secret {reference['name']} is not there"
        plain = found.get("stringData") or {}
        data = (found.get("data") or {}).get(reference["key"])
        environ[one["name"]] = plain.get(reference["key"]) or base64.b64decode(data or "").decode()
    return environ


def _mapped(mounts: Mapping[str, Path]) -> Callable[[str], str]:
    """From a path in the container to one here. The longest mount that fits counts."""

    def here(text: str) -> str:
        for mount in sorted(mounts, key=len, reverse=True):
            if text == mount or text.startswith(f"{mount}/"):
                return f"{mounts[mount]}{text[len(mount) :]}"
        return text

    return here


def _token(account: str, namespace: str, audience: str, seconds: int) -> str:
    """A service account token as the API server projects it, but for its signature."""
    claims = {
        "aud": [audience],
        "exp": int(time.time()) + seconds,
        "sub": f"system:serviceaccount:{namespace}:{account}",
    }
    parts = [{"alg": "none"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".x"
