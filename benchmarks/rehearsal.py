"""How long rehearsals take: L06's ramp in the model alone, and all labs with all variants through Dagster.

One process of its own runs the labs, on an instance and a warehouse of its own, so that its peak memory is theirs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT

NAME = "rehearsal"

_RUN = """
import json, logging, resource, sys, time
from pathlib import Path
from dagster import AssetSelection, DagsterInstance, define_asset_job
from lab_pipelines.build import build_defs
from lab_pipelines.deployment import Deployment
from resources.load_rehearsal import RehearsalLoadGenerator

folder, labs = Path(sys.argv[1]), sys.argv[2:]
logging.disable(logging.CRITICAL)
model_s = {}
former = RehearsalLoadGenerator.run
def timed(self, plan, **more):
    began = time.perf_counter()
    try:
        return former(self, plan, **more)
    finally:
        model_s[plan.run_id] = model_s.get(plan.run_id, 0.0) + time.perf_counter() - began
RehearsalLoadGenerator.run = timed
defs = build_defs(target="rehearsal", deployment=Deployment(target="rehearsal", data_dir=folder))
job = defs.get_implicit_global_asset_job_def()
group = AssetSelection.groups("lab").resolve(defs.resolve_asset_graph())
taken = {}
with DagsterInstance.ephemeral() as instance:
    began = time.perf_counter()
    for lab in labs:
        at = time.perf_counter()
        done = job.execute_in_process(
            partition_key=lab, instance=instance, asset_selection=list(group), raise_on_error=False
        )
        taken[lab] = {"s": time.perf_counter() - at, "ok": done.success, "model_s": model_s.get(done.run_id, 0.0)}
    total = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"labs": taken, "total_s": total, "peak_gib": peak}))
"""


def measure(*, labs: list[str] | None) -> list[Figure]:
    """Figures of `labs`; None: every complete lab of the catalogue that can be rehearsed. Raises `BenchmarkError`."""
    chosen = labs or rehearsable()
    with TemporaryDirectory(prefix="labs-bench-") as folder:
        seen = _rehearse(Path(folder), chosen)
    failed = [lab for lab, one in seen["labs"].items() if not one["ok"]]
    if failed:
        raise BenchmarkError(
            f"could not be rehearsed: {', '.join(failed)}; run one with: labs run {failed[0]} -t rehearsal"
        )
    slowest = max(seen["labs"], key=lambda lab: seen["labs"][lab]["s"])
    figures = [
        Figure(NAME, "L06's ramp at pace full, model alone", seen["labs"]["L06"]["model_s"], "s", at_most=3.0),
        Figure(NAME, "peak memory", seen["peak_gib"], "GiB", at_most=1.0),
    ]
    if labs is None:
        listed = ", ".join(f"{lab} {one['s']:.1f} s" for lab, one in seen["labs"].items())
        figures += [
            Figure(NAME, f"{len(chosen)} labs, all variants", seen["total_s"], "s", at_most=60.0, note=listed),
            Figure(NAME, f"the slowest, {slowest}", seen["labs"][slowest]["s"], "s"),
        ]
    return figures


def rehearsable() -> list[str]:
    """Complete labs that can be rehearsed, in the year's order."""
    return [lab.id for lab in load_catalog().labs() if isinstance(lab, LabSpec) and "rehearsal" in lab.targets]


def _rehearse(folder: Path, labs: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(folder), *labs], capture_output=True, text=True, check=False, cwd=REPO_ROOT
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the rehearsals ended with code {done.returncode}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.splitlines()[-1])
