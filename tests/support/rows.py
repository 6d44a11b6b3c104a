"""Realistic rows of every table, for tests that need a warehouse with something in it.

`lab_run` is a whole small run of L06 whose tables agree with one another, `variants_run` one of several variants; the
other builders give one row each, and take any column as a keyword. Numbers resemble Phi-3-mini on one T4; they are no
measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from lab_pipelines import cost, finops
from lab_pipelines.baseline import UNITS
from lab_pipelines.catalog.prices import UnitPrice
from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.finops_split import TimedRequest, phase_times
from resources.warehouse import Warehouse

Row = dict[str, Any]

REQUESTED_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SKU = "Standard_NC4as_T4_v3"
USD_PER_NODE_HOUR = Decimal("0.526")
RUN_ID = "2f1c9a54-7d1e-4b7c-9a63-0f4b8f5f1a11"
COLD_START_S = {
    "node_ready": 284.0,
    "driver_ready": 126.0,
    "image_pulled": 101.0,
    "model_loaded": 41.0,
    "engine_ready": 88.0,
    "first_token": 0.5,
}
INPUT_TOKENS, OUTPUT_TOKENS = 512, 256
EVENTS = 8
"""Streamed events per request: fewer than tokens, so that rows stay small."""


def shared(**columns: Any) -> Row:
    """The columns that every table begins with."""
    return {
        "lab": "L06",
        "variant": "baseline",
        "trial": 1,
        "run_id": RUN_ID,
        "target": "local",
        "engine": "modelled-vllm",
        "pace": "short",
        "time_scale": 5.0,
        "provenance": "modelled",
        "recorded_at": REQUESTED_AT + timedelta(minutes=10),
        "session_id": "session-1",
    } | columns


def session_row(**columns: Any) -> Row:
    """A closed session; `state="open", released_at=None, held_s=None` for an open one."""
    ready_at = REQUESTED_AT + timedelta(seconds=2)
    released_at = ready_at + timedelta(minutes=2)
    return {
        **shared(),
        "state": "closed",
        "namespace": "lab-06",
        "model": "microsoft/Phi-3-mini-4k-instruct",
        "sku": SKU,
        "nodes": 1,
        "requested_at": REQUESTED_AT,
        "ready_at": ready_at,
        "released_at": released_at,
        "cold_start_time_scale": 400.0,
        **{f"{name}_s": seconds for name, seconds in COLD_START_S.items()},
        "cold_start_s": sum(COLD_START_S.values()),
        "held_s": (released_at - ready_at).total_seconds() * 5,
        "spec_digest": "5" * 64,
        "values_digest": "7" * 64,
        "engine_args": json.dumps(["microsoft/Phi-3-mini-4k-instruct", "--dtype", "half"]),
        "refusal": None,
        "model_range": None,
        "gpus": 1,
        "cost_labels": json.dumps({"cost-center": "llm-serving-labs", "lab": "l06", "phase": "1"}),
    } | columns


def _model_range(columns: Row) -> str | None:
    return "inside" if columns.get("provenance", "modelled") == "modelled" else None


_OF_NODES = [f"{name}_{one}" for name in ("capacity", "requested", "used") for one in ("gpus", "cpus", "memory_bytes")]


def node_time_row(session: Row | None = None, **columns: Any) -> Row:
    """All nodes of a closed session, which it held alone."""
    held = session or session_row()
    first_token_s = held["first_token_s"] or 0.0
    return {
        **{name: held[name] for name in shared()},
        "node": None,
        "nodes": held["nodes"],
        "pool": None,
        "sku": held["sku"],
        "priority": "on_demand",
        "held_from": held["requested_at"],
        "held_until": held["released_at"],
        "cold_start_s": held["cold_start_s"] or 0.0,
        "held_s": held["held_s"] - first_token_s,
        "exclusive": True,
        **dict.fromkeys(_OF_NODES),
    } | columns


def shared_node_row(session: Row | None = None, **columns: Any) -> Row:
    """A node with one GPU, 4 vCPUs and 28 GiB; a session's pods ask for half the vCPUs and a quarter of the memory."""
    asked = {"capacity_gpus": 1.0, "capacity_cpus": 4.0, "capacity_memory_bytes": 28.0 * 2**30}
    asked |= {"requested_gpus": 0.0, "requested_cpus": 2.0, "requested_memory_bytes": 7.0 * 2**30}
    return node_time_row(session, **({"node": "node-0", "nodes": 1, "exclusive": False} | asked | columns))


def event_row(**columns: Any) -> Row:
    return {
        **shared(),
        "kind": "cold_start",
        "name": "node_ready",
        "started_at": REQUESTED_AT,
        "ended_at": REQUESTED_AT + timedelta(seconds=0.71),
        "duration_s": 284.0,
        "outcome": "ok",
        "detail": None,
    } | columns


def stage_row(**columns: Any) -> Row:
    return {
        **shared(),
        "step": "ramp",
        "profile": "ramp",
        "request_kind": "completion",
        "stage": 0,
        "users": 1,
        "offered_per_s": None,
        "started_at": REQUESTED_AT + timedelta(seconds=5),
        "ended_at": REQUESTED_AT + timedelta(seconds=25),
        "duration_s": 100.0,
        "duration_wall_s": 20.0,
        "hold_s": 40.0,
        "min_requests": 20,
        "requests_in_stage": 20,
        "requests_ok": 20,
        "output_tokens": 20 * OUTPUT_TOKENS,
        "clipped_requests": None,
        "client_cpu_share": 0.04,
        "model_range": None,
    } | columns


def request_row(**columns: Any) -> Row:
    """A request that was served: TTFT 0.4 s, then an event every 0.3 s, in stack seconds."""
    sent_at = columns.get("sent_at", REQUESTED_AT + timedelta(seconds=5))
    offsets = [0.4 + 0.3 * n for n in range(EVENTS)]
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "users": 1,
        "request_id": "u0-1",
        "worker": "local",
        "user_index": 0,
        "shape": 0,
        "path": None,
        "scheduled_at": sent_at,
        "sent_at": sent_at,
        "finished_at": sent_at + timedelta(seconds=offsets[-1] / 5),
        "schedule_lag_s": 0.0,
        "client_lag_wall_s": 0.0002,
        "ttft_s": offsets[0],
        "e2e_s": offsets[-1],
        "tpot_s": (offsets[-1] - offsets[0]) / (OUTPUT_TOKENS - 1),
        "event_offsets_s": offsets,
        "input_tokens": INPUT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "expected_input_tokens": INPUT_TOKENS,
        "expected_output_tokens": OUTPUT_TOKENS,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "length",
        "error": None,
        "server_ttft_s": 0.39,
        "ttft_lag_wall_s": 0.002,
        "receive_lag_p99_wall_s": 0.003,
        "first_receive_lag_wall_s": 0.001,
        "in_stage": True,
        "valid": True,
        "invalid_reasons": [],
    } | columns


def client_error_row(**columns: Any) -> Row:
    """The load generator's event loop, which was well within its budget."""
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "quantity": "event_loop_lag_p99",
        "value": 0.003,
        "unit": "s",
        "allowed": 0.05,
        "n": 500,
        "within": True,
        "reason": None,
    } | columns


def over_budget(tables: Mapping[str, list[Row]], stage: int, *, lag_s: float = 0.084) -> str:
    """Make a stage of `lab_run`'s one whose client was over its error budget; the reason."""
    reason = f"event-loop lag p99 {1000 * lag_s:.3g} ms > 50 ms"
    for row in tables["client_errors"]:
        if row["stage"] == stage:
            row.update(value=lag_s, within=False, reason=reason)
    for row in tables["requests"]:
        if row["stage"] == stage:
            row.update(valid=False, invalid_reasons=[f"client over its error budget: {reason}"])
    return reason


def failed_request_row(**columns: Any) -> Row:
    """A request that the server answered with 500."""
    return request_row(
        **{
            "outcome": "http_error",
            "http_status": 500,
            "finish_reason": None,
            "error": "500 Internal Server Error",
            "ttft_s": None,
            "e2e_s": None,
            "tpot_s": None,
            "event_offsets_s": [],
            "input_tokens": None,
            "output_tokens": None,
            "server_ttft_s": None,
            "ttft_lag_wall_s": None,
            "receive_lag_p99_wall_s": None,
            "first_receive_lag_wall_s": None,
            "valid": False,
            "invalid_reasons": ["outcome: http_error"],
        }
        | columns
    )


def sample_row(**columns: Any) -> Row:
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "users": 1,
        "measure": "queue_depth",
        "unit": "requests",
        "sampled_at": REQUESTED_AT + timedelta(seconds=6),
        "value": 0.0,
    } | columns


def summary_row(**columns: Any) -> Row:
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "users": 1,
        "measure": "queue_depth",
        "unit": "requests",
        "statistic": "mean",
        "value": 0.0,
        "samples": 20,
        "status": "ok",
        "gap_reason": None,
        "promql": 'sum(vllm:num_requests_waiting{namespace="lab-06"})',
        "sql_file": None,
        "window_start": REQUESTED_AT + timedelta(seconds=5),
        "window_end": REQUESTED_AT + timedelta(seconds=25),
    } | columns


def gap_row(**columns: Any) -> Row:
    """A measure that Prometheus had no series for."""
    return summary_row(**{"value": None, "samples": 0, "status": "gap", "gap_reason": "no such series"} | columns)


def counter_total_row(**columns: Any) -> Row:
    return {
        **shared(),
        "step": "ramp",
        "quantity": "output_tokens",
        "counter": 'vllm:generation_tokens_total{namespace="lab-06"}',
        "client_total": 10_240.0,
        "client_unknown": 0.0,
        "server_total": 10_260.0,
        "disagreement": 20 / 10_240,
    } | columns


def statistic_row(**columns: Any) -> Row:
    """The median TTFT of a stage, with its interval."""
    return {
        **shared(),
        "step": "ramp",
        "stage": 0,
        "users": 1,
        "offered_per_s": None,
        "quantity": "ttft_p50",
        "unit": "s",
        "value": 0.4,
        "low": 0.38,
        "high": 0.42,
        "n": 20,
        "n_effective": 20.0,
        "method": "order statistics around the p50",
        "reason": None,
        "left_out": 0,
        "state": "steady",
        "drift": 0.0,
    } | columns


def statistic_rows(*, ttft_s: float = 0.4, **columns: Any) -> list[Row]:
    """A stage without a warm-up, steady unless `columns` say otherwise: two rows of that, its median TTFT, and a p95
    that has no interval."""
    without = {"low": None, "high": None, "n_effective": None}
    refusal = "20 values; an interval of the p95 needs 72"
    quiet = {"method": "MSER-5", "reason": "none: the beginning is like the rest"}
    steady = {"method": "Mann-Kendall", "reason": "no trend (p = 1), no shift (p = 1)"}
    return [
        statistic_row(
            **(without | quiet | columns | {"quantity": "warm_up", "value": 0.0, "state": None, "drift": None})
        ),
        statistic_row(**(without | steady | {"quantity": "steady_state", "unit": "ratio", "value": 0.0} | columns)),
        statistic_row(**({"value": ttft_s, "low": 0.95 * ttft_s, "high": 1.05 * ttft_s} | columns)),
        statistic_row(**(without | {"quantity": "ttft_p95", "reason": refusal} | columns)),
    ]


def log_row(**columns: Any) -> Row:
    return {
        **shared(),
        "component": "vllm",
        "logged_at": REQUESTED_AT + timedelta(seconds=6),
        "level": "INFO",
        "event": "request_finished",
        "line": json.dumps({"event": "request_finished", "request_id": "u0-1"}),
    } | columns


def cost_row(**columns: Any) -> Row:
    return {
        **shared(),
        "ChargePeriodStart": REQUESTED_AT + timedelta(seconds=5),
        "ChargePeriodEnd": REQUESTED_AT + timedelta(seconds=25),
        "BillingCurrency": "USD",
        "ListUnitPrice": USD_PER_NODE_HOUR,
        "PricingQuantity": Decimal("0.027777778"),
        "PricingUnit": "node-hour",
        "ListCost": Decimal("0.014611111"),
        "BilledCost": None,
        "SkuId": SKU,
        "RegionId": "eastus",
        "x_priority": "on_demand",
        "x_pool": None,
        "x_part": "serve",
        "x_step": "ramp",
        "x_stage": 0,
        "x_state": "estimated",
        "x_method": "list price",
        "x_price_low": USD_PER_NODE_HOUR,
        "x_price_high": USD_PER_NODE_HOUR,
        **cost.NOT_BILLED,
    } | columns


def billed(estimate: Row, usd: Decimal, **columns: Any) -> Row:
    """The row that a bill in dollars adds to an estimate."""
    said = {
        "x_state": "billed",
        "BilledCost": usd,
        "x_estimated_usd": estimate["ListCost"],
        "x_billed_usd": usd,
        "x_delta_usd": usd - estimate["ListCost"],
        "x_billed_at": estimate["recorded_at"],
        "x_bill_state": "settled",
    }
    return estimate | said | columns


def finding_row(**columns: Any) -> Row:
    return {
        **shared(),
        "finding": "throughput-saturates",
        "claim": "Past 16 users more concurrency buys little",
        "verdict": "confirmed",
        "effect": 1.1,
        "interval_low": 1.05,
        "interval_high": 1.15,
        "n": 2,
        "method": "ratio of stage values",
        "reason": "1.10 is below 1.25",
    } | columns


def gpu_decision_row(**columns: Any) -> Row:
    """A pool of one T4 that was looked at while L06 held it."""
    return {
        **{name: shared()[name] for name in ("target", "provenance", "recorded_at")},
        "lab": "all",
        "run_id": "gpu-20260302T090000Z-00000000",
        "tick_at": REQUESTED_AT,
        "pool": "t4",
        "vm_size": SKU,
        "mode": "User",
        "nodes": 1,
        "ours": True,
        "autoscaled": False,
        "spot": False,
        "state": "Succeeded",
        "usd_per_h": USD_PER_NODE_HOUR,
        "held_by": ["L06"],
        "held_until": REQUESTED_AT + timedelta(minutes=15),
        "requests": 3.0,
        "requests_age_s": 12.0,
        "requests_reporting": 1,
        "requests_expected": 1,
        "utilisation_percent": 80.0,
        "utilisation_age_s": 8.0,
        "utilisation_reporting": 1,
        "utilisation_expected": 1,
        "signals_gap": None,
        "idle_for_s": None,
        "expected_idle_s": None,
        "expected_idle_source": None,
        "since_change_s": 1200.0,
        "cold_start_s": 640.5,
        "cold_start_source": "median of the last 3 sessions",
        "switch": "dry-run",
        "policy": "{}",
        "action": "keep",
        "rule": "leased",
        "reason": "L06 holds it until 2026-03-02 09:15:00 UTC",
        "outcome": None,
        "detail": None,
    } | columns


def budget_decision_row(**columns: Any) -> Row:
    """The month's budget, of which four fifths are spent for the first time."""
    return {
        **{name: shared()[name] for name in ("target", "provenance", "recorded_at")},
        "lab": "all",
        "run_id": "budget-20260302T090000Z-00000000",
        "tick_at": REQUESTED_AT,
        "scope": "month",
        "period_start": datetime(2026, 3, 1, tzinfo=UTC),
        "period_end": datetime(2026, 4, 1, tzinfo=UTC),
        "budget_usd": Decimal(100),
        "closed_usd": Decimal(70),
        "billed_more_usd": Decimal(0),
        "open_usd": Decimal(10),
        "pools_usd": Decimal("0.5"),
        "spent_usd": Decimal("80.5"),
        "projected_usd": Decimal(1),
        "committed_usd": Decimal("81.5"),
        "unknown": [],
        "state_before": "ok",
        "state": "warn",
        "guard": "refuse",
        "budgets": "{}",
        "action": "tell",
        "of_lab": None,
        "of_run": None,
        "of_pool": None,
        "reason": "ok → warn: 80.50 of 100.00 USD spent (80 %), 1.00 more committed to",
        "outcome": None,
        "detail": None,
    } | columns


def run_mark_row(**columns: Any) -> Row:
    """The mark of a run that was cut."""
    return {
        **{name: shared()[name] for name in ("lab", "run_id", "target", "provenance", "recorded_at")},
        "mark": "cut",
        "scope": "month",
        "marked_by": "budget_guard",
        "reason": "the budget guard has cut this run, for the budget of the month",
    } | columns


def baseline_row(**columns: Any) -> Row:
    """The first stage of a pinned run."""
    return {
        **{name: value for name, value in shared().items() if name not in ("trial", "session_id")},
        "file": "0001.json",
        "digest": "9" * 64,
        "pinned_at": REQUESTED_AT + timedelta(hours=1),
        **{name: session_row()[name] for name in ("spec_digest", "values_digest", "model", "sku", "nodes")},
        **{"step": "ramp", "stage": 0, "users": 1, "offered_per_s": None},
        **dict.fromkeys(UNITS),
        **{"requests": 20, "requests_ok": 20, "error_rate": 0.0, "output_tokens_per_s": 51.2},
    } | columns


def bill_day_row(**columns: Any) -> Row:
    """A line of a bill: what the machines of a pool cost on a day."""
    return {
        **_of_the_bill(),
        "usage_date": REQUESTED_AT.date(),
        "resource_id": "/subscriptions/s/resourcegroups/mc/providers/microsoft.compute/aks-t4-1-vmss",
        "pool": "t4",
        "tag_lab": "l06",
        "currency": "USD",
        "cost": Decimal("0.40"),
        "cost_usd": Decimal("0.40"),
        "asked_at": REQUESTED_AT + timedelta(days=2),
        "asked_from": REQUESTED_AT.date(),
        "asked_to": REQUESTED_AT.date(),
    } | columns


def bill_ask_row(**columns: Any) -> Row:
    """That a day of the bill was asked for."""
    return {
        **_of_the_bill(),
        **{name: bill_day_row()[name] for name in ("asked_at", "asked_from", "asked_to")},
        "scope": "subscriptions/s/resourceGroups/mc",
        "days_with_data": 1,
        "lines": 1,
        "calls": 1,
    } | columns


def bill_share_row(**columns: Any) -> Row:
    """A line that no rule could place."""
    line = ("usage_date", "resource_id", "pool", "tag_lab", "currency", "cost", "cost_usd")
    return {
        **_of_the_bill(),
        **{name: bill_day_row()[name] for name in line},
        "session_id": None,
        "reason": "no session of L06 held nodes that day",
    } | columns


def _of_the_bill() -> Row:
    return {
        **{"lab": "all", "run_id": "bill-1", "target": "aks", "provenance": "measured"},
        "recorded_at": REQUESTED_AT + timedelta(days=2),
    }


NOT_BY_RUNS = frozenset(
    {"baselines", "gpu_decisions", "budget_decisions", "run_marks", "bill_days", "bill_asks", "bill_shares"}
)
"""Tables that sensors, reconciliations and pins write, and no lab's run."""


def spell_row(**columns: Any) -> Row:
    """A spell of a pool of one on-demand and four Spot nodes, of which one is starting."""
    return {
        **shared(),
        "step": "reclaims",
        "scenario": "0.05 per hour, correlated",
        "position": 0,
        "reclaims_per_hour": 0.05,
        "together": 0.92,
        "band": "0-5",
        "wait_s": 1800.0,
        "cold_start_s": 600.0,
        "requests_per_s": 2.4,
        "on_demand_nodes": 1,
        "spot_nodes": 4,
        "on_demand_usd": USD_PER_NODE_HOUR,
        "spot_usd": Decimal("0.0627"),
        "month": 0,
        "started_h": 12.0,
        "hours": 0.25,
        "on_demand_up": 1,
        "spot_up": 3,
        "spot_starting": 1,
    } | columns


def lab_run(
    *,
    users: Sequence[int] = (1, 4, 8),
    requests_per_stage: int = 24,
    priced: bool = True,
    slower: float = 1.0,
    **columns: Any,
) -> dict[str, list[Row]]:
    """All tables of one run: a closed session and a ramp, one stage after the other, every request served.

    In a stage of n users TTFT is 0.3 + 0.02 n stack seconds; `EVENTS` events of several tokens each follow, at
    0.036 + 0.001 n seconds per token; both are `slower` times as long. `columns` are set in every row
    of every table (`run_id`, `lab`, `target`, `session_id`, `time_scale`, …).
    """
    scale = columns.get("time_scale", 5.0)
    at = REQUESTED_AT + timedelta(seconds=5)
    stages, requests, samples, summaries, statistics = [], [], [], [], list[Row]()
    for index, n in enumerate(users):
        where = {"stage": index, "users": n}
        done, ended = _stage_requests(n, -(-requests_per_stage // n), at, scale, slower, where | columns)
        wall_s = (ended - at).total_seconds()
        tokens = sum(row["output_tokens"] for row in done)
        stages.append(
            stage_row(
                **where,
                started_at=at,
                ended_at=ended,
                duration_s=wall_s * scale,
                duration_wall_s=wall_s,
                requests_in_stage=len(done),
                requests_ok=len(done),
                output_tokens=tokens,
            )
            | columns
        )
        requests += done
        window = {"window_start": at, "window_end": ended}
        for measure, unit, value in [
            ("output_tokens_per_s", "tokens/s", tokens / (wall_s * scale)),
            ("queue_depth", "requests", max(n - 24, 0) * 1.0),
            ("kv_cache_usage", "ratio", min(n * 768 / 14_500, 1.0)),
        ]:
            summaries.append(summary_row(**where, **window, measure=measure, unit=unit, value=value) | columns)
        summaries.append(gap_row(**where, **window, measure="gpu_power", unit="watts") | columns)
        samples.append(sample_row(**where, sampled_at=at + (ended - at) / 2) | columns)
        last = {"state": "trend", "drift": 0.12} if n == users[-1] else {}
        statistics += [row | columns for row in statistic_rows(ttft_s=(0.3 + 0.02 * n) * slower, **where, **last)]
        at = ended
    released_at = at + timedelta(seconds=1)
    held_s = (released_at - session_row()["ready_at"]).total_seconds() * scale
    session = session_row(released_at=released_at, held_s=held_s, sku=SKU if priced else None) | columns
    opened = session | {"state": "open", "released_at": None, "held_s": None}
    costs = _cost_rows(session, stages, requests, priced=priced)
    common = shared(**columns)
    return {
        "stack_sessions": [opened, session],
        "node_time": [node_time_row(session)],
        "events": _cold_start_rows(columns),
        "load_stages": stages,
        "requests": requests,
        "client_errors": [client_error_row(step=s["step"], stage=s["stage"]) | columns for s in stages],
        "metric_samples": samples,
        "metric_summaries": summaries,
        "stage_statistics": statistics,
        "counter_totals": [counter_total_row(**columns)],
        "log_lines": [log_row(**columns)],
        "cost_records": costs,
        "finops_sheet": finops.sheet_rows(
            costs, _work(stages, requests), shared=common, configuration=configuration(session)
        ),
        "findings": [finding_row(**columns)],
    }


def variants_run(
    variants: Mapping[str, float],
    *,
    refused: Mapping[str, str] | None = None,
    users: Sequence[int] = (1, 4, 8),
    **columns: Any,
) -> dict[str, list[Row]]:
    """One run that walks variants one after the other: a session each, `variants` times as slow as `lab_run`'s.

    After them come those of `refused`, with what their engine said.
    """
    columns = {"lab": "L11", "run_id": "variants-run", "session_id": "walk"} | columns
    tables: dict[str, list[Row]] = {}
    hour = 0
    for name, slower in variants.items():
        own: Row = columns | {"variant": name, "session_id": f"{columns['session_id']}.{name}"}
        for table, rows in lab_run(users=users, slower=slower, **own).items():
            tables.setdefault(table, []).extend(_later(row, timedelta(hours=hour)) for row in rows)
        hour += 1
    for name, message in (refused or {}).items():
        own = columns | {"variant": name, "session_id": f"{columns['session_id']}.{name}"}
        phases = dict.fromkeys(f"{phase}_s" for phase in COLD_START_S)
        closed = session_row(**(own | phases), refusal=message, cold_start_s=73.0, held_s=0.0)
        closed |= {"released_at": closed["ready_at"], "model_range": None}
        deploy = event_row(**own, kind="deploy", name="deploy", detail=json.dumps({"refusal": message}))
        tables["stack_sessions"].append(_later(closed, timedelta(hours=hour)))
        tables["events"].append(_later(deploy, timedelta(hours=hour)))
        hour += 1
    return tables


def _later(row: Row, by: timedelta) -> Row:
    """The row on a clock that is ahead; when it was recorded stays."""
    return {
        name: value + by if isinstance(value, datetime) and name != "recorded_at" else value
        for name, value in row.items()
    }


def get_run(
    *, offered: Sequence[float] = (2.0, 8.0), requests_per_stage: int = 40, **columns: Any
) -> dict[str, list[Row]]:
    """All tables of a run that has no engine: plain GETs at rates, one in twenty of which failed.

    In a stage of n requests per second a GET takes 10 + n stack milliseconds.
    """
    columns = {"lab": "L01", "engine": "none", "run_id": "get-run", "session_id": "get-session"} | columns
    scale = columns.get("time_scale", 5.0)
    at = REQUESTED_AT + timedelta(seconds=5)
    stages, requests, summaries, statistics = [], [], [], list[Row]()
    for index, per_s in enumerate(offered):
        where = {"step": "traffic", "stage": index, "users": None} | columns
        latency_s, gap = 0.010 + per_s / 1000, timedelta(seconds=1 / per_s / scale)
        for number in range(requests_per_stage):
            due = at + gap * number
            row = request_row if number % 20 else failed_request_row
            got = {"request_id": f"traffic-s{index}-{number}", "user_index": None, "path": "/status/200"}
            got |= {"sent_at": due, "finished_at": due + timedelta(seconds=latency_s / scale)}
            got |= {"event_offsets_s": [], "finish_reason": None, **dict.fromkeys(_OF_TOKENS)}
            requests.append(row(**(got | where | ({"e2e_s": latency_s} if number % 20 else {}))))
        ended = at + gap * requests_per_stage
        wall_s = (ended - at).total_seconds()
        stages.append(
            stage_row(
                **(where | {"profile": "rate", "request_kind": "http", "offered_per_s": per_s}),
                started_at=at,
                ended_at=ended,
                duration_s=wall_s * scale,
                duration_wall_s=wall_s,
                requests_in_stage=requests_per_stage,
                requests_ok=requests_per_stage - -(-requests_per_stage // 20),
                output_tokens=0,
            )
        )
        window = {"window_start": at, "window_end": ended, "measure": "request_rate", "unit": "requests/s"}
        summaries.append(summary_row(**(where | window), value=per_s) if index == 0 else gap_row(**(where | window)))
        said = {"quantity": "e2e_p50", "value": latency_s, "low": latency_s, "high": latency_s, "n": requests_per_stage}
        statistics.append(statistic_row(**(where | said), offered_per_s=per_s, state="level_shift", drift=-0.1))
        at = ended
    phases = dict.fromkeys([f"{name}_s" for name in COLD_START_S] + ["cold_start_s"])
    released_at = at + timedelta(seconds=1)
    held_s = (released_at - session_row()["ready_at"]).total_seconds() * scale
    session = session_row(released_at=released_at, held_s=held_s, model=None, **phases) | columns
    costs = _cost_rows(session, stages, requests, priced=True)
    work = [
        finops.StageWork(
            "traffic", s["stage"], None, s["requests_ok"], 0, 0, profile="rate", offered_per_s=s["offered_per_s"]
        )
        for s in stages
    ]
    return {
        "stack_sessions": [session | {"state": "open", "released_at": None, "held_s": None}, session],
        "load_stages": stages,
        "requests": requests,
        "client_errors": [client_error_row(step=s["step"], stage=s["stage"]) | columns for s in stages],
        "stage_statistics": statistics,
        "metric_summaries": summaries,
        "cost_records": costs,
        "finops_sheet": finops.sheet_rows(
            costs, work, shared=shared(**columns), configuration=configuration(session, slo=None)
        ),
    }


_OF_TOKENS = (
    *("ttft_s", "tpot_s", "input_tokens", "output_tokens", "expected_input_tokens", "expected_output_tokens"),
    *("server_ttft_s", "ttft_lag_wall_s", "receive_lag_p99_wall_s", "first_receive_lag_wall_s"),
)
"""Columns that a plain GET leaves empty."""


def publish_run(warehouse: Warehouse, tables: Mapping[str, Sequence[Row]]) -> None:
    """Publish what `lab_run` made."""
    for table, rows in tables.items():
        first = rows[0]
        warehouse.publish(table, rows, target=first["target"], lab=first["lab"], run_id=first["run_id"])


def warehouse_in(directory: Path, **fields: Any) -> Warehouse:
    """An empty warehouse in a test's own folder."""
    return Warehouse(data_dir=str(directory / "data"), **fields)


def _stage_requests(
    users: int, each: int, start: datetime, scale: float, slower: float, columns: Row
) -> tuple[list[Row], datetime]:
    """`each` requests of each user, one after the other; the rows, and when the last one ends."""
    ttft_s = slower * (0.3 + 0.02 * users)
    itl_s = slower * (0.036 + 0.001 * users) * OUTPUT_TOKENS / EVENTS
    offsets = [ttft_s + itl_s * n for n in range(EVENTS)]
    length = timedelta(seconds=offsets[-1] / scale)
    rows = [
        request_row(
            request_id=f"s{columns['stage']}-u{user}-{number}",
            user_index=user,
            sent_at=start + length * number,
            finished_at=start + length * (number + 1),
            ttft_s=ttft_s,
            e2e_s=offsets[-1],
            tpot_s=(offsets[-1] - ttft_s) / (OUTPUT_TOKENS - 1),
            event_offsets_s=offsets,
            server_ttft_s=ttft_s - 0.01,
        )
        | columns
        for user in range(users)
        for number in range(each)
    ]
    return rows, start + length * each


def _cold_start_rows(columns: Row) -> list[Row]:
    rows, at = [], REQUESTED_AT
    for name, seconds in COLD_START_S.items():
        scale = columns.get("time_scale", 5.0) if name == "first_token" else 400.0
        ended = at + timedelta(seconds=seconds / scale)
        rows.append(event_row(name=name, started_at=at, ended_at=ended, duration_s=seconds) | columns)
        at = ended
    return rows


def _cost_rows(session: Row, stages: Sequence[Row], requests: Sequence[Row], *, priced: bool) -> list[Row]:
    price = unit_price() if priced else None
    parts = cost.split_session(
        cost.ClosedSession.from_row(session),
        [cost.StageWindow(s["step"], s["stage"], s["started_at"], s["ended_at"]) for s in stages],
        [cost.RequestInterval(r["sent_at"], r["finished_at"], r["outcome"]) for r in requests],
        usd_per_node_hour=price.usd if price else None,
    )
    return cost.cost_rows(parts, shared={name: session[name] for name in shared()}, sku=session["sku"], price=price)


def unit_price(usd: Decimal = USD_PER_NODE_HOUR, **fields: Any) -> UnitPrice:
    known = {"sku": SKU, "region": "eastus", "priority": "on_demand", "source": "a price sheet"}
    return UnitPrice(**{**known, "usd": usd, "usd_low": usd, "usd_high": usd} | fields)


def configuration(
    session: Row, *, slo: Slo | None = INTERACTIVE, gpus_per_node: int | None = 1
) -> finops.Configuration:
    return finops.Configuration(
        sku=session["sku"],
        nodes=session["nodes"],
        gpus_per_node=gpus_per_node,
        model=session["model"],
        values_digest=session["values_digest"],
        slo=slo,
    )


def timed(row: Row) -> TimedRequest:
    """A row of `requests` as the split of the serving time takes it."""

    def microseconds(at: datetime) -> int:
        return (at - REQUESTED_AT) // timedelta(microseconds=1)

    sent = microseconds(row["sent_at"])
    return TimedRequest(
        sent_us=sent,
        first_token_us=None if row["ttft_s"] is None else sent + round(1e6 * row["ttft_s"] / row["time_scale"]),
        finished_us=microseconds(row["finished_at"]),
        input_tokens=row["expected_input_tokens"],
        failed=row["outcome"] not in cost.SERVED,
    )


def _work(stages: Sequence[Row], requests: Sequence[Row]) -> list[finops.StageWork]:
    edges = [[(s[at] - REQUESTED_AT) // timedelta(microseconds=1) for at in ("started_at", "ended_at")] for s in stages]
    phases = phase_times([(start, end) for start, end in edges], [timed(row) for row in requests])
    return [
        finops.StageWork(
            step=s["step"],
            stage=s["stage"],
            users=s["users"],
            requests=s["requests_ok"],
            input_tokens=s["requests_ok"] * INPUT_TOKENS,
            output_tokens=s["output_tokens"],
            useful=finops.UsefulWork(s["requests_ok"], s["requests_ok"] * INPUT_TOKENS, s["output_tokens"]),
            phases=of_stage,
            profile=s["profile"],
        )
        for s, of_stage in zip(stages, phases, strict=True)
    ]
