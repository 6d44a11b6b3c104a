"""What the status of a pod says, as scheduler and kubelet of a real cluster write it.

Belongs here: statuses that a test may give to a pod, and their parts. Doesn't belong here: when a pod gets which
(kubelet.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


def unschedulable(message: str) -> Json:
    """The status of a pod that the scheduler can't place."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def waiting(reason: str, message: str) -> Json:
    """The status of a pod that has a node, and a container that does not start."""
    scheduled = {"type": "PodScheduled", "status": "True"}
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "conditions": [scheduled], "containerStatuses": [{"name": "c", "state": state}]}


def ended(exit_code: int, message: str) -> Json:
    """The status of a pod whose container has ended, with what it left as its termination message."""
    state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}}
    phase = "Failed" if exit_code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"name": "c", "state": state}]}


RUNNING: Json = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}


def is_ready(pod: Json) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(pod))


def is_over(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_bound(pod: Json) -> bool:
    return any(one["type"] == "PodScheduled" and one["status"] == "True" for one in _conditions(pod))


def _conditions(pod: Json) -> list[Json]:
    return (pod.get("status") or {}).get("conditions") or []


def with_condition(status: Json, kind: str, value: bool, at: str, *, reason: str = "", message: str = "") -> Json:
    """The status with one condition set; its transition time is kept while its value is the same."""
    said = "True" if value else "False"
    former = next((one for one in status.get("conditions") or [] if one["type"] == kind), None)
    condition = {"type": kind, "status": said, "lastTransitionTime": at}
    if former and former["status"] == said:
        condition["lastTransitionTime"] = former["lastTransitionTime"]
    condition |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
    others = [one for one in status.get("conditions") or [] if one["type"] != kind]
    return {**status, "conditions": [*others, condition]}


def now() -> str:
    """As metav1.Time has it: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """As metav1.MicroTime has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
