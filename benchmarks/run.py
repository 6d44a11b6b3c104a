"""The benchmarks' command line: runs them, prints the figures beside their bounds, writes results/latest.json.

It exits with 0 also when a figure is over its bound, and says so; it exits with 1 when a benchmark could not be run.
Doesn't belong here: measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from rich.console import Console

from benchmarks import (
    attribution,
    catalogue,
    client_lag,
    cluster_ticks,
    demo,
    engine_loop,
    figures,
    frozen,
    imports,
    overhead,
    rehearsal,
    replicas,
    report,
    rivals,
    row_writing,
    sheet,
)
from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure

RESULT = Path(__file__).parent / "results" / "latest.json"
_TABLE_WIDTH = 120
"""Columns, also where the output is a file or a narrow window: a wrapped line is better than a figure cut short."""
_BUSY = 0.5
"""Load average from which on other work is likely to have disturbed the figures."""
BENCHMARKS = (
    "overhead",
    "lag",
    "import",
    "catalogue",
    "memory",
    "engine",
    "replicas",
    "rehearsal",
    "ticks",
    "attribution",
    "sheet",
    "rivals",
    "frozen",
    "rows",
    "report",
)


def main() -> int:
    """Run what the arguments ask for. Returns the exit code."""
    options = _options()
    wanted = options.only or BENCHMARKS
    taken_at, taken_on = datetime.now(UTC), machine()
    try:
        measured = measure(wanted, quick=options.quick)
    except BenchmarkError as error:
        print(f"a benchmark could not be run: {error}", file=sys.stderr)
        return 1
    result = {
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "machine": taken_on,
        "quick": options.quick,
        "figures": [figure.as_json() for figure in measured],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console = Console(width=max(Console().width, _TABLE_WIDTH))
    console.print(figures.table(measured))
    for note in figures.notes(measured):
        print(note)
    print("machine: " + ", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    over = [figure.name for figure in measured if figure.met is False]
    if taken_on["load_average_before"] > _BUSY:
        print("the machine was busy with something else: figures of time and lag say more about that than about us")
    print(f"over their bound: {', '.join(over) or 'none'}; written to {RESULT}")
    return 0


def measure(wanted: tuple[str, ...] | list[str], *, quick: bool) -> list[Figure]:
    """The figures of the benchmarks in `wanted`, in their usual order. Raises `BenchmarkError`."""
    measured: list[Figure] = []
    if "import" in wanted:
        _say("importing by turns")
        measured += imports.measure(pairs=3 if quick else 11)
    if "catalogue" in wanted:
        _say("reading the catalogue, once and ten times over")
        measured += catalogue.measure(pairs=3 if quick else 7)
    if "engine" in wanted:
        _say("running the engine's loop, beside another's")
        measured += engine_loop.measure(virtual_s=300.0 if quick else 1500.0)
    if "replicas" in wanted:
        _say("sending 1,000 requests per second to 1, 2, … 64 replicas")
        measured += replicas.measure(virtual_s=20.0 if quick else 600.0)
    if "rehearsal" in wanted:
        _say("rehearsing " + ("one lab" if quick else "every lab that can be"))
        measured += rehearsal.measure(labs=["L06"] if quick else None)
    if "ticks" in wanted:
        _say("ticking in a cluster of 1,000 node pools and 10,000 pods")
        measured += cluster_ticks.measure()
    if "attribution" in wanted:
        _say("attributing the cost of years of labs")
        measured += attribution.measure(quick=quick)
    if "sheet" in wanted:
        _say("asking the sheet of " + ("100,000" if quick else "10 million") + " cost records")
        measured += sheet.measure(cost_records=100_000 if quick else sheet.COST_RECORDS)
    measured += _of_the_load_generator(wanted, quick=quick)
    if "report" in wanted:
        _say("writing the report of 78 labs, and of " + ("10" if quick else "1,000") + " times the requests")
        measured += report.measure(factor=10 if quick else report.FACTOR)
    if set(wanted) & {"overhead", "lag", "memory"}:
        measured += _of_a_run(wanted, quick=quick)
    return measured


def _of_a_run(wanted: tuple[str, ...] | list[str], *, quick: bool) -> list[Figure]:
    """The figures that one run of L06 gives."""
    measured: list[Figure] = []
    pace = "smoke" if quick else "short"
    _say(f"running L06 at pace {pace}")
    with demo.demonstrated(pace) as run, TemporaryDirectory(prefix="labs-bench-") as folder:
        if "memory" in wanted:
            measured += run.peak.figures()
        if "lag" in wanted:
            measured += client_lag.figures(run)
            measured.append(
                Figure(client_lag.NAME, "this benchmark's own CPU meanwhile", run.sampler_cpu_share, "cores")
            )
        if "overhead" in wanted:
            _say("doing the bare work")
            measured += overhead.figures(run, Path(folder))
    return measured


def _of_the_load_generator(wanted: tuple[str, ...] | list[str], *, quick: bool) -> list[Figure]:
    measured: list[Figure] = []
    if "rivals" in wanted:
        _say("streaming to our load generator and to others, by turns")
        measured += rivals.measure(quick=quick)
    if "frozen" in wanted:
        _say("freezing a server under two loops")
        measured += frozen.measure()
    if "rows" in wanted:
        _say("writing the rows of 10,000 requests")
        measured += row_writing.measure(requests=500 if quick else row_writing.REQUESTS)
    return measured


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="may be repeated; default: all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="pace smoke and fewer imports: shows that the benchmarks run, not what the figures are",
    )
    return parser.parse_args()


def _say(line: str) -> None:
    print(f"bench: {line} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
