"""What an API server of Kubernetes 1.36 makes of a pod before anyone schedules it: defaults, validation, limits, quota.

Belongs here: the rules that a pod with a GPU meets, pure, in the words of a real control plane.
Doesn't belong here: which node a pod gets (scheduler.py), or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

Json = dict[str, Any]


class RefusedError(Exception):
    """The API server turns an object down: an HTTP status, its reason in one word, and the message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


def admit(pod: Json, *, limit_ranges: Sequence[Json], quotas: Iterable[Json], others: Sequence[Json]) -> None:
    """Fill a LimitRange's defaults into `pod`, and raise `RefusedError` if it may not be.

    All are objects as the API has them, `others` the pods of the namespace: each counts, wherever it is, as long as it
    has not ended.
    """
    _fill_in(pod, limit_ranges)
    _validate(pod)
    _hold_to(pod, limit_ranges)
    for quota in quotas:
        _count(pod, quota, others)


def quantity(said: str | int | float) -> Decimal:
    """An amount as Kubernetes writes it: `500m`, `16Gi`, `"1"`."""
    from kubernetes.utils.quantity import parse_quantity

    return parse_quantity(said)


def asked(pod: Json, key: str) -> Decimal:
    """What a pod's containers state together for a quota's key, e.g. `requests.memory`; a limit alone is a request."""
    amounts = [_amount(container, key) for container in pod["spec"]["containers"]]
    return sum((quantity(amount) for amount in amounts if amount), Decimal(0))


def used(quota: Json, pods: Sequence[Json]) -> dict[str, Decimal]:
    """What the pods use of a ResourceQuota, by its keys."""
    return {key: sum((asked(pod, key) for pod in pods), Decimal(0)) for key in quota["spec"]["hard"]}


def _count(pod: Json, quota: Json, others: Sequence[Json]) -> None:
    name, hard = quota["metadata"]["name"], quota["spec"]["hard"]
    silent = [
        f"{key} for: {container['name']}"
        for key in sorted(hard)
        for container in pod["spec"]["containers"]
        if key.split(".", 1)[1] in ("cpu", "memory") and not _amount(container, key)
    ]
    forbidden = f'pods "{pod["metadata"]["name"]}" is forbidden: '
    if silent:
        raise RefusedError(403, "Forbidden", f"{forbidden}failed quota: {name}: must specify {'; '.join(silent)}")
    wants, has = {key: asked(pod, key) for key in hard}, used(quota, others)
    if over := [key for key in sorted(hard) if wants[key] and has[key] + wants[key] > quantity(hard[key])]:
        said = [",".join(f"{key}={part[key]}" for key in over) for part in (wants, has, hard)]
        message = f"exceeded quota: {name}, requested: {said[0]}, used: {said[1]}, limited: {said[2]}"
        raise RefusedError(403, "Forbidden", f"{forbidden}{message}")


def _amount(container: Json, key: str) -> str | None:
    """What a container states for a quota's key, e.g. requests.memory; a limit alone is also the request."""
    which, resource = key.split(".", 1)
    resources = container.get("resources") or {}
    limit = (resources.get("limits") or {}).get(resource)
    return limit if which == "limits" else (resources.get("requests") or {}).get(resource, limit)


def _fill_in(pod: Json, limit_ranges: Sequence[Json]) -> None:
    """A LimitRange's defaults, into each container that says nothing of a resource."""
    for rule in (rule for one in limit_ranges for rule in one["spec"]["limits"]):
        for container in pod["spec"]["containers"]:
            resources = container.setdefault("resources", {})
            for part, defaults in (("requests", "defaultRequest"), ("limits", "default")):
                filled = {**rule.get(defaults, {}), **resources.get(part, {})}
                if part == "requests":  # a limit that the container states is also its request
                    filled |= {name: amount for name, amount in resources.get("limits", {}).items() if name in filled}
                    filled |= resources.get("requests", {})
                resources[part] = filled


def _hold_to(pod: Json, limit_ranges: Sequence[Json]) -> None:
    for rule in (rule for one in limit_ranges for rule in one["spec"]["limits"]):
        for container in pod["spec"]["containers"]:
            for name, most in rule.get("max", {}).items():
                asked = container["resources"]["limits"].get(name)
                if asked and quantity(asked) > quantity(most):
                    said = f"maximum {name} usage per Container is {most}, but limit is {asked}"
                    raise RefusedError(403, "Forbidden", f'pods "{pod["metadata"]["name"]}" is forbidden: {said}')


def _validate(pod: Json) -> None:
    """The rules of extended resources: whole numbers, a limit, and a request that equals it."""
    wrong: list[str] = []
    for index, container in enumerate(pod["spec"]["containers"]):
        where = f"spec.containers[{index}].resources"
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in sorted({one for one in (*limits, *requests) if "/" in one}):
            for part, amounts in (("limits", limits), ("requests", {**limits, **requests})):
                if name in amounts and quantity(amounts[name]) % 1:
                    milli = f"{int(quantity(amounts[name]) * 1000)}m"
                    wrong.append(f'{where}.{part}[{name}]: Invalid value: "{milli}": must be an integer')
            if name in requests and name not in limits:
                wrong.append(f"{where}.limits: Required value: Limit must be set for non overcommitable resources")
            elif name in requests and requests[name] != limits[name]:
                said = f"must be equal to {name} limit of {limits[name]}"
                wrong.append(f'{where}.requests: Invalid value: "{requests[name]}": {said}')
    if wrong:
        listed = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
        raise RefusedError(422, "Invalid", f'Pod "{pod["metadata"]["name"]}" is invalid: {listed}')
