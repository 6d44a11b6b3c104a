"""The rehearsal's cluster: variants, restarts, waiting, logs, and rehearsals that must not disturb one another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.catalog.steps import LoadStep
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.load_plan import load_plan
from lab_pipelines.rows.events import log_rows
from resources import processes
from resources.cluster import ClusterError, Session, StackOrder
from resources.cluster_rehearsal import RehearsalCluster
from resources.load_rehearsal import RehearsalLoadGenerator
from resources.rehearsals import rehearsal_at
from resources.telemetry_rehearsal import RehearsalTelemetry

SETTING = "servingEngineSpec.modelSpec[0].vllmConfig"
L06 = load_catalog().spec("L06")
NO_MEMORY = Variant(id="none", description="no memory", values={"vllm": {f"{SETTING}.gpuMemoryUtilization": 0.4}})
NARROW = Variant(id="narrow", description="one at once", values={"vllm": {f"{SETTING}.maxNumSeqs": 1}})
OTHER = """
import sys
from tests.integration.test_rehearsal_cluster import order, quiet
from resources.cluster_rehearsal import RehearsalCluster
from resources.rehearsals import rehearsal_at
session = RehearsalCluster(data_dir=sys.argv[1]).deploy(order(), progress=quiet)
print(rehearsal_at(session.prometheus_url).prometheus_url(), flush=True)
sys.stdin.read()
"""


def quiet(line: str) -> None:
    """Whoever wants to hear of progress."""


def order(spec: LabSpec = L06, variant: Variant | None = None, **changes: Any) -> StackOrder:
    name, pace = spec.pace("full", "rehearsal")
    fields: dict[str, Any] = {"run_id": "run-1", "pace_name": name, "pace": pace, "hold": None, **changes}
    return StackOrder(spec=spec, variant=variant or spec.variants[0], **fields)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RehearsalCluster]:
    cluster = RehearsalCluster(data_dir=str(tmp_path))
    yield cluster
    cluster.release("L06")


def test_a_variant_follows_another_on_a_warm_node_and_a_refused_one_says_why(cluster: RehearsalCluster) -> None:
    first = cluster.deploy(order(), progress=quiet)
    refused = cluster.switch(first, order(variant=NO_MEMORY), progress=quiet)
    last = cluster.switch(refused, order(variant=NARROW), progress=quiet)
    assert cluster.sessions("L06") == [first, refused, last] and cluster.attach("L06") == last
    assert len({session.session_id for session in (first, refused, last)}) == 3
    assert first.ready_at < refused.requested_at <= refused.ready_at <= last.requested_at < last.ready_at
    assert refused.refusal is not None and "No available memory for the cache blocks" in refused.refusal
    assert [phase.name for phase in refused.phases] == ["model_loaded"]
    assert [phase.name for phase in last.phases] == ["model_loaded", "engine_ready", "first_token"]
    assert (
        "--max-num-seqs" in last.engine_args and last.engine_args[last.engine_args.index("--max-num-seqs") + 1] == "1"
    )
    assert rehearsal_at(last.prometheus_url).prometheus_url().startswith("http://127.0.0.1:")


def test_another_kind_of_node_has_to_come_up_first(cluster: RehearsalCluster) -> None:
    l23 = load_catalog().spec("L23")
    small, large = (next(v for v in l23.variants if l23.nodes_of(v).sku == node.sku) for node in l23.nodes)
    try:
        session = cluster.deploy(order(l23, small), progress=quiet)
        switched = cluster.switch(session, order(l23, large), progress=quiet)
    finally:
        cluster.release("L23")
    assert switched.sku != session.sku and switched.phases[0].name == "node_ready"


def test_waiting_lets_virtual_time_pass_and_finds_the_moment(cluster: RehearsalCluster) -> None:
    session, telemetry = cluster.deploy(order(), progress=quiet), RehearsalTelemetry()
    component = L06.stack.component("vllm")

    def wait(up: float, *, within_s: float = 60.0) -> Any:
        return telemetry.wait_until(
            session.prometheus_url,
            'up{job="vllm",$selector}',
            lambda value: value == up,
            selector=session.metric_selector,
            within_s=within_s,
            time_scale=1.0,
        )

    before = cluster.now()
    never = wait(0.0)
    assert (never.held, never.value) == (False, 1.0) and cluster.now() - before >= timedelta(seconds=60)
    cluster.stop(session, component)
    gone = wait(0.0)
    assert gone.held and gone.waited_s < 10.0
    # What the engine said last is not taken for what it says: its series have ended.
    asked = "vllm:num_requests_running{$selector}"
    silent = telemetry.wait_until(
        session.prometheus_url, asked, bool, selector=session.metric_selector, within_s=10.0, time_scale=1.0
    )
    assert (silent.held, silent.value) == (False, None)
    phases = cluster.start(session, component, [], restart=True, progress=quiet)
    assert [phase.name for phase in phases] == ["model_loaded", "engine_ready", "first_token"]
    assert wait(1.0).held
    with pytest.raises(ClusterError, match="does not come up: No available memory"):
        cluster.start(session, component, [NO_MEMORY.values["vllm"]], restart=True, progress=quiet)


def test_the_engine_s_log_has_a_line_for_each_request_of_the_session(cluster: RehearsalCluster, tmp_path: Path) -> None:
    session = cluster.deploy(order(), progress=quiet)
    assert [line["request_id"] for line in cluster.log_lines(session, "vllm")] == ["first-token"]
    [step] = [step for step in L06.steps if isinstance(step, LoadStep)]
    pace = Pace(time_scale=1.0, hold_s=5.0, min_requests=2, requests_per_user=1, max_hold_s=60.0, max_users=2)
    plan = load_plan(session, step, pace)
    result = RehearsalLoadGenerator().run(plan, workdir=tmp_path / "load", environ={}, progress=quiet)
    lines = cluster.log_lines(session, "vllm")[1:]
    # The last one was on its way to the engine when the load ended.
    assert [line["request_id"] for line in lines] == [r.request_id for r in result.requests if r.outcome == "ok"]
    by_id = {request.request_id: request for request in result.requests}
    for line in lines:
        if line["finished_reason"] == "length":
            assert line["ttft_s"] == pytest.approx(by_id[line["request_id"]].server_ttft_s, abs=1e-5)
    table = log_rows(session, "vllm", lines)
    assert {row["event"] for row in table} == {"request_finished"}
    following = cluster.switch(session, order(variant=NARROW), progress=quiet)
    assert [line["request_id"] for line in cluster.log_lines(following, "vllm")] == ["first-token"]


@pytest.mark.parametrize(
    ("lab", "said"),
    [
        ("L01", r"L01 can't be rehearsed, since nothing models .*\(http_server\).*Run it on: local"),
        ("L03", r"L03 can't be rehearsed, since nothing models .*\(fire_alert\).*Run it on: local"),
    ],
)
def test_what_nothing_models_is_refused_with_a_target_that_can(cluster: RehearsalCluster, lab: str, said: str) -> None:
    spec = load_catalog().spec(lab)
    with pytest.raises(ClusterError, match=said):
        cluster.deploy(order(spec, pace_name="full", pace=next(iter(spec.paces.values()))), progress=quiet)
    with pytest.raises(ClusterError, match="no rehearsal of"):
        cluster.attach(lab)


def test_a_rehearsal_lives_in_its_process_and_says_so(cluster: RehearsalCluster) -> None:
    with pytest.raises(ClusterError, match=r"lives in the process that began it\. Materialize all of the lab's"):
        cluster.attach("L06")
    with pytest.raises(ClusterError, match="this process has no such rehearsal"):
        rehearsal_at("rehearsal://elsewhere")
    with pytest.raises(ClusterError, match="hold_minutes has no effect on a rehearsal"):
        cluster.deploy(order(hold=timedelta(minutes=5)), progress=quiet)


def test_two_processes_rehearse_one_lab_side_by_side_and_what_a_dead_one_left_is_reaped(
    cluster: RehearsalCluster, tmp_path: Path
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPO_ROOT,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline().startswith("http://127.0.0.1:")
        home = tmp_path / "state" / "rehearsal" / processes.owner_of(other.pid)
        [left] = [one for found in processes.find_marked(home).values() for one in found]
        session = cluster.deploy(order(run_id="run-2"), progress=quiet)
        assert cluster.reap() == [] and left.is_running()
    finally:
        other.kill()
        other.wait()
    [reaped] = cluster.reap()
    assert (reaped.lab, reaped.run_id) == ("L06", "run-1") and "is dead" in reaped.reason
    assert reaped.removed and not psutil.pid_exists(left.pid) and not home.exists()
    assert cluster.attach("L06") == session


def test_the_clock_is_virtual_while_a_rehearsal_lasts_and_the_wall_s_otherwise(cluster: RehearsalCluster) -> None:
    assert abs(cluster.now() - datetime.now(UTC)) < timedelta(minutes=1)
    session: Session = cluster.deploy(order(), progress=quiet)
    assert timedelta() < cluster.now() - session.ready_at < timedelta(minutes=1)
    assert cluster.release("L06") is not None and cluster.release("L06") is None
    assert abs(cluster.now() - datetime.now(UTC)) < timedelta(minutes=1)
