"""One contract, two API servers: the double that CI has, and the cluster that LABS_TEST_KUBECONFIG names, if it is set.

That cluster needs an API server of 1.36, scheduler, controller manager, and kwok for the nodes that tests make. No
image is pulled and no pod executes, but for the tests marked `cluster_network`. Each test has a namespace, nodes and
names of its own and removes them, so that several may run at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kubernetes import client

from resources import kube_api
from resources.kube_api import RefusedError
from tests.support import agnhost
from tests.support.contract import LABELS, WITHIN_S, Place, is_ready, kwok_node, unique, until
from tests.support.kube_api import KubeApi

REAL_CLUSTER = os.environ.get("LABS_TEST_KUBECONFIG")


@pytest.fixture(params=["double", *(["real"] if REAL_CLUSTER else [])])
def kubeconfig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if request.param == "real":
        assert REAL_CLUSTER is not None
        yield Path(REAL_CLUSTER)
        return
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with KubeApi() as double:
        # Every node of a test is tainted: on the double as on a cluster a pod needs one that it fits on.
        double.make_node("control-plane", cpu="4")
        double.plays(agnhost.start, image=agnhost.IMAGE)
        yield double.kubeconfig(tmp_path)


@pytest.fixture
def place(kubeconfig: Path) -> Iterator[Place]:
    with kube_api.connect(kubeconfig) as api_client:
        core = client.CoreV1Api(api_client)
        name = unique("labs-contract")
        core.create_namespace({"metadata": {"name": name, "labels": LABELS}}, _request_timeout=WITHIN_S)
        try:
            yield Place(api_client, kubeconfig, name)
        finally:
            core.delete_namespace(name, _request_timeout=WITHIN_S)


@pytest.fixture
def make_node(place: Place) -> Iterator[Callable[..., dict[str, str]]]:
    """Makes a node that is Ready, with these amounts; returns the labels that select it alone."""
    made: list[str] = []

    def make(**amounts: str) -> dict[str, str]:
        name = unique("labs-node")
        place.ask("POST", "/api/v1/nodes", kwok_node(name, **amounts))
        made.append(name)
        what = f"{name} is Ready (nodes with the annotation kwok.x-k8s.io/node need kwok)"
        until(lambda: is_ready(place.ask("GET", f"/api/v1/nodes/{name}")), what)
        return {"labs.example/node": name}

    yield make
    for name in made:
        with suppress(RefusedError):
            place.ask("DELETE", f"/api/v1/nodes/{name}")
