"""Secrets out of text that somebody will read: errors, log lines, events.

Belongs here: what looks like a secret, and values that are known to be one. Doesn't belong here: where secrets come
from; a lab names them by reference and never has their value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

HIDDEN = "[hidden]"

# A name that ends so: `hf_token` and `--api-key`, but neither `max_tokens` nor `secretName`.
_SECRET_NAME = r"[\w.-]*(?:token|password|passwd|secret|credentials?|authorization|assertion|(?:api|access)[_-]?key)"
_LOOKS_SECRET = re.compile(
    rf"(?P<name>{_SECRET_NAME}[\"']?\s*[=:]\s*)(?:(?:Bearer|Basic)\s+)?[\"']?[^\s\"',;]+"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[\w.~+/=-]{8,}"
    r"|\bhf_\w{8,}|\beyJ[\w-]+\.[\w-]+\.?[\w-]*|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)|(?<=[?&]sig=)[^\s&]+",
    re.IGNORECASE,
)
_NAMES_SECRET = re.compile(_SECRET_NAME, re.IGNORECASE)
_SHORTEST = 4
"""A value of fewer characters would blacken words that it is part of."""


def redacted(text: str, known: Collection[str] = ()) -> str:
    """The text without the `known` values, and without whatever follows a name such as `token=` or `Bearer`."""
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _LOOKS_SECRET.sub(lambda found: f"{found['name'] or found['scheme'] or ''}{HIDDEN}", text)


def secrets_in(values: Any) -> set[str]:
    """Texts among Helm values that are secrets by their name, at any depth: `password: …`, or an environment variable
    `{name: HF_TOKEN, value: …}`. A reference (`hf_token: {secretName: huggingface}`) is none."""
    return {text for text in _secrets_in(values) if len(text) >= _SHORTEST}


def _secrets_in(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        named = values.get("name")
        variable = {str(named): values["value"]} if isinstance(named, str) and "value" in values else {}
        for name, inner in {**values, **variable}.items():
            if isinstance(inner, str) and _NAMES_SECRET.fullmatch(str(name)):
                yield inner
            yield from _secrets_in(inner)
    elif isinstance(values, list):
        for inner in values:
            yield from _secrets_in(inner)
