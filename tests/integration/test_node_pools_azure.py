"""Node pools through the real Azure SDK, over loopback, against a double of Azure Resource Manager.

Doesn't belong here: who may ask (test_azure_access.py), what an error's words mean (tests/unit/test_azure_errors.py),
or which pools are over (tests/unit/test_ownership.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from resources.azure_session import AzureError, UnansweredError
from resources.kube_api import Deadline
from resources.node_pools import NodePool, PoolChangedError, PoolError, Scaled, pools_over
from resources.ownership import lease_labels
from tests.support.azure_agent_pools import SUBSCRIPTION
from tests.support.azure_arm import AzureArm
from tests.support.azure_pools import pools_of

T4_PATH = "/agentPools/t4"
RICH: dict[str, Any] = {
    "nodeTaints": ["sku=gpu:NoSchedule"],
    "nodeLabels": {"accelerator": "t4"},
    "vnetSubnetID": f"/subscriptions/{SUBSCRIPTION}/subnets/gpu",
    "linuxOSConfig": {"sysctls": {"netCoreSomaxconn": 4096}},
    "aFieldThatThisSdkDoesNotKnow": {"kept": True},
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def arm() -> Iterator[AzureArm]:
    with AzureArm() as azure:
        azure.add("t4", **RICH)
        yield azure


def scale(
    arm: AzureArm,
    count: int,
    *,
    pool: NodePool | None = None,
    tags: dict[str, str | None] | None = None,
    within_s: float = 30.0,
    progress: list[str] | None = None,
) -> Scaled:
    pools = pools_of(arm)
    said = [] if progress is None else progress
    read = pool or pools.pool("t4")
    return pools.scale(read, count, tags=tags or {}, deadline=Deadline.within(within_s), progress=said.append)


# --- Reading ---


def test_every_pool_is_listed_over_all_pages_with_what_labs_need_to_know(arm: AzureArm) -> None:
    arm.page_size = 100
    arm.add("t4spot", spot=True, count=3, enableAutoScaling=True, minCount=0, maxCount=4)
    arm.add("sys", mode="System", tags=None)
    arm.add("off", powerState={"code": "Stopped"})
    for number in range(247):
        arm.add(f"p{number}")
    pools = {pool.name: pool for pool in pools_of(arm).pools()}
    assert len(pools) == 251 and len(arm.requests("GET")) == 3
    assert pools["t4"] == NodePool(
        name="t4",
        vm_size="Standard_NC4as_T4_v3",
        mode="User",
        count=0,
        autoscaled=False,
        spot=False,
        tags={"lab-pipelines": "managed"},
        labels={"accelerator": "t4"},
        taints=["sku=gpu:NoSchedule"],
        state="Succeeded",
        etag="t4-1",
    )
    assert pools["t4spot"].spot and pools["t4spot"].autoscaled and pools["t4spot"].count == 3
    assert pools["sys"].mode == "System" and not pools["sys"].ours
    assert pools["off"].state == "Stopped"


def test_a_thousand_pools_are_listed_page_by_page_and_judged(arm: AzureArm) -> None:
    now = datetime.now(UTC)
    for number in range(1000):
        lease = f"lease-{number % 2}"
        tags = lease_labels({"lab": "l06"}, run_id="run-1", lease_id=lease, expires_at=now)
        arm.add(f"p{number}", count=1, tags={"lab-pipelines": "managed", **tags})
    over = pools_over(pools_of(arm).pools(), {"lease-0"}, now)
    assert [one.lease_id for one in over] == ["lease-1"] * 500


def test_a_pool_that_is_not_there_is_named(arm: AzureArm) -> None:
    with pytest.raises(PoolError, match="node pool a100: 404 NotFound"):
        pools_of(arm).pool("a100")


# --- Read, modify, write ---


def test_scaling_changes_count_and_tags_and_sends_everything_else_back(arm: AzureArm) -> None:
    before = arm.properties("t4")
    scaled = scale(arm, 2, tags={"lab": "l06", "run-id": "run-1"})
    after = arm.properties("t4")
    assert (scaled.pool, scaled.before, scaled.after) == ("t4", 0, 2)
    assert after["count"] == 2
    assert after["tags"] == {"lab-pipelines": "managed", "lab": "l06", "run-id": "run-1"}
    changed = {"count", "tags", "eTag"}
    assert {k: v for k, v in after.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}
    [put] = arm.requests("PUT")
    assert put.headers["If-Match"] == '"t4-1"'


def test_the_double_forgets_what_a_put_leaves_out(arm: AzureArm) -> None:
    client = pools_of(arm).client
    pool = client.agent_pools.get("labs", "labs-aks", "t4")
    assert pool.properties is not None
    pool.properties.node_taints = None
    client.agent_pools.begin_create_or_update("labs", "labs-aks", "t4", pool, polling=False)
    assert "nodeTaints" not in arm.properties("t4")


def test_a_tag_is_removed_and_replaced_whatever_its_case(arm: AzureArm) -> None:
    arm.change("t4", tags={"lab-pipelines": "managed", "Lab": "l01", "run-id": "old", "team": "ml"})
    scale(arm, 1, tags={"lab": "l06", "run-id": None})
    assert arm.properties("t4")["tags"] == {"lab-pipelines": "managed", "team": "ml", "lab": "l06"}


def test_an_autoscaler_is_turned_off_in_the_same_put_and_said_with_the_way_back(arm: AzureArm) -> None:
    arm.change("t4", enableAutoScaling=True, minCount=0, maxCount=4)
    said: list[str] = []
    scale(arm, 2, progress=said)
    after = arm.properties("t4")
    assert after["count"] == 2 and after["enableAutoScaling"] is False
    assert "minCount" not in after and "maxCount" not in after
    assert len(arm.requests("PUT")) == 1
    assert "autoscaler (0 to 4 nodes) is turned off" in said[0]
    assert "--enable-cluster-autoscaler --min-count 0 --max-count 4" in said[0]


def test_an_autoscaler_that_is_on_is_refused_by_the_double_as_by_azure(arm: AzureArm) -> None:
    from azure.core.exceptions import HttpResponseError

    arm.change("t4", enableAutoScaling=True, minCount=0, maxCount=4)
    client = pools_of(arm).client
    pool = client.agent_pools.get("labs", "labs-aks", "t4")
    assert pool.properties is not None
    pool.properties.count = 2
    with pytest.raises(HttpResponseError, match="Cannot manually scale"):
        client.agent_pools.begin_create_or_update("labs", "labs-aks", "t4", pool, polling=False)


def test_a_pool_that_is_as_asked_is_left_alone(arm: AzureArm) -> None:
    scale(arm, 2, tags={"lab": "l06"})
    again = scale(arm, 2, tags={"lab": "l06"})
    assert (again.before, again.after) == (2, 2)
    assert len(arm.requests("PUT")) == 1


def test_a_pool_whose_last_operation_failed_is_written_although_its_count_is_right(arm: AzureArm) -> None:
    arm.change("t4", provisioningState="Failed")
    scale(arm, 0)
    assert len(arm.requests("PUT")) == 1
    assert arm.properties("t4")["provisioningState"] == "Succeeded"


def test_a_cluster_hears_of_nodes_that_come_and_go(arm: AzureArm) -> None:
    heard: list[tuple[str, int]] = []
    arm.on_count = lambda pool, count: heard.append((pool, count))
    scale(arm, 2)
    scale(arm, 0)
    assert heard == [("t4", 2), ("t4", 0)]


# --- Nobody else's change is undone, nothing that isn't ours is touched ---


def test_a_pool_that_changed_since_it_was_read_is_not_written(arm: AzureArm) -> None:
    read = pools_of(arm).pool("t4")
    arm.change("t4", count=3)
    with pytest.raises(PoolChangedError, match=r"t4 has changed since it was read \(0 nodes, Succeeded; now 3"):
        scale(arm, 0, pool=read)
    assert arm.requests("PUT") == []


def test_a_change_of_what_labs_do_not_look_at_counts_as_one(arm: AzureArm) -> None:
    read = pools_of(arm).pool("t4")
    arm.change("t4", upgradeSettings={"maxSurge": "50%"})
    with pytest.raises(PoolChangedError):
        scale(arm, 2, pool=read)
    assert arm.requests("PUT") == []


def test_a_change_just_before_the_put_is_refused_by_its_etag(arm: AzureArm) -> None:
    class Meanwhile(list[str]):
        def append(self, line: str) -> None:
            arm.change("t4", nodeLabels={"somebody": "else"})

    with pytest.raises(PoolChangedError, match="changed by somebody else just now"):
        scale(arm, 2, progress=Meanwhile())
    assert arm.properties("t4")["nodeLabels"] == {"somebody": "else"} and arm.counts() == {"t4": 0}


def test_the_same_change_by_somebody_else_is_not_taken_for_ours(arm: AzureArm) -> None:
    class Meanwhile(list[str]):
        def append(self, line: str) -> None:
            arm.change("t4", count=2)

    with pytest.raises(PoolChangedError):
        scale(arm, 2, progress=Meanwhile())


@pytest.mark.parametrize(
    ("properties", "count", "said"),
    [
        ({"tags": {"team": "ml"}}, 2, r"t4 isn't ours.*lab-pipelines=managed"),
        ({"mode": "System", "count": 1}, 0, "t4 is a System pool"),
        ({"powerState": {"code": "Stopped"}}, 2, "t4 is stopped.*az aks nodepool start"),
    ],
)
def test_what_may_not_be_scaled_is_not_written(properties: dict[str, Any], count: int, said: str) -> None:
    with AzureArm() as arm:
        arm.add("t4", **properties)
        with pytest.raises(PoolError, match=said):
            scale(arm, count)
        assert arm.requests("PUT") == []


def test_a_pool_that_lost_its_tag_since_it_was_read_in_the_middle_of_an_operation_is_not_written(arm: AzureArm) -> None:
    arm.begin_operation("t4", steps=4)
    read = pools_of(arm).pool("t4")
    arm.change("t4", tags={})
    with pytest.raises(PoolChangedError):
        scale(arm, 2, pool=read)
    assert arm.requests("PUT") == []


# --- Operations of somebody else ---


def test_an_operation_on_another_pool_is_waited_for(arm: AzureArm) -> None:
    arm.add("other")
    read = pools_of(arm).pool("t4")
    arm.begin_operation("other", steps=6)
    said: list[str] = []
    assert scale(arm, 2, pool=read, progress=said).after == 2
    assert len(arm.requests("PUT")) > 1
    [waiting] = [line for line in said if "waiting" in line]
    assert "other - Updating" in waiting


def test_an_operation_on_the_pool_itself_is_waited_for(arm: AzureArm) -> None:
    arm.begin_operation("t4", steps=6)
    said: list[str] = []
    assert scale(arm, 2, progress=said).after == 2
    assert said[0] == "t4: waiting for an operation of somebody else (Updating) to end"
    assert len(arm.requests("PUT")) == 1


@pytest.mark.parametrize("busy", ["t4", "other"])
def test_an_operation_that_does_not_end_in_time_is_named_with_what_ends_it(arm: AzureArm, busy: str) -> None:
    arm.add("other")
    arm.begin_operation(busy, steps=10**9, state="Upgrading")
    with pytest.raises(PoolError, match=r"t4 can't be changed: .*Upgrading.* az aks nodepool operation-abort"):
        scale(arm, 2, within_s=0.3)
    assert arm.counts()["t4"] == 0


def test_several_pools_scaled_at_once_all_get_there(arm: AzureArm) -> None:
    pools = pools_of(arm)
    read = [pools.pool(arm.add(f"gpu{number}")) for number in range(6)]

    def up(pool: NodePool) -> int:
        return pools.scale(pool, 1, tags={}, deadline=Deadline.within(60), progress=lambda _: None).after

    with ThreadPoolExecutor(max_workers=6) as threads:
        assert list(threads.map(up, read)) == [1] * 6
    assert arm.counts() == {"t4": 0, **{f"gpu{number}": 1 for number in range(6)}}


# --- Our own operations ---


@pytest.mark.parametrize("header", ["Azure-AsyncOperation", "Location", "neither"])
def test_an_operation_is_followed_however_azure_names_it(arm: AzureArm, header: Any) -> None:
    arm.operation_header, arm.steps = header, 4
    assert scale(arm, 2).after == 2
    assert arm.properties("t4")["provisioningState"] == "Succeeded"


def test_times_are_azures_own_where_it_gives_them(arm: AzureArm) -> None:
    moments = iter(datetime(2026, 11, 24, 12, 0, tzinfo=UTC) + timedelta(seconds=90 * n) for n in range(2))
    arm.clock = lambda: next(moments)
    said: list[str] = []
    scaled = scale(arm, 2, progress=said)
    assert scaled.requested_at == datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    assert scaled.done_at - scaled.requested_at == timedelta(seconds=90)
    assert said[-1] == "t4: 2 nodes after 90 s"


def test_an_operation_that_azure_has_forgotten_is_followed_by_the_pools_own_state(arm: AzureArm) -> None:
    arm.fault("GET", "/operations/", status=404, code="NotFound", times=100)
    assert scale(arm, 2).after == 2


def test_an_operation_that_the_role_may_not_read_is_followed_by_the_pools_own_state(arm: AzureArm) -> None:
    arm.denied.add("Microsoft.ContainerService/locations/operations/read")
    assert scale(arm, 2).after == 2


def test_an_operation_that_fails_unseen_is_still_a_failure(arm: AzureArm) -> None:
    arm.denied.add("Microsoft.ContainerService/locations/operations/read")
    arm.failing["t4"] = {"code": "AllocationFailed", "message": "No capacity."}
    with pytest.raises(PoolError, match="t4: 0 → 2 nodes failed"):
        scale(arm, 2)


def test_an_operation_beyond_our_deadline_is_left_to_azure_and_the_reaper(arm: AzureArm) -> None:
    arm.steps = 10**9
    with pytest.raises(PoolError, match=r"t4: Azure is still at it \(0 → 2 nodes\).*the reaper brings it back"):
        scale(arm, 2, within_s=0.5)
    assert arm.counts() == {"t4": 2}


def test_a_wait_that_azure_asks_for_beyond_the_deadline_is_not_waited_for(arm: AzureArm) -> None:
    arm.retry_after = "3600"
    with pytest.raises(PoolError, match="still at it"):
        scale(arm, 2, within_s=20.0)


def test_an_operation_that_somebody_cancels_means_deciding_anew(arm: AzureArm) -> None:
    arm.fault("GET", "/operations/", status=200, body=json.dumps({"status": "Canceled"}))
    with pytest.raises(PoolChangedError, match="cancelled by a later operation"):
        scale(arm, 2)


def test_a_request_without_waiting_returns_once_azure_has_taken_it(arm: AzureArm) -> None:
    arm.steps = 10**9
    arm.add("a100", count=2)
    pools = pools_of(arm)
    began = datetime.now(UTC)
    taken_at = pools.begin_scale(
        pools.pool("a100"), 0, tags={}, deadline=Deadline.within(5), progress=lambda _: None
    )  # fmt: skip
    assert taken_at >= began
    assert arm.counts()["a100"] == 0 and arm.properties("a100")["provisioningState"] == "Scaling"
    assert arm.requests("GET", "/operations/") == []


def test_a_reapers_round_takes_what_no_lease_holds_to_zero_and_touches_nothing_else(arm: AzureArm) -> None:
    def tags(lease_id: str) -> dict[str, str]:
        held = lease_labels({"lab": "l06"}, run_id="run-1", lease_id=lease_id, expires_at=datetime.now(UTC))
        return {"lab-pipelines": "managed", **held}

    arm.add("dead", count=2, tags=tags("dead"))
    arm.add("alsodead", count=1, tags=tags("dead"), enableAutoScaling=True, minCount=1, maxCount=3)
    arm.add("alive", count=2, tags=tags("alive"))
    arm.add("theirs", count=2, tags={**tags("dead"), "lab-pipelines": "no"})
    before = {name: arm.properties(name) for name in ("t4", "alive", "theirs")}
    pools = pools_of(arm)
    for over in pools_over(pools.pools(), {"alive"}, datetime.now(UTC)):
        pools.begin_scale(over.pool, 0, tags={}, deadline=Deadline.within(20), progress=lambda _: None)
    assert arm.counts() == {"t4": 0, "dead": 0, "alsodead": 0, "alive": 2, "theirs": 2}
    assert {name: arm.properties(name) for name in before} == before
    assert arm.properties("dead")["tags"] == tags("dead")


# --- Quota and capacity ---


def test_a_used_up_quota_is_explained(arm: AzureArm) -> None:
    arm.vcpus_left = 4
    with pytest.raises(PoolError, match=r"t4: 400 ErrCode_InsufficientVCPUQuota.*remaining 4.*az vm list-usage"):
        scale(arm, 2)
    assert arm.counts() == {"t4": 0}


@pytest.mark.parametrize("spot", [True, False])
def test_a_lack_of_machines_is_explained_from_within_the_operations_error(spot: bool) -> None:
    inner = {"code": "OverconstrainedAllocationRequest", "message": "Allocation failed.\nVM(s) can't be allocated."}
    error = {"code": "ResourceOperationFailure", "message": "The operation failed.", "details": [inner]}
    with AzureArm(failing={"t4": error}) as arm:
        arm.add("t4", spot=spot)
        with pytest.raises(PoolError, match=r"t4: 0 → 2 nodes failed: .*OverconstrainedAllocationRequest") as raised:
            scale(arm, 2)
        assert ("isn't Spot" in str(raised.value)) == spot
        assert "\n" not in str(raised.value)
        # What was allocated is billed: the way back is open.
        assert scale(arm, 0).before == 2


# --- Throttling, failures and lost connections ---


def test_throttling_is_waited_out(arm: AzureArm) -> None:
    pool = pools_of(arm).pool("t4")
    for method in ("GET", "PUT"):
        arm.fault(method, T4_PATH, status=429, code="TooManyRequests", headers={"Retry-After": "1"})
    began = time.monotonic()
    assert scale(arm, 2, pool=pool).after == 2
    assert time.monotonic() - began >= 2.0


def test_throttling_beyond_the_deadline_is_said_at_once(arm: AzureArm) -> None:
    pool = pools_of(arm).pool("t4")
    arm.fault("PUT", T4_PATH, status=429, code="TooManyRequests", headers={"Retry-After": "3600"})
    with pytest.raises(AzureError, match=r"too many requests.*asks for 3600 s"):
        scale(arm, 2, pool=pool, within_s=20.0)


@pytest.mark.parametrize("status", [500, 502, 503, 408, None])
def test_a_read_that_fails_is_repeated_a_few_times(arm: AzureArm, status: int | None) -> None:
    arm.fault("GET", "agentPools", status=status, times=3)
    assert [pool.name for pool in pools_of(arm).pools()] == ["t4"]
    arm.fault("GET", "agentPools", status=status, times=4)
    with pytest.raises(UnansweredError, match=r"node pools of labs-aks: Azure .*4 times"):
        pools_of(arm).pools()


@pytest.mark.parametrize("status", [500, 504, None])
@pytest.mark.parametrize("carried_out", [True, False])
def test_a_put_whose_answer_is_lost_scales_once(arm: AzureArm, status: int | None, carried_out: bool) -> None:
    arm.steps = 6
    arm.fault("PUT", T4_PATH, status=status, carried_out=carried_out)
    assert scale(arm, 2, tags={"lab": "l06"}).after == 2
    assert len(arm.requests("PUT")) == (1 if carried_out else 2)
    assert arm.properties("t4")["tags"]["lab"] == "l06"


def test_a_put_that_azure_carries_out_late_is_recognised(arm: AzureArm) -> None:
    # The look after the lost answer still sees the old pool; the second PUT then meets the first one's ETag.
    arm.steps = 3
    old = json.dumps({"name": "t4", "properties": arm.properties("t4")})
    arm.fault("PUT", T4_PATH, status=504, carried_out=True)
    arm.fault("GET", T4_PATH, status=200, body=old, skip=2)
    assert scale(arm, 2).after == 2
    assert len(arm.requests("PUT")) == 2


def test_a_put_that_never_gets_an_answer_is_given_up(arm: AzureArm) -> None:
    arm.fault("PUT", T4_PATH, times=100)
    with pytest.raises(UnansweredError, match="t4: Azure can't be reached"):
        scale(arm, 2)
    assert len(arm.requests("PUT")) == 4 and arm.counts() == {"t4": 0}


def test_a_lost_put_and_somebody_elses_change_means_deciding_anew(arm: AzureArm) -> None:
    pool = pools_of(arm).pool("t4")
    arm.fault("PUT", T4_PATH, times=1)
    arm.fault("PUT", T4_PATH, status=412, code="PreconditionFailed", times=1)
    with pytest.raises(PoolChangedError):
        scale(arm, 2, pool=pool)


def test_an_answer_that_is_not_azures_is_one_line(arm: AzureArm) -> None:
    arm.fault("GET", "agentPools", status=400, body="<html>\n<h1>Proxy</h1>\n</html>")
    with pytest.raises(PoolError) as raised:
        pools_of(arm).pools()
    assert "\n" not in str(raised.value) and "Proxy" in str(raised.value)


def test_nobody_at_the_address_is_said_in_one_line() -> None:
    with AzureArm() as arm:
        pools = pools_of(arm)
    with pytest.raises(UnansweredError, match="can't be reached") as raised:
        pools.pools()
    assert "\n" not in str(raised.value)
