"""What guards a lab's namespace from its first second on: its network policy and its quota; and its secrets.

Belongs here: pure functions from a spec to the objects that are applied before anything else of the lab.
Doesn't belong here: making the namespace, which is the lease (kube_leases.py), or what is installed in it
(kube_stack.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lab_pipelines.catalog.spec import LabSpec
from resources.manifests import Manifest

GPU = "nvidia.com/gpu"
MOST_PODS = 50
"""No lab of the year has more; a Job that makes pods without end stops there."""
DNS_PORT = 53
HTTPS_PORT = 443
LINK_LOCAL = "169.254.0.0/16"
"""Where clouds keep the metadata service, which hands out a node's own credentials."""
NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace has of its own name."""


def guards(spec: LabSpec, *, monitoring_namespace: str) -> list[Manifest]:
    """The objects that a lab's namespace begins with. `monitoring_namespace` is where the cluster's Prometheus is."""
    return [*([] if spec.network == "open" else _network(monitoring_namespace)), _quota(spec)]


def _network(monitoring_namespace: str) -> list[Manifest]:
    """Nothing in and nothing out, but for what every lab needs."""
    anyone_here = {"podSelector": {}}
    dns = [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]
    # Weights come over HTTPS, and so do tokens of an identity; neither from the metadata service.
    outside = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}}
    prometheus = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: monitoring_namespace}}}
    return [
        _policy("default-deny", {"policyTypes": ["Ingress", "Egress"]}),
        _policy(
            "within-the-lab",
            {
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [anyone_here, prometheus]}],
                "egress": [
                    {"to": [anyone_here]},
                    {"ports": dns},
                    {"to": [outside], "ports": [{"protocol": "TCP", "port": HTTPS_PORT}]},
                ],
            },
        ),
    ]


def _policy(name: str, rules: Mapping[str, Any]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {}, **rules},
    }


def _quota(spec: LabSpec) -> Manifest:
    """No public address, which would cost money by itself and outlive a cluster's own deletion; no flood of pods.

    GPUs are capped at what the lab's nodes have where charts bring its pods. A lab whose manifests are the stack may be
    about a quota, and then the only one must be its own.
    """
    hard = {"pods": str(MOST_PODS), "services.loadbalancers": "0", "services.nodeports": "0"}
    if spec.stack.components:
        nodes = [spec.nodes_of(variant) for variant in spec.variants]
        if gpus := max(node.gpus * node.count for node in nodes):
            hard[f"requests.{GPU}"] = str(gpus)
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "lab-guard"},
        "spec": {"hard": hard},
    }


def secret_names(values: Any) -> Iterator[str]:
    """Every Secret that Helm values refer to by a key `secretName`, at any depth."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key == "secretName" and isinstance(value, str):
                yield value
            else:
                yield from secret_names(value)
    elif isinstance(values, list):
        for value in values:
            yield from secret_names(value)


def external_secrets(names: Collection[str], *, store: str) -> list[Manifest]:
    """Objects by which the External Secrets operator brings each named Secret from the cluster's secret store `store`.

    All properties of the store's entry of that name become the Secret's keys. No value passes through this process.
    """
    return [
        {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": {"name": name},
            "spec": {
                "refreshInterval": "1h",
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": store},
                "target": {"name": name},
                "dataFrom": [{"extract": {"key": name}}],
            },
        }
        for name in sorted(names)
    ]


def without_secrets(values: Any) -> Any:
    """A copy of Helm values without the mappings that name a Secret: for models that anyone may read."""
    if isinstance(values, Mapping):
        return {
            key: without_secrets(value)
            for key, value in values.items()
            if not (isinstance(value, Mapping) and "secretName" in value)
        }
    if isinstance(values, list):
        return [without_secrets(value) for value in values]
    return values
