"""`labs plan`: what a run would deploy where, how long it would take, and what it would cost at most.

Doesn't belong here: the arithmetic (lab_pipelines/plan.py).
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from lab_pipelines.cli.console import explained, print_fields, print_json, print_list, print_table, say
from lab_pipelines.cli.options import (
    JsonOption,
    LabArgument,
    PaceOption,
    RehearsalOption,
    TargetOption,
    TurnsOption,
    VariantOption,
    chosen_pace,
    chosen_variants,
    chosen_visits,
    dagster_home,
    known_lab,
    refuse_target,
    settings_for,
    warehouse_of,
)
from lab_pipelines.cli.rehearsed import print_outlook, rehearsed_outlook
from lab_pipelines.report.wording import GAP, duration

if TYPE_CHECKING:
    from decimal import Decimal

    from lab_pipelines.plan import Plan


def plan(
    lab: LabArgument,
    target: TargetOption = None,
    pace: PaceOption = None,
    variant: VariantOption = None,
    turns: TurnsOption = None,
    rehearsal: RehearsalOption = True,
    as_json: JsonOption = False,
) -> None:
    """Rehearse a lab: what a run would deploy where, how long it takes, what it costs, and whether it can decide."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.catalog.spec import LabSpec
    from lab_pipelines.plan import plan_lab, plan_outline
    from resources.chart_values import component_arguments
    from resources.contract import WarehouseError
    from resources.price_sheets import known_prices

    seen = None
    with explained(SpecError, WarehouseError):
        settings, found = settings_for(target), known_lab(load_catalog(), lab)
        sheet = known_prices(settings.data_dir, settings.lake_url)
        if isinstance(found, LabSpec):
            # Where nobody asked for a target, a plan for one that can run the lab says more than a refusal.
            asked = target is not None or "LABS_TARGET" in os.environ
            where = settings.target if asked or settings.target in found.targets else found.targets[0]
            refuse_target(found, where)
            pace_name = chosen_pace(found, where, pace or settings.pace)
            variants = chosen_variants(found, where, variant or settings.variant)
            visits = chosen_visits(found, variants, turns or settings.turns)
            planned = plan_lab(
                found,
                sheet,
                component_arguments,
                target=where,
                pace_name=pace_name,
                visits=visits,
                region=settings.region,
            )
            if rehearsal and "rehearsal" in found.targets:
                seen = rehearsed_outlook(
                    found,
                    variants,
                    turns=visits[-1].trial,
                    pace=pace_name,
                    settings=settings,
                    sheet=sheet,
                    warehouse=warehouse_of(settings),
                    home=dagster_home(),
                    quiet=as_json,
                )
        else:
            planned = plan_outline(found, sheet, region=settings.region)
    if as_json:
        components = [component.model_dump() for component in planned.components]
        outlook = {"run_id": seen[0], **asdict(seen[1])} if seen else None
        print_json({**asdict(planned), "components": components, "rehearsed": outlook, "provenance": "modelled"})
        return
    _print_plan(planned)
    if seen:
        print_outlook(*seen, pace=planned.pace or "")
    if settings.budget_usd is not None and planned.complete:
        _print_budget(planned, settings.budget_usd)


def _print_budget(planned: Plan, budget: Decimal) -> None:
    """Whether a run would start, with the budget that is set."""
    most = planned.at_most_usd
    within = most is not None and most <= budget
    says = "a run would start" if within else "a run would be refused; LABS_BUDGET_USD sets the budget"
    print_fields([("budget", f"{budget:f} USD against {_usd(most)} at most: {says}")])


def _print_plan(planned: Plan) -> None:
    say(f"{planned.lab} · {planned.title}", style="bold")
    if planned.complete:
        repeated = f" · {planned.turns} turns" if planned.turns > 1 else ""
        say(f"target {planned.target} · pace {planned.pace} · {', '.join(planned.variants)}{repeated}")
    else:
        say("outline: it can't run yet; this is what is known so far")
    nodes = [
        f"{node.count} x {node.sku} ({node.gpu or 'no GPU'}), {_usd(node.usd_per_hour)}/h each"
        for node in planned.nodes
    ]
    where = {None: "a stack on", "local": "processes on this machine, which stand for", "rehearsal": "a model of"}.get(
        planned.target, "Helm releases on"
    )
    print_fields(
        [
            ("deploys", f"{where} {'; '.join(nodes)}" if nodes else "nothing"),
            ("namespace", planned.namespace),
            ("labels", ", ".join(f"{key}={value}" for key, value in planned.labels.items())),
        ]
    )
    if planned.components:
        say()
        columns = ["component", "kind", "chart", "version", "values"]
        lines = [[c.name, c.kind, c.chart.name, c.chart.version, c.chart.values] for c in planned.components]
        print_table(columns, lines)
    if planned.parts:
        say()
        lines = [
            [part.variant, part.name, part.kind.replace("_", " "), duration(part.expected_s), duration(part.at_most_s)]
            for part in planned.parts
            if part.trial == 1
        ]
        again = {part.variant for part in planned.parts if part.trial > 1}
        lines += [_repeats(planned, variant) for variant in planned.variants if variant in again]
        total = ["", "", "in all", duration(planned.expected_s), duration(planned.at_most_s)]
        print_table(["variant", "step", "", "expected", "at most"], [*lines, total], right=[3, 4])
    print_fields(_costs(planned))
    print_list("not in this plan" if planned.complete else "missing until it can run", planned.unknown)


def _repeats(planned: Plan, variant: str) -> list[str]:
    """The line of a variant's later turns together."""
    again = [part for part in planned.parts if part.variant == variant and part.trial > 1]
    turns = len({part.trial for part in again})
    took = [sum(part.expected_s for part in again), sum(part.at_most_s for part in again)]
    return [variant, f"{turns} more turn{'s'[: turns != 1]}", "", *map(duration, took)]


def _costs(planned: Plan) -> list[tuple[str, str]]:
    at_most = f"{_usd(planned.at_most_usd)} at most"
    if planned.complete:
        short = "; what is not in this plan comes on top" if planned.unknown else ""
        cost = f"{at_most}, {_usd(planned.expected_usd)} expected{short}"
    else:
        cost = f"{at_most}, if the nodes stay up through its sessions, {planned.at_most_s / 3600:g} hours"
    lines = [
        ("cost", cost),
        ("prices", f"on-demand list prices of {planned.region}: {planned.prices}"),
    ]
    if planned.complete:
        basis = (
            "modelled: cold start and requests by the engine model, a wait with its whole time; at most is what the "
            "spec allows"
        )
        if planned.time_scale != 1:
            basis += f". Times are the stack's own, {planned.time_scale:g} times as fast on the wall"
        lines.append(("times", basis))
    if planned.target == "local":
        lines.append(("on local", "nothing is rented: the cost is that of the nodes which this machine stands for"))
    return lines


def _usd(amount: Decimal | None) -> str:
    return GAP if amount is None else f"{amount:.3f} USD"
