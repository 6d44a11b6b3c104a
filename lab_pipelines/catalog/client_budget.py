"""How far off the load generator itself may be, before what it measured is not to be believed.

Belongs here: the bounds, and what is taken where a lab states none. Doesn't belong here: what a client was found to be
(lab_pipelines/client_errors.py).
"""

from __future__ import annotations

from pydantic import Field

from lab_pipelines.catalog.strict import SpecModel


class ClientBudget(SpecModel):
    """Bounds for each load stage; one beyond them has no valid requests.

    Unlike the rest of a spec in *wall* seconds: a client is late by the wall clock, however fast the stack's runs.

    The defaults hold on two busy cores, and not on ones that have several times the work they can do
    (docs/load-generation.md).
    """

    schedule_lag_p99_wall_s: float = Field(default=0.05, gt=0)
    """A request was taken up so much later than it could have been sent."""
    ttft_lag_p99_wall_s: float = Field(default=0.05, gt=0)
    """An answer's first event was read so much later than the server had sent it."""
    receive_lag_p99_wall_s: float = Field(default=0.1, gt=0)
    """Of half of the requests, one event in a hundred was read so much later than the server had sent it."""
    event_loop_lag_p99_wall_s: float = Field(default=0.05, gt=0)
    """An event would have been noticed so late by the load process that was latest."""
    cpu_share: float = Field(default=0.9, gt=0, le=1)
    """Of one core, by the load process that used most: each has one thread, and near 1 it is the bottleneck."""
    ttft_error_share: float = Field(default=0.1, gt=0)
    """Error of a median TTFT over the TTFT: of a fast stack, or at a fast clock, milliseconds are much. Not judged at a
    pace that is not for baselines."""
