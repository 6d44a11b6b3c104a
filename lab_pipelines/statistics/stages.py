"""What a load stage's requests say: each quantity with its interval, where the warm-up ends, whether it was steady.

Belongs here: which estimator a quantity takes, and of which of the stage's values. Doesn't belong here: the estimators
themselves, or reading requests (assets/samples.py).

Latencies, throughput and their intervals leave the warm-up out, as far as one is found. Failures and goodput don't: a
request that failed or was too late in the warm-up was sent by somebody, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from lab_pipelines.statistics import means, quantiles, rates
from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, refused
from lab_pipelines.statistics.steady import Steadiness, steadiness
from lab_pipelines.statistics.warmup import WarmUp, warm_up

if TYPE_CHECKING:
    import numpy as np

SLICES = 200
"""Parts of a stage's time in which its tokens are counted; twenty make a batch."""
QUANTITIES = {
    "throughput": "tokens/s",
    **{
        f"{name}_p{q}": "s"
        for name, qs in (("ttft", (50, 95, 99)), ("tpot", (50, 95)), ("e2e", (50, 95, 99)))
        for q in qs
    },
    "normalised_p50": "s/token",
    "error_rate": "ratio",
    "goodput": "ratio",
    "goodput_rate": "requests/s",
}
"""What a stage has, and its unit. Seconds are stack seconds. `normalised` is the whole latency over the tokens."""
OF_ALL_REQUESTS = ("error_rate", "goodput", "goodput_rate")
BURST = "a burst is one event: its requests queue behind each other, and an interval takes several bursts"
TOLERANCE = 0.05
"""A change of a stage's level, relative to it, that no claim of a lab would turn on."""


@dataclass(frozen=True)
class StageSample:
    """The requests of one stage that began and ended in it, in the order in which they were due. Seconds are stack
    seconds; a latency of NaN is one that the request doesn't have."""

    is_burst: bool
    """All its requests are due at once."""
    duration_s: float
    due_s: np.ndarray
    """From the stage's beginning."""
    valid: np.ndarray
    """Whether the request belongs in latencies."""
    told: np.ndarray
    """Whether nothing but its own outcome keeps the request from being valid."""
    ok: np.ndarray
    useful: np.ndarray | None
    """Whether it kept the lab's objective; None: the lab has none."""
    shape: np.ndarray
    """Position of the request's shape in its step."""
    latencies: dict[str, np.ndarray]
    """By name: ttft, tpot, e2e, normalised."""
    tokens_per_s: np.ndarray | None
    """Output tokens that arrived in each of `SLICES` equal parts of the stage, per second; None: it asks for none."""

    @cached_property
    def warm_up(self) -> WarmUp:
        """Where it ends, by the TTFT of the valid requests, in which the queue of a beginning shows; of plain GETs, by
        how long they took."""
        if self.is_burst:
            return WarmUp(0, BURST)
        return warm_up(self.latencies[self._first][self._timed], tolerance=TOLERANCE)

    @cached_property
    def warm_up_s(self) -> float:
        """From the stage's beginning until the first request that isn't left out is due."""
        return float(self.due_s[self._timed][self.warm_up.cut]) if self.warm_up.cut else 0.0

    @property
    def timed(self) -> int:
        """How many requests tell of warm-up and steady state: the valid ones that came to an end."""
        return int(self._timed.sum())

    @cached_property
    def _timed(self) -> np.ndarray:
        return self.valid & ~_unknown(self.latencies[self._first])

    @property
    def _first(self) -> str:
        return "e2e" if self.tokens_per_s is None else "ttft"

    @property
    def quantities(self) -> list[str]:
        """Those that such a stage has."""
        without = ("e2e_", "error_rate", "goodput")
        names = list(QUANTITIES) if self.tokens_per_s is not None else [n for n in QUANTITIES if n.startswith(without)]
        return [name for name in names if self.useful is not None or not name.startswith("goodput")]

    def estimate(self, quantity: str, *, shape: int | None = None, confidence: float = CONFIDENCE) -> Estimate:
        """One of `QUANTITIES`, latencies of the requests of one `shape` or of all."""
        found = self._estimate(quantity, shape, confidence)
        return refused(found.value, found.n, found.method, BURST) if self.is_burst else found

    def _estimate(self, quantity: str, shape: int | None, confidence: float) -> Estimate:
        match quantity:
            case "throughput":
                return self._without_warm_up(means.mean(self.series(quantity), confidence=confidence))
            case "error_rate":
                return rates.rate(~self.ok, confidence=confidence)
            case "goodput" | "goodput_rate":
                return self._goodput(quantity, confidence)
            case _:
                q = latency_of(quantity)[1]
                return self._without_warm_up(quantiles.quantile(self.series(quantity, shape), q, confidence=confidence))

    def steadiness(self, quantity: str, *, shape: int | None = None) -> Steadiness | None:
        """Of the series behind a latency or the throughput; None for what is no such series."""
        if self.is_burst or quantity in OF_ALL_REQUESTS:
            return None
        key = (quantity if quantity == "throughput" else latency_of(quantity)[0], shape)
        if key not in self._steadiness:
            self._steadiness[key] = steadiness(self.series(quantity, shape), tolerance=TOLERANCE)
        return self._steadiness[key]

    def series(self, quantity: str, shape: int | None = None) -> np.ndarray:
        """The values behind a latency's quantiles or the throughput, in the order of time, after the warm-up."""
        if quantity == "throughput":
            flow = self._flow
            return flow[math.ceil(len(flow) * self.warm_up_s / self.duration_s) :]
        values = self.latencies[latency_of(quantity)[0]]
        kept = self.valid & ~_unknown(values) & (self.due_s >= self.warm_up_s)
        return values[kept if shape is None else kept & (self.shape == shape)]

    @property
    def _flow(self) -> np.ndarray:
        """Nothing of a stage that asks for no tokens, or whose requests don't count, none of them."""
        import numpy as np

        return self.tokens_per_s if self.tokens_per_s is not None and self.valid.any() else np.empty(0)

    def _without_warm_up(self, estimate: Estimate) -> Estimate:
        if not self.warm_up.cut:
            return estimate
        left_out = f"without the warm-up of {self.warm_up.cut} requests, {self.warm_up_s:.3g} s"
        return replace(estimate, method=f"{estimate.method}, {left_out}")

    def _goodput(self, quantity: str, confidence: float) -> Estimate:
        assert self.useful is not None
        latency = self.latencies[self._first][self.told]
        share = rates.rate(self.useful[self.told], told_from=latency[~_unknown(latency)], confidence=confidence)
        if quantity == "goodput" or share.value is None:
            return share
        per_s = share.n / self.duration_s
        value, low, high = (None if one is None else one * per_s for one in (share.value, share.low, share.high))
        method = f"{share.method}, times the rate of requests"
        return replace(share, value=value, low=low, high=high, method=method)

    @cached_property
    def _steadiness(self) -> dict[tuple[str, int | None], Steadiness]:
        return {}


def latency_of(quantity: str) -> tuple[str, float]:
    """The latency's name and the quantile, e.g. of `ttft_p95`."""
    name, _, percent = quantity.rpartition("_p")
    return name, int(percent) / 100


def _unknown(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.isnan(values)
