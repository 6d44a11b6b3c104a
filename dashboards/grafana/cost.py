"""What a token cost, where the money went, what the bill said, and how the budgets stand: from the warehouse.

Belongs here: the choice of panels. Doesn't belong here: their questions (sql/), or a lab's own dashboard (l*.py).
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.shell import Section, numbered
from dashboards.grafana.warehouse import PLUGIN, SqlQuery, answer, bars, days
from lab_pipelines.deployment import TARGETS

USD = "currencyUSD"

SECTIONS = [
    Section(
        "What it cost",
        [
            bars(
                "Cost per 1K tokens, by concurrent users",
                SqlQuery("cost_per_1k_tokens"),
                x="users",
                matrix=("machine", "usd"),
                unit=USD,
            ),
            bars(
                "Where the money went",
                SqlQuery("where_the_money_went"),
                x="lab",
                hide=("unpriced",),
                unit=USD,
                stacked=True,
            ),
            days("Estimate against bill", SqlQuery("estimate_against_bill"), unit=USD),
            bars(
                "Idle node-hours by machine type",
                SqlQuery("idle_hours"),
                x="machine",
                hide=("idle_share", "idle_usd"),
                unit="h",
            ),
        ],
    ),
    Section(
        "Budgets",
        [
            days("This month against its budget", SqlQuery("month_against_budget"), unit=USD),
            answer("Budgets, as the guard last wrote of them", SqlQuery("budget_states"), width=12),
        ],
    ),
]


def build() -> Dashboard:
    made = (
        builders.Dashboard("Cost of the labs")
        .uid("cost")
        .description(__doc__ or "")
        .tags(["lab", "cost"])
        .version(1)
        .editable()
        .timezone("utc")
        .time("now-30d", "now")
        .with_variable(builders.DatasourceVariable("warehouse").label("labs.duckdb").type(PLUGIN))
        .with_variable(
            builders.CustomVariable("target")
            .label("Target")
            .values(",".join(TARGETS))
            .current(models.VariableOption(text="aks", value="aks"))
            .multi(False)
            .include_all(False)
        )
    )
    return numbered(made, SECTIONS)
