"""How long the FinOps sheet of a thousand years takes: 10 million cost records in a labs.duckdb, asked on 2 threads.

The rows are made up by DuckDB, with the cardinalities of the real thing: 78 labs of 5 variants on 3 targets and
machines, 13 parts of each session, estimated and billed, and the sessions' own lines of the sheet. Each question is
asked in a process of its own, as `labs sql` asks it, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.deployment import REPO_ROOT
from resources.snapshot import SNAPSHOT

NAME = "sheet"
COST_RECORDS = 10_000_000
STAGES = 4
_PARTS = 3 * STAGES + 1
_SECONDS, _GIB = 2.0, 2.0
QUESTIONS = {
    "where did the money go": (REPO_ROOT / "warehouse" / "queries" / "spend_by_configuration.sql").read_text("utf-8"),
    "the reference sheet, summed": (
        "SELECT quantity, count(*) AS lines, avg(value), avg(high - low) FROM reference_sheet GROUP BY quantity"
    ),
    "one target's, line by line": "SELECT * FROM reference_sheet WHERE target = 'kubernetes'",
}

_MADE = """
CREATE TEMP TABLE made AS
SELECT
    i, 'L' || lpad((i % 78 + 1)::VARCHAR, 2, '0') AS lab, 'variant-' || (i // 78) % 5 AS variant, 1 AS trial,
    uuid()::VARCHAR AS run_id, ['local', 'kubernetes', 'aks'][(i // 390) % 3 + 1] AS target, 'vllm' AS engine,
    'full' AS pace, 1.0 AS time_scale, 'measured' AS provenance,
    TIMESTAMPTZ '2026-01-01 00:00:00Z' + to_seconds(i * 60) AS began,
    -- A variant has its machine.
    ['Standard_NC4as_T4_v3', 'Standard_NC24ads_A100_v4', 'Standard_NC64as_T4_v3'][(i // 78) % 3 + 1] AS sku,
    CASE WHEN (i // 78) % 5 < 4 THEN 'on_demand' ELSE 'spot' END AS priority,
    0.5 + random() AS price
FROM range({sessions}) AS sessions(i);
CREATE TEMP TABLE parts AS
SELECT part, step, stage FROM (VALUES ('cold_start', NULL, NULL)) AS one(part, step, stage)
UNION ALL
SELECT unnest(['serve', 'idle', 'failed']), 'ramp', stage::INTEGER FROM range({stages}) AS stages(stage);
CREATE TEMP TABLE states AS SELECT unnest(['estimated', 'billed']) AS state, unnest([0, 1]) AS days;
"""
# State by state, as they are written: a bill comes in another file, a day after the estimate.
_COSTS = """
INSERT INTO cost_records BY NAME
SELECT
    lab, variant, trial, run_id, target, engine, pace, time_scale, provenance,
    began + to_days(days::INTEGER) AS recorded_at, run_id || '.' || variant AS session_id,
    began AS ChargePeriodStart, began + to_minutes(20) AS ChargePeriodEnd, 'USD' AS BillingCurrency,
    price AS ListUnitPrice, hours AS PricingQuantity, 'node-hour' AS PricingUnit, price * hours AS ListCost,
    CASE days WHEN 1 THEN 1.02 * price * hours END AS BilledCost,
    sku AS SkuId, 'eastus' AS RegionId, priority AS x_priority, 'gpu' AS x_pool,
    part AS x_part, step AS x_step, stage AS x_stage, state AS x_state,
    'on-demand list price; node time shared equally among the requests in flight, the rest idle' AS x_method,
    price AS x_price_low, price AS x_price_high,
    CASE days WHEN 1 THEN price * hours END AS x_estimated_usd,
    CASE days WHEN 1 THEN 1.02 * price * hours END AS x_billed_usd,
    CASE days WHEN 1 THEN 0.02 * price * hours END AS x_delta_usd,
    CASE days WHEN 1 THEN began + to_days(1) END AS x_billed_at,
    CASE days WHEN 1 THEN 'settled' END AS x_bill_state
FROM (SELECT *, 0.01 + random() AS hours FROM made, parts, states WHERE state = '{state}')
"""
_SHEET = """
INSERT INTO finops_sheet BY NAME
SELECT
    lab, variant, trial, run_id, target, engine, pace, time_scale, provenance,
    began + to_days(days::INTEGER) AS recorded_at, run_id || '.' || variant AS session_id,
    CASE WHEN stage IS NOT NULL THEN 'ramp' END AS step, stage, (2 ** stage)::INTEGER AS users, sku,
    (100 * r)::INTEGER AS requests, (51200 * r)::BIGINT AS input_tokens, (25600 * r)::BIGINT AS output_tokens,
    r AS node_hours, price * r AS usd, price * r / 2 AS serve_usd, price * r / 4 AS idle_usd,
    price * r / 4 AS cold_start_usd, 0 AS failed_usd,
    price / 1000 * r AS usd_per_1k_output_tokens, price / 3000 * r AS usd_per_1k_tokens,
    price / 100 * r AS usd_per_request, r / 4 AS idle_share, state,
    CASE days WHEN 1 THEN 'settled' END AS bill_state, 'model' AS model, repeat('7', 64) AS values_digest,
    'eastus' AS region, priority, 1 AS nodes, 1 AS gpus_per_node, 'ramp' AS profile,
    price * r AS usd_low, price * r AS usd_high, r / 10 AS prefill_share, price * r / 10 AS input_usd,
    price * r * 9 / 10 AS output_usd, price / 9000 * r AS input_usd_per_1k_tokens,
    price / 1100 * r AS output_usd_per_1k_tokens,
    price / 18000 * r AS serve_input_usd_per_1k_tokens, price / 2200 * r AS serve_output_usd_per_1k_tokens,
    2.0 AS slo_ttft_s, 0.08 AS slo_tpot_s, (90 * r)::INTEGER AS useful_requests, 1 AS useful_input_tokens,
    1 AS useful_output_tokens, r / 2 AS useful_share, price / 90 * r AS usd_per_useful_request,
    price / 2700 * r AS usd_per_1k_useful_tokens, price / 900 * r AS usd_per_1k_useful_output_tokens,
    r AS gpu_hours, r / 4 AS idle_gpu_hours, 1 - r / 4 AS efficiency,
    CASE WHEN stage IS NULL THEN 400 * r END AS cold_start_requests,
    CASE WHEN stage IS NULL THEN 600 * r END AS break_even_idle_s
FROM (
    SELECT *, 0.5 + random() AS r
    FROM made, states, (SELECT stage::INTEGER AS stage FROM range({stages}) AS s(stage) UNION ALL SELECT NULL)
    WHERE state = '{state}'
)
"""

_ASK = """
import json, resource, sys, time
from pathlib import Path
from resources.snapshot import open_snapshot
taken, cpu = [], []
with open_snapshot(Path(sys.argv[1])) as connection:
    connection.execute("SET threads = 2")
    for _ in range(3):
        began, used = time.perf_counter(), time.process_time()
        rows = len(connection.execute(sys.argv[2]).fetchall())
        taken.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"s": taken, "cpu_s": cpu, "rows": rows, "peak_gib": peak}))
"""
_BUILD = "import sys; from benchmarks.sheet import build; build(sys.argv[1], int(sys.argv[2]))"


def measure(*, cost_records: int = COST_RECORDS) -> list[Figure]:
    """Seconds (the median of three) and peak memory of each question. Raises `BenchmarkError`."""
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="labs-bench-") as folder:
        path = str(Path(folder) / SNAPSHOT)
        _child(_BUILD, path, str(cost_records))
        for name, question in QUESTIONS.items():
            seen = json.loads(_child(_ASK, path, question))
            cpu_s = median(seen["cpu_s"])
            note = f"{cost_records / 1e6:g} million cost records, {seen['rows']:,} lines, {cpu_s:.1f} CPU seconds"
            figures += [
                Figure(NAME, f"{name}, median of 3", median(seen["s"]), "s", at_most=_SECONDS, note=note),
                Figure(NAME, f"{name}, peak memory", seen["peak_gib"], "GiB", at_most=_GIB),
            ]
    return figures


def build(path: str, cost_records: int) -> None:
    """A labs.duckdb with so many cost records and their sheet: tables and views as the snapshot makes them."""
    from resources.duck import connect
    from resources.lake_sql import create_views

    sizes = {"sessions": cost_records // (2 * _PARTS), "stages": STAGES}
    warehouse = REPO_ROOT / "warehouse"
    with connect(Path(path)) as connection:
        for table in sorted((warehouse / "schema").glob("*.sql")):
            connection.execute(table.read_text(encoding="utf-8"))
        create_views(connection, sorted((warehouse / "views").glob("*.sql")))
        connection.execute(_MADE.format(**sizes))
        for statement in (_COSTS, _SHEET):
            for state in ("estimated", "billed"):
                connection.execute(statement.format(state=state, **sizes))


def _child(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPO_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the sheet's benchmark ended with code {done.returncode}:\n{done.stderr}")
    return done.stdout
