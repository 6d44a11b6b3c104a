"""How long the report of all 78 labs takes, how large its pages are, and what a thousand times the requests do to it.

The lake is made up by DuckDB: every lab of the catalogue on two targets, rehearsed and measured, with its own variants
(three for a lab that is outlined), four stages each, and the measures that its spec's figures show. What grows with the
length of a run are `requests`; sessions, stages, measures, claims and costs grow with the number of runs, of which the
report shows the newest of each kind. So the larger lake has a thousand times the requests, and the same of the rest.
A made-up request has 8 streamed events.

Each report is written in a process of its own, as every run of a lab writes it: first into an empty folder, where every
picture is drawn, then again, where those are taken that are still the same.

Doesn't belong here: whether the numbers are right (tests/unit/test_report*.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.figures import COLUMNS
from resources.contract import contract
from resources.lake import STAMP
from resources.warehouse_core import SCHEMA_DIR

NAME = "report"
USERS = (1, 4, 16, 32)
REQUESTS = 20
"""Of a stage, in the smaller lake."""
FACTOR = 1000
EVENTS = 8
PLACES = (("rehearsal", "modelled-vllm", "modelled"), ("aks", "vllm", "measured"))
SECONDS, SECONDS_LARGE, PAGE_MB = 10.0, 60.0, 5.0

# One row per session. Variants differ by a few per cent, the rehearsal from the measurement by a tenth.
_SESSIONS = """
CREATE TEMP TABLE sessions AS
SELECT
    row_number() OVER () AS i, l.lab, l.phase, v.variant, 1 AS trial, l.lab || '-' || p.target AS run_id,
    p.target, p.engine, 'full' AS pace, 1.0 AS time_scale, p.provenance,
    TIMESTAMPTZ '2026-03-02 09:00:00Z' + to_hours(l.number * 24 + v.position) AS requested_at,
    TIMESTAMPTZ '2026-03-03 09:00:00Z' + to_hours(l.number * 24) AS recorded_at,
    run_id || '.' || v.variant AS session_id, l.step,
    ['Standard_NC4as_T4_v3', 'Standard_NC24ads_A100_v4'][l.number % 2 + 1] AS sku,
    [0.526, 3.673][l.number % 2 + 1] AS price,
    (1 + 0.05 * v.position) * CASE p.target WHEN 'aks' THEN 1.1 ELSE 1 END AS slow
FROM labs AS l JOIN variants AS v USING (lab), places AS p;
CREATE TEMP TABLE of_stages AS
SELECT
    s.*, (u.stage - 1)::INTEGER AS stage, u.users::INTEGER AS users,
    requested_at + to_minutes(15 + 5 * u.stage) AS started_at, 20.0 + u.users AS tokens_per_s
FROM
    sessions AS s,
    (SELECT generate_subscripts(list, 1) AS stage, unnest(list) AS users FROM (SELECT {users} AS list)) AS u;
"""
_COMMON = "lab, variant, trial, run_id, target, engine, pace, time_scale, provenance, recorded_at, session_id"
_ROWS = {
    "stack_sessions": f"""
        SELECT {_COMMON}, state, 'lab' AS namespace, 'a-model' AS model, sku, 1 AS nodes, requested_at,
        requested_at + to_minutes(12) AS ready_at,
        CASE state WHEN 'closed' THEN requested_at + to_minutes(50) END AS released_at, 1.0 AS cold_start_time_scale,
        300 * slow AS node_ready_s, 120.0 AS driver_ready_s, 100.0 AS image_pulled_s, 60.0 AS model_loaded_s,
        90.0 AS engine_ready_s, 0.5 AS first_token_s, 370.5 + 300 * slow AS cold_start_s, 2280.0 AS held_s,
        repeat('5', 64) AS spec_digest, repeat('7', 64) AS values_digest, '[]' AS engine_args, 1 AS gpus
        FROM sessions, (SELECT unnest(['open', 'closed']) AS state)""",
    "load_stages": f"""
        SELECT {_COMMON}, step, 'ramp' AS profile, 'completion' AS request_kind, stage, users, started_at,
        started_at + to_minutes(4) AS ended_at, 240.0 AS duration_s, 240.0 AS duration_wall_s, 240.0 AS hold_s,
        20 AS min_requests, {{requests}} AS requests_in_stage, {{requests}} AS requests_ok,
        (240 * tokens_per_s * users ** 0.8 / slow)::BIGINT AS output_tokens FROM of_stages""",
    "metric_summaries": f"""
        SELECT {_COMMON}, step, stage, users, measure, 'units' AS unit, 'mean' AS statistic,
        CASE WHEN measure <> 'gpu_power' THEN 1.0 + users / slow END AS value, 10 AS samples,
        CASE WHEN measure <> 'gpu_power' THEN 'ok' ELSE 'gap' END AS status,
        CASE WHEN measure = 'gpu_power' THEN 'no such series' END AS gap_reason, 'up' AS promql,
        started_at AS window_start, started_at + to_minutes(4) AS window_end
        FROM of_stages JOIN measures USING (lab)""",
    "events": f"""
        SELECT {_COMMON}, 'load' AS kind, step AS name, started_at, started_at + to_minutes(4) AS ended_at,
        240.0 AS duration_s, CASE WHEN i % 40 = 0 THEN 'failed' ELSE 'ok' END AS outcome FROM of_stages""",
    "cost_records": f"""
        SELECT {_COMMON}, started_at AS ChargePeriodStart, started_at + to_minutes(4) AS ChargePeriodEnd,
        'USD' AS BillingCurrency, price AS ListUnitPrice, 0.04 * (1 + stage) AS PricingQuantity,
        'node-hour' AS PricingUnit, price * 0.04 * (1 + stage) AS ListCost, sku AS SkuId, 'eastus' AS RegionId,
        'on_demand' AS x_priority, part AS x_part, step AS x_step, stage AS x_stage, 'estimated' AS x_state,
        'list price' AS x_method, price * 0.95 AS x_price_low, price * 1.05 AS x_price_high
        FROM of_stages, (SELECT unnest(['serve', 'idle', 'cold_start']) AS part)""",
    "finops_sheet": f"""
        SELECT {_COMMON}, step, stage, users, sku, {{requests}} AS requests, 512 * {{requests}} AS input_tokens,
        256 * {{requests}} AS output_tokens, 0.12 AS node_hours, price * 0.12 AS usd,
        price / tokens_per_s * slow AS usd_per_1k_tokens, 'estimated' AS state
        FROM (
            FROM of_stages
            UNION ALL BY NAME
            SELECT *, NULL AS stage, NULL AS users, 30.0 AS tokens_per_s FROM sessions
        )""",
    "findings": f"""
        SELECT {_COMMON}, claim AS finding, 'What ' || claim || ' says holds' AS claim,
        ['confirmed', 'confirmed', 'confirmed', 'refuted', 'inconclusive'][i % 5 + 1] AS verdict,
        1 + 0.1 * slow AS effect, 1.05 AS interval_low, 1.3 AS interval_high, 4 AS n,
        'ratio of stage values' AS method, 'by its interval' AS reason
        FROM sessions JOIN claims USING (lab)""",
    "stage_statistics": f"""
        SELECT {_COMMON}, step, stage, users, quantity, 's' AS unit, 1.0 + users / slow AS value,
        0.9 * (1.0 + users / slow) AS low, 1.1 * (1.0 + users / slow) AS high, {{requests}} AS n,
        0.6 * {{requests}} AS n_effective, 'order statistics' AS method, 0 AS left_out, 'steady' AS state, 0.0 AS drift
        FROM of_stages, (SELECT unnest([
            'throughput', 'ttft_p50', 'ttft_p95', 'ttft_p99', 'tpot_p50', 'tpot_p95', 'e2e_p50', 'e2e_p95', 'e2e_p99',
            'normalised_p50', 'error_rate', 'goodput', 'goodput_rate', 'warm_up', 'steady_state'
        ]) AS quantity)""",
    "client_errors": f"""
        SELECT {_COMMON}, step, stage, quantity, 0.003 AS value, 's' AS unit, 0.05 AS allowed, {{requests}} AS n,
        true AS within
        FROM of_stages, (SELECT unnest([
            'schedule_lag_p99', 'ttft_lag_p99', 'receive_lag_p99', 'event_loop_lag_p99'
        ]) AS quantity)""",
}
# Of one file. TTFT scatters evenly, each request by a hash of its number.
_REQUESTS = """
SELECT
    * EXCLUDE (slow, started_at, n), session_id || '-' || stage || '-' || n AS request_id, 'w' AS worker,
    (n % users)::INTEGER AS user_index, started_at + to_milliseconds(n) AS scheduled_at,
    started_at + to_milliseconds(n) AS sent_at, started_at + to_minutes(2) AS finished_at, 0.0 AS schedule_lag_s,
    ttft_s + 7 * itl_s AS e2e_s, itl_s AS tpot_s, [ttft_s + k * itl_s FOR k IN range({events})] AS event_offsets_s,
    512 AS input_tokens, 256 AS output_tokens, 512 AS expected_input_tokens, 256 AS expected_output_tokens,
    'ok' AS outcome, 200 AS http_status, true AS in_stage, true AS valid, []::VARCHAR[] AS invalid_reasons
FROM (
    SELECT
        {common}, step, stage, users, slow, started_at, n,
        slow * (0.2 + 0.01 * users + (hash(n) % 1000) / 5000) AS ttft_s, slow * (0.03 + (hash(n) % 97) / 5000) AS itl_s
    FROM of_stages, range({requests}) AS made(n)
    WHERE run_id = '{run_id}'
)
"""
_WRITE = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.write import write_report
from resources.warehouse_core import PlainWarehouse
files = write_report(PlainWarehouse(sys.argv[1]), load_catalog(), Path(sys.argv[2]))
took = time.perf_counter() - began
pages = [files.html, *files.phases]
print(json.dumps({
    "s": took, "labs": files.labs_with_results, "stages": files.stages,
    "page_mb": files.html.stat().st_size / 1e6, "largest_mb": max(page.stat().st_size for page in pages) / 1e6,
    "pictures": len(list((Path(sys.argv[2]) / "pictures").glob("*.json"))),
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}))
"""


@dataclass(frozen=True)
class Written:
    """One report that was written."""

    s: float
    labs: int
    stages: int
    page_mb: float
    largest_mb: float
    """The largest page of all."""
    pictures: int
    peak_gib: float


def measure(*, factor: int = FACTOR) -> list[Figure]:
    """The figures, with `factor` times the requests in the larger lake. Raises `BenchmarkError`."""
    with TemporaryDirectory(prefix="labs-bench-") as folder:
        small = make_lake(Path(folder) / "small", requests=REQUESTS)
        first, again = written(Path(folder) / "small"), written(Path(folder) / "small")
        large = make_lake(Path(folder) / "large", requests=REQUESTS * factor)
        large_first, of_large = written(Path(folder) / "large"), written(Path(folder) / "large")
    named = f"{large:,} requests"
    return [
        Figure(NAME, f"{first.labs} labs, {small:,} requests: written again", again.s, "s", SECONDS),
        Figure(NAME, f"with all {first.pictures} pictures drawn", first.s, "s"),
        Figure(NAME, f"{named}: written again", of_large.s, "s", SECONDS_LARGE),
        Figure(NAME, f"{named}: with all pictures drawn", large_first.s, "s"),
        Figure(NAME, "the year's page", again.page_mb, "MB", PAGE_MB),
        Figure(NAME, "the largest page of a phase", again.largest_mb, "MB", PAGE_MB),
        Figure(NAME, "peak memory", again.peak_gib, "GiB"),
        Figure(NAME, f"peak memory, {named}", of_large.peak_gib, "GiB"),
    ]


def written(data_dir: Path) -> Written:
    """Write the report of a lake in a process of its own. Raises `BenchmarkError`."""
    command = [sys.executable, "-c", _WRITE, str(data_dir), str(data_dir / "report")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=REPO_ROOT, check=False)
    if ran.returncode:
        raise BenchmarkError(f"the report of {data_dir} was not written: {ran.stderr.strip()[-400:]}")
    return Written(**json.loads(ran.stdout))


def make_lake(data_dir: Path, *, requests: int) -> int:
    """Make up a lake in which each stage has so many requests; how many there are in all."""
    tables = contract(Path(SCHEMA_DIR))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        _name(connection)
        connection.execute(_SESSIONS.format(users=list(USERS)))
        for name, sql in _ROWS.items():
            connection.execute(tables[name].ddl)  # which holds them to its rules
            connection.execute(f"INSERT INTO {name} BY NAME {sql.format(requests=requests)}")
        for target, lab, run_id in connection.execute("SELECT DISTINCT target, lab, run_id FROM sessions").fetchall():
            for name in _ROWS:
                _publish(connection, data_dir, name, f"FROM {name} WHERE run_id = '{run_id}'", target, lab, run_id)
            made = _REQUESTS.format(common=_COMMON, requests=requests, events=EVENTS, run_id=run_id)
            given = {column[0] for column in connection.execute(f"DESCRIBE {made}").fetchall()}
            columns = ", ".join(
                f"CAST({column if column in given else 'NULL'} AS {kind}) AS {column}"
                for column, kind in tables["requests"].types.items()
            )
            _publish(connection, data_dir, "requests", f"SELECT {columns} FROM ({made})", target, lab, run_id)
        [(stages,)] = connection.execute("SELECT count(*) FROM of_stages").fetchall()
    return stages * requests


def _publish(
    connection: duckdb.DuckDBPyConnection, data_dir: Path, table: str, sql: str, target: str, lab: str, run_id: str
) -> None:
    name = f"{table}/target={target}/lab={lab}/{run_id}.parquet"
    path = data_dir / "lake" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = f"KV_METADATA {{'{STAMP.decode()}': '{name}'}}"
    connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, {stamp})")


def _name(connection: duckdb.DuckDBPyConnection) -> None:
    """The labs, their variants, steps, measures and claims, as the catalogue has them."""
    labs = load_catalog().labs()
    _fill(connection, "labs(lab VARCHAR, number INTEGER, phase INTEGER, step VARCHAR)", (_lab(lab) for lab in labs))
    _fill(connection, "variants(lab VARCHAR, variant VARCHAR, position INTEGER)", _variants(labs))
    _fill(connection, "measures(lab VARCHAR, measure VARCHAR)", _measures(labs))
    _fill(connection, "claims(lab VARCHAR, claim VARCHAR)", _claims(labs))
    _fill(connection, "places(target VARCHAR, engine VARCHAR, provenance VARCHAR)", iter(PLACES))


def _fill(connection: duckdb.DuckDBPyConnection, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    name, columns = table.split("(")
    connection.execute(f"CREATE TEMP TABLE {table}")
    marks = ", ".join("?" * (columns.count(",") + 1))
    connection.executemany(f"INSERT INTO {name} VALUES ({marks})", list(rows))


def _lab(lab: Identity) -> tuple[str, int, int, str]:
    steps = [figure.step for figure in lab.figures if figure.step] if isinstance(lab, LabSpec) else []
    return lab.id, int(lab.id[1:]), lab.phase, steps[0] if steps else "ramp"


def _variants(labs: list[Any]) -> Iterator[tuple[str, str, int]]:
    for lab in labs:
        names = [one.id for one in lab.variants] if isinstance(lab, LabSpec) else ["one", "two", "three"]
        yield from ((lab.id, name, position) for position, name in enumerate(names))


def _measures(labs: list[Any]) -> Iterator[tuple[str, str]]:
    for lab in labs:
        shown = {name for figure in lab.figures for name in (figure.x, figure.y)} if isinstance(lab, LabSpec) else set()
        named = {"queue_depth", "kv_cache_usage", "gpu_power"} | (shown - COLUMNS.keys() - {"load", "variant", "step"})
        yield from ((lab.id, name) for name in sorted(named))


def _claims(labs: list[Any]) -> Iterator[tuple[str, str]]:
    for lab in labs:
        claims = [one.id for one in lab.findings] if isinstance(lab, LabSpec) else ["it-helps"]
        yield from ((lab.id, claim) for claim in claims)
