"""When what happened to a pod on its way to the first token: from what Azure, node, pod, events and the log say.

Belongs here: pure functions from the API server's JSON and a container's log to milestones and phases.
Doesn't belong here: asking for them (kube_cold_start.py).

The API server stamps most things in whole seconds, and the kubelet's clock is another than this machine's: a milestone
that seems to precede the one before it is taken to be at the same time. What nobody stamped is left out, and its time
belongs to the phase that follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

from resources.cluster import ColdStartPhase, Milestone, MilestoneName, Phase

ORDER: tuple[MilestoneName, ...] = get_args(MilestoneName)
OUR_CLOCK, AZURE = "this machine's clock", "Azure's node pool"
"""Whose stamp a milestone is, where no object of the cluster has it."""
MODEL_LOADED = re.compile(r"Model loading took [0-9.]+ (GiB|GB)")
"""What vLLM says once its weights are on the GPU (vllm/v1/worker/gpu_model_runner.py)."""

PHASE_ENDS: Mapping[MilestoneName, ColdStartPhase] = {
    "node_ready": "node_ready",
    "scheduled": "driver_ready",
    "started": "image_pulled",
    "model_loaded": "model_loaded",
    "ready": "engine_ready",
}
"""The phase that a milestone ends. A pod that asks for a GPU is placed once the node's device plugin has registered it,
so on a new node the time from Ready to scheduled is the driver's."""


class LogLine(NamedTuple):
    """One line of a container's log, with the kubelet's stamp."""

    at: datetime
    text: str


class Played(NamedTuple):
    """A phase that the modelled server waited for in its own time, so that its log alone knows its stack seconds."""

    name: Literal["model_loaded", "engine_ready"]
    started_at: datetime
    ended_at: datetime
    duration_s: float


def milestones(
    pod: Mapping[str, Any],
    events: Iterable[Mapping[str, Any]],
    node: Mapping[str, Any] | None,
    log: Sequence[LogLine],
    *,
    requested_at: datetime,
    scaled_at: datetime | None,
    container: str | None = None,
) -> list[Milestone]:
    """What happened to `pod` (the API server's JSON, as `node` and `events`) from the request on, in order.

    `scaled_at` is when Azure said that the pool had its nodes. `container` is the one that serves; None: the first.
    A node that was there before the request has no milestones of its own.
    """
    status = pod.get("status") or {}
    name = container or pod["spec"]["containers"][0]["name"]
    found: dict[MilestoneName, tuple[datetime | None, str]] = {"scaled_out": (scaled_at, AZURE)}
    created_at = _time(node["metadata"].get("creationTimestamp")) if node is not None else None
    if node is not None and created_at is not None and created_at >= requested_at:
        found["node_created"] = (created_at, "the node's creation")
        found["node_ready"] = (_condition(node, "Ready"), "the node's condition Ready")
    found["scheduled"] = (_condition(pod, "PodScheduled"), "the pod's condition PodScheduled")
    pulled = [_event_time(one) for one in events if one.get("reason") == "Pulled" and _is_about(one, pod, name)]
    found["image_pulled"] = (min((at for at in pulled if at is not None), default=None), "the kubelet's event Pulled")
    statuses = status.get("containerStatuses") or []
    running = next((one.get("state", {}).get("running") for one in statuses if one["name"] == name), None)
    found["started"] = (_time((running or {}).get("startedAt")), "the container's status")
    loaded = next((line.at for line in log if MODEL_LOADED.search(line.text)), None)
    played = {one.name: one for one in played_phases(log)}
    if loaded is None and "model_loaded" in played:
        loaded = played["model_loaded"].ended_at
    found["model_loaded"] = (loaded, "the server's log")
    found["ready"] = (_condition(pod, "Ready"), "the pod's condition Ready")
    result = [Milestone(name="requested", at=requested_at, source=OUR_CLOCK)]
    for known in ORDER:
        at, source = found.get(known, (None, ""))
        if at is not None:
            result.append(Milestone(name=known, at=max(at, result[-1].at), source=source))
    return result


def ready_at(pod: Mapping[str, Any]) -> datetime:
    """Since when a pod is ready; the beginning of time for one that isn't."""
    return _condition(pod, "Ready") or datetime.min.replace(tzinfo=UTC)


def json_lines(lines: Iterable[LogLine], *, since: datetime) -> list[dict[str, Any]]:
    """The lines that are JSON objects, from `since` on, oldest first: `ts` in Unix seconds, their fields, their text.

    A line's own `ts` counts where it has one.
    """
    found = []
    for line in lines:
        try:
            said = json.loads(line.text)
        except ValueError:
            continue
        if isinstance(said, dict) and line.at >= since:
            found.append({"ts": line.at.timestamp(), **said, "line": line.text})
    return sorted(found, key=lambda said: said["ts"])


def phases(reached: Sequence[Milestone], log: Sequence[LogLine]) -> list[Phase]:
    """The phases between milestones, without gaps from the request to readiness, in stack seconds.

    A phase that the modelled server played has the duration that its log gives. On a node that was there the way to the
    container's start is one phase, `image_pulled`.
    """
    played = {one.name: one.duration_s for one in played_phases(log)}
    new_node = any(one.name == "node_ready" for one in reached)
    result, began = list[Phase](), reached[0].at
    for one in reached:
        phase = PHASE_ENDS.get(one.name)
        if phase is None or (phase == "driver_ready" and not new_node):
            continue
        wall_s = (one.at - began).total_seconds()
        result.append(Phase(name=phase, started_at=began, ended_at=one.at, duration_s=played.get(phase, wall_s)))
        began = one.at
    return result


def played_phases(log: Iterable[LogLine]) -> list[Played]:
    """The phases that a modelled server's log tells of, in its order; none for another server's log."""
    found = []
    for line in log:
        if '"cold_start"' not in line.text:
            continue
        try:
            said = json.loads(line.text)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("event") == "cold_start":
            started_at, ended_at = (
                datetime.fromtimestamp(said[stamp], line.at.tzinfo) for stamp in ("started_at", "ended_at")
            )
            found.append(Played(said["phase"], started_at, ended_at, said["duration_s"]))
    return found


def log_lines(text: str) -> list[LogLine]:
    """Lines of a container's log that was asked for with timestamps; a line without one is left out."""
    lines = []
    for line in text.splitlines():
        stamp, _, said = line.partition(" ")
        if (at := _time(stamp)) is not None:
            lines.append(LogLine(at, said))
    return lines


def _is_about(event: Mapping[str, Any], pod: Mapping[str, Any], container: str) -> bool:
    about = event.get("involvedObject") or event.get("regarding") or {}
    # An init container's image is another one; an event that names no container is the pod's as a whole.
    path = about.get("fieldPath") or ""
    return about.get("uid") == pod["metadata"].get("uid") and path in ("", f"spec.containers{{{container}}}")


def _event_time(event: Mapping[str, Any]) -> datetime | None:
    return _time(event.get("eventTime")) or _time(event.get("lastTimestamp")) or _time(event.get("firstTimestamp"))


def _condition(thing: Mapping[str, Any], kind: str) -> datetime | None:
    """Since when a condition is true; None while it isn't."""
    for one in (thing.get("status") or {}).get("conditions") or []:
        if one["type"] == kind and one["status"] == "True":
            return _time(one.get("lastTransitionTime"))
    return None


def _time(text: object) -> datetime | None:
    """A timestamp of the API server. The kubelet writes nanoseconds, of which Python reads six digits."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
    except ValueError:
        return None
