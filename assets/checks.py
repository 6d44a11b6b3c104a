"""Checks: a run whose numbers can't be believed stops here, and its rows stay for diagnosis.

One check only warns: a stage whose client was over its error budget has no valid requests already, and the run's other
stages are none the worse for it.

Belongs here: the rules that every lab's rows must meet. Doesn't belong here: a lab's findings, which may be
inconclusive and block nothing.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetsDefinition,
    asset_check,
)

from assets.common import shown_table
from assets.cost_attribution import cost_attribution
from assets.load_run import load_run
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.client_errors import cell, worst_of
from resources.labs import Labs
from resources.warehouse import Warehouse

Row = dict[str, Any]
_ROUNDING = Decimal("0.000000001")
"""Node-hours and USD are each rounded to nine decimals: those of nodes held alone together, of a shared node each."""
NO_LOAD = "the lab applies no load"
Rule = Callable[[list[Row], LabSpec], AssetCheckResult]


def blocking(asset: AssetsDefinition, sql: str) -> Callable[[Rule], AssetChecksDefinition]:
    """A blocking check of `asset`: `sql` reads the lab's newest run, `$run_id`; the decorated rule judges its rows."""
    return _check_of(asset, sql, blocking=True)


def warning(asset: AssetsDefinition, sql: str, *, name: str | None = None) -> Callable[[Rule], AssetChecksDefinition]:
    """As `blocking`, but what it finds stops nothing. `name`: unless it is the rule's."""
    return _check_of(asset, sql, blocking=False, name=name)


def _check_of(
    asset: AssetsDefinition, sql: str, *, blocking: bool, name: str | None = None
) -> Callable[[Rule], AssetChecksDefinition]:
    def decorate(rule: Rule) -> AssetChecksDefinition:
        # Without a partitions_def of its own, which is a preview feature; the lab is the run's partition.
        @asset_check(asset=asset, name=name or rule.__name__, description=rule.__doc__, blocking=blocking)
        def check(context: AssetCheckExecutionContext, labs: Labs, warehouse: Warehouse) -> AssetCheckResult:
            spec = labs.spec(context.op_execution_context.partition_key)
            run_id = warehouse.latest_run_id("stack_sessions", spec.id, labs.target, prefer=context.run.run_id)
            return rule(warehouse.query(sql, {"run_id": run_id}, within={"run_id": run_id} if run_id else None), spec)

        return check

    return decorate


def _result(*, passed: bool, description: str, **metadata: Any) -> AssetCheckResult:
    return AssetCheckResult(passed=passed, description=description, metadata=metadata)


@blocking(load_run, "SELECT load, requests, min_requests FROM stage_table WHERE run_id = $run_id ORDER BY step, stage")
def every_stage_has_requests(stages: list[Row], spec: LabSpec) -> AssetCheckResult:
    """Every stage of the profile was applied, and enough requests began and ended in it."""
    if not spec.load_steps:
        return _result(passed=not stages, description=NO_LOAD)
    if not stages:
        return _result(passed=False, description="no stage was applied")
    short = [s for s in stages if s["requests"] < s["min_requests"]]
    if not short:
        least = min(s["requests"] for s in stages)
        return _result(passed=True, description=f"{len(stages)} stages, each with at least {least} requests")
    listed = ", ".join(f"{s['load']}: {s['requests']} of {s['min_requests']}" for s in short)
    return _result(
        passed=False, description=f"too few requests ({listed}); raise max_hold_s in the spec's pace, or look at errors"
    )


@blocking(
    load_run,
    "SELECT outcome, count(*) AS n, any_value(error) AS example FROM requests WHERE run_id = $run_id GROUP BY 1",
)
def error_rate_is_within_budget(outcomes: list[Row], spec: LabSpec) -> AssetCheckResult:
    """Failed requests stay within the spec's budget; those cut off by the end of the load did not fail."""
    if not spec.load_steps:
        return _result(passed=not outcomes, description=NO_LOAD)
    counted = {row["outcome"]: row["n"] for row in outcomes}
    ok, cut = counted.get("ok", 0), counted.get("cut", 0)
    failed = sum(counted.values()) - ok - cut
    rate = failed / (ok + failed) if ok + failed else 1.0
    examples = "; ".join(
        f"{row['n']} {row['outcome']}, e.g. {row['example']}" for row in outcomes if row["outcome"] not in ("ok", "cut")
    )
    return _result(
        passed=rate <= spec.error_budget.error_rate,
        description=f"{failed} of {ok + failed} requests failed ({rate:.2%}); the spec allows "
        f"{spec.error_budget.error_rate:.2%}. {examples}".rstrip(),
        error_rate=rate,
    )


@blocking(
    load_run,
    """
    SELECT count(*) AS n,
           count(*) FILTER (output_tokens IS DISTINCT FROM expected_output_tokens) AS wrong_output,
           count(*) FILTER (input_tokens IS DISTINCT FROM expected_input_tokens) AS wrong_input
    FROM requests WHERE run_id = $run_id AND outcome = 'ok' AND expected_output_tokens IS NOT NULL
    """,
)
def token_counts_are_exact(counts: list[Row], spec: LabSpec) -> AssetCheckResult:
    """Every successful request had exactly the spec's input and output tokens, as the server's usage says."""
    row = counts[0]
    if not any(step.asks_for_tokens for step in spec.load_steps):
        return _result(passed=row["n"] == 0, description="the lab asks for no tokens")
    return _result(
        passed=row["n"] > 0 and row["wrong_output"] == 0 and row["wrong_input"] == 0,
        description=f"of {row['n']} successful requests {row['wrong_input']} had another input length and "
        f"{row['wrong_output']} another output length than the spec asks for",
    )


@warning(
    load_run,
    """
    SELECT c.variant, c.step, s.load, c.quantity, c.value, c.unit, c.allowed, c.n, c.within, c.reason
    FROM client_errors c JOIN stage_table s USING (session_id, step, stage)
    WHERE c.run_id = $run_id ORDER BY s.started_at, c.quantity
    """,
)
def client_is_within_its_error_budget(errors: list[Row], spec: LabSpec) -> AssetCheckResult:
    """The load generator's own error is within the spec's budget; a stage where it isn't has no valid requests."""
    if not spec.load_steps:
        return _warned(passed=not errors, description=NO_LOAD)
    over = [row for row in errors if row["within"] is False]
    judged = [row for row in errors if row["within"] is not None]
    if over:
        said = "; ".join(f"{row['variant']}, {row['step']} at {row['load']}: {row['reason']}" for row in over)
    elif judged:
        said = worst_of(judged)
    else:
        said = ", ".join(sorted({row["reason"] for row in errors})) or "nobody kept count of the client's own error"
    columns = {"variant": "string", "step": "string", "load": "string", "quantity": "string", "value": "string"}
    columns |= {"allowed": "string", "within": "string", "reason": "string"}
    return _warned(
        passed=not over,
        description=said,
        quantities=shown_table(columns, [{name: cell(row, name) for name in columns} for row in errors]),
    )


def _warned(*, passed: bool, description: str, **metadata: Any) -> AssetCheckResult:
    return AssetCheckResult(passed=passed, description=description, metadata=metadata, severity=AssetCheckSeverity.WARN)


@blocking(metrics_snapshot, "SELECT * FROM counter_totals WHERE run_id = $run_id ORDER BY step, quantity")
def prometheus_agrees_with_client(totals: list[Row], spec: LabSpec) -> AssetCheckResult:
    """The server's counters and the client's own count differ by no more than the spec allows."""
    allowed = spec.error_budget.prometheus_disagreement
    if not spec.error_budget.totals:
        return _result(passed=not totals, description="the lab's spec names no counter to compare with")
    compared = [t for t in totals if t["server_total"] is not None]
    if not compared:
        # An engine that is not ours may have none of these counters; that is a gap, not an agreement.
        return _result(
            passed=bool(totals), description="the server exports none of the counters: nothing could be compared"
        )
    wrong = [t for t in compared if t["disagreement"] is None or t["disagreement"] > allowed]
    listed = "; ".join(
        f"{t['quantity']}: server {t['server_total']:.0f}, client {t['client_total']:.0f}"
        + (f" to {t['client_total'] + t['client_unknown']:.0f}" if t["client_unknown"] else "")
        for t in compared
    )
    return _result(passed=not wrong, description=f"{listed} (allowed difference {allowed:.1%})")


@blocking(
    cost_attribution,
    """
    -- What each session held, by the price of its nodes; what it shared with others lies between none and all of it.
    WITH held AS (
        SELECT s.session_id, s.variant, n.pool, coalesce(n.sku, s.sku) AS sku,
               if(coalesce(n.sku, s.sku) IS NULL, NULL, coalesce(n.priority, 'on_demand')) AS priority,
               coalesce(
                   n.nodes * (n.cold_start_s + n.held_s),
                   s.nodes * (coalesce(s.cold_start_s, 0) + s.held_s - coalesce(s.first_token_s, 0))
               ) / 3600 AS hours,
               coalesce(n.exclusive, true) AS exclusive
        FROM stack_sessions s LEFT JOIN node_time n USING (session_id)
        WHERE s.run_id = $run_id AND s.state = 'closed'
    ), kinds AS (
        SELECT session_id, variant, pool, sku, priority, sum(hours) AS most,
               coalesce(sum(hours) FILTER (exclusive), 0) AS least, 1 + count(*) FILTER (NOT exclusive) AS roundings
        FROM held GROUP BY ALL
    ), costs AS (
        SELECT session_id, x_pool AS pool, SkuId AS sku, x_priority AS priority,
               sum(PricingQuantity) AS hours, sum(ListCost) AS usd,
               any_value(ListUnitPrice) AS price, count(DISTINCT ListUnitPrice) AS prices
        FROM cost_current WHERE x_state = 'estimated' AND run_id = $run_id GROUP BY ALL
    )
    SELECT coalesce(k.variant, 'a session that held no such node') AS variant, k.most, k.least, k.roundings, c.*
    FROM kinds k FULL JOIN costs c
        ON c.session_id = k.session_id AND c.sku IS NOT DISTINCT FROM k.sku
        AND c.pool IS NOT DISTINCT FROM k.pool AND c.priority IS NOT DISTINCT FROM k.priority
    ORDER BY ALL
    """,
)
def cost_parts_sum_to_the_session(sums: list[Row], spec: LabSpec) -> AssetCheckResult:
    """The parts of each session add up to its node-hours of each kind, and their dollars to that times the price.

    Of nodes that others held, too, they add up to some share of it.
    """
    said, passed = [], bool(sums)
    for row in sums:
        if row["hours"] is None:
            if row["most"]:
                said.append(f"{row['variant']} has no cost records")
                passed = False
            continue
        if row["most"] is None:
            said.append(f"{row['variant']}: {row['hours']:.6f} node-hours of {row['sku']}")
            passed = False
            continue
        # A session's columns are floats of seconds from microsecond timestamps; a node-second is far above their error.
        hours_agree = row["least"] - 1e-6 < float(row["hours"]) < row["most"] + 1e-6
        priced = row["usd"] is not None
        usd_agree = not priced or (
            row["prices"] == 1
            and abs(row["usd"] - row["price"] * row["hours"]) <= (row["price"] + 1) * _ROUNDING * row["roundings"]
        )
        total = f"{row['usd']:.6f} USD" if priced else "without a price"
        shared = "" if row["least"] == row["most"] else f"{row['least']:.6f} to "
        said.append(
            f"{row['variant']}: parts: {row['hours']:.6f} node-hours, {total}; "
            f"session: {shared}{row['most']:.6f} node-hours"
        )
        passed = passed and hours_agree and usd_agree
    return _result(passed=passed, description="; ".join(said) or "no session was closed")


__all__ = [
    "client_is_within_its_error_budget",
    "cost_parts_sum_to_the_session",
    "error_rate_is_within_budget",
    "every_stage_has_requests",
    "prometheus_agrees_with_client",
    "token_counts_are_exact",
]
