"""How a release in a cluster came up: asked of the API server, of the engine itself, and of Prometheus.

Belongs here: asking for what makes a cold start's milestones and phases, up to the first token and the first scrape.
Doesn't belong here: what follows from the answers (kube_timeline.py), or installing the release
(cluster_kubernetes.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from resources import kube_deadlines, kube_timeline
from resources.cluster import Milestone, Phase, Progress, Session
from resources.first_token import first_token
from resources.kube_api import Deadline
from resources.kube_pods import ReleasePods
from resources.kube_stack import Release
from resources.prometheus_server import scraped

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


def reached(
    api: ApiClient, release: Release, namespace: str, *, requested_at: datetime, scaled_at: datetime | None
) -> tuple[list[Milestone], list[Phase]]:
    """Milestones and phases of a release that is ready; `scaled_at` is when Azure had given nodes for it."""
    pods, deadline = ReleasePods(api, namespace, release.name), Deadline.within(kube_deadlines.ASK_S)
    # Of several replicas the last one to be ready is what the stack waited for.
    last = max(pods.all(deadline), key=kube_timeline.ready_at)
    log = pods.log(last, container=release.container, deadline=deadline)
    milestones = kube_timeline.milestones(
        last,
        pods.events(last, deadline),
        pods.node(last, deadline),
        log,
        requested_at=requested_at,
        scaled_at=scaled_at,
        container=release.container,
    )
    return milestones, kube_timeline.phases(milestones, log)


def ask_first_token(session: Session) -> Phase:
    """The phase that ends the cold start of a session whose addresses can be used here. Raises `ClusterError`."""
    base_url = next(one.base_url for one in session.endpoints if one.kind == "vllm")
    assert base_url is not None and session.model is not None
    return first_token(base_url, session.model, time_scale=session.time_scale)


def with_first_token(session: Session, phase: Phase, progress: Progress) -> Session:
    """The session with the phase that ends its cold start."""
    milestone = Milestone(name="first_token", at=phase.ended_at, source="the answer to a request for one token")
    # Until this machine could ask, nothing served: no second between a pod's readiness and the request is lost.
    *former, last = session.phases
    gap_s = max((phase.started_at - session.ready_at).total_seconds(), 0.0)
    last = last.model_copy(update={"ended_at": phase.started_at, "duration_s": last.duration_s + gap_s})
    phases = [*former, last, phase]
    took_s = sum(one.duration_s for one in phases)
    progress(f"{session.variant}: {session.model} is ready after {took_s:.0f} s ({session.provenance})")
    return session.model_copy(
        update={
            "ready_at": phase.started_at,
            "phases": phases,
            "milestones": [*session.milestones, milestone],
        }
    )


def wait_for_scrape(session: Session, *, after: datetime, progress: Progress) -> None:
    """Until the session's Prometheus, at an address that can be used here, has found the new pods.

    A counter that grows before its first scrape has lost that growth.

    A Prometheus that never finds them leaves gaps, which the lab's measures will say; it is no reason to fail.
    """
    within_s = kube_deadlines.SCRAPED_S
    if not scraped(session.prometheus_url, session.metric_selector, after=after, deadline=Deadline.within(within_s)):
        progress(
            f"{session.variant}: Prometheus has not scraped {session.metric_selector} within {within_s:.0f} s; "
            "measures will be gaps. Does it select the namespace's ServiceMonitors?"
        )
