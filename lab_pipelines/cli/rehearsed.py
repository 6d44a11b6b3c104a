"""A plan's rehearsal: found in the warehouse or run now, and what it says of a real run.

Belongs here: reading its rows, and printing the outlook. Doesn't belong here: the arithmetic (rehearsed_plan.py), or
the bounds that a spec sets by itself (plans.py).
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_pipelines.cli.console import fail, print_fields, print_list, print_table, say
from lab_pipelines.report.wording import duration

if TYPE_CHECKING:
    from lab_pipelines.catalog.prices import PriceSheet
    from lab_pipelines.catalog.spec import LabSpec
    from lab_pipelines.catalog.stack import Variant
    from lab_pipelines.deployment import Deployment
    from lab_pipelines.rehearsed_plan import Interval, Outlook, RehearsedVariant
    from lab_pipelines.turns import Visit
    from resources.warehouse_core import PlainWarehouse

_SQL = Path(__file__).parent


def rehearsed_outlook(
    spec: LabSpec,
    variants: Sequence[Variant],
    *,
    turns: int,
    pace: str,
    settings: Deployment,
    sheet: PriceSheet,
    warehouse: PlainWarehouse,
    home: Path,
    quiet: bool,
) -> tuple[str, Outlook]:
    """The rehearsal's run and what it says. Runs it first where there is none yet. Ends the program if that fails."""
    from lab_pipelines.rehearsed_plan import outlook
    from lab_pipelines.turns import visits

    walked = [variant for variant in variants if variant in spec.variants_on("rehearsal")]
    visited = visits(walked, turns)
    run_id = _known_run(warehouse, spec, visited, pace)
    if run_id is None:
        if not quiet:
            repeated = f", {turns} turns" if turns > 1 else ""
            say(f"rehearsing {spec.id}: {len(walked)} variant{'s'[: len(walked) > 1]} at pace {pace}{repeated} …")
        _rehearse(spec, walked, turns=turns, pace=pace, settings=settings, home=home)
        run_id = _known_run(warehouse, spec, visited, pace)
    if run_id is None:
        fail(f"the rehearsal of {spec.id} left no rows in {settings.data_dir}; run `labs run {spec.id} -t rehearsal`")
    findings = warehouse.query("SELECT * FROM findings WHERE run_id = ?", [run_id])
    return run_id, outlook(spec, _variants(spec, walked, run_id, pace, settings, sheet, warehouse), findings)


def print_outlook(run_id: str, seen: Outlook, *, pace: str) -> None:
    """What the rehearsal says, for a person."""
    say()
    say("Rehearsed: modelled, in virtual time; a real run may differ", style="bold")
    took, lines = seen.duration_s, list[tuple[str, str]]()
    lines.append(("takes", f"{duration(took.expected)} ({duration(took.low)} to {duration(took.high)})"))
    lines += [("node-hours", f"{sku}: {_around(hours)}") for sku, hours in seen.node_hours.items()]
    cost = "unknown: a price is missing" if seen.usd is None else f"{_around(seen.usd, digits=3)} USD"
    lines += [("costs", cost), ("intervals", "9 of 10 draws of cold starts and of the model's error"), ("run", run_id)]
    print_fields(lines)
    if seen.needs:
        say()
        print_table(
            ["finding", "in the rehearsal", "between", "requests", "needed"],
            [
                [
                    need.finding,
                    need.verdict,
                    " and ".join(need.stages),
                    str(need.requests_rehearsed or "none"),
                    "no number decides it"
                    if need.requests_needed is None
                    else f"{need.requests_needed}{' or more' * need.is_least}",
                ]
                for need in seen.needs
            ],
            right=[3, 4],
        )
        say(
            "needed: requests in each of the two stages until the interval clears the threshold in 8 of 10 runs, by "
            f"the model's own spread. A real engine's is larger; pace {pace} decides how many there are."
        )
    print_list("open in the rehearsal", [f"{finding}: {reason}" for finding, reason in seen.open.items()])


def _around(interval: Interval, *, digits: int = 2) -> str:
    return f"{interval.expected:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def _known_run(warehouse: PlainWarehouse, spec: LabSpec, visited: Sequence[Visit], pace: str) -> str | None:

    asked = {
        "lab": spec.id,
        "spec_digest": spec.digest,
        "pace": pace,
        "variants": [visit.variant.id for visit in visited],
    }
    found = warehouse.query((_SQL / "rehearsed_run.sql").read_text(encoding="utf-8"), asked)
    return found[0]["run_id"] if found else None


def _rehearse(
    spec: LabSpec, variants: Sequence[Variant], *, turns: int, pace: str, settings: Deployment, home: Path
) -> None:
    from lab_pipelines.cli.launch import materialize_command, reasons, supervise

    log = settings.data_dir / "runs" / "commands" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{spec.id}-{os.getpid()}.log"
    chosen = {
        "LABS_TARGET": "rehearsal",
        "LABS_PACE": pace,
        "LABS_VARIANT": ",".join(variant.id for variant in variants),
        "LABS_TURNS": str(turns),
        "LABS_DATA_DIR": str(settings.data_dir),
        "LABS_REGION": settings.region,
        "DAGSTER_HOME": str(home),
    }
    others = {name: value for name, value in os.environ.items() if name != "LABS_BUDGET_USD"}
    ended = supervise(
        materialize_command(spec.id, select="group:lab"),
        environ={**others, **chosen},
        log=log,
        show=lambda record: None,
        on_interrupt=lambda count: None,
    )
    if ended.interrupted or ended.code != 0:
        said = "; ".join(reasons(ended, home=home, log=log)) or f"Dagster ended with code {ended.code}"
        fail(f"{spec.id} could not be rehearsed: {said}. Its log: {log}. `--no-rehearsal` plans without")


def _variants(
    spec: LabSpec,
    variants: Sequence[Variant],
    run_id: str,
    pace: str,
    settings: Deployment,
    sheet: PriceSheet,
    warehouse: PlainWarehouse,
) -> list[RehearsedVariant]:
    from lab_pipelines.catalog.prices import UnknownPriceError
    from lab_pipelines.rehearsed_plan import RehearsedStage, RehearsedVariant

    max_hold_s = spec.paces[pace].max_hold_s
    asked = {"run_id": run_id}
    stages: dict[str, list[RehearsedStage]] = {}
    for row in warehouse.query((_SQL / "rehearsed_stages.sql").read_text(encoding="utf-8"), asked):
        stages.setdefault(row.pop("session_id"), []).append(RehearsedStage(**row, max_hold_s=max_hold_s))
    found, former = [], None
    by_id = {variant.id: variant for variant in variants}
    for row in warehouse.query((_SQL / "rehearsed_variants.sql").read_text(encoding="utf-8"), asked):
        try:
            priority = spec.nodes_of(by_id[row["variant"]]).priority
            price = sheet.unit_price(row["sku"], settings.region, priority).usd
        except UnknownPriceError:
            price = None
        found.append(
            RehearsedVariant(
                variant=row["variant"],
                sku=row["sku"],
                nodes=row["nodes"],
                usd_per_node_hour=price,
                cold_start_s=row["cold_start_s"],
                outside_s=row["outside_s"],
                stages=stages.get(row["session_id"], []),
                draw_cold_start=_cold_start(
                    row, sheet, warm=former == row["sku"], on_volume=_on_volume(spec, by_id[row["variant"]])
                ),
                model_error=_model_error(spec, by_id[row["variant"]], sheet),
            )
        )
        former = row["sku"]
    return found


def _on_volume(spec: LabSpec, variant: Variant) -> bool:
    """Whether the variant's weights lie on a volume, whose limits the rehearsal of its load followed."""
    from lab_pipelines.deployment import REPO_ROOT
    from lab_pipelines.rehearsal.weights import volume_of
    from resources.chart_values import load_values

    engine = spec.stack.of_kind("vllm")
    if engine is None:
        return False
    return volume_of(load_values(REPO_ROOT / engine.chart.values, variant.values.get(engine.name, {}))) is not None


def _cold_start(row: dict[str, Any], sheet: PriceSheet, *, warm: bool, on_volume: bool) -> Any:
    """Draws a cold start of the session's engine; the one that was rehearsed where there is no engine.

    `on_volume`: its model load is the rehearsed one, since the drawn one is from no store in particular.
    """
    from lab_pipelines.engine.cold_start import drawn_cold_start

    gpu, model = sheet.sku(row["sku"]).gpu, row["model"]
    if gpu is None or model is None:
        return lambda numbers: row["cold_start_s"]

    def draw(numbers: random.Random) -> float:
        phases = drawn_cold_start(gpu, model, numbers, warm=warm)
        known = {"model_loaded": row["model_loaded_s"]} if on_volume else {}
        return sum(known.get(phase.name, phase.duration_s) for phase in phases)

    return draw


def _model_error(spec: LabSpec, variant: Variant, sheet: PriceSheet) -> float:
    from lab_pipelines.engine.args import EngineArgsError
    from lab_pipelines.engine.memory import GpuMemoryError
    from lab_pipelines.engine.setup import EngineModel
    from lab_pipelines.engine.trust import OUTSIDE_ERROR, longest_sequence, trust_of
    from resources.chart_values import component_arguments

    engine, node = spec.stack.of_kind("vllm"), spec.nodes_of(variant)
    gpu = sheet.sku(node.sku).gpu
    if engine is None or gpu is None:
        return 0.0
    try:
        arguments = component_arguments(engine, [variant.values.get(engine.name, {})])
        model = EngineModel.of(arguments, gpu, max(node.gpus, 1))
        return trust_of(model, context=longest_sequence(spec.steps)).error
    except (EngineArgsError, GpuMemoryError):  # a variant that is refused takes no load
        return OUTSIDE_ERROR
