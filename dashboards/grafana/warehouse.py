"""Panels over labs.duckdb: their questions are files of SQL, asked through the DuckDB data source plugin.

Belongs here: the plugin's query, and the kinds of panel. Doesn't belong here: panels of a lab that runs (panels.py), or
which panels a dashboard has (cost.py).

A file's leading comment is the panel's description, so that the two can't differ. `${target}` in it is the dashboard's
variable, `$__timeFilter(column)` the plugin's own macro for the time shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import barchart, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard

from dashboards.grafana.panels import PanelBuilder, legend

PLUGIN = "motherduck-duckdb-datasource"
"""github.com/motherduckdb/grafana-duckdb-datasource; its query is that of Grafana's own SQL sources."""
WAREHOUSE = dashboard.DataSourceRef(type_val=PLUGIN, uid="${warehouse}")
SQL = Path(__file__).parent / "sql"
TABLE_FORMAT = 1
"""The plugin's number of `table`: rows as they are. Of time series it would make one frame per text column."""


@dataclass(frozen=True)
class SqlQuery(variants.Dataquery, Builder[variants.Dataquery]):
    """One file of `sql/` as the plugin asks it."""

    file: str

    @property
    def text(self) -> str:
        return (SQL / f"{self.file}.sql").read_text(encoding="utf-8")

    @property
    def says(self) -> str:
        """The file's leading comment as one paragraph."""
        lines = self.text.splitlines()
        comment = lines[: next(n for n, line in enumerate(lines) if not line.startswith("--"))]
        return " ".join(line.removeprefix("--").strip() for line in comment)

    def build(self) -> variants.Dataquery:
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "refId": "A",
            "datasource": WAREHOUSE,
            "format": TABLE_FORMAT,
            "editorMode": "code",
            "rawSql": self.text,
        }


def bars(
    title: str,
    query: SqlQuery,
    *,
    x: str,
    unit: str,
    stacked: bool = False,
    matrix: tuple[str, str] | None = None,
    hide: tuple[str, ...] = (),
    width: int = 12,
) -> PanelBuilder:
    """Bars over the text column `x`. `matrix`: the column whose values become series, and the one of their heights."""
    panel = (
        barchart.Panel()
        .title(title)
        .description(query.says)
        .span(width)
        .height(10)
        .datasource(WAREHOUSE)
        .unit(unit)
        .min(0)
        .x_field(f"{x}\\{matrix[0]}" if matrix else x)
        .stacking(common.StackingMode.NORMAL if stacked else common.StackingMode.NONE)
        .show_value(common.VisibilityMode.NEVER)
        .legend(legend())
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .targets([query])
    )
    if matrix is not None:
        options = {"columnField": matrix[0], "rowField": x, "valueField": matrix[1], "emptyValue": "null"}
        panel = panel.with_transformation(dashboard.DataTransformerConfig(id_val="groupingToMatrix", options=options))
    return panel.with_transformation(_without(hide)) if hide else panel


def days(title: str, query: SqlQuery, *, unit: str, width: int = 12) -> PanelBuilder:
    """Lines over the column `time`, one for each other column."""
    return (
        timeseries.Panel()
        .title(title)
        .description(query.says)
        .span(width)
        .height(10)
        .datasource(WAREHOUSE)
        .unit(unit)
        .min(0)
        .line_width(2)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.ALWAYS)
        .span_nulls(False)
        .legend(legend())
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .targets([query])
    )


def answer(title: str, query: SqlQuery, *, width: int = 24) -> PanelBuilder:
    """The rows as they are."""
    return (
        table.Panel()
        .title(title)
        .description(query.says)
        .span(width)
        .height(8)
        .datasource(WAREHOUSE)
        .unit("none")
        .targets([query])
    )


def _without(columns: tuple[str, ...]) -> dashboard.DataTransformerConfig:
    return dashboard.DataTransformerConfig(id_val="organize", options={"excludeByName": dict.fromkeys(columns, True)})
