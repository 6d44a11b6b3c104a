"""What every lab's dashboard has around its panels: identity, variables, links, layout.

Belongs here: what is the same for all. Doesn't belong here: panels (panels.py), the labs' choice of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.panels import LOKI, PROMETHEUS, PanelBuilder
from lab_pipelines.catalog.loader import load_catalog

SCALED_TIME = (
    "Rates are per second of Prometheus's clock: where a run's time_scale is not 1, divide them by it. Latencies are "
    "the server's own and need no correction."
)
"""For dashboards of stacks whose clock may run faster than Prometheus's (docs/decisions/0001-stack-seconds.md)."""


@dataclass(frozen=True)
class Section:
    """Panels under one heading. Their widths fill Grafana's 24 columns row by row."""

    title: str
    panels: list[PanelBuilder]


def lab_dashboard(
    lab: str, *, uid: str, about: str, sections: list[Section], namespaces_of: str | None, logs: bool = False
) -> Dashboard:
    """The dashboard of one lab, titled as the catalog titles it.

    `namespaces_of` is the series whose namespaces can be chosen; None asks Loki instead, for a dashboard that must work
    without metrics. `logs` adds the choice of a Loki. Panels are numbered in their order, so the JSON changes only
    where the dashboard does.
    """
    identity = load_catalog().lab(lab)
    made = around(
        f"{lab} · {identity.title}",
        uid=uid,
        about=about,
        tags=["lab", lab],
        namespaces_of=namespaces_of,
        namespace=identity.namespace,
        logs=logs,
    )
    return numbered(made, sections)


def around(
    title: str,
    *,
    uid: str,
    about: str,
    tags: list[str],
    namespaces_of: str | None,
    namespace: str,
    logs: bool = False,
) -> builders.Dashboard:
    """What stands around the panels of a dashboard of something that runs, as `lab_dashboard` describes it.

    `namespace` is the one that is chosen at first.
    """
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(tags)
        .version(1)
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .timezone("utc")
        .refresh("10s")
        .time("now-30m", "now")
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if logs:
        made = made.with_variable(builders.DatasourceVariable("logs").label("Loki").type("loki"))
    made = made.with_variable(_namespace(namespaces_of, current=namespace))
    made = made.annotation(
        builders.AnnotationQuery()
        .name("Alerts")
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color("red")
        .expr('ALERTS{namespace="$namespace",alertstate="firing"}')
    )
    return made.link(
        builders.DashboardLink("Labs")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["lab"])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def numbered(made: builders.Dashboard, sections: list[Section]) -> Dashboard:
    """The dashboard with its sections, its panels numbered in their order."""
    for section in sections:
        made = made.with_row(builders.Row(section.title))
        for panel in section.panels:
            made = made.with_panel(panel)
    built = made.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return built


def _namespace(of: str | None, *, current: str) -> builders.QueryVariable:
    variable = (
        builders.QueryVariable("namespace")
        .label("Namespace")
        .current(models.VariableOption(text=current, value=current))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(False)
        .include_all(False)
    )
    if of is None:
        # Loki's own form of the question: type 1 asks for a label's values, here of all streams.
        return variable.datasource(LOKI).query({"refId": "namespaces", "type": 1, "label": "namespace", "stream": ""})
    return variable.datasource(PROMETHEUS).query({"query": f"label_values({of}, namespace)", "refId": "namespaces"})
