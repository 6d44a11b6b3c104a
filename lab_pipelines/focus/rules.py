"""The rules of FOCUS 1.2 as they are read from columns-1.2.yaml. Doesn't belong here: checking them (validate.py)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model

RULES = Path(__file__).parent / "columns-1.2.yaml"
CUSTOM_PREFIX = "x_"
"""What a column of one's own begins with."""

Condition = Annotated[str, Field(min_length=1)]
"""SQL over the columns of a row."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Part):
    """What holds of one column. `rule` says in words what it is."""

    level: Literal["mandatory", "conditional", "recommended", "optional"]
    type: Literal["string", "decimal", "datetime"]
    nullable: bool
    rule: str
    format: Literal["currency", "unit", "key_value"] | None = None
    allowed: tuple[str, ...] = ()
    parent: str | None = None
    """The column whose value says which of `allowed_of` are allowed."""
    allowed_of: dict[str, tuple[str, ...]] = {}
    minimum: int | None = None
    null_when: Condition | None = None
    given_when: Condition | None = None


class Relation(_Part):
    """What holds between columns where all of them are given."""

    columns: tuple[str, ...]
    holds: Condition
    rule: str


class Product(_Part):
    """price * quantity = cost."""

    price: str
    quantity: str
    cost: str


class Unpriced(_Part):
    """A cost is what is billed where its unit price is null."""

    price: str
    cost: str
    billed: str


class Rules(_Part):
    """All of one version."""

    version: str
    source: str
    columns: dict[str, Column]
    relations: tuple[Relation, ...]
    products: tuple[Product, ...]
    unpriced: tuple[Unpriced, ...]
    determines: tuple[tuple[str, str], ...]
    currencies: tuple[str, ...]

    def mandatory(self) -> list[str]:
        """The columns that every data set has."""
        return [name for name, column in self.columns.items() if column.level == "mandatory"]


@cache
def load_rules(path: Path = RULES) -> Rules:
    """The rules in `path`. Raises `SpecError` that names file, line and field."""
    return read_model(path, Rules)
