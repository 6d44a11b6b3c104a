"""The year's calendar: phases, weeks with their dates, consolidation weeks with their tags, and the posts.

Belongs here: the shape of calendar.yaml and looking things up in it.
Doesn't belong here: what a single lab is (spec.py); a lab names its week, and its dates are the week's.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from lab_pipelines.catalog.loader import CATALOG_DIR, read_model
from lab_pipelines.catalog.spec import Erratum, SpecModel, Text


class Phase(SpecModel):
    """One of the eight phases; its labs are those that name it."""

    number: int = Field(ge=1, le=8)
    name: Text
    motto: Text
    first_week: int = Field(ge=1, le=45)
    last_week: int = Field(ge=1, le=45)
    labs_in_heading: int = Field(ge=1)
    """How many labs the curriculum's heading promises; where that differs from the labs, an erratum says so."""


class Consolidation(SpecModel):
    """A week without new infrastructure: what is written, built and tagged in it."""

    tag: Annotated[str, StringConstraints(pattern=r"^v[0-9]+\.[0-9]+\.[0-9]+(-[a-z-]+)?$")]
    posts: list[int]
    tasks: list[Text] = Field(min_length=1)


class Week(SpecModel):
    number: int = Field(ge=1, le=45)
    starts: date
    ends: date
    theme: Text
    consolidation: Consolidation | None = None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Week:
        if self.ends <= self.starts:
            raise ValueError(f"ends ({self.ends}) does not come after starts ({self.starts})")
        return self


class Post(SpecModel):
    """A blog post, in which week it is written and about when it is published."""

    number: int = Field(ge=1)
    title: Text
    week: int = Field(ge=1, le=45)
    publish: Text


class Calendar(SpecModel):
    year: int
    phases: list[Phase] = Field(min_length=1)
    weeks: list[Week] = Field(min_length=1)
    posts: list[Post]
    errata: list[Erratum]

    @model_validator(mode="after")
    def _numbers_run_through(self) -> Calendar:
        for name in ("phases", "weeks", "posts"):
            numbers = [entry.number for entry in getattr(self, name)]
            if numbers != list(range(1, len(numbers) + 1)):
                raise ValueError(f"{name}: expected the numbers 1 to {len(numbers)} in order, found {numbers}")
        known = {post.number for post in self.posts}
        for week in self.weeks:
            if week.consolidation and (unknown := set(week.consolidation.posts) - known):
                raise ValueError(
                    f"weeks: week {week.number} names post {sorted(unknown)}, which is not one of the posts"
                )
        return self

    def week(self, number: int) -> Week:
        return self.weeks[number - 1]

    def phase(self, number: int) -> Phase:
        return self.phases[number - 1]


@cache
def load_calendar(directory: Path = CATALOG_DIR) -> Calendar:
    """The calendar in `directory`. Raises `SpecError`."""
    return read_model(directory / "calendar.yaml", Calendar)
