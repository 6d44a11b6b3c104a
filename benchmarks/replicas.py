"""What 1 to 64 replicas make of the same 1,000 requests per second: p99, cost per token, and how long it takes to know.

A router in virtual time sends each request to the replica with the fewest unfinished ones; it learns of an end when
the step that brought it is over. The load is the same for every number of replicas, so that the table answers how
many it takes. Where they are too few the queue grows until the end, and a request without a first token counts with
the time that it has waited so far: those quantiles are lower bounds.

Doesn't belong here: a single replica's speed (engine_loop.py).
"""

from __future__ import annotations

import random
import resource
import time
from dataclasses import dataclass
from decimal import Decimal
from heapq import heappop, heappush

from benchmarks.figures import Figure, quantile
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.setup import EngineModel

NAME = "replicas"
COUNTS = (1, 2, 4, 8, 16, 32, 64)
REQUESTS_PER_S = 1000.0
SHORTEST, LONGEST = 64, 192
"""Tokens in, and tokens out, each drawn evenly: 128 on average."""
ARGUMENTS = ["microsoft/Phi-3-mini-4k-instruct", "--no-enable-prefix-caching"]
GPU, SKU, REGION = "A100-80G", "Standard_NC24ads_A100_v4", "eastus"
SEED = 64
WALL_SHARE = 180.0 / 600.0
"""Wall seconds per virtual second that may pass with the most replicas: three minutes for ten."""


@dataclass(frozen=True)
class Outcome:
    """Seconds are virtual, but for `wall_s`."""

    replicas: int
    sent: int
    ended: int
    waiting: int
    """Requests without a first token when time was up."""
    output_tokens: int
    """Of the requests that ended in time."""
    ttft_p50_s: float
    ttft_p99_s: float
    usd_per_million: Decimal
    """USD for a million output tokens: all replicas' node-hours over the tokens."""
    wall_s: float

    @property
    def keeps_up(self) -> bool:
        """Fewer wait than arrive in a second: the queue doesn't grow."""
        return self.waiting < REQUESTS_PER_S


class Router:
    """Replicas side by side, of which each request goes to the one with the fewest unfinished requests."""

    def __init__(self, model: EngineModel, replicas: int) -> None:
        # Between two arrivals at a router there is no time for a leap of any one replica.
        self.replicas: list[Replica[Tracked]] = [
            Replica(model.engine(), model.cost, start_s=0.0, leaps=False) for _ in range(replicas)
        ]
        self._unfinished = [0] * replicas
        self._ends: list[list[Tracked]] = [[] for _ in range(replicas)]
        """Requests whose last step is taken but not over at the time that the router has come to."""
        self._due: list[tuple[float, int]] = []
        """When the current step of each busy replica is over; a heap."""
        self.ended: list[Tracked] = []

    def send(self, request: Tracked) -> int:
        """Requests come in the order of their arrival. The number of the replica that gets this one."""
        self.advance(request.arrived_s)
        unfinished = self._unfinished
        least = min(unfinished)
        chosen = unfinished.index(least)
        unfinished[chosen] += 1
        self.replicas[chosen].submit(request)
        if not least:
            heappush(self._due, (request.arrived_s, chosen))
        return chosen

    def advance(self, until_s: float) -> None:
        """Let all steps begin that begin before `until_s`, and learn of the ends until then."""
        due, ends = self._due, self._ends
        while due and due[0][0] < until_s:
            _, chosen = heappop(due)
            if ends[chosen]:
                self.ended += ends[chosen]
                self._unfinished[chosen] -= len(ends[chosen])
            replica = self.replicas[chosen]
            ends[chosen] = replica.advance(until_s)
            if self._unfinished[chosen]:
                heappush(due, (replica.now_s, chosen))


def measure(*, counts: tuple[int, ...] = COUNTS, virtual_s: float) -> list[Figure]:
    """A few figures for each number of replicas; the bound is on the wall time with the most."""
    model = EngineModel.of(ARGUMENTS, GPU)
    figures: list[Figure] = []
    for count in counts:
        outcome = simulate(model, count, virtual_s)
        named = f"{count} replica{'s' if count > 1 else ''}"
        too_few = f"too few: {outcome.waiting:,} requests still wait, so the quantiles are lower bounds"
        note = "" if outcome.keeps_up else too_few
        figures += [
            Figure(NAME, f"{named}, TTFT p50", outcome.ttft_p50_s * 1000, "ms"),
            Figure(NAME, f"{named}, TTFT p99", outcome.ttft_p99_s * 1000, "ms", note=note),
            Figure(NAME, f"{named}, output tokens/s", outcome.output_tokens / virtual_s, "tokens/s"),
            Figure(NAME, f"{named}, USD per 1M output tokens", float(outcome.usd_per_million), "USD"),
            Figure(
                NAME,
                f"{named}, wall time of {virtual_s:g} virtual seconds",
                outcome.wall_s,
                "s",
                at_most=WALL_SHARE * virtual_s if count == max(COUNTS) else None,
            ),
        ]
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [*figures, Figure(NAME, "peak memory of this process", peak_gib, "GiB", at_most=1.0)]


def simulate(model: EngineModel, replicas: int, virtual_s: float) -> Outcome:
    """`REQUESTS_PER_S` as a Poisson process for `virtual_s` seconds; what has ended by then counts."""
    draw = random.Random(SEED)
    router = Router(model, replicas)
    requests: list[Tracked] = []
    began = time.perf_counter()
    now_s = draw.expovariate(REQUESTS_PER_S)
    while now_s < virtual_s:
        request = Tracked(draw.randint(SHORTEST, LONGEST), draw.randint(SHORTEST, LONGEST), arrived_s=now_s)
        requests.append(request)
        router.send(request)
        now_s += draw.expovariate(REQUESTS_PER_S)
    router.advance(virtual_s)
    wall_s = time.perf_counter() - began
    ttfts_s = [_waited_s(request, virtual_s) for request in requests]
    tokens = sum(request.output_tokens for request in router.ended)
    node_hour_usd = load_prices().price(SKU, REGION).on_demand
    usd = node_hour_usd * replicas * Decimal(virtual_s) / 3600
    return Outcome(
        replicas=replicas,
        sent=len(requests),
        ended=len(router.ended),
        waiting=sum(_unanswered(request, virtual_s) for request in requests),
        output_tokens=tokens,
        ttft_p50_s=quantile(ttfts_s, 0.50),
        ttft_p99_s=quantile(ttfts_s, 0.99),
        usd_per_million=usd / tokens * 1_000_000,
        wall_s=wall_s,
    )


def _unanswered(request: Tracked, at_s: float) -> bool:
    return request.first_token_s is None or request.first_token_s > at_s


def _waited_s(request: Tracked, at_s: float) -> float:
    """For its first token, or so far."""
    first_s = at_s if request.first_token_s is None else min(request.first_token_s, at_s)
    return first_s - request.arrived_s
