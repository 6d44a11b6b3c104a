"""The pictures that a lab's spec asks for: `Figure` and a run's rows → `Picture`.

Belongs here: which values a figure takes and which series they make. Doesn't belong here: how lines and bars are drawn
(charts.py), or the shape of a figure in a spec (catalog/measures.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose

from lab_pipelines.baseline import UNITS
from lab_pipelines.catalog.measures import Figure
from lab_pipelines.report.charts import Mark, bars_picture, lines_picture, load_title
from lab_pipelines.report.read import Section
from lab_pipelines.report.stage_table import ladders
from lab_pipelines.report.svg import Picture
from lab_pipelines.report.wording import Row, in_order, loads_of, provenance_line

COLUMNS = {**UNITS, "tpot_p50_s": "s", "preemptions": "preemptions", "gpu_utilisation": "percent"}
"""The columns of the view `stage_table` that a figure may show, and their units."""
_REFUSED = "refused"

Values = Mapping[tuple[str, str | None, int | None], Mapping[str, Row]]
"""Of each measure, by session, step and stage; step and stage are None for the whole session."""


def draw(figure: Figure, section: Section) -> Picture:
    """The figure, from the rows of one run. A line whose stages have but one load, or one value of x, becomes bars.

    A name that is both a column of the view `stage_table` and a measure means the column. Bars begin at zero, so that
    their lengths compare: `log_y` does not apply to them.
    """
    rows = _stages(figure, section)
    values = _values(section)
    title = _with_unit(figure.title, figure.y, values)
    if not rows:
        return Picture(title, provenance_line(section.overview), None)
    if figure.kind == "bars" or (figure.kind == "line" and len({_value(figure.x, row, values) for row in rows}) == 1):
        return bars_picture(title, _bars(figure, rows, section, values), rows)
    marks = [
        Mark(
            x=x,
            y=_value(figure.y, row, values),
            series=" · ".join(_names(row, _series(figure, rows, ("variant", "step")))),
            supported=_supported(figure.y, row),
            order=x if figure.kind == "line" else row["stage"],
        )
        for row in rows
        if (x := _value(figure.x, row, values)) is not None
    ]
    if not marks:
        return Picture(title, provenance_line(rows[0]), None)
    return lines_picture(
        title,
        marks,
        rows,
        x_title=load_title(rows[0]) if figure.x == "load" else _with_unit(figure.x.replace("_", " "), figure.x, values),
        load_axis=figure.x == "load",
        joined=figure.kind == "line",
        log_y=figure.log_y,
    )


def _bars(figure: Figure, rows: Sequence[Row], section: Section, values: Values) -> list[Mark]:
    """A bar for each stage; of a measure of whole sessions, one for each of these."""
    if all(_of_session(figure.y, row, values) for row in rows):
        rows = list({row["session_id"]: row for row in rows}.values())
    several_loads = len({row["load"] for row in rows}) > 1
    group = figure.x if figure.x == "variant" or (figure.x == "load" and several_loads) else figure.by
    series = [name for name in _series(figure, rows, ("variant", "step", "load")) if name != group]
    marks = [
        Mark(
            x="".join(_names(row, [group])),
            y=_value(figure.y, row, values),
            series=" · ".join(_names(row, series)),
            supported=_supported(figure.y, row),
        )
        for row in rows
    ]
    refused = [one["variant"] for one in section.variants if one["refusal"] is not None and group == "variant"]
    return [*marks, *(Mark(x=name, y=None, series="", note=_REFUSED) for name in refused)]


def _stages(figure: Figure, section: Section) -> list[Row]:
    return [
        row
        for ladder in ladders(section.stages)
        for row in ladder
        if (figure.step is None or row["step"] == figure.step)
        and (figure.load is None or isclose(loads_of(row), figure.load))
    ]


def _series(figure: Figure, rows: Sequence[Row], told_apart: Sequence[str]) -> list[str]:
    """What names a series: the figure's `by`, and whatever else of `told_apart` has several values in it."""
    varying = [name for name in told_apart if len({row[name] for row in rows}) > 1]
    return in_order([figure.by, *varying]) if figure.x != figure.by else varying


def _names(row: Row, dimensions: Sequence[str]) -> list[str]:
    return [str(row[name]) for name in dimensions]


def _values(section: Section) -> Values:
    values: dict[tuple[str, str | None, int | None], dict[str, Row]] = {}
    for row in section.measures:
        values.setdefault((row["session_id"], row["step"], row["stage"]), {})[row["measure"]] = row
    return values


def _value(name: str, row: Row, values: Values) -> float | None:
    """A stage's load, its column, its measure, or else its session's."""
    if name == "load":
        return loads_of(row)
    if name in COLUMNS:
        return None if row[name] is None else float(row[name])
    measured = values.get((row["session_id"], row["step"], row["stage"]), {}).get(name)
    measured = measured or values.get((row["session_id"], None, None), {}).get(name)
    return None if measured is None else measured["value"]


def _of_session(name: str, row: Row, values: Values) -> bool:
    of_stage = values.get((row["session_id"], row["step"], row["stage"]), {})
    return name not in COLUMNS and name not in of_stage and name in values.get((row["session_id"], None, None), {})


def _supported(name: str, row: Row) -> bool:
    """Whether the sample behind a quantile is large enough; everything else always is."""
    return bool(row.get(f"{name.removesuffix('_s')}_supported", True))


def _with_unit(text: str, name: str, values: Values) -> str:
    units = [measures[name]["unit"] for measures in values.values() if name in measures]
    unit = COLUMNS.get(name) or next(iter(units), None)
    return f"{text}, {unit}" if unit else text
