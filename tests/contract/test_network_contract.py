"""Pods that really execute, and the ways to them through the API server: logs, port-forwards, the HTTP proxy.

Needs a cluster whose nodes run containers and pull images, which kwok's don't.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import pytest

from resources import kube_api, kube_reach
from resources.kube_api import Deadline, RefusedError
from resources.kube_reach import ClusterReach
from tests.support import agnhost
from tests.support.contract import WITHIN_S, Place, is_ready, until

pytestmark = [pytest.mark.cluster, pytest.mark.cluster_network]


@pytest.fixture
def server(place: Place) -> str:
    """A pod that serves HTTP, behind a service of the same name."""
    labels = {"app": "echo"}
    container = {
        "name": "echo",
        "image": f"{agnhost.IMAGE}:2.53",
        "args": ["netexec", f"--http-port={agnhost.PORT}"],
        "ports": [{"name": "http", "containerPort": agnhost.PORT}],
        "readinessProbe": {"httpGet": {"path": "/hostname", "port": "http"}, "periodSeconds": 1},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "echo", "labels": labels}}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"}}
    assert place.apply({**pod, "spec": spec}, {**service, "spec": {"selector": labels, "ports": ports}}) is None
    until(lambda: is_ready(place.read("pods", "echo")), "the pod answers", within_s=180.0)
    return "echo"


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_service_is_reached_through_a_port_forward(place: Place, server: str, tmp_path: Path) -> None:
    reach = ClusterReach(kubeconfig=place.kubeconfig, context=None, how="port-forward", state_dir=tmp_path)
    address = kube_reach.Service(place.namespace, server, 80).url
    try:
        url = reach.url(f"{address}/echo", lease_id="contract")
        port = int(url.split(":")[2].split("/")[0])
        assert get(port, "/echo?msg=first") == b"first"
        # Connections of their own, and more than one at a time.
        assert get(port, f"/echo?msg={'x' * 20_000}") == b"x" * 20_000
        assert get(port, "/hostname") == b"echo"
    finally:
        reach.end("contract")
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def test_a_pods_log_is_text(place: Place, server: str) -> None:
    def log(**query: str) -> str:
        path = f"/api/v1/namespaces/{place.namespace}/pods/{server}/log"
        return kube_api.read_text(place.api_client, path, query=query, deadline=Deadline.within(WITHIN_S))

    assert "Started HTTP server on port 8080" in until(log, "something is in the log")
    assert len(log(tailLines="1").splitlines()) == 1


def proxied(place: Place, path: str) -> Any:
    query = {"query": {"msg": "through"}}
    return place.ask("GET", path, **query)


def test_a_pod_and_a_service_answer_through_the_api_servers_proxy(place: Place, server: str) -> None:
    assert proxied(place, f"pods/{server}:{agnhost.PORT}/proxy/echo") == "through"
    assert proxied(place, f"services/{server}:http/proxy/echo") == "through"


def test_a_service_without_a_pod_that_is_ready_says_so(place: Place) -> None:
    spec = {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}
    assert place.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"}, "spec": spec}) is None
    with pytest.raises((RefusedError, kube_api.ClusterError), match='no endpoints available for service "empty"'):
        place.ask("GET", "services/empty:80/proxy/", deadline=Deadline.within(1.0))
