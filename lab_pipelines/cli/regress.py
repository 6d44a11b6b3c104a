"""`labs regress`: is the newest run of a lab worse than it may be? For people, and for a CI job by its exit code.

Doesn't belong here: the rule (lab_pipelines/regression.py), which rows it is judged on (regression_runs.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import CANT, WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, LabArgument, TargetOption, known_lab, settings_for, warehouse_of
from lab_pipelines.report.wording import GAP, percent, short

if TYPE_CHECKING:
    from lab_pipelines.regression import Comparison, Question
    from lab_pipelines.run_numbers import Quantity, Run
    from resources.warehouse_core import PlainWarehouse

QuantityOption = Annotated[
    list[str] | None, typer.Option(help="Only this one, e.g. ttft_p95; may be repeated. Unset: all.")
]

_NEXT = {
    "regression": "If the change is meant: labs baseline pin {lab} --again --target {target}.",
    "missing": "A run that lost a stage or a number proves nothing: labs show-run {lab} --target {target} says what "
    "became of it.",
    "nothing compared": "Nothing could be compared, so nothing is known to be fine. It takes a pinned baseline of this "
    "kind (labs baseline pin {lab} --target {target}), five earlier runs, or both versions in one job.",
    "inconclusive": "No number is sure enough to call: run it again (five earlier runs tell the spread), or give its "
    "stages more requests.",
    "no regression": "",
}
_SURER = (
    "To be sure, run the former and then this version in one job: "
    "labs regress {lab} --against previous --target {target}."
)


def regress(
    lab: LabArgument,
    target: TargetOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="baseline, history, or previous: the run before, of the same job. Unset: baseline and history."
        ),
    ] = None,
    runs: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="FORMER NEW", help="Compare these two runs of one job."),
    ] = None,
    quantity: QuantityOption = None,
    threshold: Annotated[float, typer.Option(help="A change that matters, as a share.", min=0.0, max=1.0)] = 0.05,
    allowance: Annotated[
        float | None,
        typer.Option(
            help="By what share two runs of the same code may differ, where the past doesn't say.", min=0.0, max=1.0
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fail if a lab's newest run is worse than its baseline or its past, and not by noise."""
    from lab_pipelines.baseline import BaselineError
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.regression import judged, outcome_of
    from lab_pipelines.regression_runs import runs_of
    from resources.contract import WarehouseError

    if against not in (None, "baseline", "history", "previous"):
        fail(f"--against {against}: expected baseline, history or previous", code=WRONG_CALL)
    if runs and against:
        fail("--runs and --against exclude each other; give one", code=WRONG_CALL)
    quantities = chosen_quantities(quantity)
    with explained(SpecError, WarehouseError, BaselineError):
        settings = settings_for(target)
        identity = known_lab(load_catalog(), lab)
        warehouse = warehouse_of(settings)
        place = (warehouse, lab, settings.target)
        known = runs_of(*place)
        if against == "previous":
            runs = _last_two(place, known)
        if runs:
            run, questions, notes = _of_one_job(place, known, runs, quantities, allowance)
        else:
            run, questions, notes = _of_the_newest(place, known, against, quantities, allowance)
    compared = judged(questions, threshold=threshold)
    outcome = outcome_of(compared)
    if as_json:
        rows = [_plain(one) for one in compared]
        print_json({"lab": lab, "target": settings.target, "run_id": run.run_id, "outcome": outcome, "notes": notes,
                    "comparisons": rows})  # fmt: skip
    else:
        say(f"{lab} · {identity.title}", style="bold")
        said = f"run {run.run_id} · {run.provenance} · {run.engine} · pace {run.pace} at {run.time_scale:g} x"
        say(f"{said} · target {settings.target}")
        for note in notes:
            say(note, style="dim")
        _print(compared, outcome)
        if todo := _NEXT[outcome]:
            # Whoever has just compared two runs of one job needn't be told to.
            surer = f" {_SURER}" if outcome != "missing" and not runs else ""
            say(f"{todo}{surer}".format(lab=lab, target=settings.target))
    if outcome in ("regression", "missing", "nothing compared"):
        raise typer.Exit(CANT)


def chosen_quantities(names: Sequence[str] | None) -> list[Quantity]:
    """The quantities asked for, or all. Ends the program for an unknown one."""
    from lab_pipelines.run_numbers import QUANTITIES

    known = {quantity.name: quantity for quantity in QUANTITIES}
    if unknown := [name for name in names or [] if name not in known]:
        fail(f"--quantity {unknown[0]}: expected one of {', '.join(known)}", code=WRONG_CALL)
    return [known[name] for name in names or known]


_Place = tuple["PlainWarehouse", str, str]
_Asked = tuple["Run", "list[Question]", list[str]]


def _valid(place: _Place, known: Sequence[Run]) -> list[Run]:
    """The runs that speak for the lab, oldest first. Ends the program where there are none."""
    _, lab, target = place
    valid = [run for run in known if run.invalid_reason is None]
    if not valid:
        fail(f"{lab} has no run on target {target} yet: labs run {lab} --target {target}")
    return valid


def _last_two(place: _Place, known: Sequence[Run]) -> tuple[str, str]:
    """The newest run and the one before it."""
    valid = _valid(place, known)
    if len(valid) < 2:
        fail(f"{place[1]} has one run on target {place[2]}, and none before it: run the former version first")
    return valid[-2].run_id, valid[-1].run_id


def _of_one_job(
    place: _Place,
    known: Sequence[Run],
    named: tuple[str, str],
    quantities: Collection[Quantity],
    allowance: float | None,
) -> _Asked:
    """The second run against the first."""
    from lab_pipelines.regression import Allowance, against_run
    from lab_pipelines.regression_runs import with_spreads

    by_id = {run.run_id: run for run in known}
    _, lab, target = place
    if unknown := [name for name in named if name not in by_id]:
        newest = ", ".join([run.run_id for run in known][-5:]) or "none"
        fail(f"--runs {unknown[0]}: {lab} has no such run on {target}; its newest: {newest}", code=WRONG_CALL)
    former, run = (by_id[name] for name in named)
    for one in (former, run):
        if one.invalid_reason:
            fail(f"run {one.run_id} speaks for nothing: {one.invalid_reason}")
    if differing := run.unlike(former):
        fail(f"the two runs can't be compared: {differing}")
    run, former = with_spreads(place[0], run, lab, target), with_spreads(place[0], former, lab, target)
    questions = against_run(
        run, former, name="former", allowance=_within(target, Allowance.SAME_JOB), allowed=allowance,
        quantities=quantities,
    )  # fmt: skip
    return run, questions, _changes(run, former, f"run {former.run_id}")


def _of_the_newest(
    place: _Place,
    known: Sequence[Run],
    against: str | None,
    quantities: Collection[Quantity],
    allowance: float | None,
) -> _Asked:
    """The newest run against the pinned baseline, its past, or both."""
    from lab_pipelines.regression import against_history
    from lab_pipelines.regression_runs import with_spreads

    warehouse, lab, target = place
    valid = _valid(place, known)
    run = with_spreads(warehouse, valid[-1], lab, target)
    earlier = [one for one in valid[:-1] if run.unlike(one) is None]
    questions, notes = list[Any](), list[str]()
    if against in (None, "baseline"):
        asked, said = _of_the_baseline(place, run, valid, earlier, quantities, allowance)
        questions += asked
        notes += said
    if against in (None, "history"):
        questions += against_history(run, earlier, quantities=quantities)
        notes.append(f"history: earlier runs of the same engine, pace and time scale: {len(earlier)}")
    return run, questions, notes


def _of_the_baseline(
    place: _Place,
    run: Run,
    valid: Sequence[Run],
    earlier: Sequence[Run],
    quantities: Collection[Quantity],
    allowance: float | None,
) -> tuple[list[Question], list[str]]:
    from lab_pipelines import baseline
    from lab_pipelines.baseline_rows import publish_baselines
    from lab_pipelines.regression import Allowance, against_run
    from lab_pipelines.regression_runs import pinned_run, with_spreads

    warehouse, lab, target = place
    publish_baselines(warehouse, baseline.BASELINES_DIR)
    current = baseline.current(lab, target, baseline.BASELINES_DIR)
    if current is None:
        return [], [f"baseline: none is pinned: labs baseline pin {lab} --target {target}"]
    pinned = pinned_run(current)
    said = f"baseline {current.path.name} (sha256 {current.digest[:12]}, run {pinned.run_id})"
    if pinned.run_id == run.run_id:
        return [], [f"{said}: it is this run"]
    if differing := run.unlike(pinned):
        return [], [f"{said}: can't be compared: {differing}"]
    # What the runs here say of their spread says nothing of another machine's.
    here = any(one.run_id == pinned.run_id for one in valid)
    if here:
        pinned = with_spreads(warehouse, pinned, lab, target, pinned=True)
    questions = against_run(
        run,
        pinned,
        name="baseline",
        allowance=_within(target, Allowance.SAME_PLACE if here else Allowance.ANOTHER_MACHINE),
        allowed=allowance,
        earlier=earlier if here else (),
        quantities=quantities,
    )
    return questions, [said, *_changes(run, pinned, "the baseline")]


def _within(target: str, allowance: Any) -> Any:
    """A rehearsal's clock is virtual, wherever it runs."""
    from lab_pipelines.regression import Allowance

    return Allowance.NONE if target == "rehearsal" else allowance


def _changes(run: Run, other: Run, name: str) -> list[str]:
    changed = run.changed(other)
    return [f"since {name} changed: {', '.join(changed)}"] if changed else []


def _print(compared: Sequence[Comparison], outcome: str) -> None:
    """What is worse, missing or better, and every quantity over all stages; of the rest how many there are."""
    shown = [one for one in compared if one.cell.is_whole or one.verdict in ("worse", "missing", "better")]
    order = ("worse", "missing", "inconclusive", "same", "better")
    shown.sort(key=lambda one: order.index(one.verdict))
    if shown:
        columns = ["verdict", "against", "where", "quantity", "reference", "this run", "change", "interval", "n"]
        print_table(columns, [_line(one) for one in shown], right=[4, 5, 6])
    for one in compared:
        if one.verdict in ("worse", "missing"):
            say(f"{one.verdict}: {one.cell.quantity.name} of {one.cell.place}, against {one.against}: {one.reason}")
    undecided: dict[str, list[str]] = {}
    for one in shown:
        if one.verdict == "inconclusive":
            undecided.setdefault(f"against {one.against}: {one.reason}", []).append(one.cell.quantity.name)
    for reason, names in undecided.items():
        say(f"inconclusive: {', '.join(dict.fromkeys(names))}, {reason}", style="dim")
    counted = ", ".join(f"{sum(one.verdict == v for one in compared)} {v}" for v in order)
    say(f"{outcome}: of {len(compared)} comparisons {counted}", style="bold")


def _line(one: Comparison) -> list[str]:
    interval = GAP
    if one.low is not None and one.high is not None:
        interval = f"{percent(one.low, signed=True)} to {percent(one.high, signed=True)}"
    return [
        one.verdict,
        one.against,
        one.cell.place,
        one.cell.quantity.name,
        short(one.reference),
        short(one.value),
        percent(one.change, signed=True),
        interval,
        one.n,
    ]


def _plain(one: Comparison) -> dict[str, Any]:
    cell = one.cell
    return {
        **{name: getattr(cell, name) for name in ("variant", "step", "load", "users", "offered_per_s")},
        "quantity": cell.quantity.name,
        **{name: getattr(one, name) for name in ("against", "verdict", "value", "reference", "change", "low", "high")},
        **{name: getattr(one, name) for name in ("n", "reason")},
    }
