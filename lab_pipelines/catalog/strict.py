"""What every model of the catalogue's files is made of: its base, and texts and names.

Doesn't belong here: the models themselves (spec.py and others).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

_SAID: dict[str, str] = {}


def matching(pattern: str, said: str) -> StringConstraints:
    """Text of that pattern. `said`: what is expected, in words, for whoever writes something else."""
    _SAID[pattern] = said
    return StringConstraints(pattern=pattern)


def in_words(pattern: str) -> str:
    """What a text of that pattern is."""
    return _SAID[pattern]


Name = Annotated[
    str,
    matching(r"^[a-z0-9][a-z0-9._-]{0,62}$", "a name of lower-case letters, digits, dots, _ and -, of at most 63"),
]
"""A variant, stage, measure or pace name; it becomes a path part, a label value and a SQL key."""
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class SpecModel(BaseModel):
    """Strict, frozen, and without unknown keys, so that a typing error can't pass for a default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
