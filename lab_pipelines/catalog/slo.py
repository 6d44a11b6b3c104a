"""A lab's objective: which of its successful requests were of use to whoever sent them.

Belongs here: the typed form of a spec's `slo`, and what holds for a lab that states none.
Doesn't belong here: what a useful token costs (finops.py), or counting them (session_work.sql).
"""

from __future__ import annotations

from pydantic import Field, model_validator

from lab_pipelines.catalog.strict import SpecModel


class Slo(SpecModel):
    """Upper bounds of one request's latencies in stack seconds, as the table `requests` has them.

    A request is useful when it succeeded and keeps every bound that is given. One that has no such latency at all does
    not keep it, but for the time per token of an answer of a single token.
    """

    ttft_s: float | None = Field(default=None, gt=0)
    """From the scheduled send time to the first token."""
    tpot_s: float | None = Field(default=None, gt=0)
    """For each token after it, on average over the answer."""
    e2e_s: float | None = Field(default=None, gt=0)
    """From the scheduled send time to the end of the answer; the only one that a plain GET can have."""

    @model_validator(mode="after")
    def _bounds_something(self) -> Slo:
        if self.ttft_s is None and self.tpot_s is None and self.e2e_s is None:
            raise ValueError("gives no bound; name at least one of ttft_s, tpot_s, e2e_s, or leave slo out")
        return self

    @property
    def line(self) -> str:
        """In one line, e.g. `TTFT 2 s, TPOT 0.08 s`."""
        bounds = [("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2E", self.e2e_s)]
        return ", ".join(f"{name} {bound:g} s" for name, bound in bounds if bound is not None)


INTERACTIVE = Slo(ttft_s=2.0, tpot_s=0.080)
"""For a lab of completions that states no objective: what the labs' rule for interactive work takes (L24). Our choice,
no standard's. The SQL in warehouse/ that repeats it is held to it by a test."""
