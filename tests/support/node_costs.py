"""What a session's nodes cost as a whole, for tests that hold the sum of its parts against it.

Doesn't belong here: the parts (lab_pipelines/cost.py).
"""

from __future__ import annotations

from decimal import Decimal

from lab_pipelines.lanes import DECIMALS, ClosedSession, all_its_time, lane_of


def node_hours(session: ClosedSession) -> Decimal:
    """Node-hours of nodes that the session held alone: nodes x (cold start + time held since), to nine decimals."""
    return Decimal(lane_of(session, all_its_time(session), usd_per_node_hour=None).hours).scaleb(-DECIMALS)


def node_cost(session: ClosedSession, usd_per_node_hour: Decimal) -> Decimal:
    """What they cost in USD, to nine decimals: what the parts of `split_session` sum to."""
    usd = lane_of(session, all_its_time(session), usd_per_node_hour=usd_per_node_hour).usd
    assert usd is not None
    return Decimal(usd).scaleb(-DECIMALS)
