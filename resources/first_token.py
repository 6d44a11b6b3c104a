"""The first token of an engine that says it is ready: the readiness that counts, on every target with a real server.

Belongs here: asking for it, and what its absence means. Doesn't belong here: load (load_locust.py).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime

from resources.cluster import ClusterError, Phase

TIMEOUT_S = 60.0


def first_token(base_url: str, model: str, *, time_scale: float) -> Phase:
    """Ask the engine for one token, as the readiness that counts. Raises `ClusterError`."""
    body = {"model": model, "prompt": [300] * 8, "max_tokens": 1, "temperature": 0.0}
    request = urllib.request.Request(
        f"{base_url}/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    started = datetime.now(UTC)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer, ended = response.read().decode(errors="replace"), datetime.now(UTC)
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:300]
        raise ClusterError(
            f"{base_url}/completions answered {error.code} to a request for one token: {detail}"
        ) from None
    except (urllib.error.URLError, OSError) as error:
        raise ClusterError(f"{base_url}/completions did not answer a request for one token: {error}") from None
    if not _is_completion(answer):
        # llama.cpp, for one, has a /completions of its own beside the one below /v1.
        raise ClusterError(
            f"{base_url}/completions answers, but not with an OpenAI completion; the base URL of most servers ends in "
            f"/v1. The answer begins: {answer[:200]}"
        )
    return Phase(
        name="first_token",
        started_at=started,
        ended_at=ended,
        duration_s=(ended - started).total_seconds() * time_scale,
    )


def _is_completion(answer: str) -> bool:
    try:
        return isinstance(json.loads(answer)["choices"][0]["text"], str)
    except (ValueError, LookupError, TypeError):
        return False
