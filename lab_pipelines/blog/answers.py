"""What the warehouse answers to a post's questions: one file of SQL each, asked as it is shown beside the post.

A question is a file in blog/queries. Its parameters are written into it before it is asked, so that the file beside the
post is exactly what was asked, and `labs sql FILE` gives the same.

Doesn't belong here: how an answer reads (render.py), which questions a post has (template.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lab_pipelines.blog.template import (
    COLD_START,
    PARAMETER,
    PICTURE,
    Asked,
    Constant,
    Template,
    TemplateError,
    question_of,
)
from lab_pipelines.catalog.loader import shown
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import Target
from lab_pipelines.report.wording import Row, printable

if TYPE_CHECKING:
    import duckdb

    from lab_pipelines.report.charts import Picture
    from lab_pipelines.report.read import Section
    from resources.warehouse_core import WarehouseCore

ORIGIN = ("target", "provenance", "run_id", "recorded_at")
"""Columns that every row of an answer has: where it is from. `run_id` may be a list."""
OPTIONAL_ORIGIN = ("lab", "pace", "time_scale", "engine", "model_range")
VALUE = {"value", "unit", "low", "high", "gap"}
"""Columns of a number; the last three may be left out. `gap`: why there is no value."""
UNITS = {"s", "USD", "share", "times", "count", "percent", "tokens/s", "tokens", "h", "text"}
"""What a number's `unit` may be. `share` is shown as a percentage, `times` as a ratio, `text` as it is."""


@dataclass(frozen=True)
class Answer:
    sql: str
    """As it was asked."""
    says: str
    """The comment above it: the question in words."""
    rows: Sequence[Row]
    picture: Picture | None = None


@contextmanager
def questions(warehouse: WarehouseCore) -> Iterator[Questions]:
    """Whom to ask: labs.duckdb, which is brought up to date first. Raises the warehouse's own error."""
    from resources.snapshot import open_snapshot

    with open_snapshot(warehouse.rebuild()) as connection:
        yield Questions(warehouse, connection)


@dataclass
class Questions:
    """One labs.duckdb, and what several posts need."""

    warehouse: WarehouseCore
    connection: duckdb.DuckDBPyConnection

    def ask(self, template: Template, target: Target) -> dict[Asked, Answer]:
        """The answers. Raises `TemplateError` for a question that breaks the rules for its kind, `WarehouseError`."""
        return {asked: self._answer(template, asked, target) for asked in template.asked}

    @cached_property
    def sections(self) -> Sequence[Section]:
        """What pictures are drawn from."""
        from lab_pipelines.report.read import read_sections

        return read_sections(self.warehouse)

    def _answer(self, template: Template, asked: Asked, target: Target) -> Answer:
        import duckdb

        sql = filled_in(asked.path.read_text(encoding="utf-8"), {**dict(asked.params), "target": target})
        try:
            cursor = self.connection.execute(sql)
            names = [column[0] for column in cursor.description or []]
            found = cursor.fetchall()
        except duckdb.Error as error:
            raise _refused(template, asked, str(error)) from None
        rows = [
            {
                name: printable(value) if isinstance(value, str) else value
                for name, value in zip(names, row, strict=True)
            }
            for row in found
        ]
        if problem := _problem(asked, names, rows):
            raise _refused(template, asked, problem)
        picture = self._picture(template, asked, target) if asked.kind == PICTURE and rows else None
        return Answer(sql, question_of(sql), rows, picture)

    def _picture(self, template: Template, asked: Asked, target: Target) -> Picture:
        from lab_pipelines.report import charts
        from lab_pipelines.report.figures import draw
        from lab_pipelines.report.stage_table import ladders

        params = dict(asked.params)
        lab = template.labs[str(params["lab"])]
        assert isinstance(lab, LabSpec)  # template.py refuses a picture of an outline
        section = next(one for one in self.sections if (one.lab, one.target) == (lab.id, target))
        name = str(params["figure"])
        if figure := next((figure for figure in lab.figures if figure.id == name), None):
            return draw(figure, section)
        if name == COLD_START:
            return charts.cold_start(section.cold_start, section.overview)
        of_ladder = {"throughput": charts.throughput, "ttft": charts.ttft}[name]
        return of_ladder(ladders(section.stages)[0])


def filled_in(sql: str, params: Mapping[str, Constant]) -> str:
    """`sql` with the `$names` of `params` as literals."""
    return PARAMETER.sub(lambda found: _literal(params[found[1]]) if found[1] in params else found[0], sql)


def _literal(value: Constant) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _refused(template: Template, asked: Asked, problem: str) -> TemplateError:
    return TemplateError(f"{shown(asked.path)}: asked by {shown(template.path)}: {problem}")


def _problem(asked: Asked, names: Sequence[str], rows: Sequence[Row]) -> str | None:
    """What an answer lacks, or has too much of."""
    if missing := [name for name in ORIGIN if name not in names]:
        return f"every answer says where it is from; add the columns {', '.join(missing)}"
    if asked.kind == "number":
        if missing := sorted({"value", "unit"} - set(names)):
            return f"a number has the columns {', '.join(missing)} as well"
        if unknown := sorted(set(names) - VALUE - set(ORIGIN) - set(OPTIONAL_ORIGIN)):
            return f"a number has no column {', '.join(unknown)}"
        if wrong := sorted({str(row["unit"]) for row in rows} - UNITS):
            return f"unit {', '.join(wrong)}: expected one of {', '.join(sorted(UNITS))}"
    if asked.kind in ("number", "finding") and len(rows) > 1:
        return f"one row is wanted and {len(rows)} came; choose one in the query"
    return None
