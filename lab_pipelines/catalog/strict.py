"""The base of every model of the catalogue's files. Doesn't belong here: the models themselves (spec.py and others)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SpecModel(BaseModel):
    """Strict, frozen, and without unknown keys, so that a typing error can't pass for a default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
