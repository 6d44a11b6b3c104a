"""A plan adds up what a spec allows, prices it exactly, and says what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec, Outline
from lab_pipelines.catalog.stack import Component, Variant
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.engine.cold_start import cold_start_plan
from lab_pipelines.plan import Plan, plan_lab, plan_outline
from lab_pipelines.turns import visits
from resources.chart_values import load_values, vllm_arguments

L06 = load_catalog().spec("L06")
PHI3 = "microsoft/Phi-3-mini-4k-instruct"
COLD_START_S = sum(phase.duration_s for phase in cold_start_plan("T4", PHI3))
COMPLETION = {
    "kind": "completion",
    "input_tokens": 512,
    "output_tokens": 256,
    "temperature": 0.0,
    "prompts": "load-tests/prompts/fixed-512.json",
    "timeout_s": 600.0,
}


def arguments(component: Component, overrides: Sequence[Overrides]) -> list[str]:
    values = load_values(REPO_ROOT / component.chart.values, *overrides)
    return vllm_arguments(values, source=component.chart.values)


def planned(
    spec: LabSpec,
    *,
    pace: str = "short",
    region: str = "eastus",
    variants: Sequence[Variant] | None = None,
    turns: int = 1,
) -> Plan:
    return plan_lab(
        spec,
        load_prices(),
        arguments,
        target="local",
        pace_name=pace,
        visits=visits(spec.variants if variants is None else variants, turns),
        region=region,
    )


def changed(**fields: Any) -> LabSpec:
    """L06 with other fields, checked as a file's would be."""
    whole = {**L06.model_dump(), "measures": [], "findings": [], **fields}
    return LabSpec.model_validate(whole)


def load(profile: dict[str, Any], *, name: str = "load", request: dict[str, Any] = COMPLETION) -> dict[str, Any]:
    return {"kind": "load", "name": name, "profile": profile, "requests": [request]}


def parts(plan: Plan) -> dict[str, tuple[float, float]]:
    return {part.name: (part.expected_s, part.at_most_s) for part in plan.parts}


def test_at_most_is_the_cold_start_and_every_stage_at_its_longest() -> None:
    assert planned(L06).at_most_s == pytest.approx(COLD_START_S + 5 * 600)
    assert planned(L06, pace="full").at_most_s == pytest.approx(COLD_START_S + 5 * 900)


def test_a_ramp_is_expected_to_take_about_what_it_took() -> None:
    # The pinned baseline's ramp held for 492 stack seconds at this pace.
    expected_s, _ = parts(planned(L06))["ramp"]
    assert expected_s == pytest.approx(492, rel=0.2)


def test_a_pace_that_leaves_out_stages_is_planned_without_them() -> None:
    assert parts(planned(L06, pace="smoke"))["ramp"][1] == 2 * 600


def test_the_cost_is_nodes_times_price_times_time() -> None:
    plan = planned(L06)
    price = load_prices().price("Standard_NC4as_T4_v3", "eastus").on_demand
    assert plan.nodes[0].usd_per_hour == price
    assert plan.at_most_usd == (price * Decimal(str(plan.at_most_s)) / 3600).quantize(Decimal("0.0001"))
    three = planned(changed(nodes=[{"sku": "Standard_NC4as_T4_v3", "count": 3, "gpus": 1}]))
    assert [node.count for node in three.nodes] == [3]
    assert plan.expected_usd is not None
    assert three.expected_usd == pytest.approx(3 * plan.expected_usd, abs=Decimal("0.0003"))


def test_a_missing_price_is_named_and_never_zero() -> None:
    plan = planned(L06, region="mars")
    assert (plan.nodes[0].usd_per_hour, plan.expected_usd, plan.at_most_usd) == (None, None, None)
    assert any("Standard_NC4as_T4_v3 in region 'mars'" in line for line in plan.unknown)


def test_waits_count_whole_and_a_restart_counts_what_a_warm_node_leaves() -> None:
    plan = planned(
        changed(
            steps=[
                {
                    "kind": "observe",
                    "name": "seen",
                    "until": {"promql": "up{$selector}", "comparison": "equals", "value": 1.0},
                    "within_s": 90.0,
                },
                {"kind": "restart", "name": "again", "component": "vllm"},
                {"kind": "collect_logs", "name": "logs", "component": "vllm"},
            ]
        )
    )
    warm = sum(p.duration_s for p in cold_start_plan("T4", PHI3) if p.name in ("model_loaded", "engine_ready"))
    assert parts(plan)["seen"] == (90.0, 90.0)
    assert parts(plan)["again"] == (warm, warm)
    assert parts(plan)["logs"] == (0.0, 0.0)


def test_an_alert_and_its_cause_go_on_at_the_same_time() -> None:
    cause = load({"kind": "constant", "users": 1}, name="cause")
    step = {"kind": "fire_alert", "name": "fires", "alert": "QueueDeep", "cause": cause, "within_s": 300.0}
    expected_s, at_most_s = parts(planned(changed(steps=[step])))["fires"]
    assert expected_s == 300.0  # longer than the cause, whose twenty requests take about three minutes
    assert at_most_s == 600.0


def test_only_what_a_target_does_of_a_lab_s_steps_is_planned_and_a_drawn_month_takes_no_time() -> None:
    idle = load_catalog().spec("L72")
    here = parts(planned(idle, pace="full"))
    assert here["pause"] == (300.0, 300.0)
    assert here["idle-alert"] == (1800.0, 1800.0)
    assert "condition-holds" not in here
    spot = planned(load_catalog().spec("L75"), pace="full")
    drawn = [(part.name, part.variant, part.at_most_s) for part in spot.parts if part.kind == "reclaims"]
    assert drawn == [(f"reclaims-{mix}", mix, 0.0) for mix in ("on-demand", "hybrid-80", "spot-100")]


def test_a_burst_ends_with_its_requests_and_a_rate_with_its_schedule() -> None:
    plan = planned(
        changed(
            steps=[
                load({"kind": "burst", "requests": 16}, name="burst"),
                load({"kind": "rate", "per_s": [2.0, 0.25]}, name="rate"),
            ]
        )
    )
    # One batch of sixteen at 512 + 256 tokens: the baseline's ITL at 16 users was 59 ms.
    assert parts(plan)["burst"][0] == pytest.approx(256 * 0.059, rel=0.3)
    assert parts(plan)["burst"][1] == 600.0
    assert parts(plan)["rate"] == (40.0 + 20 / 0.25, 1200.0)


def test_a_changing_rate_and_a_trace_take_their_own_time_and_one_that_takes_too_long_is_told() -> None:
    points = [{"at_s": 0, "per_s": 1}, {"at_s": 90, "per_s": 5}]
    trace = {"kind": "trace", "file": "load-tests/traces/synthetic-mooncake.jsonl", "format": "mooncake"}
    traced = {"kind": "traced", "max_input_tokens": 512, "max_output_tokens": 64, "temperature": 0, "timeout_s": 60}
    plan = planned(
        changed(
            steps=[
                load({"kind": "rate_profile", "points": points, "repeat": 2}, name="wave"),
                load({**trace, "speed": 0.5, "duration_s": 40}, name="replay", request=traced),
                load({**trace, "speed": 0.01}, name="slow", request=traced),
            ]
        )
    )
    assert parts(plan)["wave"] == (180.0, 600.0)
    assert parts(plan)["replay"] == (80.0, 600.0)
    assert parts(plan)["slow"] == (0.0, 0.0)
    [said] = [one for one in plan.unknown if one.startswith("slow: ")]
    assert "raise speed" in said


def test_a_manifest_that_brings_pods_may_take_its_whole_time() -> None:
    manifest = {"kind": "apply", "manifests": "helm-values/lab07/manifests/pods.yaml", "within_s": 60.0}
    pods = [{"name": "one", "phase": "Running"}]
    plan = planned(changed(steps=[{**manifest, "name": "quota"}, {**manifest, "name": "pods", "pods": pods}]))
    assert parts(plan)["quota"] == (0.0, 60.0)
    assert parts(plan)["pods"] == (60.0, 60.0)


def test_a_stack_without_an_engine_says_that_its_start_is_not_modelled() -> None:
    spec = changed(stack={"components": []}, steps=[{"kind": "apply", "name": "a", "manifests": "helm-values/a.yaml"}])
    plan = planned(spec)
    assert [part.kind for part in plan.parts] == ["apply"]
    assert any("cold start is modelled for vLLM alone" in line for line in plan.unknown)


def test_a_model_that_is_not_modelled_is_named() -> None:
    variant = {
        "id": "baseline",
        "description": "another model",
        "values": {"vllm": {"servingEngineSpec.modelSpec[0].modelURL": "acme/unheard-of"}},
    }
    plan = planned(changed(variants=[variant]))
    assert any("acme/unheard-of" in line for line in plan.unknown)
    assert parts(plan)["ramp"][0] == 5 * 40.0


def test_an_outline_is_bounded_by_its_sessions_and_says_what_is_missing() -> None:
    fields = {name: getattr(L06, name) for name in ("title", "phase", "week", "question", "concepts")}
    outline = Outline.model_validate(
        {**fields, "id": "L19", "sessions": 2, "nodes": [{"sku": "Standard_NC64as_T4_v3", "gpus": 2}], "missing": ["x"]}
    )
    plan = plan_outline(outline, load_prices(), region="eastus")
    assert plan.at_most_s == 2 * 4 * 3600
    assert plan.at_most_usd == 8 * load_prices().price("Standard_NC64as_T4_v3", "eastus").on_demand
    assert (plan.complete, plan.parts, plan.expected_s, plan.unknown) == (False, [], None, ["x"])


def test_a_lab_that_deploys_nothing_costs_nothing() -> None:
    outline = Outline.model_validate({**_identity("L78"), "nodes": [], "missing": ["x"]})
    assert plan_outline(outline, load_prices(), region="eastus").at_most_usd == 0


def test_every_lab_of_the_year_can_be_planned() -> None:
    for lab in load_catalog().labs():
        if isinstance(lab, Outline):
            plan = plan_outline(lab, load_prices(), region="eastus")
        else:
            target = lab.targets[0]
            plan = plan_lab(
                lab,
                load_prices(),
                arguments,
                target=target,
                pace_name=lab.pace(None, target)[0],
                visits=visits(lab.variants_on(target), lab.turns),
                region="eastus",
            )
        assert plan.at_most_usd is not None, (lab.id, plan.unknown)
        assert plan.expected_s is None or plan.expected_s <= plan.at_most_s, lab.id


@pytest.mark.parametrize("lab", ["L23", "L71"])
def test_only_the_nodes_of_the_variants_that_are_walked_are_deployed(lab: str) -> None:
    spec = load_catalog().spec(lab)
    every = [node.sku for node in spec.nodes]
    assert [node.sku for node in planned(spec, variants=spec.variants).nodes] == every
    for variant in spec.variants:
        plan = planned(spec, variants=[variant])
        assert [node.sku for node in plan.nodes] == [spec.nodes_of(variant).sku] != every
        assert {part.sku for part in plan.parts} == {node.sku for node in plan.nodes}


def _identity(lab: str) -> dict[str, Any]:
    fields = {name: getattr(L06, name) for name in ("title", "phase", "week", "sessions", "question", "concepts")}
    return {**fields, "id": lab}


def test_each_turn_takes_its_time_and_starts_on_the_node_that_is_there() -> None:
    spec = changed(variants=[{"id": name, "description": name} for name in ("one", "other")])
    once, thrice = planned(spec), planned(spec, turns=3)
    assert (once.turns, thrice.turns, thrice.variants) == (1, 3, ["one", "other"])
    assert [(part.variant, part.trial) for part in thrice.parts if part.kind == "load"] == [
        *(("one", 1), ("other", 1)),
        *(("other", 2), ("one", 2)),
        *(("other", 3), ("one", 3)),
    ]
    # Of the first turn, only the first variant had to wait for its node.
    other = [part for part in once.parts if part.variant == "other"]
    later = 4 * sum(part.at_most_s for part in other)
    assert thrice.at_most_s == pytest.approx(once.at_most_s + later)
    assert thrice.at_most_usd is not None and once.at_most_usd is not None
    assert float(thrice.at_most_usd / once.at_most_usd) == pytest.approx(thrice.at_most_s / once.at_most_s, rel=1e-3)
