"""What is ours, and until when: labels and tags that the lease, every object, every pool and the reaper agree on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.prices import Priority
from lab_pipelines.catalog.stack import Nodes
from resources import node_holds, ownership
from resources.kube_api import Deadline
from resources.node_pools import NodePool, NoNodePools, PoolError, choose_pool, pools_over
from resources.ownership import BY_HAND, EXPIRES_LABEL, LEASE_LABEL, LONGEST, RUN_LABEL
from tests.support.node_pools import T4, FilePools, node_pool

MADE = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
COSTS = {"lab": "l06", "cost-center": "serving", "phase": "1"}


def labels(expires_at: datetime) -> dict[str, str]:
    return ownership.lease_labels(COSTS, run_id="run-1", lease_id="1e4a", expires_at=expires_at)


def pool(name: str, *, ours: bool = True, vm_size: str = "Standard_NC4as_T4_v3", spot: bool = False) -> NodePool:
    return NodePool(
        name=name,
        vm_size=vm_size,
        mode="User",
        count=0,
        autoscaled=False,
        spot=spot,
        tags={"lab-pipelines": "managed"} if ours else {"team": "somebody"},
        labels={},
        taints=[],
        state="Succeeded",
        etag="1",
    )


def test_what_a_lease_holds_says_whose_it_is_what_it_costs_and_until_when() -> None:
    found = labels(MADE + timedelta(minutes=15))
    assert found.items() >= COSTS.items()
    assert found["run-id"] == "run-1" and found[LEASE_LABEL] == "1e4a"
    assert ownership.is_ours(found) and not ownership.is_ours(COSTS)
    assert ownership.expires_at(found, created_at=MADE) == MADE + timedelta(minutes=15)


@pytest.mark.parametrize("run_id", ["", "a/b", "x" * 64, "ends-with-"])
def test_a_value_that_no_label_may_have_is_refused_by_its_name(run_id: str) -> None:
    with pytest.raises(ValueError, match="run-id="):
        ownership.lease_labels(COSTS, run_id=run_id, lease_id="1", expires_at=MADE)


def test_an_object_is_over_at_its_expiry_and_not_a_second_before() -> None:
    end = MADE + timedelta(minutes=15)
    assert ownership.why_over(labels(end), created_at=MADE, now=end - timedelta(seconds=1)) is None
    said = ownership.why_over(labels(end), created_at=MADE, now=end)
    assert said == "its lease expired at 2026-11-24 12:15:00 UTC"


@pytest.mark.parametrize("said", [None, "", "soon", "-5", "1e99", "9" * 12])
def test_an_expiry_that_is_missing_or_no_number_is_over_at_once(said: str | None) -> None:
    tags = {LEASE_LABEL: "1e4a"} if said is None else {LEASE_LABEL: "1e4a", EXPIRES_LABEL: said}
    assert ownership.why_over(tags, created_at=MADE, now=MADE) is not None


def test_nothing_of_ours_is_older_than_the_longest_time_whatever_its_label_says() -> None:
    far = labels(MADE + timedelta(days=365))
    assert ownership.why_over(far, created_at=MADE, now=MADE + LONGEST - timedelta(seconds=1)) is None
    assert ownership.why_over(far, created_at=MADE, now=MADE + LONGEST) is not None


def test_a_pool_is_ours_by_one_tag_with_one_value() -> None:
    assert pool("t4").ours
    assert not pool("theirs", ours=False).ours
    assert not ownership.pool_is_ours({"lab-pipelines": "no"})


def test_our_pool_of_the_sku_is_chosen_whatever_case_azure_writes_it_in() -> None:
    pools = [pool("theirs", ours=False), pool("t4", vm_size="standard_nc4as_t4_v3"), pool("t4spot", spot=True)]
    assert choose_pool(pools, sku="Standard_NC4as_T4_v3").name == "t4"
    assert choose_pool(pools, sku="Standard_NC4as_T4_v3", spot=True).name == "t4spot"


@pytest.mark.parametrize(("priority", "expected"), [("on_demand", "t4"), ("spot", "t4spot")])
def test_a_lease_takes_nodes_of_the_priority_that_its_lab_asks_for(
    tmp_path: Path, priority: Priority, expected: str
) -> None:
    pools = FilePools(folder=str(tmp_path))
    pools.put(node_pool("t4", count=0), node_pool("t4spot", count=0, spot=True))
    hold = node_holds.hold(
        pools, Nodes(sku=T4, count=2, priority=priority), tags={LEASE_LABEL: "1e4a"}, free_first=False,
        deadline=Deadline.within(5), progress=lambda line: None,
    )  # fmt: skip
    assert hold is not None and hold.pool == expected
    assert {pool.name: pool.count for pool in pools.read() if pool.count} == {expected: 2}


def test_no_pool_of_ours_names_those_there_are_and_the_tag_that_is_missing() -> None:
    with pytest.raises(PoolError, match=r"theirs \(Standard_NC4as_T4_v3\).*lab-pipelines=managed"):
        choose_pool([pool("theirs", ours=False)], sku="Standard_NC4as_T4_v3")


def test_two_pools_of_ours_are_not_guessed_between() -> None:
    with pytest.raises(PoolError, match="t4a, t4b: more than one"):
        choose_pool([pool("t4a"), pool("t4b")], sku="Standard_NC4as_T4_v3")


def test_a_system_pool_is_never_chosen_as_it_could_not_go_back_to_zero() -> None:
    with pytest.raises(PoolError, match="no pool of ours"):
        choose_pool([pool("sys").model_copy(update={"mode": "System"})], sku="Standard_NC4as_T4_v3")


def held(name: str, *, lease_id: str | None = "1e4a", end: datetime = MADE, **fields: Any) -> NodePool:
    """A pool of ours with nodes, held by a lease."""
    tags = {} if lease_id is None else ownership.lease_labels(COSTS, run_id="run-1", lease_id=lease_id, expires_at=end)
    update = {"count": 2, "tags": {"lab-pipelines": "managed", **tags}, **fields}
    return pool(name).model_copy(update=update)


def test_a_pool_is_over_when_its_lease_has_ended_however_far_its_tags_expiry_is() -> None:
    [over] = pools_over([held("t4", end=MADE + timedelta(hours=1))], {"another"}, MADE)
    assert over.pool.name == "t4" and over.reason == "its lease 1e4a has ended"
    assert (over.lab, over.run_id, over.lease_id) == ("L06", "run-1", "1e4a")


def test_a_pool_is_never_over_while_its_lease_is_good_however_old_its_tag_is() -> None:
    assert pools_over([held("t4")], {"1e4a"}, MADE + timedelta(days=400)) == []


@pytest.mark.parametrize("good_leases", [None, {"1e4a"}])
def test_a_pool_that_never_had_a_lease_is_left_to_the_sensor_that_asks_who_uses_it(
    good_leases: set[str] | None,
) -> None:
    assert pools_over([held("t4", tags={"lab-pipelines": "managed"})], good_leases, MADE) == []
    [over] = pools_over([held("t4", tags={"lab-pipelines": "managed", EXPIRES_LABEL: "soon"})], good_leases, MADE)
    assert over.reason == "its tags tell of an end, and of no lease"


def test_nodes_given_by_hand_stay_until_the_time_that_their_tag_says_and_no_longer() -> None:
    until = str(int((MADE + timedelta(hours=2)).timestamp()))
    tags = {"lab-pipelines": "managed", LEASE_LABEL: "1e4a", RUN_LABEL: f"{BY_HAND}-me", EXPIRES_LABEL: until}
    assert pools_over([held("t4", tags=tags)], set(), MADE + timedelta(minutes=119)) == []
    [over] = pools_over([held("t4", tags=tags)], {"1e4a"}, MADE + timedelta(hours=2))
    assert over.reason == "the time for which somebody gave it nodes is over"


def test_leases_that_cannot_be_read_are_no_sign_that_one_has_ended() -> None:
    last = MADE + LONGEST
    assert pools_over([held("t4")], None, last - timedelta(seconds=1)) == []
    [over] = pools_over([held("t4")], None, last)
    assert over.reason == "its lease can't have lasted beyond 2026-11-25 12:00:00 UTC"


def test_a_held_pool_whose_end_cannot_be_read_is_over_once_nobody_can_vouch_for_it() -> None:
    tags = {"lab-pipelines": "managed", LEASE_LABEL: "1e4a", EXPIRES_LABEL: "soon"}
    assert pools_over([held("t4", tags=tags)], {"1e4a"}, MADE) == []
    assert len(pools_over([held("t4", tags=tags)], None, MADE)) == 1


@pytest.mark.parametrize(
    "fields", [{"count": 0}, {"tags": {"lab": "l06", LEASE_LABEL: "gone"}}, {"mode": "System"}, {"state": "Stopped"}]
)
def test_what_is_not_ours_costs_nothing_or_cannot_reach_zero_is_left_alone(fields: dict[str, Any]) -> None:
    assert pools_over([held("t4", **fields)], set(), MADE + timedelta(days=400)) == []


def test_a_target_without_pools_has_none_and_says_which_target_does() -> None:
    assert NoNodePools().pools() == []
    for scale in (NoNodePools().scale, NoNodePools().begin_scale):
        with pytest.raises(PoolError, match="no node pools to scale; t4 stays as it is"):
            scale(pool("t4"), 0, tags={}, deadline=Deadline.within(1), progress=lambda _: None)
    with pytest.raises(PoolError, match="--target aks"):
        NoNodePools().pool("t4")
