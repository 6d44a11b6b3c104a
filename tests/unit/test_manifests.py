"""Manifests without a cluster: reading, placing, judging, and the committed files of L07, L08 and L10."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.claims import Outcomes
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.steps import ApplyStep
from lab_pipelines.deployment import REPO_ROOT
from resources import manifests
from resources.chart_values import load_values, vllm_arguments
from resources.cluster import ApplyOutcome, PodOutcome
from resources.manifests import ManifestError, judge, placed, pod_outcome, read_manifests
from tests.support.kube_types import mistakes

LABS_WITH_MANIFESTS = ("L07", "L08", "L10")
IDS = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_KEY_VAULT": "vault"}


def spec_of(lab: str) -> LabSpec:
    return load_catalog().spec(lab)


def apply_steps(lab: str) -> list[ApplyStep]:
    return [step for step in spec_of(lab).steps if isinstance(step, ApplyStep)]


def committed(lab: str) -> list[tuple[str, manifests.Manifest]]:
    return [
        (step.manifests, manifest)
        for step in apply_steps(lab)
        for manifest in read_manifests(REPO_ROOT / step.manifests, IDS)
    ]


def read(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[manifests.Manifest]:
    path = folder / "step.yaml"
    path.write_text(text, encoding="utf-8")
    return read_manifests(path, environ or {})


# --- Reading ---


def test_a_file_may_hold_several_objects_and_empty_documents(tmp_path: Path) -> None:
    one, other = (f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n" for name in "ab")
    text = f"---\n{one}---\n---\n{other}"
    assert [one["metadata"]["name"] for one in read(tmp_path, text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no object"),
        ("a: [", "can't be read as YAML"),
        ("- 1", "document 1: expected a Kubernetes object with apiVersion and kind"),
        ("kind: Pod\nmetadata: {name: a}", "document 1: expected a Kubernetes object with apiVersion"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}", r"document 1: metadata\.name: is required"),
        ("apiVersion: v1\nkind: Pod", r"document 1: metadata\.name: is required"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}", r"metadata\.namespace: remove it"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=rf"step\.yaml: .*{message}|step\.yaml: {message}") as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent\.yaml: can't be read"):
        read_manifests(tmp_path / "absent.yaml", {})


ACCOUNT = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, annotations: {id: '${%s}'}}"


def test_public_ids_come_from_the_environment(tmp_path: Path) -> None:
    [account] = read(tmp_path, ACCOUNT % "AZURE_CLIENT_ID", {"AZURE_CLIENT_ID": "${AZURE_TENANT_ID}"})
    assert account["metadata"]["annotations"] == {"id": "${AZURE_TENANT_ID}"}, "what was filled in is not filled again"


def test_an_id_that_is_not_set_is_named_with_its_meaning(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="AZURE_CLIENT_ID is not set; set it to the client id"):
        read(tmp_path, ACCOUNT % "AZURE_CLIENT_ID", {"AZURE_CLIENT_ID": ""})


def test_no_other_variable_gets_into_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"\$\{AZURE_CLIENT_SECRET\} is not known; known: AZURE_CLIENT_ID"):
        read(tmp_path, ACCOUNT % "AZURE_CLIENT_SECRET", {"AZURE_CLIENT_SECRET": "s3cret"})


# --- Placing ---


def test_labels_reach_every_pod_template_and_the_file_stays_as_it_was() -> None:
    template: dict[str, Any] = {"spec": {"containers": []}}
    cron_job = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly", "labels": {"own": "yes", "lab": "another"}},
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }
    before = json.dumps(cron_job)
    done = placed(cron_job, namespace="lab-07", labels={"lab": "l07"})
    assert done["metadata"] == {"name": "nightly", "namespace": "lab-07", "labels": {"own": "yes", "lab": "l07"}}
    job = done["spec"]["jobTemplate"]
    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"] == {"lab": "l07"}
    assert json.dumps(cron_job) == before


def test_a_runs_labels_are_the_labs_cost_labels_and_the_run() -> None:
    assert manifests.labels_of(spec_of("L07"), "run-1") == {
        "cost-center": "llm-serving-labs",
        "lab": "l07",
        "phase": "1",
        "run-id": "run-1",
        "app.kubernetes.io/managed-by": "lab-pipelines",
    }


# --- What became of a pod ---


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "gpu"}, "status": status}


@pytest.mark.parametrize(
    ("status", "phase", "reason"),
    [
        ({}, "Unknown", None),
        ({"phase": "Pending"}, "Pending", None),
        ({"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}, "Running", None),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
                ],
            },
            "Pending",
            "0/1 nodes",
        ),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "Pending",
            None,
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}}
                ],
            },
            "Pending",
            'CreateContainerConfigError: secret "x" not found',
        ),
        (
            {
                "phase": "Failed",
                "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
                "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}],
            },
            "Failed",
            "OOMKilled, exit code 137",
        ),
        (
            {
                "phase": "Succeeded",
                "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": "all\nwell\n"}}}
                ],
            },
            "Succeeded",
            "Completed, exit code 0: all well",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
            "Failed",
            "The node was low",
        ),
    ],
)
def test_a_pods_reason_is_the_schedulers_then_a_containers_then_the_kubelets(
    status: dict[str, Any], phase: str, reason: str | None
) -> None:
    outcome = pod_outcome(pod(**status))
    assert (outcome.name, outcome.phase) == ("gpu", phase)
    assert outcome.reason == reason or (reason and (outcome.reason or "").startswith(reason))


# --- Judging ---


def step(**fields: Any) -> ApplyStep:
    return ApplyStep.model_validate({"kind": "apply", "name": "s", "manifests": "helm-values/x.yaml", **fields})


def accepted(*pods: tuple[str, str, str | None]) -> ApplyOutcome:
    outcomes = [PodOutcome(name=name, phase=phase, reason=reason) for name, phase, reason in pods]
    return ApplyOutcome(accepted=True, message=None, pods=outcomes)


def rejected(message: str) -> ApplyOutcome:
    return ApplyOutcome(accepted=False, message=message, pods=[])


REJECT = step(expect="rejected", reason="exceeded quota: two-gpus")
PENDING = step(pods=[{"name": "gpu", "phase": "Pending", "reason": "Insufficient"}])


@pytest.mark.parametrize(
    ("asked", "outcome", "ok", "said"),
    [
        (REJECT, rejected("403: exceeded quota: two-gpus, …"), True, "rejected as expected: 403"),
        (
            REJECT,
            rejected("403: exceeded quota: other"),
            False,
            "was rejected, but not with /exceeded quota: two-gpus/",
        ),
        (REJECT, accepted(), False, "was accepted, but must be rejected"),
        (step(), accepted(), True, "accepted as expected"),
        (step(), rejected("422: no"), False, "was rejected, but must be accepted: 422: no"),
        (PENDING, accepted(("gpu", "Pending", "1 Insufficient x")), True, "gpu is Pending (1 Insufficient x)"),
        (PENDING, accepted(("gpu", "Pending", "1 taint")), False, "is Pending, but not with /Insufficient/: 1 taint"),
        (PENDING, accepted(("gpu", "Pending", None)), False, "not with /Insufficient/: it gives no reason"),
        (PENDING, accepted(("gpu", "Running", None)), False, "is Running, but must be Pending"),
        (PENDING, accepted(), False, "gpu is Absent, but must be Pending"),
    ],
)
def test_an_outcome_is_compared_with_what_the_step_expects(
    asked: ApplyStep, outcome: ApplyOutcome, ok: bool, said: str
) -> None:
    judged = judge(asked, outcome)
    assert judged.ok is ok
    assert said in judged.message


def test_a_workloads_pods_must_all_be_as_expected_and_are_known_by_its_name() -> None:
    asked = step(pods=[{"name": "gpu", "phase": "Running"}, {"name": "gpu-half", "phase": "Pending"}])
    both = (("gpu-5f9c-abcde", "Running", None), ("gpu-5f9c-fghij", "Running", None))
    assert judge(asked, accepted(*both, ("gpu-half", "Pending", None))).ok
    one_waits = (both[0], ("gpu-5f9c-fghij", "Pending", "0/1 nodes"))
    judged = judge(asked, accepted(*one_waits, ("gpu-half", "Pending", None)))
    assert not judged.ok and "gpu-5f9c-fghij is Pending, but must be Running: 0/1 nodes" in judged.message


# --- The committed files ---


@pytest.mark.parametrize("lab", LABS_WITH_MANIFESTS)
def test_committed_manifests_have_no_field_that_kubernetes_does_not_know(lab: str) -> None:
    checked = 0
    for file, manifest in committed(lab):
        if manifest["kind"] == "SecretProviderClass":
            # From the CRD of kubernetes-sigs/secrets-store-csi-driver: a provider, and parameters that are all strings.
            assert manifest["apiVersion"] == "secrets-store.csi.x-k8s.io/v1"
            assert manifest["spec"].keys() == {"provider", "parameters"}
            assert all(isinstance(value, str) for value in manifest["spec"]["parameters"].values())
        else:
            assert mistakes(manifest) == [], file
        checked += 1
    assert checked >= len(apply_steps(lab))


def test_unknown_fields_wrong_types_and_missing_fields_are_caught() -> None:
    container = {
        "imagee": "x",
        "name": "c",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "ports": [{"containerPort": "80"}],
    }
    wrong = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labelz": {}},
        "spec": {
            "containers": [container],
            "nodeSelector": ["a"],
            "tolerations": [{"operator": True}],
            "volumes": [{}],
        },
    }
    assert mistakes(wrong) == [
        ".metadata.labelz: field not declared in schema",
        ".spec.containers[0].imagee: field not declared in schema",
        ".spec.containers[0].resources.limits[nvidia.com/gpu]: expected str, but found 1",
        ".spec.containers[0].ports[0].containerPort: expected int, but found '80'",
        ".spec.nodeSelector: expected a mapping",
        ".spec.tolerations[0].operator: expected str, but found True",
        ".spec.volumes[0]: Invalid value for `name`, must not be `None`",
    ]


@pytest.mark.parametrize("lab", LABS_WITH_MANIFESTS)
def test_every_manifest_is_applied_by_a_step_and_every_expected_pod_is_made_by_its_file(lab: str) -> None:
    folder = REPO_ROOT / "helm-values" / f"lab{lab[1:]}" / "manifests"
    used = {REPO_ROOT / step.manifests for step in apply_steps(lab)}
    assert used == set(folder.glob("*.yaml"))
    for one in apply_steps(lab):
        made = {
            manifest["metadata"]["name"]
            for manifest in read_manifests(REPO_ROOT / one.manifests, IDS)
            if manifest["kind"] in ("Pod", "Job")
        }
        if one.expect == "accepted":
            assert {pod.name for pod in one.pods} == made, one.name


@pytest.mark.parametrize("lab", LABS_WITH_MANIFESTS)
def test_every_expectation_belongs_to_a_finding(lab: str) -> None:
    spec = spec_of(lab)
    judged = {name for finding in spec.findings if isinstance(finding, Outcomes) for name in finding.steps}
    expectations = {one.name for one in apply_steps(lab) if one.expect == "rejected" or one.pods}
    assert expectations <= judged


def test_l09s_variants_move_the_weights_and_leave_the_engine_as_it_is() -> None:
    spec = spec_of("L09")
    [component] = spec.stack.components
    arguments, places = [], {}
    for variant in spec.variants:
        values = load_values(REPO_ROOT / component.chart.values, variant.values.get("vllm", {}))
        arguments.append(vllm_arguments(values, source="values"))
        [model] = values["servingEngineSpec"]["modelSpec"]
        places[variant.id] = (
            [volume["name"] for volume in model["extraVolumes"]],
            model.get("pvcStorage"),
            model.get("storageClass"),
            model.get("pvcAccessMode"),
            model["replicaCount"],
        )
    assert arguments[0] == arguments[1] == arguments[2]
    assert places == {
        "empty-dir": (["weights"], None, None, None, 1),
        "azure-disk": ([], "32Gi", "managed-csi-premium", ["ReadWriteOnce"], 1),
        "azure-files-shared": ([], "100Gi", "azurefile-csi-premium", ["ReadWriteMany"], 2),
    }
    assert max(replicas for *_, replicas in places.values()) == spec.nodes[0].count


# --- L10's probe, run as the container runs it ---

AUDIENCE = "api://AzureADTokenExchange"


def jwt(**claims: Any) -> str:
    def part(data: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


def probe(folder: Path, **environ: str) -> tuple[int, str]:
    """Exit code and termination message of the committed script in an environment of just these variables."""
    [config] = read_manifests(REPO_ROOT / "helm-values/lab10/manifests/probe.yaml", {})
    script, message = folder / "probe.py", folder / "message"
    script.write_text(config["data"]["probe.py"], encoding="utf-8")
    # -I: what the machine's own PYTHON variables say must not reach it.
    ran = subprocess.run(
        [sys.executable, "-I", script, message], env=environ, check=False, capture_output=True, text=True, timeout=60
    )
    assert message.is_file(), ran.stderr
    return ran.returncode, message.read_text(encoding="utf-8")


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, str]:
    """The environment that the webhook and the chart's values leave behind, with its two files."""
    claims = {"aud": [AUDIENCE], "exp": int(time.time()) + 3600, "sub": "system:serviceaccount:lab-10:weights-reader"}
    (tmp_path / "identity").write_text(jwt(**claims), encoding="ascii")
    (tmp_path / "huggingface").write_text("hf_of_the_vault\n", encoding="ascii")
    return {
        "PATH": "/usr/bin",
        "GPG_KEY": "7169605F62C751356D054A26A821E680E5FA6305",  # python's own image has it, and it is public
        "AZURE_CLIENT_ID": "11111111-2222-3333-4444-555555555555",
        "AZURE_TENANT_ID": "11111111-2222-3333-4444-555555555555",
        "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "identity"),
        "HF_TOKEN_PATH": str(tmp_path / "huggingface"),
    }


def expected_reason(lab: str, name: str) -> str:
    [reason] = [one.reason for step in apply_steps(lab) for one in step.pods if one.name == name]
    assert reason is not None
    return reason


def test_the_probe_passes_where_identity_and_token_are_files(tmp_path: Path, sound: dict[str, str]) -> None:
    code, said = probe(tmp_path, **sound)
    assert code == 0, said
    outcome = accepted(("token-in-volume-x7k2p", "Succeeded", said))
    [asked] = [one for one in apply_steps("L10") if one.name == "token-in-volume"]
    assert judge(asked, outcome).ok, said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "not-a-token"),
        ("AZURE_CLIENT_SECRET", "x"),
        ("DB_PASSWORD", "x"),
        ("OPENAI_API_KEY", "x"),
        ("STORAGE_CONNECTION_STRING", "AccountName=x"),
        ("HARMLESS", "hf_abcdefghijkl"),
        ("HARMLESS", jwt(sub="x")),
        ("HF_TOKEN", "/no/such/file"),
    ],
)
def test_the_probe_fails_on_a_credential_in_the_environment_and_never_prints_it(
    tmp_path: Path, sound: dict[str, str], name: str, value: str
) -> None:
    code, said = probe(tmp_path, **{**sound, name: value})
    assert (code, said) == (1, f"credentials in the environment: {name}")


def test_the_specs_controls_expect_what_the_probe_says(tmp_path: Path, sound: dict[str, str]) -> None:
    _, said = probe(tmp_path, **sound, HF_TOKEN="not-a-token")
    assert re.search(expected_reason("L10", "token-in-environment"), said)
    _, said = probe(tmp_path, PATH="/usr/bin")
    assert re.search(expected_reason("L10", "account-without-label"), said)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (jwt(aud=["https://kubernetes.default.svc"], exp=4102444800, sub="x"), "its audience is .*kubernetes.default"),
        (jwt(aud=[AUDIENCE], exp=1, sub="x"), "it expired"),
        ("not a token", "is no token for Azure"),
        ("", "is no token for Azure"),
    ],
)
def test_the_probe_fails_on_a_token_that_azure_would_not_take(
    tmp_path: Path, sound: dict[str, str], token: str, message: str
) -> None:
    Path(sound["AZURE_FEDERATED_TOKEN_FILE"]).write_text(token, encoding="ascii")
    code, said = probe(tmp_path, **sound)
    assert code == 1 and re.search(message, said), said


def test_the_probe_fails_where_the_vault_gave_nothing(tmp_path: Path, sound: dict[str, str]) -> None:
    Path(sound["HF_TOKEN_PATH"]).write_text("\n", encoding="ascii")
    code, said = probe(tmp_path, **sound)
    assert code == 1 and said.endswith("huggingface holds no Hugging Face token")
