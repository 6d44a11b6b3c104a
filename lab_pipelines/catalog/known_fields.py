"""Which fields a model has at a place in a file, so that a misspelt one is told with the name that was meant. Pure.

Doesn't belong here: how a mistake is worded or found in the file (loader.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


def meant(model: type[BaseModel], place: Sequence[str | int]) -> str | None:
    """The field nearest to the unknown one at `place`, which is as pydantic tells it; None: nothing is near."""
    *parents, name = place
    return next(iter(get_close_matches(str(name), set(_fields(model, parents)), n=1)), None)


def _fields(kind: Any, place: Sequence[str | int]) -> Iterator[str]:
    """Of what stands at `place` in a value of this type: its fields, or those of all that it may be."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not place:
            yield from kind.model_fields
        elif place[0] in kind.model_fields:
            yield from _fields(kind.model_fields[str(place[0])].annotation, place[1:])
        elif _is_tagged(kind, place[0]):
            yield from _fields(kind, place[1:])
    elif get_origin(kind) in (list, dict):
        yield from _fields(get_args(kind)[-1], place[1:])
    elif get_origin(kind) is not Literal:
        for one in get_args(kind):  # a union, or a type with its constraints
            yield from _fields(one, place)


def _is_tagged(model: type[BaseModel], tag: str | int) -> bool:
    """Whether pydantic names this member of a union by that `kind`."""
    return "kind" in model.model_fields and tag in get_args(model.model_fields["kind"].annotation)
