"""Claims about neighbours, judged on a warehouse's own rows: rising loads, variants in an order, a cliff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.findings import judge
from lab_pipelines.catalog.loader import CATALOG_DIR, SpecError, read_model
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.rows.sessions import session_row
from resources.cluster import Session
from resources.warehouse import Warehouse
from tests.support.rows.common import Row
from tests.support.rows.runs import lab_run, variants_run
from tests.support.sessions import session
from tests.support.warehouses import publish_run, warehouse_in

USERS = [1, 4, 8, 16, 32]


def spec_with(tmp_path: Path, lab: str, *findings: dict[str, Any]) -> LabSpec:
    content = yaml.safe_load((CATALOG_DIR / f"{lab}.yaml").read_text(encoding="utf-8"))
    content["findings"] = [{"id": f"f-{n}", "claim": "a claim", **finding} for n, finding in enumerate(findings)]
    (path := tmp_path / f"{lab}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_model(path, LabSpec)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """TTFT p50 is 0.3 + 0.02 n s at n users: from one load to the next 1.19, 1.21, 1.35 and 1.52 times as much."""
    found = warehouse_in(tmp_path_factory.mktemp("ramp"))
    publish_run(found, lab_run(users=USERS, requests_per_stage=200, run_id="run-1", session_id="lease-1"))
    return found


def verdicts(spec: LabSpec, warehouse: Warehouse, *sessions: Session) -> list[Row]:
    closed = [session_row(one, released_at=one.ready_at) for one in sessions or [session()]]
    return judge(spec, closed, warehouse)


def test_a_rising_quantity_is_told_from_one_that_rises_too_little_or_falls(tmp_path: Path, ramp: Warehouse) -> None:
    rising = {"kind": "monotone", "quantity": "ttft_p50", "comparison": "above"}
    spec = spec_with(tmp_path, "L06", rising, rising | {"threshold": 1.3}, rising | {"comparison": "below"})
    rises, steeply, falls = verdicts(spec, ramp)
    assert (rises["verdict"], rises["effect"]) == ("confirmed", pytest.approx(0.38 / 0.32, rel=1e-3))
    assert "the least clear is 1 → 4: 1.188" in rises["reason"]
    assert (steeply["verdict"], "1 → 4" in steeply["reason"]) == ("refuted", True)
    assert falls["verdict"] == "refuted"
    # Three claims share 5 %, and each its part among four steps.
    told = "intervals of 99.58 % each, which hold at once (Bonferroni); the lab's 3 claims on intervals hold at once"
    assert all(told in row["method"] for row in (rises, steeply, falls))


def test_a_cliff_is_between_the_two_loads_that_were_named(tmp_path: Path, ramp: Warehouse) -> None:
    edge = {"kind": "cliff", "quantity": "ttft_p50", "comparison": "above", "threshold": 1.4, "after": 16}
    spec = spec_with(tmp_path, "L06", edge, edge | {"after": 8}, edge | {"threshold": 1.3})
    there, elsewhere, several = verdicts(spec, ramp)
    assert (there["verdict"], there["effect"]) == ("confirmed", pytest.approx(0.94 / 0.62, rel=1e-3))
    assert (elsewhere["verdict"], "8 → 16: 1.348" in elsewhere["reason"]) == ("refuted", True)
    assert (several["verdict"], "not the only one: 8 → 16" in several["reason"]) == ("refuted", True)


def test_stages_that_a_pace_left_out_leave_the_claim_open(tmp_path: Path) -> None:
    publish_run(found := warehouse_in(tmp_path), lab_run(users=USERS[:3], run_id="run-1", session_id="lease-1"))
    spec = spec_with(tmp_path, "L06", {"kind": "monotone", "quantity": "ttft_p50", "comparison": "above"})
    (row,) = verdicts(spec, found)
    assert row["verdict"] == "inconclusive"
    assert "8 → 16, 16 → 32" in row["reason"]


def test_a_stage_that_is_not_there_is_named_by_its_load_and_one_of_a_refused_engine_by_that(tmp_path: Path) -> None:
    publish_run(found := warehouse_in(tmp_path), lab_run(users=(1,), run_id="run-1", session_id="lease-1"))
    bound = {"kind": "bound", "quantity": "ttft_p50", "comparison": "below", "threshold": 1.0}
    spec = spec_with(tmp_path, "L06", bound | {"stage": {"load": 8}})
    (row,) = verdicts(spec, found)
    assert (row["verdict"], row["reason"]) == ("inconclusive", "pace short has no stage of ramp with load 8")
    one = session()
    refused = session_row(one, released_at=one.ready_at) | {"refusal": "no blocks"}
    (row,) = judge(spec, [refused], found)
    assert (row["verdict"], "the engine of variant baseline was refused" in row["reason"]) == ("inconclusive", True)


def test_variants_hold_the_order_in_which_they_are_listed(tmp_path: Path) -> None:
    slower = {"gmu-0.95": 1.0, "gmu-0.85": 1.5, "gmu-0.70": 3.0}
    tables = variants_run(slower, users=(32,), run_id="run-1", session_id="walk")
    publish_run(found := warehouse_in(tmp_path), tables)
    sessions = [
        session(lab="L11", variant=name, session_id=f"walk.{name}", run_id="run-1", time_scale=5.0) for name in slower
    ]
    listed = {"kind": "ordering", "quantity": "ttft_p50", "variants": list(slower), "step": "ramp", "load": 32.0}
    spec = spec_with(
        tmp_path,
        "L11",
        listed | {"comparison": "above"},
        listed | {"comparison": "above", "variants": list(slower)[::-1]},
    )
    up, down = verdicts(spec, found, *sessions)
    assert (up["verdict"], "gmu-0.95 → gmu-0.85: 1.5" in up["reason"]) == ("confirmed", True)
    assert down["verdict"] == "refuted"
    (missing, _) = verdicts(spec, found, *sessions[:2])
    assert (missing["verdict"], "undecided against 1: gmu-0.85 → gmu-0.70" in missing["reason"]) == (
        "inconclusive",
        True,
    )


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ({"kind": "cliff", "quantity": "ttft_p50", "comparison": "above", "after": 32.0}, "one of: 1, 4, 8, 16"),
        ({"kind": "monotone", "quantity": "ttft_p50", "comparison": "above", "step": "x"}, "x is not one of the load"),
        ({"kind": "monotone", "quantity": "throughput", "comparison": "above", "shape": 0}, "only latencies"),
        ({"kind": "monotone", "quantity": "ttft_p50", "comparison": "above", "variant": "x"}, "no variant x"),
        ({"kind": "ordering", "quantity": "ttft_p50", "comparison": "above", "variants": ["baseline"]}, "variants"),
    ],
)
def test_a_claim_that_means_no_stage_is_refused(tmp_path: Path, finding: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_with(tmp_path, "L06", finding)
