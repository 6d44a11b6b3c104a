"""Whole runs whose tables agree with one another: of one variant, of several, and of a lab without an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lab_pipelines import finops
from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.cost import SERVED, RequestInterval, StageWindow, split_session
from lab_pipelines.finops_split import TimedRequest, phase_times
from lab_pipelines.lanes import ClosedSession
from lab_pipelines.rows.costs import cost_rows
from tests.support.rows.common import REQUESTED_AT, SKU, Row, shared
from tests.support.rows.load import (
    EVENTS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    client_error_row,
    failed_request_row,
    request_row,
    stage_row,
)
from tests.support.rows.measures import counter_total_row, gap_row, sample_row, summary_row
from tests.support.rows.money import unit_price
from tests.support.rows.results import finding_row, statistic_row, statistic_rows
from tests.support.rows.sessions import COLD_START_S, event_row, log_row, node_time_row, session_row

NOT_BY_RUNS = frozenset(
    {"baselines", "gpu_decisions", "budget_decisions", "run_marks", "bill_days", "bill_asks", "bill_shares"}
)
"""Tables that sensors, reconciliations and pins write, and no lab's run."""


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
    parts = split_session(
        ClosedSession.from_row(session),
        [StageWindow(s["step"], s["stage"], s["started_at"], s["ended_at"]) for s in stages],
        [RequestInterval(r["sent_at"], r["finished_at"], r["outcome"]) for r in requests],
        usd_per_node_hour=price.usd if price else None,
    )
    return cost_rows(parts, shared={name: session[name] for name in shared()}, sku=session["sku"], price=price)


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
        failed=row["outcome"] not in SERVED,
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
