"""A spec says everything about a lab, and a wrong one is refused in one line that a person can act on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import CATALOG_DIR, LabNotWrittenError, SpecError, load_catalog, read_model
from lab_pipelines.catalog.measures import Measure
from lab_pipelines.catalog.spec import LabSpec, Outline
from lab_pipelines.catalog.steps import CompletionRequest, LoadStep, RateProfile, ReclaimsStep

L06 = (CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8")


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "L06.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_model(path, LabSpec)
    return str(caught.value)


def test_the_year_has_78_labs_and_l06_is_complete() -> None:
    catalog = load_catalog()
    assert list(catalog.ids) == [f"L{n:02}" for n in range(1, 79)]
    spec = catalog.spec("L06")
    assert spec.namespace == "lab-06"
    [ramp] = spec.load_steps
    assert ramp.stage_users == [1, 4, 8, 16, 32]
    [request] = ramp.requests
    assert isinstance(request, CompletionRequest)
    assert (request.input_tokens, request.output_tokens) == (512, 256)
    assert spec.cost_labels == {"cost-center": "llm-serving-labs", "lab": "l06", "phase": "1"}


def test_a_lab_that_is_not_complete_says_what_is_missing() -> None:
    with pytest.raises(LabNotWrittenError) as refused:
        load_catalog().spec("L78")
    outline = load_catalog().lab("L78")
    assert isinstance(outline, Outline)
    assert "L78 (The Year in Numbers) can't run" in str(refused.value)
    assert all(item in str(refused.value) for item in outline.missing)


def test_a_lab_that_the_year_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match=r"no lab 'L99'.*L01 to L78"):
        load_catalog().spec("L99")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("question: >-", "qestion: >-", r"L06\.yaml:\d+: question: is required and missing"),
        ("question: >-", "qestion: >-", r"L06\.yaml:7: qestion: is not a field of this spec; did you mean question\?"),
        ("kind: ramp, users:", "kind: ramp, userz:", r"steps\.0\.profile\.userz: .* did you mean users\?"),
        ("temperature: 0.0", "temprature: 0.0", r"steps\.0\.requests\.0\.temprature: .* did you mean temperature\?"),
        ("full: {time_scale: 1.0, hold_s:", "full: {time_scale: 1.0, holds:", r"paces\.full\.holds: .* mean hold_s\?"),
        ("threshold: 1.25", "treshold: 1.25", r"findings\.0\.treshold: .* did you mean threshold\?"),
        ("numerator: {load: 32}", "numerator: {lode: 32}", r"findings\.0\.numerator\.lode: .* did you mean load\?"),
        ("week: 3", "week: 3\nmonthly: 5", r"L06\.yaml:6: monthly: .*spec; remove it or correct its name$"),
        ("id: baseline", "id: The Baseline", r"variants\.0\.id: expected a name of lower-case.* 'The Baseline'"),
        ("week: 3", "week: three", r"L06\.yaml:5: week: input should be a valid integer, but found 'three'"),
        ("week: 3", "week: 46", r"L06\.yaml:5: week: input should be less than or equal to 45, but found 46"),
        ("unit: tokens/s", "unit: tokens/h", r"measures\.0\.unit: unknown unit 'tokens/h'; known: .*tokens/s"),
        ("[$stage]", "[$window]", r"measures\.0\.promql: has unknown placeholders \['window'\]"),
        ("total{$selector}", "total", r"measures\.0\.promql: must contain \$selector"),
        (
            "name: ttft_p95_server",
            "name: ttft_p50_server",
            r"L06\.yaml:61: measures\.2: ttft_p50_server is given more than once",
        ),
        ("default_pace: {local: short,", "default_pace: {local: slow,", r"default_pace: local names 'slow'"),
        ("max_hold_s: 900.0", "max_hold_s: 9.0", r"paces\.full: max_hold_s \(9\) is below hold_s \(120\)"),
        (
            "helm-values/lab06/values.yaml",
            "helm-values/../secrets.yaml",
            r"stack\.components\.0\.chart\.values: must be a file below",
        ),
        ("load-tests/prompts", "/etc", r"prompts: expected a path from the repository's root, of letters"),
        ("targets: [local,", "targets: [cloud,", r"targets\.0: input should be 'local', 'rehearsal', 'kubernetes'"),
        ("numerator: {load: 32}", "numerator: {load: 33}", r"throughput-saturates: no stage of ramp has load 33"),
        ("numerator: {load: 32}", "numerator: {}", r"throughput-saturates: give the load, one of: 1, 4, 8, 16, 32"),
        ("numerator: {load: 32}", "numerator: {load: 16}", r"numerator and denominator are the same stage"),
        ("quantity: throughput", "measure: kv", r"throughput-saturates names kv, which is not one of the"),
        ("phase: 1", "phase: 1\nphase: 2", r"L06\.yaml:5: phase: is given more than once"),
        (
            "targets: [local, rehearsal, kubernetes, aks]",
            "targets: [local, rehearsal, kubernetes, aks",
            r"L06\.yaml:17: targets: not valid YAML: while parsing a flow sequence",
        ),
        ("stack:\n", "stack: &stack\n", None),
        ("name: ramp", "name: ramp\n    component: vlm", r"steps\.0: ramp names component 'vlm'; the stack has: vllm"),
        (
            "- {sku: Standard_NC4as_T4_v3, gpus: 1}",
            "- {sku: Standard_NC4as_T4_v3, gpus: 1}\n  - {sku: Standard_NC4as_T4_v3, priority: spot}",
            r"nodes: several entries of one sku, Standard_NC4as_T4_v3; a variant names its nodes by sku",
        ),
        ("builds_on: [L05]", "builds_on: [L06]", r"builds_on: L06 does not come before L06"),
        ("statistic: mean", "statistic: mean\n    sql: warehouse/measures/x.sql", r"exactly one of promql and sql"),
        ("denominator: {load: 16}", "denominator: {load: 16}\n    kind: bound", r"kind: is given more than once"),
        ("name: ramp", "name: ramp\n    targets: [cloud]", r"steps\.0\.targets\.0: input should be 'local'"),
        ("name: ramp", "name: ramp\n    targets: []", r"steps\.0\.targets: .* at least 1 item"),
        (
            "users: [1, 4, 8, 16, 32]",
            "users: []",
            r"steps\.0\.profile\.users: expected at least 1 item, but found \[\]",
        ),
        (
            "users: [1, 4, 8, 16, 32]",
            "users: [1, 16, 32, 32]",
            r"findings\.0: throughput-saturates: not one stage but 2 of ramp has load 32",
        ),
        ("name: ramp", "name: ramp\n    variants: [b]", r"steps\.0: ramp names variant b; there are: baseline"),
        ("over: stage_end", "over: stage_end\n    after: cost", r"measures\.0: `after: cost` comes when the stack"),
        (
            "over: stage_end",
            "over: stage_end\n    after: lunch",
            r"measures\.0\.after: input should be 'load' or 'cost'",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_file_line_field_and_what_was_expected(
    tmp_path: Path, old: str, new: str, expected: str | None
) -> None:
    assert old in L06
    text = L06.replace(old, new, 1)
    if expected is None:
        expected = r"L06\.yaml:\d+: .*YAML alias"
        text += "\nextra: *stack\n"
    message = refusal(tmp_path, text)
    assert re.search(expected, message), message
    assert "Traceback" not in message


def test_a_file_that_is_not_a_mapping_or_not_text_is_refused(tmp_path: Path) -> None:
    assert "expected a mapping" in refusal(tmp_path, "- 1\n")
    path = tmp_path / "L06.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="can't be read"):
        read_model(path, LabSpec)


def test_a_query_names_the_labs_series_and_the_stages_length_in_wall_time() -> None:
    measure = Measure(
        name="x", unit="tokens/s", promql="sum(rate(vllm:generation_tokens_total{$selector}[$stage]))", over="stage_end"
    )
    query = measure.query(selector='namespace="lab-06"', stage_s=8.25)
    assert query == 'sum(rate(vllm:generation_tokens_total{namespace="lab-06"}[8250ms]))'


def test_every_target_of_a_lab_has_a_pace_and_an_unknown_pace_is_named() -> None:
    spec = load_catalog().spec("L06")
    assert spec.pace(None, "local")[0] == "short"
    with pytest.raises(KeyError, match=r"no pace 'warp'; it has: full, short, smoke"):
        spec.pace("warp", "local")


def test_a_step_belongs_to_some_variants_and_can_be_done_on_some_targets() -> None:
    spec = load_catalog().spec("L75")
    assert [step.name for step in spec.steps_of("hybrid-80")] == ["share-of-one", "reclaims-hybrid-80"]
    alert = next(step for step in load_catalog().spec("L72").steps if step.kind == "fire_alert")
    assert alert.can_be_done_on("local")
    assert not alert.can_be_done_on("rehearsal")
    with pytest.raises(ValueError, match=r"left-alone is done where idle-alert is; leave out targets and variants"):
        _with_cause(targets=["local"])
    with pytest.raises(ValueError, match="a pool without nodes serves nothing"):
        ReclaimsStep(
            kind="reclaims",
            name="x",
            on_demand=0,
            spot=0,
            months=2,
            requests_per_s=1.0,
            reclaims_per_hour=[0.1],
            correlated=[True],
        )


def test_reclaims_need_to_know_what_a_replica_serves_at_every_share_of_the_traffic() -> None:
    data = load_catalog().spec("L75").model_dump()
    data["steps"][0]["profile"]["per_s"] = [0.48, 0.6, 1.2]
    expected = r"reclaims-on-demand needs a load step with the rate 2\.4, 0\.8, of one replica of several"
    with pytest.raises(ValueError, match=expected):
        LabSpec.model_validate(data)


def _with_cause(**fields: object) -> LabSpec:
    data = load_catalog().spec("L72").model_dump()
    next(step for step in data["steps"] if step["name"] == "idle-alert")["cause"] |= fields
    return LabSpec.model_validate(data)


def test_what_is_judged_after_cost_is_what_a_measure_of_cost_decides() -> None:
    spec = load_catalog().spec("L71")
    late = {finding.id for finding in spec.findings if spec.is_judged_after_cost(finding)}
    assert late == {finding.id for finding in spec.findings} - {"a-queue-serves-nobody"}
    assert not any(spec.is_judged_after_cost(finding) for finding in load_catalog().spec("L03").findings)


COMPLETION = {
    "kind": "completion",
    "input_tokens": 512,
    "output_tokens": 256,
    "temperature": 0.0,
    "prompts": "load-tests/prompts/fixed-512.json",
    "timeout_s": 600.0,
}
TRACED = {"kind": "traced", "max_input_tokens": 512, "max_output_tokens": 64, "temperature": 0.0, "timeout_s": 600.0}
TRACE = {"kind": "trace", "file": "load-tests/traces/synthetic-azure-2023.csv", "format": "azure"}


def wave(*points: tuple[float, float], **fields: Any) -> dict[str, Any]:
    return {"kind": "rate_profile", "points": [{"at_s": at, "per_s": per_s} for at, per_s in points], **fields}


def load_step(profile: dict[str, Any], *requests: dict[str, Any]) -> LoadStep:
    fields = {"kind": "load", "name": "traffic", "profile": profile, "requests": list(requests or (COMPLETION,))}
    return LoadStep.model_validate(fields)


@pytest.mark.parametrize(
    ("profile", "requests", "says"),
    [
        (wave((1, 2), (5, 2)), [COMPLETION], "points: the first is at 1 s; begin at 0"),
        (wave((0, 2), (0, 5)), [COMPLETION], "points: all are at 0 s"),
        (wave((0, 2), (5, 2), (4, 2)), [COMPLETION], "points: 4 s comes after 5 s; list them in the order of time"),
        (wave((0, 2), (5, 2), (5, 3), (5, 4), (6, 1)), [COMPLETION], "points: three are at one time"),
        (wave((0, 0), (5, 0.3)), [COMPLETION], "points: 0.75 requests in all; raise per_s"),
        (wave((0, 1e9), (5, 1e9)), [COMPLETION], "points: 5e+09 requests in all, and a stage has 1e+07 at most"),
        (wave((0, 1e200), (1e200, 1e200)), [COMPLETION], "points: inf requests in all"),
        (wave((0, 2), (5, 2), arrivals="gamma", burstiness=1e-320), [COMPLETION], "greater than or equal to 0.01"),
        (wave((0, 2)), [COMPLETION], "at least 2 items"),
        (wave((0, -1), (5, 2)), [COMPLETION], "greater than or equal to 0"),
        (wave((0, 1), (5, float("inf"))), [COMPLETION], "finite number"),
        (wave((0, 2), (5, 2), arrivals="gamma"), [COMPLETION], "burstiness: belongs to gamma arrivals"),
        (TRACE, [COMPLETION], "a trace takes one request of kind `traced`"),
        (TRACE, [TRACED, TRACED], "a trace takes one request of kind `traced`"),
        (wave((0, 2), (5, 2)), [TRACED], "no other profile takes any"),
        ({**TRACE, "file": "load-tests/prompts/fixed-32.json"}, [TRACED], "load-tests/traces/"),
        ({**TRACE, "file": "load-tests/traces/../prompts/fixed-32.json"}, [TRACED], "load-tests/traces/"),
        ({**TRACE, "speed": 0}, [TRACED], "greater than 0"),
    ],
)
def test_a_profile_that_can_t_be_followed_is_refused(
    profile: dict[str, Any], requests: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        load_step(profile, *requests)


def test_what_a_changing_rate_and_a_trace_apply() -> None:
    bursts = load_step(wave((0, 4), (5, 4), (5, 0), (12, 0), repeat=3))
    assert (bursts.stage_users, bursts.loads, bursts.asks_for_tokens) == ([None], [round(20 / 12, 9)], True)
    assert isinstance(bursts.profile, RateProfile) and bursts.profile.expected_requests == 60
    replay = load_step(TRACE, TRACED)
    assert (replay.stage_users, replay.loads, replay.asks_for_tokens) == ([None], [], True)


@pytest.mark.parametrize("users", [[1, 8, 8], [8, 1, 32]])
@pytest.mark.parametrize("kind", [{"kind": "monotone"}, {"kind": "cliff", "after": 1.0}])
def test_a_claim_on_neighbouring_loads_takes_loads_that_rise(users: list[int], kind: dict[str, Any]) -> None:
    spec = load_catalog().spec("L06").model_dump()
    [step] = spec["steps"]
    step["profile"] = {"kind": "ramp", "users": users}
    claim = {"id": "up", "claim": "It rises.", "quantity": "throughput", "comparison": "above", "step": "ramp", **kind}
    with pytest.raises(ValueError, match=re.escape(f"the step has {', '.join(map(str, users))}")):
        LabSpec.model_validate({**spec, "findings": [claim]})


def trace_lab(findings: list[dict[str, Any]]) -> LabSpec:
    spec = load_catalog().spec("L06")
    step = load_step(TRACE, TRACED).model_dump()
    return LabSpec.model_validate({**spec.model_dump(), "steps": [step], "measures": [], "findings": findings})


def test_a_trace_s_one_stage_needs_no_load_and_has_no_neighbours() -> None:
    claim = {"id": "rises", "claim": "It rises.", "quantity": "throughput", "comparison": "above", "threshold": 1.0}
    with pytest.raises(ValueError, match="rises: the step has but one load, and no neighbour"):
        trace_lab([{**claim, "kind": "monotone"}])
    with pytest.raises(ValueError, match="rises: no stage of traffic has load 2"):
        sides = {"numerator": {"load": 2.0}, "denominator": {}}
        trace_lab([{**claim, "kind": "ratio", **sides}])
