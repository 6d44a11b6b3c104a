"""`labs show`: everything that the catalogue says of one lab, and how a lab's facts read in one line.

Doesn't belong here: lists of labs (catalogue.py), what a run would take (plans.py) or brought (runs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from lab_pipelines.cli.console import explained, print_fields, print_json, print_list, print_table, say
from lab_pipelines.cli.options import JsonOption, LabArgument, known_lab
from lab_pipelines.words import counted

if TYPE_CHECKING:
    from lab_pipelines.catalog.identity import Erratum
    from lab_pipelines.catalog.loader import Catalog
    from lab_pipelines.catalog.measures import Measure
    from lab_pipelines.catalog.prices import PriceSheet
    from lab_pipelines.catalog.spec import LabSpec, Outline
    from lab_pipelines.catalog.stack import Nodes
    from lab_pipelines.catalog.steps import AnyStep, Profile

NO_GPU = "none"


def show(lab: LabArgument, as_json: JsonOption = False) -> None:
    """Everything that the catalogue says of one lab."""
    from lab_pipelines.catalog.calendar import load_calendar
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.catalog.prices import load_prices

    with explained(SpecError):
        catalog = load_catalog()
        found = known_lab(catalog, lab)
        calendar_, sheet = load_calendar(), load_prices()
    week, phase = calendar_.week(found.week), calendar_.phase(found.phase)
    if as_json:
        about = {"status": status_of(found), "phase_name": phase.name, "starts": week.starts, "ends": week.ends}
        print_json({**found.model_dump(mode="json"), "cost_labels": found.cost_labels, **about})
        return
    say(f"{found.id} · {found.title}", style="bold")
    sessions = counted(found.sessions, "session")
    facts = [f"phase {phase.number} {phase.name}", f"week {week.number} ({dates(week.starts, week.ends)})", sessions]
    say(" · ".join([*facts, *found.kinds, status_of(found)]))
    say(f"\n{found.question}")
    print_fields(
        [
            ("concepts", "; ".join(found.concepts)),
            ("builds on", ", ".join(_titled(catalog, one) for one in found.builds_on) or "nothing before it"),
            ("nodes", "; ".join(_node_line(node, sheet) for node in found.nodes) or "none"),
            ("namespace", found.namespace),
            ("labels", ", ".join(f"{key}={value}" for key, value in found.cost_labels.items())),
        ]
    )
    from lab_pipelines.catalog.spec import LabSpec

    if isinstance(found, LabSpec):
        _show_complete(found)
    else:
        print_list("varies", [f"{name}: {', '.join(map(str, values))}" for name, values in found.parameters.items()])
        print_list("records", found.records)
        print_list("missing until it can run", found.missing)
    print_list("errata", [erratum_line(one) for one in found.errata])


def _show_complete(spec: LabSpec) -> None:
    where = ", ".join(spec.targets)
    turns = [("turns", f"the variants are walked {spec.turns} times")] if spec.turns > 1 else []
    print_fields([("targets", f"{where}. {spec.needs}" if spec.needs else where), *turns])
    if spec.stack.components:
        say("\nstack", style="bold")
        columns = ["component", "kind", "chart", "version", "values", "repository"]
        lines = [
            [c.name, c.kind, c.chart.name, c.chart.version, c.chart.values, c.chart.repository]
            for c in spec.stack.components
        ]
        print_table(columns, lines)
    else:
        print_fields([("stack", "the manifests of its steps")])
    print_list("variants", [f"{one.id}: {one.description}{_overrides(one.values)}" for one in spec.variants])
    print_list("steps", [f"{step.name}: {_step_line(step)}" for step in spec.steps])
    paces = [
        f"{name}: hold {pace.hold_s:g} to {pace.max_hold_s:g} s, {pace.time_scale:g} stack s per wall s"
        + (
            f" (default on {', '.join(t for t, p in spec.default_pace.items() if p == name)})"
            * (name in spec.default_pace.values())
        )
        for name, pace in spec.paces.items()
    ]
    print_list("paces", paces)
    if spec.objective:
        origin = "" if spec.slo else " (the default for completions)"
        print_fields([("useful is", f"{spec.objective.line}{origin}")])
    print_list("measures", [f"{one.name} ({one.unit}): {_measure_line(one)}" for one in spec.measures])
    print_list("findings", [f"{one.id}: {one.claim}" for one in spec.findings])
    if spec.load_steps:
        client = [f"{name} {value:g}" for name, value in spec.error_budget.client.model_dump().items()]
        print_fields([("the client's error", f"at most {', '.join(client)}")])


def _titled(catalog: Catalog, lab: str) -> str:
    return f"{lab} {catalog.lab(lab).title}" if lab in catalog.ids else lab


def _node_line(node: Nodes, sheet: PriceSheet) -> str:
    return f"{node.count} x {node.sku} ({gpu_label(node, sheet)})" if node.gpus else f"{node.count} x {node.sku}"


def _overrides(values: dict[str, dict[str, Any]]) -> str:
    listed = [f"{name}: {key}={value}" for name, keys in values.items() for key, value in keys.items()]
    return f" ({'; '.join(listed)})" if listed else ""


def _measure_line(measure: Measure) -> str:
    source = f"by {measure.sql}" if measure.sql else (measure.promql or "")
    kept = f", {measure.statistic}" if measure.over == "stage" else ""
    return f"{source} [over {measure.over}{kept}]"


def _step_line(step: AnyStep) -> str:
    from lab_pipelines.catalog import steps

    match step:
        case steps.LoadStep():
            shapes = "; ".join(_request_line(request) for request in step.requests)
            said = f"load on {step.component}: {_profile_line(step.profile)}; {shapes}"
        case steps.ApplyStep():
            pods = "; ".join(f"{p.name} {p.phase}" + (f" because {p.reason}" * bool(p.reason)) for p in step.pods)
            why = f" because {step.reason}" if step.reason else ""
            ends = f" ({pods} within {step.within_s:g} s)" if pods else ""
            said = f"apply {step.manifests}: {step.expect}{why}{ends}"
        case steps.ObserveStep():
            until = step.until
            said = f"wait until {until.promql} {until.comparison} {until.value:g}, for at most {step.within_s:g} s"
        case steps.FireAlertStep():
            cause = f"{step.cause.name} ({_step_line(step.cause)})"
            said = f"{step.alert} is notified within {step.within_s:g} s of {cause}"
        case steps.RestartStep():
            said = f"restart {step.component}{_overrides({'with': step.values})}"
        case steps.IdleStep():
            said = f"hold the stack for {step.duration_s:g} s without load"
        case steps.ReclaimsStep():
            rates = ", ".join(f"{rate:g}" for rate in step.reclaims_per_hour)
            said = (
                f"draw {step.months} months of {step.on_demand} on-demand and {step.spot} Spot nodes under "
                f"{step.requests_per_s:g} requests/s, with {rates} reclaims per hour and Spot node"
            )
        case steps.StopStep() | steps.StartStep() | steps.CollectLogsStep():
            said = f"{step.kind.replace('_', ' ')} of {step.component}"
    only = [f"in {', '.join(step.variants)}"] if step.variants else []
    only += [f"on {', '.join(step.targets)}"] if step.targets else []
    return f"{said} (only {' '.join(only)})" if only else said


def _profile_line(profile: Profile) -> str:
    match profile.kind:
        case "ramp":
            return f"{', '.join(map(str, profile.users))} users"
        case "constant":
            return counted(profile.users, "user")
        case "burst":
            return f"{profile.requests} requests at once"
        case "rate":
            listed = ", ".join(f"{per_s:g}" for per_s in profile.per_s)
            bursty = f" (burstiness {profile.burstiness:g})" if profile.burstiness else ""
            return f"{listed} requests/s, {profile.arrivals} arrivals{bursty}"
        case "rate_profile":
            points = ", ".join(f"{point.per_s:g} at {point.at_s:g} s" for point in profile.points)
            times = f", {profile.repeat} times" if profile.repeat > 1 else ""
            bursty = f" (burstiness {profile.burstiness:g})" if profile.burstiness else ""
            return f"requests/s from point to point: {points}{times}; {profile.arrivals} arrivals{bursty}"
        case "trace":
            end = f" to {profile.start_s + profile.duration_s:g} s" if profile.duration_s is not None else ""
            window = f", from {profile.start_s:g} s{end}" if profile.start_s or end else ""
            return f"the trace {profile.file} at {profile.speed:g} times its speed{window}"


def _request_line(request: Any) -> str:
    if request.kind == "traced":
        return f"at most {request.max_input_tokens} tokens in, {request.max_output_tokens} out"
    if request.kind == "http":
        return f"GET {request.path} → {request.expect}"
    return f"{request.input_tokens} tokens in, {request.output_tokens} out"


def status_of(lab: LabSpec | Outline) -> str:
    """`outline` for a lab that names what is missing, else `complete`."""
    return "outline" if hasattr(lab, "missing") else "complete"


def dates(starts: date, ends: date) -> str:
    return f"{starts:%b %d} - {ends:%b %d}"


def gpu_name(node: Nodes, sheet: PriceSheet) -> str | None:
    """The GPU of a node as the price sheet names it; None without one. A SKU that the sheet lacks stands for itself."""
    if not node.gpus:
        return None
    return sheet.sku(node.sku).gpu if node.sku in sheet.skus else node.sku


def gpu_label(node: Nodes, sheet: PriceSheet) -> str:
    """All GPUs of such nodes together: `T4`, `2xT4`, or `none`."""
    gpus = node.gpus * node.count
    name = gpu_name(node, sheet) or NO_GPU
    return f"{gpus}x{name}" if gpus > 1 else name


def gpu_labels(nodes: Sequence[Nodes], sheet: PriceSheet) -> str:
    """The GPUs of a lab, `T4 + A100-80G`; nodes without any are left out."""
    return " + ".join(gpu_label(node, sheet) for node in nodes if node.gpus) or NO_GPU


def erratum_line(erratum: Erratum) -> str:
    return f"{erratum.letter}\n  today: {erratum.today}\n  source: {erratum.source}"
