"""An existing Secret for a lab's namespace: copied from the namespace that a person keeps it in.

Belongs here: the copy, and nothing that could show it. Doesn't belong here: which Secrets a lab refers to
(kube_namespace.py), or bringing them by the External Secrets operator, which should be preferred.

A value goes from one answer of the API server into the next request, and nowhere else: no message here has any part of
an object that was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from resources import kube_api
from resources.cluster import ClusterError
from resources.kube_api import Deadline, RefusedError
from resources.ownership import MANAGED_BY, MANAGED_BY_LABEL

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


def copy(
    api_client: ApiClient,
    names: Sequence[str],
    *,
    source: str,
    namespace: str,
    labels: Mapping[str, str],
    deadline: Deadline,
) -> None:
    """Copy each Secret of `names` from namespace `source`. Raises `ClusterError` for one that isn't there."""
    for name in names:
        try:
            found = kube_api.request(
                api_client, "GET", f"/api/v1/namespaces/{source}/secrets/{name}", deadline=deadline
            )
            body = {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": found.get("type", "Opaque"),
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": {**labels, MANAGED_BY_LABEL: MANAGED_BY},
                },
                "data": found.get("data") or {},
            }
            path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
            query = {"fieldManager": MANAGED_BY, "force": "true"}
            kube_api.request(api_client, "PATCH", path, query=query, body=body, deadline=deadline)
        except RefusedError as refused:
            raise ClusterError(
                f"Secret {source}/{name} can't be copied to {namespace} ({refused.status} {refused.reason}); make it "
                f"there, or unset LABS_SECRETS_NAMESPACE if its model needs none"
            ) from None
