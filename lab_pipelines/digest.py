"""One way to say that two pieces of data are the same: sha256 over canonical JSON."""

from __future__ import annotations

import hashlib
import json


def canonical_digest(data: object) -> str:
    """sha256 (hex) of `data` as JSON with sorted keys and no spaces; equal data, equal digest."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
