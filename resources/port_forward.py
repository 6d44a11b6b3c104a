"""A process that makes one service of a cluster reachable on this machine's loopback, as `kubectl port-forward` does.

Belongs here: accepting connections and carrying their bytes through the API server to a pod behind the service.
Doesn't belong here: which services a stack needs, and ending these processes (kube_reach.py).

Every connection is a WebSocket of its own to a pod that is ready at that moment, so a pod that is replaced costs its
open connections and no more. All bytes pass through the API server and this process: good for probes, metrics and small
loads. A large load belongs into the cluster.

    python -m resources.port_forward --namespace lab-06 --service vllm --port 80 --announce FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from resources import kube_api, kube_pods
from resources.cluster import ClusterError
from resources.kube_api import Deadline, RefusedError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.stream.ws_client import PortForward

HOST = "127.0.0.1"
FIND_S = 10.0
"""For the two requests that find a pod."""
_BACKLOG = 512
_CHUNK = 64 * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns 1 with one line on stderr when the service can't be had at all."""
    options = _options(argv)
    try:
        api_client = kube_api.connect(options.kubeconfig, options.context)
        target_of(api_client, options.namespace, options.service, options.port)
        listener = socket.create_server((HOST, options.local_port), backlog=_BACKLOG)
    except (ClusterError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _end)
    draft = options.announce.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps({"pid": os.getpid(), "port": listener.getsockname()[1]}), encoding="utf-8")
    draft.replace(options.announce)
    while True:
        connection, _ = listener.accept()
        arguments = (connection, api_client, options.namespace, options.service, options.port)
        threading.Thread(target=_carry, args=arguments, daemon=True).start()


def target_of(api_client: ApiClient, namespace: str, service: str, port: int) -> tuple[str, int]:
    """(pod, port) that serves `port` of `service` now. Raises `ClusterError` when there is none."""
    deadline, root = Deadline.within(FIND_S), f"/api/v1/namespaces/{namespace}"
    try:
        found = kube_api.request(api_client, "GET", f"{root}/services/{service}", deadline=deadline)
        query = {"labelSelector": kube_api.selector_of(found["spec"].get("selector") or {})}
        pods = kube_api.request(api_client, "GET", f"{root}/pods", query=query, deadline=deadline)["items"]
    except RefusedError as refused:
        raise ClusterError(f"service {namespace}/{service}: {refused}") from None
    return pick(found, pods, port)


def pick(service: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], port: int) -> tuple[str, int]:
    """(pod, port) of the first pod that is ready. Pure; `service` and `pods` as the API server's JSON has them.

    Raises `ClusterError` for a service without that port, and when no pod is ready.
    """
    name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    served = next((one for one in service["spec"].get("ports") or [] if one["port"] == port), None)
    if served is None:
        known = ", ".join(str(one["port"]) for one in service["spec"].get("ports") or []) or "none"
        raise ClusterError(f"service {name} has no port {port}; it has: {known}")
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") is None and kube_pods.is_ready(pod):
            target = served.get("targetPort", port)
            return pod["metadata"]["name"], target if isinstance(target, int) else _named(pod, target, name)
    raise ClusterError(f"service {name} has no pod that is ready, of {len(pods)} that it selects")


def _named(pod: Mapping[str, Any], port: str, service: str) -> int:
    for container in pod["spec"]["containers"]:
        for one in container.get("ports") or []:
            if one.get("name") == port:
                return int(one["containerPort"])
    raise ClusterError(
        f"service {service} wants port {port!r}, and pod {pod['metadata']['name']} has none of that name"
    )


def _carry(connection: socket.socket, api_client: ApiClient, namespace: str, service: str, port: int) -> None:
    """Carry one connection's bytes until either side ends it. A pod that can't be had closes the connection."""
    with connection:
        try:
            pod, pod_port = target_of(api_client, namespace, service, port)
            forward = _open(api_client, namespace, pod, pod_port)
        except ClusterError as error:
            print(error, file=sys.stderr, flush=True)
            return
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _pump(connection, forward.socket(pod_port))
        forward.close()
        if said := forward.error(pod_port):
            print(f"pod {namespace}/{pod}: {said}", file=sys.stderr, flush=True)


def _open(api_client: ApiClient, namespace: str, pod: str, port: int) -> PortForward:
    """Raises `ClusterError`."""
    from kubernetes.client import ApiException, CoreV1Api
    from kubernetes.stream import portforward

    # `portforward` exchanges the request method of the client that it is given; other threads use this one.
    core = CoreV1Api(type(api_client)(api_client.configuration))
    try:
        return portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
    except ApiException as error:
        raise ClusterError(f"pod {namespace}/{pod} can't be reached on port {port}: {error.reason}") from None


def _pump(client: socket.socket, server: Any) -> None:
    """Copy both ways until one side has closed."""
    other = {client: server, server: client}
    ends: list[Any] = [client, server]
    while True:
        for one in select.select(ends, [], [])[0]:
            data = one.recv(_CHUNK)
            if not data:
                return
            other[one].sendall(data)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # threads that carry bytes have nothing to put in order


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m resources.port_forward", description=cast(str, __doc__))
    parser.add_argument("--kubeconfig", type=Path, help="default: the file that KUBECONFIG names")
    parser.add_argument("--context", help="default: the kubeconfig's current one")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--port", type=int, required=True, help="the service's")
    parser.add_argument("--local-port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--announce", type=Path, required=True, help="JSON file to write once it listens")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
