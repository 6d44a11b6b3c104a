"""From one variant of a lab to the next: each has a session, and its rows are complete before the next begins.

Belongs here: what is published when a variant's stack is up, and the switch to the next.
Doesn't belong here: what the steps of a variant do (steps.py), or how a target switches (resources/cluster_*.py).
"""

from __future__ import annotations

import re

from assets.common import publish
from lab_pipelines.catalog.claims import DEPLOY
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.rows.events import cold_start_events, event_row, milestone_events
from lab_pipelines.rows.sessions import session_row
from lab_pipelines.turns import Visit
from resources.cluster import Cluster, ClusterError, Progress, Session, StackOrder
from resources.warehouse import Warehouse


def publish_opening(warehouse: Warehouse, session: Session, variant: Variant) -> None:
    """The rows of a stack that has come up, or that was refused."""
    publish(warehouse, "stack_sessions", [session_row(session, released_at=None)], session, part="open")
    events = cold_start_events(session, session.phases)
    deployed = event_row(
        session,
        DEPLOY,
        DEPLOY,
        started_at=session.requested_at,
        ended_at=session.ready_at,
        outcome="ok" if as_expected(variant, session.refusal) else "failed",
        detail={"refusal": session.refusal, "expected": variant.refused},
    )
    milestones = milestone_events(session)
    publish(warehouse, "events", [*milestones, *events, deployed], session, part="deploy")


def as_expected(variant: Variant, refusal: str | None) -> bool:
    """Whether the engine came up, or refused to with the reason that the spec expects."""
    if variant.refused is None or refusal is None:
        return variant.refused == refusal
    return re.search(variant.refused, refusal) is not None


def switch(
    session: Session, spec: LabSpec, visit: Visit, *, cluster: Cluster, warehouse: Warehouse, progress: Progress
) -> Session:
    """End `session` and bring up the next visit's variant; both are published.

    Raises `ClusterError` for one that should come up and doesn't.
    """
    variant = visit.variant
    order = StackOrder(
        spec=spec,
        variant=variant,
        trial=visit.trial,
        run_id=session.run_id,
        pace_name=session.pace,
        pace=spec.paces[session.pace],
        hold=None,
    )
    turn = "" if visit.trial == 1 else f", in turn {visit.trial}"
    progress(f"{session.variant} is done; {variant.id} is next{turn}")
    following = cluster.switch(session, order, progress=progress)
    closed = session_row(session, released_at=following.requested_at)
    publish(warehouse, "stack_sessions", [closed], session, part="closed")
    publish_opening(warehouse, following, variant)
    if following.refusal is not None:
        if variant.refused is None:
            raise ClusterError(f"variant {variant.id} of {spec.id} does not come up: {following.refusal}")
        said = "as expected" if as_expected(variant, following.refusal) else "but for another reason than expected"
        progress(f"{variant.id} is refused, {said}: {following.refusal}")
    return following
