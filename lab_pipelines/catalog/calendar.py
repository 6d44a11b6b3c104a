"""The year's calendar: phases, weeks with their dates, consolidation weeks with their tags, and the posts.

Belongs here: the shape of calendar.yaml and looking things up in it.
Doesn't belong here: what a single lab is (spec.py); a lab names its week, and its dates are the week's.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from lab_pipelines.catalog.identity import Erratum
from lab_pipelines.catalog.loader import CATALOG_DIR, read_model
from lab_pipelines.catalog.strict import SpecModel, Text, matching


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
    """What is written, built and tagged in a week without new infrastructure, and at the end of the year."""

    tag: Annotated[str, matching(r"^v[0-9]+\.[0-9]+\.[0-9]+(-[a-z-]+)?$", "a tag such as v1.0.0")]
    posts: list[int]
    tasks: list[Text] = Field(min_length=1)


class Week(SpecModel):
    """A numbered week; `ends` is its last day. Two numbers may share their dates, and a week may be skipped."""

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
    """As the curriculum says it: "mid June"."""
    short: bool = False


class Calendar(SpecModel):
    """The year. `errata`: where the curriculum contradicts itself about the year as a whole."""

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
        return self

    @model_validator(mode="after")
    def _phases_cover_the_weeks(self) -> Calendar:
        first = 1
        for phase in self.phases:
            if phase.first_week != first or phase.last_week < first:
                raise ValueError(f"phases: phase {phase.number} must begin with week {first} and end with it or later")
            first = phase.last_week + 1
        if first - 1 != len(self.weeks):
            raise ValueError(f"phases: the last one ends with week {first - 1}, but there are {len(self.weeks)} weeks")
        return self

    @model_validator(mode="after")
    def _dates_go_forward(self) -> Calendar:
        for week in self.weeks:
            if {week.starts.year, week.ends.year} != {self.year}:
                raise ValueError(f"weeks: week {week.number} does not lie in {self.year}")
        for before, week in pairwise(self.weeks):
            same = (before.starts, before.ends) == (week.starts, week.ends)
            if not same and week.starts <= before.ends:
                raise ValueError(
                    f"weeks: week {week.number} starts on {week.starts}, but week {before.number} ends on "
                    f"{before.ends}; give both the same dates or let it start later"
                )
        return self

    @model_validator(mode="after")
    def _weeks_and_posts_name_each_other(self) -> Calendar:
        written = [
            (week.number, post) for week in self.weeks if week.consolidation for post in week.consolidation.posts
        ]
        planned = [(post.week, post.number) for post in self.posts]
        if wrong := sorted(set(written) ^ set(planned)) or sorted(p for p in set(written) if written.count(p) > 1):
            week, post = wrong[0]
            raise ValueError(f"posts: post {post} and week {week} must name each other, once")
        tags = [week.consolidation.tag for week in self.weeks if week.consolidation]
        if repeated := sorted({tag for tag in tags if tags.count(tag) > 1}):
            raise ValueError(f"weeks: tag {repeated[0]} is given more than once")
        return self

    def week(self, number: int) -> Week:
        """The week with that number. Raises `LookupError`."""
        if not 1 <= number <= len(self.weeks):
            raise LookupError(f"there is no week {number}; the year has weeks 1 to {len(self.weeks)}")
        return self.weeks[number - 1]

    def phase(self, number: int) -> Phase:
        """The phase with that number. Raises `LookupError`."""
        if not 1 <= number <= len(self.phases):
            raise LookupError(f"there is no phase {number}; the year has phases 1 to {len(self.phases)}")
        return self.phases[number - 1]


@cache
def load_calendar(directory: Path = CATALOG_DIR) -> Calendar:
    """The calendar in `directory`. Raises `SpecError`."""
    return read_model(directory / "calendar.yaml", Calendar)
