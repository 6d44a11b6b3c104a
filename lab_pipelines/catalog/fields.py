"""Fields that several of the catalogue's models share, and the rules that their values keep.

Doesn't belong here: the models (spec.py and its parts), or what makes a query one that Prometheus takes (promql.py).
"""

from __future__ import annotations

import re
from string import Template
from typing import Annotated, Any, Literal

from lab_pipelines.catalog.promql import refusal
from lab_pipelines.catalog.strict import matching

RelativePath = Annotated[
    str,
    matching(r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$", "a path from the repository's root, of letters, digits and ._-/"),
]

Overrides = dict[
    Annotated[
        str,
        matching(
            r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+|\[[0-9]+\])*$",
            "a Helm value's path such as servingEngineSpec.modelSpec[0].vllmConfig.maxNumSeqs",
        ),
    ],
    Any,
]
"""Helm values by the path that `helm --set` takes, e.g. `servingEngineSpec.modelSpec[0].vllmConfig.maxNumSeqs: 8`."""


def below(value: str, folder: str) -> str:
    """The value, if it is a path below `folder`. Raises `ValueError`."""
    if not value.startswith(folder) or ".." in value.split("/"):
        raise ValueError(f"must be a file below {folder}, without '..'")
    return value


def regular_expression(value: str) -> str:
    """The value, if it compiles. Raises `ValueError`."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


FILLED_IN = {"selector": 'namespace="lab-00"', "stage": "60s"}
"""What stands in a query's placeholders while it is parsed."""


def checked_promql(value: str, *, placeholders: set[str], form: Literal["value", "selector"] = "value") -> str:
    """The value, if it is PromQL with none but the known placeholders, `$selector` among them. Raises `ValueError`."""
    used = set(Template(value).get_identifiers())
    if unknown := used - placeholders:
        known = ", ".join(f"${name}" for name in sorted(placeholders))
        raise ValueError(f"has unknown placeholders {sorted(unknown)}; known: {known}")
    if "selector" not in used:
        raise ValueError("must contain $selector, so that a shared Prometheus answers for this lab alone")
    try:
        query = Template(value).substitute(FILLED_IN)
    except ValueError:
        raise ValueError("has a lone $; write $$ for one that Prometheus shall see") from None
    if problem := refusal(query, form=form):
        raise ValueError(problem)
    return value
