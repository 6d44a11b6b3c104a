"""What a stage's requests say: rows of `stage_statistics`, the view over them, findings judged on the same samples."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from assets.claim_checks import told
from assets.findings import judge
from assets.samples import Samples, statistics_rows
from lab_pipelines.catalog.loader import CATALOG_DIR, SpecError, read_model
from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.rows.sessions import session_row
from resources.warehouse import Warehouse
from tests.support.rows.common import REQUESTED_AT, Row
from tests.support.rows.load import failed_request_row, request_row, stage_row
from tests.support.rows.runs import lab_run
from tests.support.sessions import session
from tests.support.warehouses import publish_run, warehouse_in

START = REQUESTED_AT + timedelta(seconds=5)
SCALE = 5.0


def stage_of(number: int, users: int, ttft_s: np.ndarray, *, tokens: int = 20, **columns: Any) -> tuple[Row, list[Row]]:
    """A stage whose requests follow each other every two stack seconds: 20 events, 0.05 s apart after the first."""
    every = timedelta(seconds=2 / SCALE)
    start = START + timedelta(hours=number)
    where = {"stage": number, "users": users, "run_id": "run-1", "session_id": "lease-1"} | columns
    requests = []
    for at, ttft in enumerate(ttft_s):
        due = start + at * every
        offsets = [float(ttft) + 0.05 * n for n in range(tokens)]
        requests.append(
            request_row(
                **where,
                request_id=f"s{number}-{at:05}",
                sent_at=due,
                finished_at=due + timedelta(seconds=offsets[-1] / SCALE),
                ttft_s=offsets[0],
                e2e_s=offsets[-1],
                tpot_s=0.05,
                event_offsets_s=offsets,
                output_tokens=tokens,
            )
        )
    n = len(ttft_s)
    of_stage = {"requests_in_stage": n, "requests_ok": n, "output_tokens": n * tokens}
    ended = start + (n + 1) * every
    times = {
        "started_at": start,
        "ended_at": ended,
        "duration_s": 2.0 * (n + 1),
        "duration_wall_s": 2 / SCALE * (n + 1),
    }
    return stage_row(**(of_stage | times | where)), requests


def published(tmp_path: Path, *stages: tuple[Row, list[Row]]) -> Warehouse:
    warehouse = warehouse_in(tmp_path)
    tables = lab_run(run_id="run-1", session_id="lease-1")
    tables["load_stages"] = [stage for stage, _ in stages]
    tables["requests"] = [row for _, requests in stages for row in requests]
    del tables["stage_statistics"]
    publish_run(warehouse, tables)
    return warehouse


def of_session() -> Row:
    up = session()
    return session_row(up, released_at=up.ready_at)


def told_of(warehouse: Warehouse, *, slo: Slo | None = INTERACTIVE) -> dict[tuple[int, str], Row]:
    found = statistics_rows(of_session(), Samples(warehouse, slo).of(of_session()))
    return {(row["stage"], row["quantity"]): row for row in found}


def latencies(n: int, seed: int = 1, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).lognormal(-1, 0.3, n)


def test_each_quantity_of_a_stage_has_a_value_with_an_interval_or_a_reason(tmp_path: Path) -> None:
    rows = told_of(published(tmp_path, stage_of(0, 4, latencies(400)), stage_of(1, 8, latencies(40))))
    quantities = {quantity for _, quantity in rows}
    assert {
        "warm_up",
        "steady_state",
        "throughput",
        "ttft_p99",
        "normalised_p50",
        "error_rate",
        "goodput",
    } <= quantities
    ttft = rows[0, "ttft_p50"]
    assert ttft["value"] == pytest.approx(np.median(latencies(400)))
    assert ttft["low"] < np.exp(-1) < ttft["high"] and ttft["n"] == 400 and ttft["reason"] is None
    assert (ttft["left_out"], ttft["state"], ttft["unit"]) == (0, "steady", "s")
    assert rows[1, "ttft_p99"]["low"] is None and "needs 368" in rows[1, "ttft_p99"]["reason"]
    assert rows[0, "throughput"]["value"] == pytest.approx(10.0, rel=0.01)  # 20 tokens every 2 s
    assert rows[0, "normalised_p50"]["value"] == pytest.approx(np.median(latencies(400) + 0.95) / 20)
    assert (rows[0, "warm_up"]["value"], rows[0, "warm_up"]["left_out"]) == (0.0, 0)
    assert rows[1, "warm_up"]["value"] is None and "50 or more" in rows[1, "warm_up"]["reason"]
    assert rows[0, "steady_state"]["state"] == "steady"


def test_a_warm_up_is_left_out_of_latencies_and_not_of_failures(tmp_path: Path) -> None:
    slow = latencies(300)
    slow[:40] += 6.0
    stage, requests = stage_of(0, 4, slow)
    requests[3] = failed_request_row(
        **{name: requests[3][name] for name in ("stage", "users", "run_id", "session_id", "request_id", "sent_at")}
    )
    warehouse = published(tmp_path, (stage | {"requests_ok": 299}, requests))
    rows = told_of(warehouse)
    cut = rows[0, "warm_up"]["left_out"]
    assert 34 <= cut <= 45
    assert rows[0, "warm_up"]["value"] == pytest.approx(2.0 * (cut + 1), abs=2.1)  # the failed one was never valid
    assert (
        rows[0, "ttft_p50"]["n"] == 299 - cut
        and f"without the warm-up of {cut} requests" in rows[0, "ttft_p50"]["method"]
    )
    assert (rows[0, "error_rate"]["n"], rows[0, "error_rate"]["value"]) == (300, pytest.approx(1 / 300))
    assert rows[0, "goodput"]["value"] == pytest.approx(260 / 300, abs=0.01), "who waited 6 s was not served in time"
    warehouse.publish("stage_statistics", list(rows.values()), target="local", lab="L06", run_id="run-1")
    of_view = {row["quantity"]: row for row in warehouse.query("FROM stage_intervals")}
    assert of_view["ttft_p95"]["of_all"] > 6 > of_view["ttft_p95"]["value"], "both are shown, and why they differ"
    assert of_view["ttft_p95"]["left_out"] == cut and of_view["ttft_p95"]["warm_up_s"] == rows[0, "warm_up"]["value"]
    assert of_view["error_rate"]["of_all"] == of_view["error_rate"]["value"]
    assert {"warm_up", "steady_state"}.isdisjoint(of_view)


def test_a_stage_that_drifts_is_found_by_the_question_for_it(tmp_path: Path) -> None:
    warehouse = published(
        tmp_path, stage_of(0, 4, latencies(300) + np.linspace(0, 3, 300)), stage_of(1, 8, latencies(300))
    )
    rows = told_of(warehouse)
    assert rows[0, "ttft_p50"]["state"] == "trend" and rows[0, "ttft_p50"]["drift"] > 1
    assert rows[1, "ttft_p50"]["state"] == "steady"
    warehouse.publish("stage_statistics", list(rows.values()), target="local", lab="L06", run_id="run-1")
    question = (REPO_ROOT / "warehouse" / "queries" / "stages_not_steady.sql").read_text(encoding="utf-8")
    found = warehouse.query(question)
    assert {row["quantity"] for row in found} == {"ttft_p50", "e2e_p50"}
    assert {row["load"] for row in found} == {"4 users"} and {row["state"] for row in found} == {"trend"}


def test_a_burst_is_one_event_and_a_get_has_no_tokens(tmp_path: Path) -> None:
    burst = stage_of(0, 100, np.linspace(1, 30, 100))
    get, requests = stage_of(1, 4, latencies(100))
    without = ("ttft_s", "tpot_s", "output_tokens", "input_tokens", "expected_input_tokens", "expected_output_tokens")
    gets = [row | dict.fromkeys(without) | {"event_offsets_s": [], "path": "/status/200"} for row in requests]
    stages = [(burst[0] | {"profile": "burst", "hold_s": 0.0}, burst[1]), (get | {"request_kind": "http"}, gets)]
    rows = told_of(published(tmp_path, *stages), slo=None)
    of_burst = [
        row for (stage, quantity), row in rows.items() if stage == 0 and quantity not in ("warm_up", "steady_state")
    ]
    assert of_burst and all(row["low"] is None and "a burst is one event" in row["reason"] for row in of_burst)
    assert rows[0, "ttft_p50"]["value"] == pytest.approx(15.5)
    assert {quantity for stage, quantity in rows if stage == 1} == {
        *("warm_up", "steady_state", "e2e_p50", "e2e_p95", "e2e_p99", "error_rate")
    }


def test_requests_of_a_stage_that_does_not_count_give_no_numbers(tmp_path: Path) -> None:
    stage, requests = stage_of(0, 4, latencies(100))
    spoilt = [row | {"valid": False, "invalid_reasons": ["the client was too late"]} for row in requests]
    rows = told_of(published(tmp_path, (stage, spoilt)))
    assert (rows[0, "ttft_p50"]["value"], rows[0, "ttft_p50"]["reason"]) == (None, "no value")
    assert rows[0, "throughput"]["value"] is None, "what a client could not keep up with is no measurement"
    assert rows[0, "goodput"]["value"] is None and rows[0, "steady_state"]["state"] == "unknown"
    assert rows[0, "error_rate"]["value"] == 0.0, "that none failed is known all the same"


def test_useful_is_what_the_finops_sheet_calls_useful(tmp_path: Path) -> None:
    stage, requests = stage_of(0, 4, 4 * latencies(200))
    requests[7] |= {"tpot_s": None}  # an answer of a single token
    requests[8] |= {"tpot_s": 0.2}
    requests[9] |= {"ttft_s": None}
    kept = ("stage", "users", "run_id", "session_id", "request_id", "sent_at")
    requests[10] = failed_request_row(**{name: requests[10][name] for name in kept})
    warehouse = published(tmp_path, (stage, requests))
    sql = (REPO_ROOT / "lab_pipelines" / "session_work.sql").read_text(encoding="utf-8")
    for slo in (INTERACTIVE, Slo(e2e_s=2.5), Slo(tpot_s=0.1)):
        [work] = warehouse.query(sql, {"session_id": "lease-1", **slo.model_dump()})
        (found,) = Samples(warehouse, slo).of(of_session())
        assert found.sample.useful is not None
        assert 0 < found.sample.useful.sum() == work["useful_requests"] < 200


# Findings


def spec_with(tmp_path: Path, *findings: dict[str, Any]) -> LabSpec:
    content = yaml.safe_load((CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8"))
    content["findings"] = [{"id": f"f-{n}", "claim": "a claim", **finding} for n, finding in enumerate(findings)]
    (path := tmp_path / "L06.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(content))), encoding="utf-8")
    return read_model(path, LabSpec)


def two_stages(tmp_path: Path) -> Warehouse:
    return published(tmp_path, stage_of(0, 4, latencies(300)), stage_of(1, 8, latencies(300, seed=2, scale=1.5)))


def test_a_difference_is_in_the_quantity_s_unit_and_a_bound_on_a_quantity_has_an_interval(tmp_path: Path) -> None:
    rises = {"kind": "difference", "quantity": "ttft_p50", "minuend": {"load": 8.0}, "subtrahend": {"load": 4.0}}
    bound = {"kind": "bound", "comparison": "below", "stage": {"load": 8.0}}
    spec = spec_with(
        tmp_path,
        rises | {"comparison": "above", "threshold": 0.1},
        rises | {"comparison": "above", "threshold": 0.3},
        bound | {"quantity": "ttft_p95", "threshold": 2.0},
        bound | {"quantity": "error_rate", "threshold": 0.03},
        bound | {"quantity": "error_rate", "threshold": 0.005},
        bound | {"quantity": "goodput", "comparison": "above", "threshold": 0.95},
    )
    verdicts = judge(spec, [of_session()], two_stages(tmp_path))
    assert [row["verdict"] for row in verdicts] == [
        *("confirmed", "refuted", "confirmed", "confirmed", "inconclusive", "confirmed")
    ]
    assert verdicts[0]["effect"] == pytest.approx(0.5 * np.exp(-1), abs=0.03)
    assert all(row["interval_low"] is not None and row["n"] == 300 for row in verdicts)
    assert "times the requests would decide it" in verdicts[4]["reason"]
    assert told(verdicts[:1], spec).passed and not told(verdicts, spec).passed
    assert "5 of 6 claims confirmed" not in str(told(verdicts, spec).description)
    assert str(told(verdicts, spec).description) == "4 of 6 claims confirmed; f-1 is refuted; f-4 is inconclusive"


def test_the_claims_of_a_lab_share_what_may_go_wrong(tmp_path: Path) -> None:
    claim = {"kind": "bound", "quantity": "ttft_p50", "stage": {"load": 8.0}, "comparison": "below", "threshold": 2.0}
    warehouse = two_stages(tmp_path / "lake")
    (alone,) = judge(spec_with(tmp_path, claim), [of_session()], warehouse)
    together = judge(spec_with(tmp_path, *[claim] * 5), [of_session()], warehouse)[0]
    assert "95 % interval" in alone["method"] and "at once" not in alone["method"]
    assert "99 % interval" in together["method"]
    assert "the lab's 5 claims on intervals hold at once with 95 % (Bonferroni)" in together["method"]
    assert together["interval_high"] - together["interval_low"] > alone["interval_high"] - alone["interval_low"]


def test_a_claim_near_its_threshold_is_open_where_the_stage_drifts(tmp_path: Path) -> None:
    drifting = stage_of(1, 8, latencies(300, seed=2) + np.linspace(0, 0.15, 300))
    claim = {"kind": "bound", "quantity": "ttft_p50", "stage": {"load": 8.0}, "comparison": "below"}
    spec = spec_with(tmp_path, claim | {"threshold": 0.52}, claim | {"threshold": 5.0})
    near, far = judge(spec, [of_session()], published(tmp_path, stage_of(0, 4, latencies(300)), drifting))
    assert (near["verdict"], "no steady state" in near["reason"]) == ("inconclusive", True)
    assert (far["verdict"], "also as ramp 8 users changes by" in far["reason"]) == ("confirmed", True)


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ({"kind": "bound", "comparison": "below", "threshold": 1.0}, "exactly one of quantity and measure"),
        ({"kind": "bound", "quantity": "ttft_p50", "comparison": "below", "threshold": 1.0}, "give the load"),
        (
            {
                "kind": "bound",
                "measure": "queue_depth",
                "stage": {"load": 8.0},
                "comparison": "below",
                "threshold": 1.0,
            },
            "stage:",
        ),
        (
            {"kind": "difference", "quantity": "ttft_p50", "minuend": {"load": 8.0}, "subtrahend": {"load": 8.0}}
            | {"comparison": "below", "threshold": 1.0},
            "the same stage",
        ),
        (
            {
                "kind": "difference",
                "quantity": "goodput",
                "minuend": {"load": 8.0, "shape": 0},
                "subtrahend": {"load": 4.0},
            }
            | {"comparison": "below", "threshold": 1.0},
            "only latencies",
        ),
    ],
)
def test_a_claim_that_means_no_stage_is_refused(tmp_path: Path, finding: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_with(tmp_path, finding)


def test_goodput_needs_an_objective(tmp_path: Path) -> None:
    content = yaml.safe_load((CATALOG_DIR / "L01.yaml").read_text(encoding="utf-8"))
    step = next(step for step in content["steps"] if step["kind"] == "load")
    stage = {"step": step["name"], "load": float(step["profile"].get("per_s", step["profile"].get("users"))[0])}
    claim = {"kind": "bound", "quantity": "goodput", "stage": stage, "comparison": "above", "threshold": 0.9}
    content["findings"] = [{"id": "f", "claim": "a claim", **claim}]
    (path := tmp_path / "L01.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(content))), encoding="utf-8")
    with pytest.raises(SpecError, match="about goodput; give the lab an slo"):
        read_model(path, LabSpec)


def test_times_are_on_the_stack_s_clock(tmp_path: Path) -> None:
    """A stage that ran five times as fast serves as many tokens per stack second."""
    stage, _ = stage_of(0, 4, latencies(100))
    assert isinstance(stage["started_at"], datetime)
    assert told_of(published(tmp_path, stage_of(0, 4, latencies(100))))[0, "goodput_rate"]["value"] == pytest.approx(
        100 / stage["duration_s"]
    )
