"""What findings and statistics are told from: the requests of each stage of a session, read once.

Belongs here: from rows of `requests` to samples, and from samples to rows of `stage_statistics`. Doesn't belong here:
estimates (lab_pipelines/statistics/), or which of them a finding compares (findings.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab_pipelines.catalog.slo import Slo
from lab_pipelines.client_errors import OVER
from lab_pipelines.rows.common import Row, common_columns_of
from lab_pipelines.statistics.stages import BURST, QUANTITIES, SLICES, StageSample
from lab_pipelines.statistics.steady import Steadiness
from lab_pipelines.words import load_in_words
from resources.warehouse import Warehouse, Within

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_REQUESTS = """
    SELECT step, stage, coalesce(shape, 0) AS shape, epoch(scheduled_at) AS due_s, in_stage, valid,
           outcome = 'ok' AS ok,
           len(list_filter(invalid_reasons, lambda reason: NOT starts_with(reason, 'outcome: '))) = 0 AS told,
           ttft_s, tpot_s, e2e_s, e2e_s / nullif(output_tokens, 0) AS normalised_s,
           output_tokens / nullif(len(event_offsets_s), 0) AS tokens_per_event, event_offsets_s
    FROM requests
    WHERE session_id = $session_id
    ORDER BY step, scheduled_at, request_id  -- in any other order a sum differs in its last digit from run to run
"""
_STAGES = """
    SELECT step, stage, users, offered_per_s, coalesce(request_kind, 'completion') AS request_kind, profile,
           epoch(started_at) AS start_s, epoch(ended_at) AS end_s, duration_s,
           client_fault AS fault
    FROM load_stages LEFT JOIN client_faults USING (session_id, step, stage)
    WHERE session_id = $session_id
    ORDER BY step, stage
"""


@dataclass(frozen=True)
class Stage:
    """A stage that was applied, and what its requests say."""

    step: str
    stage: int
    users: int | None
    offered_per_s: float | None
    sample: StageSample
    fault: str | None
    """Why none of its requests is valid: the load generator's own error (lab_pipelines/client_errors.py)."""

    @property
    def load(self) -> str:
        """Such as `8 users`, or `2.5/s`; a burst's requests at once are its users."""
        return load_in_words(self.users, self.offered_per_s)

    def has(self, step: str, load: float | None) -> bool:
        """Whether it is of that step and load: users, or requests per second; None is any."""
        if self.step != step or load is None:
            return self.step == step
        if self.offered_per_s is not None:
            return abs(self.offered_per_s - load) < 1e-6
        return self.users == load


@dataclass(frozen=True)
class Samples:
    """The stages of the sessions that are asked for. `slo` is the lab's objective."""

    warehouse: Warehouse
    slo: Slo | None
    _known: dict[str, list[Stage]] = field(default_factory=dict)

    def of(self, session: Row) -> list[Stage]:
        """Those of a session, a row of `stack_sessions`, by step and stage."""
        found = self._known.get(session["session_id"])
        if found is None:
            found = self._known[session["session_id"]] = list(self._read(session))
        return found

    def _read(self, session: Row) -> Iterator[Stage]:
        asked, run = {"session_id": session["session_id"]}, Within(run_id=session["run_id"])
        stages = self.warehouse.query(_STAGES, asked, within=run)
        if not stages:
            return
        requests = self.warehouse.table(_REQUESTS, asked, within=run)
        columns = {name: _numbers(requests, name) for name in requests.column_names if name != "event_offsets_s"}
        arrivals: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for one in stages:
            step, scale = one["step"], session["time_scale"]
            of_step = columns["step"] == step
            if step not in arrivals:
                arrivals[step] = _arrivals(requests, columns, of_step, scale)
            within = of_step & (columns["stage"] == one["stage"]) & columns["in_stage"]
            named = {name: column[within] for name, column in columns.items()}
            latencies = {name: named[f"{name}_s"] for name in ("ttft", "tpot", "e2e", "normalised")}
            sample = StageSample(
                is_burst=one["profile"] == "burst",
                duration_s=one["duration_s"],
                due_s=(named["due_s"] - one["start_s"]) * scale,
                valid=named["valid"],
                told=named["told"],
                ok=named["ok"],
                useful=None if self.slo is None else _useful(self.slo, named["ok"], latencies),
                shape=named["shape"],
                latencies=latencies,
                tokens_per_s=None
                if one["request_kind"] == "http"
                else _flow(*arrivals[step], one["start_s"], one["end_s"], scale),
            )
            fault = None if one["fault"] is None else f"{OVER}: {one['fault']}"
            yield Stage(step, one["stage"], one["users"], one["offered_per_s"], sample, fault)


def statistics_rows(session: Row, stages: list[Stage]) -> list[Row]:
    """`stage_statistics`: a row for each stage and quantity, and two for its warm-up and its steady state."""
    return [row for stage in stages for row in _rows_of(common_columns_of(session), stage)]


def _rows_of(shared: Row, stage: Stage) -> Iterator[Row]:
    sample = stage.sample
    cut = sample.warm_up.cut or 0

    def row(quantity: str, unit: str, **columns: Any) -> Row:
        where = {"step": stage.step, "stage": stage.stage, "users": stage.users, "offered_per_s": stage.offered_per_s}
        none = {"low": None, "high": None, "n_effective": None, "left_out": 0, "state": None, "drift": None}
        return {**shared, **where, "quantity": quantity, "unit": unit, **none, **columns}

    yield row(
        "warm_up",
        "s",
        value=None if sample.warm_up.cut is None else sample.warm_up_s,
        n=sample.timed,
        method="MSER-5 on ranks of TTFT (of e2e for plain GETs), confirmed by a rank sum test",
        reason=sample.warm_up.reason,
        left_out=cut,
    )
    steady = sample.steadiness("e2e_p50") or Steadiness("unknown", None, None, BURST)
    yield row(
        "steady_state",
        "ratio",
        value=_finite(steady.drift),
        n=sample.timed - cut,
        method="trend (Mann-Kendall) and level shift (Pettitt) of e2e, together by Holm",
        reason=steady.reason,
        left_out=cut,
        state=steady.state,
        drift=_finite(steady.drift),
    )
    for quantity in sample.quantities:
        found, steady = sample.estimate(quantity), sample.steadiness(quantity)
        yield row(
            quantity,
            QUANTITIES[quantity],
            value=found.value,
            low=found.low if stage.fault is None else None,
            high=found.high if stage.fault is None else None,
            n=found.n,
            n_effective=found.n_effective,
            method=found.method,
            reason=stage.fault or found.reason,
            left_out=cut if steady is not None else 0,
            state=steady.state if steady is not None else None,
            drift=_finite(steady.drift) if steady is not None else None,
        )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array; NULL is NaN."""
    return table.column(name).to_numpy()


def _useful(slo: Slo, ok: np.ndarray, latencies: dict[str, np.ndarray]) -> np.ndarray:
    """Which requests kept the objective, as `Slo` says."""
    import numpy as np

    useful = ok.copy()
    for name, most in (("ttft", slo.ttft_s), ("tpot", slo.tpot_s), ("e2e", slo.e2e_s)):
        if most is not None:
            values = np.nan_to_num(latencies[name], nan=0.0) if name == "tpot" else latencies[name]
            useful &= values <= most  # NaN is not
    return useful


def _arrivals(
    requests: pa.Table, columns: dict[str, np.ndarray], of_step: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """When the step's output tokens arrived, in Unix seconds, and how many at once: also those of requests that a
    stage's end cut off."""
    import numpy as np

    events = requests.column("event_offsets_s").filter(of_step).combine_chunks()
    lengths = events.value_lengths().to_numpy(zero_copy_only=False).astype(int)
    at = np.repeat(columns["due_s"][of_step], lengths) + events.flatten().to_numpy(zero_copy_only=False) / scale
    tokens = np.repeat(columns["tokens_per_event"][of_step], lengths)
    return at, np.nan_to_num(tokens)


def _flow(at: np.ndarray, tokens: np.ndarray, start_s: float, end_s: float, scale: float) -> np.ndarray:
    """Tokens per stack second in each of `SLICES` equal parts of [start_s, end_s)."""
    import numpy as np

    within = (at >= start_s) & (at < end_s)
    width_s = (end_s - start_s) / SLICES
    slices = np.minimum(((at[within] - start_s) / width_s).astype(int), SLICES - 1)
    return np.bincount(slices, weights=tokens[within], minlength=SLICES) / (width_s * scale)
