"""Pinned baselines: the numbers of one run, kept as a file that later labs are compared with.

Belongs here: what may be pinned, the files below results/baselines, their digests and their chain.
Doesn't belong here: how the numbers are computed (warehouse/views), or the command line (cli/).

A lab's baselines on a target are `<lab>/<target>/0001.json`, `0002.json`, … Each carries a digest of its own content
and names its predecessor's, so that an edited, replaced or missing file is found out. None is ever changed or removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT, Target
from lab_pipelines.digest import canonical_digest
from lab_pipelines.files import TEMPORARY, new_file, sweep_temporaries
from lab_pipelines.load_stages import load_stages
from lab_pipelines.words import load_in_words

BASELINES_DIR = REPO_ROOT / "results" / "baselines"

UNITS = {
    "requests": "requests",
    "requests_ok": "requests",
    "error_rate": "ratio",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "tokens/s",
    "ttft_p50_s": "s",
    "ttft_p95_s": "s",
    "ttft_p99_s": "s",
    "itl_p50_s": "s",
    "itl_p95_s": "s",
    "tpot_p50_s": "s",
    "e2e_p50_s": "s",
    "e2e_p95_s": "s",
    "e2e_p99_s": "s",
    "queue_depth": "requests",
    "kv_cache_usage": "ratio",
    "usd_per_1k_tokens": "USD per 1000 tokens",
    "usd_per_1k_output_tokens": "USD per 1000 output tokens",
}
"""The numbers of a stage, as the view stage_table names them, and their units. Seconds are stack seconds."""

_RUN_COLUMNS = ("engine", "provenance", "pace", "time_scale")
_STAGE_COLUMNS = ("variant", "step", "stage", "users", "offered_per_s")
_NEVER_MISSING = {"completion": ("output_tokens_per_s", "ttft_p50_s"), "http": ("requests_per_s", "e2e_p50_s")}
"""By kind of request."""
_NAME = re.compile(r"[0-9]{4}\.json")

Row = dict[str, Any]


class BaselineError(ValueError):
    """A run that can't be pinned, or a file that isn't what was pinned. One line for each reason."""


class Queries(Protocol):
    """What this module needs of a warehouse."""

    def query(self, sql: str, params: Sequence[object] = ()) -> list[Row]: ...


@dataclass(frozen=True)
class Baseline:
    """One pinned file, its digest checked."""

    path: Path
    content: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return self.content["digest"]


def pin(
    warehouse: Queries,
    spec: LabSpec,
    *,
    target: Target,
    run_id: str | None = None,
    again: bool = False,
    directory: Path = BASELINES_DIR,
) -> Baseline:
    """Pin the stage table of the lab's newest run on `target`, or of `run_id`, as the next file of the chain.

    The first pin needs nothing more; later ones need `again`. Raises `BaselineError` with every reason against it:
    the run is incomplete, its pace or its error rate doesn't allow it, a stage has too few requests, the spec has
    changed since, or an earlier file isn't what was pinned.
    """
    pinned = history(spec.id, target, directory)
    if pinned and not again:
        raise BaselineError(
            f"{spec.id} has a baseline on {target} already: {pinned[-1].path}. Pin another one after it with --again; "
            "the earlier one stays."
        )
    stages = _stages(warehouse, spec, target, run_id)
    run_id = stages[0]["run_id"]
    sessions = warehouse.query(
        "SELECT variant, model, sku, nodes, spec_digest, values_digest, engine_args FROM stack_sessions "
        "WHERE lab = ? AND target = ? AND run_id = ? AND state = 'closed' "
        "AND session_id IN (SELECT session_id FROM run_sessions) ORDER BY variant",
        [spec.id, target, run_id],
    )
    priced = warehouse.query(
        "SELECT DISTINCT variant FROM finops_sheet WHERE lab = ? AND target = ? AND run_id = ?",
        [spec.id, target, run_id],
    )
    marks = warehouse.query("SELECT reason FROM run_marks WHERE run_id = ?", [run_id])
    marked = [row["reason"] for row in marks]
    if reasons := [*marked, *objections(spec, stages, sessions, finished=[row["variant"] for row in priced])]:
        raise BaselineError("\n".join(f"run {run_id} can't be pinned: {reason}" for reason in reasons))

    previous = pinned[-1] if pinned else None
    content: Row = {
        "lab": spec.id,
        "title": spec.title,
        "target": target,
        "run_id": run_id,
        "started_at": min(row["started_at"] for row in stages).isoformat(),
        **{column: stages[0][column] for column in _RUN_COLUMNS},
        "spec_digest": sessions[0]["spec_digest"],
        "units": UNITS,
        "variants": {session["variant"]: _variant(session, stages) for session in sessions},
        "pinned_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": {"file": previous.path.name, "digest": previous.digest} if previous else None,
    }
    content["digest"] = canonical_digest(content)
    path = directory / spec.id / target / f"{len(pinned) + 1:04}.json"
    sweep_temporaries(path.parent)
    try:
        with new_file(path) as stream:
            stream.write(json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
    except FileExistsError:
        raise BaselineError(
            f"{path} was pinned by someone else a moment ago; look at it before pinning again"
        ) from None
    return Baseline(path, content)


def objections(spec: LabSpec, stages: Sequence[Row], sessions: Sequence[Row], *, finished: Sequence[str]) -> list[str]:
    """Why a run may not become a baseline; empty if it may. Pure.

    `stages` are the run's rows of stage_table, `sessions` its closed sessions, `finished` the variants whose
    finops_sheet is written: it comes last, after every blocking check.
    """
    found = []
    varying = [column for column in _RUN_COLUMNS if len({row[column] for row in stages}) > 1]
    if varying:
        return [f"its stages differ in {', '.join(varying)}; a baseline is of one kind"]
    name, time_scale = stages[0]["pace"], stages[0]["time_scale"]
    pace = spec.paces.get(name)
    if pace is None:
        return [f"{spec.id} has no pace {name!r} any more; materialize it again"]
    if not pace.baseline:
        fit = [n for n, p in spec.paces.items() if p.baseline]
        found.append(f"the pace {name!r} is not meant for baselines; set LABS_PACE to one of: {', '.join(fit)}")
    if time_scale != pace.time_scale or {s["spec_digest"] for s in sessions} - {spec.digest}:
        found.append(f"the spec of {spec.id} has changed since the run; materialize it again")

    variants = {variant.id for variant in spec.variants}
    if open_ := sorted(variants - {s["variant"] for s in sessions}):
        found.append(f"no session of {', '.join(open_)} was closed; materialize the whole lab")
    if unfinished := sorted(variants - set(finished)):
        found.append(f"{', '.join(unfinished)} has no finops_sheet, so a check failed or the run was cut short")
    expected = {
        (variant, step.name, stage.stage, stage.users, stage.offered_per_s): stage
        for variant in variants
        for step in spec.load_steps
        for stage in load_stages(step, pace)
    }
    present = [tuple(row[column] for column in _STAGE_COLUMNS) for row in stages]
    for stage in sorted(expected.keys() - set(present), key=str):
        found.append(f"{_named(*stage)} is missing")
    for stage in sorted({p for p in present if p not in expected or present.count(p) > 1}, key=str):
        found.append(f"{_named(*stage)} is there twice, or isn't the spec's")
    for key, row in zip(present, stages, strict=True):
        # A burst may be of fewer requests than the pace asks for elsewhere.
        needed = min(pace.min_requests, expected[key].min_requests) if key in expected else pace.min_requests
        found += [f"{_named(*key)}: {reason}" for reason in _stage_objections(row, spec, needed)]
    return found


def _named(variant: str, step: str, number: int, users: int | None, offered_per_s: float | None) -> str:
    return f"{variant}: stage {number} of {step} ({load_in_words(users, offered_per_s)})"


def history(lab: str, target: str, directory: Path = BASELINES_DIR) -> list[Baseline]:
    """The lab's baselines on `target`, oldest first. Raises `BaselineError` if any isn't what was pinned."""
    chain, problems = _read_chain(directory / lab / target)
    if problems:
        raise BaselineError("\n".join(problems))
    return chain


def current(lab: str, target: str, directory: Path = BASELINES_DIR) -> Baseline | None:
    """The baseline to compare with: the last one pinned. Raises `BaselineError` as `history` does."""
    return next(reversed(history(lab, target, directory)), None)


def pinned(directory: Path = BASELINES_DIR) -> list[Baseline]:
    """Every baseline of every lab and target, each chain oldest first. Raises `BaselineError` as `history` does."""
    folders = sorted(path for path in directory.glob("*/*") if path.is_dir())
    return [one for folder in folders for one in history(folder.parent.name, folder.name, directory)]


def verify(directory: Path = BASELINES_DIR) -> list[Path]:
    """Check every file of every chain, and return them. Raises `BaselineError` with one line for each problem."""
    checked: list[Path] = []
    problems: list[str] = []
    for folder in sorted({path.parent for path in directory.rglob("*") if path.is_file()} - {directory}):
        chain, wrong = _read_chain(folder)
        checked += [baseline.path for baseline in chain]
        problems += wrong
    if problems:
        raise BaselineError("\n".join(problems))
    return checked


def _stages(warehouse: Queries, spec: LabSpec, target: Target, run_id: str | None) -> list[Row]:
    columns = ", ".join(
        ["run_id", "recorded_at", "started_at", "request_kind", "client_fault", *_RUN_COLUMNS, *_STAGE_COLUMNS, *UNITS]
    )
    rows = warehouse.query(
        # Of several turns those of the session that speaks for its variant.
        f"SELECT {columns} FROM stage_table JOIN (SELECT session_id, recorded_at FROM run_sessions) USING (session_id) "
        "WHERE lab = ? AND target = ? "
        # A run that is marked speaks for nothing, but is to be refused by its reason when it is asked for.
        "AND (run_id = ? OR run_id NOT IN (SELECT run_id FROM run_marks)) ORDER BY variant, step, stage",
        [spec.id, target, run_id],
    )
    if not rows:
        raise BaselineError(f"{spec.id} has no run on target {target} yet: labs run {spec.id} --target {target}")
    # Not by started_at: every rehearsal's clock begins at the lab's own date.
    chosen = run_id or max(rows, key=lambda row: row["recorded_at"])["run_id"]
    stages = [row for row in rows if row["run_id"] == chosen]
    if not stages:
        known = ", ".join(sorted({row["run_id"] for row in rows}))
        raise BaselineError(f"{spec.id} has no run {chosen!r} on {target}; it has: {known}")
    return stages


def _stage_objections(row: Row, spec: LabSpec, min_requests: int) -> list[str]:
    found = []
    if row["client_fault"] is not None:
        found.append(f"the load generator was over its own error budget ({row['client_fault']})")
    if row["requests"] < min_requests:
        found.append(f"{row['requests']} requests; the pace asks for at least {min_requests}")
    if row["error_rate"] is None or row["error_rate"] > spec.error_budget.error_rate:
        rate = "unknown" if row["error_rate"] is None else f"{row['error_rate']:.2%}"
        found.append(f"the error rate is {rate}; allowed {spec.error_budget.error_rate:.2%}")
    missing = [name for name in _NEVER_MISSING[row["request_kind"]] if row[name] is None]
    if missing and row["client_fault"] is None:
        found.append(f"{', '.join(missing)} is not known")
    return found


def _variant(session: Row, stages: Sequence[Row]) -> Row:
    return {
        "model": session["model"],
        "sku": session["sku"],
        "nodes": session["nodes"],
        "values_digest": session["values_digest"],
        "engine_args": json.loads(session["engine_args"]),
        "stages": [
            {column: row[column] for column in (*_STAGE_COLUMNS[1:], *UNITS)}
            for row in stages
            if row["variant"] == session["variant"]
        ],
    }


def _read_chain(folder: Path) -> tuple[list[Baseline], list[str]]:
    """The baselines in one folder, and what is wrong with them."""
    if not folder.is_dir():
        return [], []
    chain: list[Baseline] = []
    problems: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == TEMPORARY:  # a pin that was killed, or is being written
            continue
        if not _NAME.fullmatch(path.name):
            problems.append(f"{path}: is no baseline; a pinned file is named 0001.json, 0002.json, …")
            continue
        expected = f"{len(chain) + 1:04}.json"
        if path.name != expected:
            problems.append(f"{path}: {expected}, which comes before it, is missing; restore it from version control")
            break
        baseline, wrong = _read(path, chain[-1] if chain else None)
        problems += [f"{path}: {reason}; restore the file from version control" for reason in wrong]
        chain.append(baseline)
    return chain, problems


def _read(path: Path, previous: Baseline | None) -> tuple[Baseline, list[str]]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        return Baseline(path, {"digest": ""}), [f"is not JSON: {error}"]
    if not isinstance(content, dict) or not isinstance(content.get("digest"), str):
        return Baseline(path, {"digest": ""}), ["has no digest"]
    wrong = []
    if canonical_digest({key: value for key, value in content.items() if key != "digest"}) != content["digest"]:
        wrong.append("its digest doesn't match its content: it was changed after it was pinned")
    if content.get("previous") != ({"file": previous.path.name, "digest": previous.digest} if previous else None):
        wrong.append("it names another predecessor than the file before it: that one was replaced")
    if (content.get("lab"), content.get("target")) != (path.parent.parent.name, path.parent.name):
        wrong.append(f"it is of {content.get('lab')} on {content.get('target')}, and lies in another folder")
    return Baseline(path, content), wrong
