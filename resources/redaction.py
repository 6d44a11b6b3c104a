"""Secrets out of text that somebody will read: errors, log lines, events.

Belongs here: what looks like a secret, and values that are known to be one. Doesn't belong here: where secrets come
from; a lab names them by reference and never has their value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

HIDDEN = "[hidden]"

_SECRET_NAME = r"[\w.-]*(?:token|password|passwd|secret|api[_-]?key|credential|authorization)[\w.-]*"
_LOOKS_SECRET = re.compile(
    rf"(?P<name>[\"']?{_SECRET_NAME}[\"']?\s*[=:]\s*)(?P<scheme>(?:Bearer|Basic)\s+)?[\"']?[^\s\"',;]+"
    r"|(?P<bearer>\b(?:Bearer|Basic)\s+)[\w.~+/=-]{8,}"
    r"|\bhf_\w{8,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)",
    re.IGNORECASE,
)
_NAMES_SECRET = re.compile(_SECRET_NAME, re.IGNORECASE)
_SHORTEST = 4
"""A value of fewer characters would blacken words that it is part of."""


def redacted(text: str, known: Collection[str] = ()) -> str:
    """The text without the `known` values and without whatever follows a name such as `token:` or `Bearer`."""
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _LOOKS_SECRET.sub(lambda found: f"{found['name'] or found['bearer'] or ''}{HIDDEN}", text)


def secrets_in(values: Any, *, named: bool = False) -> set[str]:
    """Texts among Helm values that stand under a name such as `password`, at any depth."""
    return {text for text in _texts(values, named) if len(text) >= _SHORTEST}


def _texts(values: Any, named: bool) -> Iterator[str]:
    if isinstance(values, Mapping):
        for name, inner in values.items():
            yield from _texts(inner, named or _NAMES_SECRET.fullmatch(str(name)) is not None)
    elif isinstance(values, list):
        for inner in values:
            yield from _texts(inner, named)
    elif named and isinstance(values, str):
        yield values
