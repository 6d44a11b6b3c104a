"""The kinds of panel that the labs use, so that every dashboard reads alike.

Belongs here: queries, colours, axes, legends, and the sentence that names a panel's series.
Doesn't belong here: which panels a lab has (the lab's own module), variables and layout (shell.py).

A query's selector names the dashboard's namespace: `up{$NS}` stands for `up{namespace="$namespace"}`, and a query over
a range asks for `[$__rate_interval]` (Prometheus) or `[$__auto]` (Loki), which Grafana fills in from the time shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import logs, loki, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOKI = dashboard.DataSourceRef(type_val="loki", uid="${logs}")
COLUMNS = 24
"""Of Grafana's grid."""

_LOG_SCALE_BASE = 10
PanelBuilder = Builder[dashboard.Panel]
Colour = Literal["green", "orange", "red", "blue", "transparent"]


@dataclass(frozen=True)
class _Question:
    """A panel's question. In `expr`, `$NS` stands for the matcher of the dashboard's namespace."""

    expr: str
    legend: str = ""

    @property
    def text(self) -> str:
        return self.expr.replace("$NS", 'namespace="$namespace"')


@dataclass(frozen=True)
class PromQL(_Question):
    """A question to Prometheus."""

    @property
    def series(self) -> list[str]:
        """Names of the series that the question reads, in order of appearance."""
        return list(dict.fromkeys(re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{", self.text)))

    def build(self, ref_id: str, *, as_table: bool = False) -> prometheus.Dataquery:
        query = prometheus.Dataquery().ref_id(ref_id).datasource(PROMETHEUS).expr(self.text).legend_format(self.legend)
        return query.instant().format(PromQueryFormat.TABLE) if as_table else query.range()


@dataclass(frozen=True)
class LogQL(_Question):
    """A question to Loki."""

    @property
    def series(self) -> list[str]:
        return []

    def build(self, ref_id: str) -> loki.Dataquery:
        return loki.Dataquery().ref_id(ref_id).datasource(LOKI).expr(self.text).legend_format(self.legend)


Query = PromQL | LogQL


def lines(
    title: str,
    says: str,
    *queries: Query,
    unit: str,
    width: int = 8,
    maximum: float | None = None,
    limit: float | None = None,
    logarithmic: bool = False,
    stacked: bool = False,
) -> PanelBuilder:
    """A chart over time. `limit` is drawn as a dashed red line: the value that an alert or a contract names."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(_described(says, queries))
        .span(width)
        .height(8)
        .datasource(_source(queries))
        .unit(unit)
        .line_width(2)
        .fill_opacity(30 if stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        # A gap is a scrape that failed or a stack that was down: joining the ends would hide it.
        .span_nulls(False)
        .legend(legend())
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if logarithmic:
        distribution = common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG)
        panel = panel.scale_distribution(distribution.log(_LOG_SCALE_BASE))
    else:
        panel = panel.min(0)
    if maximum is not None:
        panel = panel.max(maximum)
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if limit is not None:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(("transparent", None), ("red", limit))).thresholds_style(style)
    return panel.targets([query.build(ref) for ref, query in zip(ascii_uppercase, queries, strict=False)])


def number(
    title: str,
    says: str,
    query: Query,
    *,
    unit: str,
    width: int = 4,
    steps: tuple[tuple[Colour, float | None], ...] = (("green", None),),
) -> PanelBuilder:
    """The last value, large. `steps`: from which value on it has which colour; the first has no lower bound."""
    return (
        stat.Panel()
        .title(title)
        .description(_described(says, (query,)))
        .span(width)
        .height(4)
        .datasource(_source((query,)))
        .unit(unit)
        .thresholds(_thresholds(*steps))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets([query.build("A")])
    )


def states(
    title: str, says: str, query: PromQL, *, meanings: dict[int, tuple[str, Colour]], width: int = 12
) -> PanelBuilder:
    """A bar over time per series, coloured by what its value means."""
    results = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=value)
        for value, (text, colour) in meanings.items()
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(_described(says, (query,)))
        .span(width)
        .height(8)
        .datasource(PROMETHEUS)
        .unit("none")
        .mappings([dashboard.ValueMap(options=results)])
        .show_value(common.VisibilityMode.NEVER)
        .legend(legend())
        .targets([query.build("A")])
    )


def rows(title: str, says: str, query: PromQL, *, hide: tuple[str, ...] = (), width: int = 12) -> PanelBuilder:
    """The labels and values of this moment as a table, without the columns `hide`."""
    organise = dashboard.DataTransformerConfig(
        id_val="organize", options={"excludeByName": dict.fromkeys(("Time", "__name__", "endpoint", *hide), True)}
    )
    return (
        table.Panel()
        .title(title)
        .description(_described(says, (query,)))
        .span(width)
        .height(8)
        .datasource(PROMETHEUS)
        .unit("none")
        .with_transformation(organise)
        .targets([query.build("A", as_table=True)])
    )


def log_lines(title: str, says: str, query: LogQL, *, width: int = 24) -> PanelBuilder:
    """Log lines, newest first."""
    return (
        logs.Panel()
        .title(title)
        .description(says)
        .span(width)
        .height(10)
        .datasource(LOKI)
        .unit("none")
        .show_time(True)
        .enable_log_details(True)
        .wrap_log_message(False)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .dedup_strategy(common.LogsDedupStrategy.NONE)
        .targets([query.build("A")])
    )


def quantiles(series: str, *at: float, where: str = "") -> list[PromQL]:
    """Quantiles of a histogram of the namespace, over all its pods, of what also matches `where`."""
    matchers = "$NS" if not where else f"$NS,{where}"
    return [
        PromQL(
            f"histogram_quantile({q:g}, sum by (le) (rate({series}_bucket{{{matchers}}}[$__rate_interval])))",
            f"p{q * 100:g}",
        )
        for q in at
    ]


def legend() -> common_builders.VizLegendOptions:
    """The series' names in a line below the panel."""
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def _described(says: str, queries: tuple[Query, ...]) -> str:
    """`says`, and the series that feed the panel, read from its queries so that they can't differ."""
    series = dict.fromkeys(name for query in queries for name in query.series)
    if not series:
        return says
    return f"{says}\n\nSeries: {', '.join(f'`{name}`' for name in series)}."


def _source(queries: tuple[Query, ...]) -> dashboard.DataSourceRef:
    return LOKI if isinstance(queries[0], LogQL) else PROMETHEUS


def _thresholds(*steps: tuple[str, float | None]) -> dashboard_builders.ThresholdsConfig:
    found = [dashboard.Threshold(value=value, color=colour) for colour, value in steps]
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)
