"""Quantiles as values of the sample. Pure, and only the standard library: load processes and the pipeline use the same.

Doesn't belong here: intervals around them (lab_pipelines/statistics/).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def nearest_rank(values: Sequence[float], quantile: float) -> float:
    """The smallest value that is not below `quantile` of all (nearest-rank definition). `values` isn't empty.

    The 99th percentile of fewer than a hundred is the largest.
    """
    return sorted(values)[max(math.ceil(quantile * len(values)), 1) - 1]
