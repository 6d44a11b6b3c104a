"""L09 in rehearsal: three places for the weights, by their published limits, in the lab's own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from resources.cluster import ClusterError, StackOrder
from resources.cluster_rehearsal import RehearsalCluster
from resources.warehouse import Warehouse
from tests.support.rehearsals import rehearsed

L09 = load_catalog().spec("L09")
WEIGHTS_BYTES = 7.64e9
P4_BURST_S = WEIGHTS_BYTES / 170e6
SHARE_S = WEIGHTS_BYTES / (110 * 1024**2)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return rehearsed("L09", tmp_path_factory.mktemp("L09"))


def measured(warehouse: Warehouse, measure: str) -> dict[str, float]:
    rows = warehouse.query("SELECT variant, value FROM metric_summaries WHERE measure = ?", [measure])
    return {row["variant"]: row["value"] for row in rows}


def test_a_new_pod_reads_what_its_volume_has_kept_and_downloads_what_it_has_not(warehouse: Warehouse) -> None:
    received = measured(warehouse, "received")
    assert received == {
        "empty-dir": pytest.approx(2 * WEIGHTS_BYTES),
        "azure-disk": pytest.approx(WEIGHTS_BYTES),
        "azure-files-shared": pytest.approx(WEIGHTS_BYTES),
    }
    read = measured(warehouse, "read_throughput_peak")
    assert read["empty-dir"] == read["azure-files-shared"] == 0.0 < read["azure-disk"] <= 170e6
    assert measured(warehouse, "read_operations_peak")["azure-disk"] == pytest.approx(read["azure-disk"] / 131072, 0.01)


def test_the_time_of_a_later_load_follows_from_the_volume_alone(warehouse: Warehouse) -> None:
    again = measured(warehouse, "model_load_again")
    # On one machine the rest of a load takes the same time, so that variants differ by their volumes.
    more_s = again["azure-files-shared"] - again["azure-disk"]
    assert 2 * SHARE_S - 1.3 * P4_BURST_S <= more_s <= 1.3 * 2 * SHARE_S - P4_BURST_S


def test_every_finding_is_judged_and_faster_is_refuted_as_long_as_a_start_takes_longer_than_a_download(
    warehouse: Warehouse,
) -> None:
    findings = warehouse.query("SELECT finding, verdict, provenance FROM findings")
    assert {row["finding"]: row["verdict"] for row in findings} == {
        "kept-weights-load-faster": "refuted",
        "downloaded-once": "refuted",  # by empty-dir, the control
        "new-pod-serves": "confirmed",
    }
    assert {row["provenance"] for row in findings} == {"modelled"}
    [nodes] = warehouse.query("SELECT min(nodes) AS least, max(nodes) AS most FROM stack_sessions")
    assert nodes == {"least": 2, "most": 2}


def test_replicas_that_one_engine_can_not_stand_for_are_refused(tmp_path: Path) -> None:
    fields: dict[str, Any] = L09.model_dump()
    fields["steps"][0]["profile"] = {"kind": "constant", "users": 2}
    spec = LabSpec.model_validate(fields)
    name, pace = spec.pace(None, "rehearsal")
    shared = next(variant for variant in spec.variants if variant.id == "azure-files-shared")
    order = StackOrder(spec=spec, variant=shared, run_id="run-1", pace_name=name, pace=pace, hold=None)
    with pytest.raises(ClusterError, match=r"vllm has 2 replicas, and a rehearsal has one engine.*; not so in fresh-w"):
        RehearsalCluster(data_dir=str(tmp_path)).deploy(order, progress=lambda line: None)
