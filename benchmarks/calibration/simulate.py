"""Loads of equal requests on the engine model, in virtual time, and what their client would have seen.

Doesn't belong here: measurements, and comparing with them (compare.py).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.setup import EngineModel


class Seen(NamedTuple):
    """What a client saw: means over its requests, and quantiles over them of their own mean ITL. Seconds."""

    ttft_s: float
    itl_s: float
    itl_p50_s: float
    itl_p99_s: float
    e2e_s: float
    requests_per_s: float
    """From the start to the last token."""
    users: float
    """Requests at once, in the mean."""


def poisson_arrivals(requests: int, per_s: float, *, seed: int) -> list[float]:
    """Arrival times of a Poisson process from 0 on, of which so many come in exactly `requests / per_s` seconds."""
    numbers = random.Random(seed)
    gaps = [-math.log(1 - numbers.random()) for _ in range(requests)]
    scale = requests / per_s / sum(gaps)
    return [at * scale for at in itertools.accumulate(gaps)]


def guidellm_arrivals(requests: int, per_s: float, *, seed: int) -> list[float]:
    """Arrival times as guidellm of 2025 draws them: a second's requests at once, then exponential gaps.

    From its `AsyncPoissonStrategy` with `initial_burst`; the same seed gives the very times of a published run.
    """
    numbers = random.Random(seed)
    burst = min(math.floor(per_s), requests)
    gaps = [numbers.expovariate(per_s) for _ in range(requests - burst)]
    return [0.0] * burst + list(itertools.accumulate(gaps))


def sent_at(
    model: EngineModel,
    arrivals_s: Sequence[float],
    input_tokens: int,
    output_tokens: int,
    *,
    in_flight: int | None = None,
) -> Seen:
    """Requests that are sent at given times, whatever becomes of those before them.

    With `in_flight`, the client has at most so many under way and sends the next one when one has ended.
    """
    replica = _replica(model)
    ended: dict[Tracked, float] = {}
    sent, most = 0, in_flight or len(arrivals_s)
    while len(ended) < len(arrivals_s):
        while sent < len(arrivals_s) and sent - len(ended) < most:
            replica.submit(Tracked(input_tokens, output_tokens, arrived_s=max(arrivals_s[sent], replica.now_s)))
            sent += 1
        ended.update(dict.fromkeys(replica.advance(math.inf), replica.now_s))
    return _seen(ended)


def in_turn(model: EngineModel, users: int, requests: int, input_tokens: int, output_tokens: int) -> Seen:
    """So many requests at once: the next one comes when one has ended, until there were `requests`."""
    replica = _replica(model)
    for _ in range(users):
        replica.submit(Tracked(input_tokens, output_tokens, arrived_s=0.0))
    ended: dict[Tracked, float] = {}
    sent = users
    while len(ended) < requests:
        for request in replica.advance(math.inf):
            ended[request] = replica.now_s
            if sent < requests:
                replica.submit(Tracked(input_tokens, output_tokens, arrived_s=replica.now_s))
                sent += 1
    return _seen(ended)


def _replica(model: EngineModel) -> Replica[Tracked]:
    return Replica(model.engine(), model.cost, start_s=0.0)


def _seen(ended: dict[Tracked, float]) -> Seen:
    n, span_s = len(ended), max(ended.values())
    first = {request: request.first_token_s or 0.0 for request in ended}
    itls_s = sorted((at_s - first[request]) / (request.output_tokens - 1) for request, at_s in ended.items())
    e2e_s = sum(at_s - request.arrived_s for request, at_s in ended.items()) / n
    return Seen(
        ttft_s=sum(first[request] - request.arrived_s for request in ended) / n,
        itl_s=sum(itls_s) / n,
        itl_p50_s=itls_s[n // 2],
        itl_p99_s=itls_s[n * 99 // 100],
        e2e_s=e2e_s,
        requests_per_s=n / span_s,
        users=n * e2e_s / span_s,
    )
