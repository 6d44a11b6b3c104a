"""Two runs on one machine, one warehouse and one Dagster instance: different labs share them, the same lab does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from resources.cluster import Session
from resources.warehouse import Warehouse, open_snapshot
from tests.support.copied_catalog import copied_catalog
from tests.support.main_command import Place, Run, prepared, processes_of, start

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(240)]

DEFINITIONS = "tests.support.two_labs_definitions"
LONG_ENOUGH = {"hold_s": 200.0}
"""Five wall seconds a stage, so that two runs that start together also hold their stacks together."""
TABLES = ["stack_sessions", "events", "requests", "load_stages", "metric_samples", "metric_summaries"]
TABLES += ["counter_totals", "cost_records", "finops_sheet"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with prepared(tmp_path / "place") as place:
        yield place


def start_lab(place: Place, lab: str, catalog: Path) -> Run:
    return start(place, pace="smoke", lab=lab, definitions=DEFINITIONS, environ={"TEST_CATALOG_DIR": str(catalog)})


def session_once_up(place: Place, lab: str, run: Run) -> Session:
    """The lab's session, read from its lease while the run holds it."""

    def session() -> Session | None:
        lease = place.lease(lab)
        return lease.sessions[-1] if lease and lease.sessions else None

    return run.wait_for(session)


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def test_two_labs_run_side_by_side_and_each_gets_its_own_ports_files_and_rows(place: Place, tmp_path: Path) -> None:
    catalog = copied_catalog(tmp_path / "catalog", labs=["L06", "L07"], smoke=LONG_ENOUGH)
    runs = {lab: start_lab(place, lab, catalog) for lab in ("L06", "L07")}
    sessions = {lab: session_once_up(place, lab, run) for lab, run in runs.items()}
    for run in runs.values():
        assert run.wait() == 0, run.output()
    assert processes_of(place) == []

    urls = [url for session in sessions.values() for url in (session.endpoint("vllm").base_url, session.prometheus_url)]
    assert len(set(urls)) == 4
    assert len({session.session_id for session in sessions.values()}) == 2
    with open_snapshot(place.snapshot) as connection:
        held = rows(connection, "SELECT requested_at, released_at FROM stack_sessions WHERE state = 'closed'")
        (asked_1, gone_1), (asked_2, gone_2) = held
        assert asked_1 < gone_2 and asked_2 < gone_1, "the stacks were not up at the same time"
        for table in TABLES:
            labs = rows(connection, f"SELECT lab, run_id, session_id, count(*) FROM {table} GROUP BY ALL ORDER BY lab")
            expected = [(lab, s.run_id, s.session_id) for lab, s in sorted(sessions.items())]
            assert [row[:3] for row in labs] == expected, table
        shape = rows(connection, "SELECT lab, list(users ORDER BY stage) FROM load_stages GROUP BY lab ORDER BY lab")
        assert shape == [("L06", [1, 4]), ("L07", [1, 4])]
        totals = rows(
            connection,
            "SELECT lab, quantity, client_total, client_unknown, server_total FROM counter_totals ORDER BY ALL",
        )
        assert len(totals) == 4
        for lab, quantity, client, unknown, server in totals:
            # Had one lab's load or scrape reached the other's server, its counters would show it.
            # What was cut at the end may have been served whole: at most one answer for each of four users.
            assert unknown <= (4 if quantity == "requests_ok" else 0.02 * client), (lab, quantity)
            assert server == pytest.approx(client, rel=0.01, abs=unknown), (lab, quantity)
        measured = rows(connection, "SELECT lab, list(DISTINCT promql) FROM metric_summaries GROUP BY lab")
        for lab, queries in measured:
            assert all(f'namespace="lab-{lab[1:]}"' in promql for promql in queries)


def test_of_two_runs_of_one_lab_the_second_is_refused_and_the_first_is_not_disturbed(
    place: Place, tmp_path: Path
) -> None:
    catalog = copied_catalog(tmp_path / "catalog", labs=["L06"], smoke=LONG_ENOUGH)
    runs = [start_lab(place, "L06", catalog) for _ in range(2)]
    codes = [run.wait() for run in runs]
    assert sorted(codes) == [0, 1], "\n".join(run.output() for run in runs)
    winner, refused = (runs[codes.index(code)] for code in (0, 1))
    assert "L06 is held by run" in refused.output()
    assert f"(process {winner.process.pid})" in refused.output()
    assert "Wait for it" in refused.output()
    assert processes_of(place) == []
    warehouse = Warehouse(data_dir=str(place.data_dir))
    assert warehouse.query("SELECT count(*) AS stages FROM load_stages GROUP BY run_id") == [{"stages": 2}]
    agreement = warehouse.query("SELECT client_total, client_unknown, server_total FROM counter_totals")
    assert len(agreement) == 2
    for row in agreement:
        assert row["server_total"] == pytest.approx(row["client_total"], rel=0.01, abs=row["client_unknown"])
