"""Nodes come for pods that wait, go when they are empty, and every second of theirs is accounted for.

The words of the autoscaler are those of kubernetes/autoscaler; its times are AKS's defaults (autoscaler.yaml).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.rehearsal.control_plane import STARTS_WITHIN_S, ControlPlane, apply_all
from lab_pipelines.rehearsal.lab_nodes import control_plane_of
from lab_pipelines.rehearsal.node_pools import NodePools, NodeStart, autoscaler_times
from tests.support.virtual_pools import DRIVER_S, FIRST_SCAN_S, PULL_S, READY_S, gpu_pod, gpu_pool, plane_with

NO_GPU_YET = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. "
TIMES = autoscaler_times()
END_S = 16_000.0
"""When whatever a test of a day has begun is over."""
SCAN_S = TIMES.scan_interval_s.value


def phase_of(plane: ControlPlane, name: str, at_s: float) -> str:
    return next(pod["status"]["phase"] for pod in plane.pods(at_s) if pod["metadata"]["name"] == name)


def words_of(plane: ControlPlane, name: str, at_s: float) -> str:
    [pod] = [pod for pod in plane.pods(at_s) if pod["metadata"]["name"] == name]
    return pod["status"]["conditions"][0]["message"]


def waits_of(plane: ControlPlane, name: str, at_s: float) -> dict[str, float]:
    waits = plane.waits(name, at_s)
    assert waits is not None
    return {wait.name: wait.ended_s - wait.started_s for wait in waits}


def gpus_seen(plane: ControlPlane, at_s: float) -> float:
    return sum(v for s, v in plane.series(at_s) if s.startswith("kube_node_status_allocatable") and "nvidia" in s)


def nodes_seen(plane: ControlPlane, at_s: float) -> int:
    return sum(series.startswith("kube_node_info") for series, _ in plane.series(at_s))


def test_from_zero_to_a_pod_that_runs_and_back_and_the_next_pod_pays_for_a_node_again() -> None:
    plane, pools = plane_with(gpu_pool())
    assert nodes_seen(plane, 0.0) == 1
    plane.apply(gpu_pod("first", lasts_s=1000), 1.0)
    assert words_of(plane, "first", 4.0).startswith("0/1 nodes are available: 1 Insufficient nvidia.com/gpu")

    requested_s = FIRST_SCAN_S
    ready_s, usable_s = requested_s + READY_S, requested_s + READY_S + DRIVER_S
    assert (nodes_seen(plane, ready_s - 1), nodes_seen(plane, ready_s + 1)) == (1, 2)
    # The node is Ready before its device plugin offers the GPU, and the scheduler says so.
    assert gpus_seen(plane, usable_s - 1) == 0 and words_of(plane, "first", usable_s - 1).startswith(NO_GPU_YET)
    assert gpus_seen(plane, usable_s) == 1
    runs_s = usable_s + PULL_S + STARTS_WITHIN_S
    assert (phase_of(plane, "first", runs_s - 1), phase_of(plane, "first", runs_s)) == ("Pending", "Running")
    assert waits_of(plane, "first", runs_s) == {
        "node_requested": FIRST_SCAN_S - 1.0,
        "node_ready": READY_S,
        "driver_ready": DRIVER_S,
        "image_pulled": PULL_S,
    }

    ended_s = usable_s + 1000
    assert phase_of(plane, "first", ended_s) == "Failed"
    removed_s = pools.next_change_s() + TIMES.unneeded_s.value
    assert nodes_seen(plane, removed_s - 1) == 2
    gone_s = removed_s + TIMES.removal_s.value
    assert nodes_seen(plane, gone_s) == 1 and gpus_seen(plane, gone_s) == 0
    assert [spell.state for spell in pools.nodes[0].spells] == ["requested", "starting", "used", "empty", "removing"]
    assert plane.pods(gone_s) == []  # what had ended went with its node

    plane.apply(gpu_pod("second"), gone_s + 1000)
    runs_s = gone_s + 1000 + SCAN_S + READY_S + DRIVER_S + PULL_S + STARTS_WITHIN_S
    assert phase_of(plane, "second", runs_s) == "Running"
    again = waits_of(plane, "second", runs_s)
    assert (again["node_ready"], again["driver_ready"], again["image_pulled"]) == (READY_S, DRIVER_S, PULL_S)
    assert [one.node.name for one in pools.nodes] == ["gpu-0", "gpu-1"]
    paid = pools.node_seconds(runs_s)
    assert paid["requested"] == 2 * READY_S and paid["starting"] == 2 * DRIVER_S and paid["used"] > 1000


def test_a_pod_that_finds_the_node_still_there_waits_neither_for_it_nor_for_the_image() -> None:
    plane, pools = plane_with(gpu_pool())
    plane.apply(gpu_pod("first"), 0.0)
    plane.delete("first", 900.0)
    plane.apply(gpu_pod("second"), 1000.0)
    assert phase_of(plane, "second", 1000.0 + STARTS_WITHIN_S) == "Running"
    assert waits_of(plane, "second", 1000.0 + STARTS_WITHIN_S) == {} and len(pools.nodes) == 1


def test_a_pool_at_its_maximum_leaves_the_pod_pending_and_says_why() -> None:
    plane, pools = plane_with(gpu_pool())
    for name in ("first", "second"):
        plane.apply(gpu_pod(name), 0.0)
    assert phase_of(plane, "first", 2000.0) == "Running"
    assert words_of(plane, "second", 2000.0).startswith("0/2 nodes are available: 2 Insufficient nvidia.com/gpu")
    assert pools.last_word("second") == "pod didn't trigger scale-up: 1 max node group size reached"
    assert "max node group size reached" in plane.why_waiting("second")
    assert len(pools.nodes) == 1
    plane.delete("first", 2000.0)
    assert phase_of(plane, "second", 2000.0 + STARTS_WITHIN_S) == "Running"


def test_a_quota_that_is_used_up_fails_the_request_and_the_pool_is_left_alone_for_longer_and_longer() -> None:
    plane, pools = plane_with(gpu_pool(4, quota_vcpus=4))
    plane.apply(gpu_pod("first"), 0.0)
    plane.apply(gpu_pod("second"), 10.0)
    assert phase_of(plane, "second", 7200.0) == "Pending"
    failed_s = [said.at_s for said in pools.said if said.reason == "FailedToScaleUpGroup"]
    first_s, longest_s = TIMES.first_backoff_s.value, TIMES.longest_backoff_s.value
    assert [later - earlier for earlier, later in pairwise(failed_s)][:4] == [
        first_s,
        2 * first_s,
        4 * first_s,
        longest_s,
    ]
    assert "Current Limit: 4, Current Usage: 4, Additional Required: 4" in pools.said[1].message
    assert pools.last_word("second") == "pod didn't trigger scale-up: 1 in backoff after failed scale-up"
    assert len(pools.nodes) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpus": 2}, "1 Insufficient nvidia.com/gpu"),
        ({"tolerations": []}, "1 node(s) had untolerated taint(s)"),
        ({"nodeSelector": {"zone": "moon"}}, "1 node(s) didn't match Pod's node affinity/selector"),
    ],
)
def test_a_node_that_would_not_help_is_not_ordered(changes: dict[str, Any], reason: str) -> None:
    plane, pools = plane_with(gpu_pool())
    plane.apply(gpu_pod("odd", **changes), 0.0)
    assert phase_of(plane, "odd", 3600.0) == "Pending" and pools.nodes == []
    assert [said.message for said in pools.said] == [f"pod didn't trigger scale-up: {reason}"]


def test_one_scan_orders_as_many_nodes_as_its_pods_need_and_a_node_that_is_coming_is_not_ordered_twice() -> None:
    plane, pools = plane_with(gpu_pool(3))
    for number in range(2):
        plane.apply(gpu_pod(f"p{number}"), 0.0)
    plane.pods(60.0)
    assert [one.requested_s for one in pools.nodes] == [FIRST_SCAN_S] * 2
    assert {said.message for said in pools.said} == {"pod triggered scale-up: [{gpu 0->2 (max: 3)}]"}


def test_a_minimum_is_there_from_the_beginning_and_stays() -> None:
    plane, pools = plane_with(gpu_pool(2, minimum=1))
    plane.apply(gpu_pod("first", lasts_s=60), 0.0)
    assert phase_of(plane, "first", PULL_S) == "Failed"
    plane.pods(20_000.0)
    assert len(pools.alive()) == len(pools.nodes) == 1


def test_nodes_of_the_catalogue_start_within_what_was_seen_and_the_same_seed_draws_the_same() -> None:
    l06 = load_catalog().spec("L06")
    scaling = l06.nodes[0].model_copy(update={"min_count": 0, "count": 3})
    spec = l06.model_copy(update={"nodes": [scaling]})

    def lives(seed: int) -> list[tuple[float, ...]]:
        plane = control_plane_of(spec, spec.variants[0], seed=seed, start_s=0.0, vcpu_quota=None)
        for number in range(3):
            plane.apply(gpu_pod(f"p{number}"), 0.0)
        plane.pods(3600.0)
        assert plane.pools is not None
        return [(one.requested_s, one.ready_s, one.usable_s) for one in plane.pools.nodes]

    assert lives(1) == lives(1) != lives(2)
    for requested_s, ready_s, usable_s in lives(1):
        assert 0.63 * 284 <= ready_s - requested_s <= 2.1 * 284 and 0.7 * 126 <= usable_s - ready_s <= 1.5 * 126
    assert control_plane_of(l06, l06.variants[0], seed=1, start_s=0.0, vcpu_quota=None).pools is None


@st.composite
def days(draw: st.DrawFn) -> tuple[int, int, int | None, list[tuple[float, str, int]]]:
    """Minimum, maximum, quota, and what happens: (seconds since the last, pod, seconds it lasts or 0 to delete it)."""
    minimum = draw(st.integers(0, 2))
    moves = st.tuples(st.floats(0.0, 1500.0), st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([0, 30, 2000]))
    quota = draw(st.sampled_from([None, 4, 8]))
    return minimum, draw(st.integers(max(minimum, 1), 3)), quota, draw(st.lists(moves, max_size=6))


def walk(day: tuple[int, int, int | None, list[tuple[float, str, int]]], look_every_s: float | None) -> NodePools:
    minimum, maximum, quota, moves = day
    starts = {"gpu-0": NodeStart(181.3, 90.1), "gpu-1": NodeStart(590.0, 180.0)}
    plane, pools = plane_with(
        gpu_pool(maximum, minimum=minimum, quota_vcpus=quota, start_of=lambda n: starts.get(n, NodeStart(250.0, 100.7)))
    )
    at_s = 0.0
    for after_s, name, lasts_s in [*moves, (2000.0, "a", 0)]:
        until_s = at_s + after_s
        while look_every_s is not None and at_s + look_every_s < until_s:
            at_s += look_every_s
            alive = [one for one in pools.alive() if one.state != "removing"]
            list(plane.series(at_s))
            assert minimum <= len(alive) <= maximum
            assert quota is None or len(alive) * 4 <= max(quota, minimum * 4)
            placed = [pod for pod in plane._placed() if pod.node.name != "system-0"]  # pyright: ignore[reportPrivateUsage]
            assert len({one.node.name for one in placed}) == len(placed)
        at_s = until_s
        if lasts_s:
            apply_all(plane, [gpu_pod(name, lasts_s=lasts_s)], at_s)
        else:
            plane.delete(name, at_s)
    plane.pods(END_S)
    return pools


@settings(max_examples=100, deadline=None)
@given(days(), st.floats(50.0, 400.0))
def test_nodes_are_conserved_and_every_second_of_theirs_has_one_state_however_often_somebody_looks(
    day: tuple[int, int, int | None, list[tuple[float, str, int]]], look_every_s: float
) -> None:
    pools = walk(day, look_every_s)
    unwatched = walk(day, None)
    assert [one.spells for one in pools.nodes] == [one.spells for one in unwatched.nodes]
    assert pools.said == unwatched.said
    assert [said.at_s for said in pools.said] == sorted(said.at_s for said in pools.said)
    assert len({one.node.name for one in pools.nodes}) == len(pools.nodes)
    for one in pools.nodes:
        assert one.spells[0].from_s == one.requested_s
        assert all(before.until_s == after.from_s for before, after in pairwise(one.spells))
        assert all(spell.from_s < spell.until_s for spell in one.spells)
        assert all(before.state != after.state for before, after in pairwise(one.spells))
        assert one.spells[-1].until_s == one.gone_s
    held_s = sum(min(one.gone_s, END_S) - one.requested_s for one in pools.nodes)
    assert sum(pools.node_seconds(END_S).values()) == pytest.approx(held_s)
