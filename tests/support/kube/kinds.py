"""Which kinds the double serves, where each lives, and what a field of theirs may be asked for.

Belongs here: the table, and the kinds that a CustomResourceDefinition adds. Doesn't belong here: what becomes of an
object (store.py, controllers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind at one API version."""

    group: str
    """Empty for the core group."""
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    custom: bool = False
    """The kubernetes package has no model of it."""
    schema: Mapping[str, Any] | None = None
    """The openAPIV3Schema of a kind that a definition brought."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As error messages and RBAC name it: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """As validation messages name it: `Pod`, `Deployment.apps`."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


def _kinds(group: str, version: str, namespaced: Mapping[str, str], scoped: Mapping[str, str]) -> Iterator[Kind]:
    for kind, plural in namespaced.items():
        yield Kind(group, version, kind, plural)
    for kind, plural in scoped.items():
        yield Kind(group, version, kind, plural, namespaced=False)


BUILT_IN = (
    *_kinds(
        "",
        "v1",
        {
            "Pod": "pods",
            "ConfigMap": "configmaps",
            "Endpoints": "endpoints",
            "Event": "events",
            "LimitRange": "limitranges",
            "PersistentVolumeClaim": "persistentvolumeclaims",
            "ResourceQuota": "resourcequotas",
            "Secret": "secrets",
            "Service": "services",
            "ServiceAccount": "serviceaccounts",
        },
        {"Namespace": "namespaces", "Node": "nodes"},
    ),
    *_kinds(
        "apps",
        "v1",
        {
            "DaemonSet": "daemonsets",
            "Deployment": "deployments",
            "ReplicaSet": "replicasets",
            "StatefulSet": "statefulsets",
        },
        {},
    ),
    *_kinds("batch", "v1", {"Job": "jobs", "CronJob": "cronjobs"}, {}),
    *_kinds("discovery.k8s.io", "v1", {"EndpointSlice": "endpointslices"}, {}),
    *_kinds("networking.k8s.io", "v1", {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}, {}),
    *_kinds("policy", "v1", {"PodDisruptionBudget": "poddisruptionbudgets"}, {}),
    *_kinds("autoscaling", "v2", {"HorizontalPodAutoscaler": "horizontalpodautoscalers"}, {}),
    *_kinds("coordination.k8s.io", "v1", {"Lease": "leases"}, {}),
    *_kinds(
        "rbac.authorization.k8s.io",
        "v1",
        {"Role": "roles", "RoleBinding": "rolebindings"},
        {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"},
    ),
    *_kinds(
        "admissionregistration.k8s.io",
        "v1",
        {},
        {
            "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
            "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
        },
    ),
    *_kinds("scheduling.k8s.io", "v1", {}, {"PriorityClass": "priorityclasses"}),
    *_kinds("storage.k8s.io", "v1", {}, {"StorageClass": "storageclasses"}),
    *_kinds("apiextensions.k8s.io", "v1", {}, {"CustomResourceDefinition": "customresourcedefinitions"}),
    Kind("secrets-store.csi.x-k8s.io", "v1", "SecretProviderClass", "secretproviderclasses", custom=True),
)

SUBRESOURCES: Mapping[str, tuple[str, ...]] = {
    "pods": ("status", "log", "eviction", "portforward", "proxy", "binding"),
    "nodes": ("status",),
    "services": ("status", "proxy"),
    "namespaces": ("status", "finalize"),
    "deployments": ("status", "scale"),
    "replicasets": ("status", "scale"),
    "statefulsets": ("status", "scale"),
}

FIELDS: Mapping[str, tuple[str, ...]] = {
    "pods": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"),
    "events": (
        *(f"involvedObject.{name}" for name in ("apiVersion", "kind", "name", "namespace", "uid")),
        "reason",
        "type",
    ),
    "secrets": ("type",),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
}


def selectable(kind: Kind) -> tuple[str, ...]:
    """The fields by which a list of the kind may be filtered; any other is refused, as a real server does."""
    return ("metadata.name", *(("metadata.namespace",) if kind.namespaced else ()), *FIELDS.get(kind.plural, ()))


def defined_by(definition: Json) -> list[Kind]:
    """The kinds of a CustomResourceDefinition, one for each served version, the stored one first."""
    spec = definition["spec"]
    versions = sorted((one for one in spec["versions"] if one["served"]), key=lambda one: not one["storage"])
    return [
        Kind(
            spec["group"],
            one["name"],
            spec["names"]["kind"],
            spec["names"]["plural"],
            namespaced=spec["scope"] == "Namespaced",
            custom=True,
            schema=(one.get("schema") or {}).get("openAPIV3Schema"),
        )
        for one in versions
    ]
