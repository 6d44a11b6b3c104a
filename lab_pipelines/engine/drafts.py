"""How many tokens of a draft the target accepts: drawn with a fixed seed, so that the same run gives the same draws.

Doesn't belong here: the probabilities (acceptance.yaml), or what an accepted token changes (decoding.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TypeVar

from lab_pipelines.catalog.steps import TextKind
from lab_pipelines.engine.core import Request
from lab_pipelines.engine.setup import EngineModel

R = TypeVar("R", bound=Request)


def accepted_drafts(
    model: EngineModel, text_of: Callable[[R], TextKind], *, seed: int = 18
) -> Callable[[R], int] | None:
    """For each request and step, the number of a draft's tokens that come true; None without speculation.

    Each token is accepted with the same probability a, given that those before it were: the number is geometric, cut at
    the draft's length, with mean (a - a^(g+1)) / (1 - a) (Leviathan et al. 2023, arXiv 2211.17192).
    """
    draft = model.args.draft
    if draft is None:
        return None
    numbers, most = random.Random(seed), draft.tokens
    logs = {kind: math.log(a) if (a := model.acceptance(kind)) else -math.inf for kind in ("prose", "code", "numbers")}

    def accepted(request: R) -> int:
        # P(at least k) = a^k: the number is the floor of log(u) / log(a).
        return min(int(math.log(1.0 - numbers.random()) / logs[text_of(request)]), most)

    return accepted
