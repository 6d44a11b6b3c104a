"""Measured or modelled: the word that every number carries, and the guard that keeps it true.

Belongs here: how provenance spreads, and when an upstream row may feed a downstream one.
Doesn't belong here: storing it (the warehouse's schema refuses contradictions on its own).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Provenance = Literal["measured", "modelled"]


class ProvenanceError(ValueError):
    """An upstream result doesn't belong to what is being computed. The message lists every mismatch."""


def combine(parts: Iterable[Provenance]) -> Provenance:
    """Modelled as soon as any part of the path is; measured only if all of it is."""
    return "modelled" if any(part == "modelled" for part in parts) else "measured"


def require_same(upstream: Mapping[str, object], expected: Mapping[str, object], *, what: str) -> None:
    """Refuse an upstream that differs from `expected` in any of its keys.

    Raises `ProvenanceError` that names `what` and each mismatch with both values.
    """
    mismatches = [
        f"{key} is {upstream.get(key)!r}, expected {value!r}"
        for key, value in expected.items()
        if upstream.get(key) != value
    ]
    if mismatches:
        raise ProvenanceError(f"{what} can't be used: {'; '.join(mismatches)}. Materialize it again for this run.")
