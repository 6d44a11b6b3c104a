"""Two variants compared within one session, turn by turn, and what could have been seen at all.

Between two sessions the same binary differs by ten or twenty times as much as within one; so variants are walked in an
interleaved order (a b, b a, a b, …) and each pair is compared with itself. Doesn't belong here: stages of one run
(findings.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused

MIN_PAIRS = 5
"""With four pairs that all agree, chance alone explains it once in eight times."""


def interleaved(variants: Sequence[str], rounds: int) -> list[str]:
    """The order in which to walk variants: each round holds each once, every other one backwards.

    A drift that is linear in time then falls on all variants alike.
    """
    order = list(variants)
    return [name for turn in range(rounds) for name in (order if turn % 2 == 0 else order[::-1])]


def paired_ratio(candidate: Series, baseline: Series, *, confidence: float = CONFIDENCE) -> Estimate:
    """The ratio candidate / baseline over pairs of the same round, with a t interval on its logarithm.

    `value` is the geometric mean of the pairs' ratios. Assumes independent pairs and roughly symmetric logarithms of
    ratios; both values of a pair positive. `confidence` is each comparison's own: see `multiple.simultaneous`.
    """
    import numpy as np
    from scipy.stats import t

    above, below = as_array(candidate), as_array(baseline)
    if len(above) != len(below):
        raise ValueError(f"{len(above)} values against {len(below)}: pairs have two sides")
    n, method = len(above), "geometric mean of the pairs' ratios, t interval on its logarithm"
    if n and not (above.min() > 0 and below.min() > 0):
        return refused(None, n, method, "a value of zero or less has no ratio")
    logs = np.log(above) - np.log(below)
    value = math.exp(float(logs.mean())) if n else None
    if value is None or n < MIN_PAIRS:
        return refused(value, n, method, f"{n} pairs; a comparison needs {MIN_PAIRS}")
    reach = float(t.ppf((1 + confidence) / 2, n - 1)) * float(logs.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, value * math.exp(-reach), value * math.exp(reach), n, float(n), method)


def sign_flip_p(differences: Series, *, draws: int = 20_000, seed: int = 0) -> float:
    """The two-sided p value of "the differences are symmetric about zero", by turning signs around.

    Assumes nothing but that symmetry. All sign patterns up to 14 differences, else `draws` of them (Fisher 1935; the
    observed one counts as drawn: Phipson and Smyth 2010).
    """
    import numpy as np

    values = as_array(differences)
    n = len(values)
    if n == 0:
        return 1.0
    observed = abs(float(values.sum())) * (1 - 1e-12)
    if n <= 14:
        patterns = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(patterns @ values) >= observed).mean())
    patterns = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    return (1 + int((np.abs(patterns @ values) >= observed).sum())) / (draws + 1)


def minimum_detectable_ratio(spread: float, pairs: int, *, confidence: float = CONFIDENCE, power: float = 0.8) -> float:
    """The smallest ratio above 1 that so many pairs would find with probability `power`.

    `spread` is the standard deviation of the logarithm of one pair's ratio. By the noncentral t distribution, solved
    for its centre (Cohen 1988, Statistical power analysis). Raises `ValueError` below `MIN_PAIRS`.
    """
    from scipy.optimize import root_scalar
    from scipy.stats import nct, t

    if pairs < MIN_PAIRS:
        raise ValueError(f"{pairs} pairs; a comparison needs {MIN_PAIRS}")
    if spread == 0:
        return 1.0
    critical = float(t.ppf((1 + confidence) / 2, pairs - 1))

    def missing(centre: float) -> float:
        found = nct.sf(critical, pairs - 1, centre) + nct.cdf(-critical, pairs - 1, centre)
        return float(found) - power

    beyond = critical  # where half of all samples find it; far above, the distribution's series gives no number
    while missing(beyond) < 0:
        beyond += 0.5
    centre = float(root_scalar(missing, bracket=(0.0, beyond)).root)
    return math.exp(centre * spread / math.sqrt(pairs))
