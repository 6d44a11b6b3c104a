"""What is ours, and until when: labels and tags that the lease, every object, every pool and the reaper agree on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from resources import ownership
from resources.node_pools import NodePool, NoNodePools, PoolError, choose_pool
from resources.ownership import EXPIRES_LABEL, LEASE_LABEL, LONGEST

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


def test_no_pool_of_ours_names_those_there_are_and_the_tag_that_is_missing() -> None:
    with pytest.raises(PoolError, match=r"theirs \(Standard_NC4as_T4_v3\).*lab-pipelines=managed"):
        choose_pool([pool("theirs", ours=False)], sku="Standard_NC4as_T4_v3")


def test_two_pools_of_ours_are_not_guessed_between() -> None:
    with pytest.raises(PoolError, match="t4a, t4b: more than one"):
        choose_pool([pool("t4a"), pool("t4b")], sku="Standard_NC4as_T4_v3")


def test_a_target_without_pools_has_none_and_says_which_target_does() -> None:
    assert NoNodePools().pools() == []
    with pytest.raises(PoolError, match="--target aks"):
        NoNodePools().pool("t4")
