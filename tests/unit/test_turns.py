"""Who comes when in a run of several turns, and what a visit is called."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from dagster import Failure

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.turns import turn_orders, visit_name, visits
from resources.cluster import StackOrder
from resources.cluster_loopback import once_more
from resources.labs import Labs
from tests.support.sessions import session


def variants(*ids: str, refused: str | None = None) -> list[Variant]:
    return [Variant(id=name, description=name, refused="no" if name == refused else None) for name in ids]


def test_two_variants_change_places_so_that_no_drift_falls_on_one_of_them() -> None:
    walked = [(visit.variant.id, visit.trial) for visit in visits(variants("a", "b"), 4)]
    assert walked == [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("b", 3), ("a", 3), ("a", 4), ("b", 4)]
    # By the time of each visit: neither a linear nor a quadratic drift tells them apart.
    for power in (1, 2):
        places = [sum(at**power for at, (name, _) in enumerate(walked) if name == one) for one in "ab"]
        assert places[0] == places[1]


@pytest.mark.parametrize("count", range(1, 9))
def test_each_turn_has_each_variant_once_and_begins_with_the_spec_s_own_order(count: int) -> None:
    orders = turn_orders(count, 11)
    assert orders[0] == list(range(count))
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert orders == turn_orders(count, 12)[:11], "the order doesn't depend on how many turns follow"


@pytest.mark.parametrize("count", range(2, 9))
def test_places_and_neighbours_are_balanced_over_a_round(count: int) -> None:
    orders = turn_orders(count, count * (1 + count % 2))
    for place in range(count):
        assert set(Counter(order[place] for order in orders).values()) == {len(orders) // count}
    followers = Counter(pair for order in orders for pair in pairwise(order))
    assert len(followers) == count * (count - 1)
    assert len(set(followers.values())) == 1


@pytest.mark.parametrize("count", range(2, 9))
def test_a_linear_drift_falls_on_all_alike_after_every_second_turn(count: int) -> None:
    for turns in (2, 4, 6):
        order = [name for turn in turn_orders(count, turns) for name in turn]
        assert len({sum(at for at, one in enumerate(order) if one == name) for name in range(count)}) == 1


def test_one_that_is_refused_comes_once() -> None:
    walked = [(visit.variant.id, visit.trial) for visit in visits(variants("a", "no", "b", refused="no"), 3)]
    assert walked == [("a", 1), ("no", 1), ("b", 1), ("b", 2), ("a", 2), ("b", 3), ("a", 3)]
    assert len(visits(variants("a", "no", refused="no"), 5)) == 6


def test_no_two_visits_share_a_name() -> None:
    names = [visit.name for visit in visits(variants("a", "a.t2", "a.2"), 3)]
    assert len({name.lower() for name in names if name != "a.t2"}) == len(names) - 1
    assert len(set(names)) == len(names)
    assert (visit_name("wide", 1), visit_name("wide", 2)) == ("wide", "wide.T2")


def test_the_deployment_s_turns_go_before_the_lab_s_and_too_many_visits_are_refused() -> None:
    spec = load_catalog().spec("L11")
    assert len(Labs(target="rehearsal").visits(spec)) == len(spec.variants)
    asked = Labs(target="rehearsal", turns=4, variant="gmu-0.70,gmu-0.95").visits(spec)
    assert [visit.name for visit in asked[:4]] == ["gmu-0.70", "gmu-0.95", "gmu-0.95.T2", "gmu-0.70.T2"]
    assert len(asked) == 8
    with pytest.raises(
        Failure, match=r"100 turns of 3 variants are 300 visits, and a run has 200 at most \(set LABS_T"
    ):
        Labs(target="rehearsal", turns=100).visits(spec)


def test_a_stack_that_is_walked_once_more_as_it_is_gets_a_session_of_its_own_under_the_same_lease() -> None:
    spec = load_catalog().spec("L06")
    first = session()
    order = StackOrder(
        spec=spec, variant=spec.variants[0], trial=2, run_id="r", pace_name="short", pace=spec.paces["short"], hold=None
    )
    now = first.ready_at
    second = once_more(first, order, requested_at=now, ready_at=now)
    third = once_more(second, order.model_copy(update={"trial": 3}), requested_at=now, ready_at=now)
    name = spec.variants[0].id
    assert [one.session_id for one in (second, third)] == [f"{first.session_id}.{name}.T{n}" for n in (2, 3)]
    assert (second.trial, second.phases, second.variant) == (2, [], first.variant)
