"""Which planned fault a request meets. What a fault then does is each server's own business."""

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Planned(Protocol):
    method: str
    path: re.Pattern[str]
    skip: int
    times: int


P = TypeVar("P", bound=Planned)


def due(faults: Iterable[P], method: str, path: str) -> P | None:
    """The first fault planned for this request, counted as used. The caller holds its server's lock."""
    for one in faults:
        if one.times and one.method == method and one.path.search(path):
            if one.skip:
                one.skip -= 1
                continue
            one.times -= 1
            return one
    return None
