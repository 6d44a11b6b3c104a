"""Evicting pods, which a disruption budget may forbid.

Belongs here: the rule and its words. Doesn't belong here: the life of a pod (kubelet.py).
"""

from __future__ import annotations

from typing import Any

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support.kube import selectors, statuses
from tests.support.kube.kinds import Json
from tests.support.kube.store import Key, Store


def evict(store: Store, key: Key) -> None:
    """Delete a pod, unless a disruption budget needs it; one that is Pending never is. Raises `RefusedError`."""
    pod = store.get(key)
    if pod is None:
        return
    if pod["status"].get("phase") == "Running":
        for budget in store.of("poddisruptionbudgets.policy", key.namespace):
            _hold_to(store, budget, pod)
    store.delete(key)


def _hold_to(store: Store, budget: Json, pod: Json) -> None:
    selects = selectors.by_object(budget["spec"].get("selector"))
    if not selects(pod["metadata"].get("labels") or {}):
        return
    all_of_it = [
        one
        for one in store.of("pods", pod["metadata"]["namespace"])
        if selects(one["metadata"].get("labels") or {}) and not statuses.is_over(one)
    ]
    healthy = sum(statuses.is_ready(one) for one in all_of_it)
    needs = _needs(budget["spec"], len(all_of_it))
    if healthy - 1 < needs:
        raise RefusedError(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")


def _needs(spec: Json, expected: int) -> int:
    """How many pods a disruption budget keeps."""

    def of(amount: Any) -> int:
        if isinstance(amount, str) and amount.endswith("%"):
            return -(-expected * int(amount[:-1]) // 100)
        return int(amount)

    return of(spec["minAvailable"]) if "minAvailable" in spec else max(expected - of(spec["maxUnavailable"]), 0)
