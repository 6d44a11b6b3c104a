"""The accounts in a cluster have the rights that docs/deploy.md lists, those that our requests need, and no others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import celpy
import pytest
import yaml
from celpy import celtypes
from celpy.adapter import json_to_cel

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.steps import ApplyStep
from lab_pipelines.deployment import REPO_ROOT
from resources import kube_api, kube_leases, manifests
from tests.support import rbac
from tests.support.kube.kinds import BUILT_IN
from tests.support.kube_api import KubeApi

ROLES = rbac.roles()
DOCUMENT = (REPO_ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
OURS = "lab-pipelines-lease"


def specs() -> list[LabSpec]:
    """Every complete lab."""
    catalog = load_catalog()
    return [lab for one in catalog.ids if isinstance(lab := catalog.lab(one), LabSpec)]


def documented() -> dict[str, set[rbac.Grant]]:
    """The grants in docs/deploy.md: below a heading `### role`, rows of API group, resource, verbs."""
    found = defaultdict[str, set[rbac.Grant]](set)
    role = ""
    for line in DOCUMENT.splitlines():
        if heading := re.fullmatch(r"### `([a-z-]+)`.*", line):
            role = heading[1]
        elif role and (row := re.fullmatch(r"\| (core|[a-z0-9.-]+) \| ([a-z/]+) \| ([a-z, ]+) \|", line)):
            group = "" if row[1] == "core" else row[1]
            found[role] |= {(group, row[2], verb) for verb in row[3].split(", ")}
    return dict(found)


def test_the_document_lists_every_single_right_that_a_role_gives() -> None:
    assert documented() == {name: rbac.granted(rules) for name, rules in ROLES.items()}


def test_no_role_gives_everything_of_a_kind_or_a_way_to_more_rights() -> None:
    for name, rules in ROLES.items():
        for rule in rules:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & {"*", "escalate", "bind", "impersonate"}, name
            assert set(rule) == {"apiGroups", "resources", "verbs"}, name
            for group in rule["apiGroups"]:
                # Who may write these can give themselves the rest, or stand in for the API server's judgement.
                assert not (group == "rbac.authorization.k8s.io" and _writes(rule, "clusterroles")), name
                assert not (group == "admissionregistration.k8s.io" and _writes(rule, "webhookconfigurations")), name


def _writes(rule: Mapping[str, Any], kind: str) -> bool:
    return bool({"create", "patch", "update"} & set(rule["verbs"])) and any(kind in one for one in rule["resources"])


def test_every_role_is_bound_to_accounts_that_the_files_make_and_to_no_other() -> None:
    objects = rbac.objects()
    accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    bound = set()
    for binding in (one for one in objects if one["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        assert binding["roleRef"]["name"] in ROLES
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "dagster")
            bound.add((binding["roleRef"]["name"], subject["name"]))
    assert {account for _, account in bound} == accounts
    assert bound == {
        ("run-launcher", "dagster"),
        ("lab-sensors", "lab-sensors"),
        ("lab-runs", "lab-runs"),
        ("run-launcher", "lab-runs"),  # step-pods.yaml, which is applied only for LABS_EXECUTOR=k8s
    }


def test_a_run_may_do_to_every_kind_of_a_manifest_what_an_apply_step_does() -> None:
    may = rbac.granted(ROLES["lab-runs"])
    plurals = {kind.kind: (kind.group, kind.plural) for kind in BUILT_IN}
    files = {step.manifests for spec in specs() for step in spec.steps if isinstance(step, ApplyStep)}
    assert len(files) > 10
    for file in sorted(files):
        for manifest in manifests.read_manifests(REPO_ROOT / file, dict.fromkeys(manifests.PUBLIC_IDS, "id")):
            group, plural = plurals[manifest["kind"]]
            for verb in ("create", "patch", "get", "list", "deletecollection"):
                assert (group, plural, verb) in may, f"{file}: {verb} {plural}"


def test_what_an_apply_step_really_asks_for_is_granted(tmp_path: Path) -> None:
    with KubeApi() as kube:
        client = kube_api.connect(kube.kubeconfig(tmp_path))
        namespace = kube.make_namespace("lab-07")
        step = ApplyStep.model_validate(
            {
                "kind": "apply",
                "name": "quota",
                "manifests": "helm-values/lab07/manifests/quota.yaml",
                "within_s": 20,
                "expect": "accepted",
            }
        )
        objects = manifests.read_manifests(REPO_ROOT / step.manifests, {})
        manifests.carry_out(
            client, step, root=REPO_ROOT, environ={}, namespace=namespace, labels={"lab": "l07"}, progress=print
        )
        deadline = kube_api.Deadline.within(20)
        manifests.delete(client, objects, namespace=namespace, labels={"lab": "l07"}, deadline=deadline)
        client.close()
        wanted = {right for one in kube.seen if (right := rbac.asked(one.method, one.path, one.query))}
    assert {verb for _, _, verb in wanted} == {"patch", "get", "list", "deletecollection"}
    assert wanted <= rbac.granted(ROLES["lab-runs"])


@pytest.mark.parametrize("role", ["lab-runs", "lab-sensors"])
def test_whoever_ends_a_lease_may_remove_what_it_may_have_left_outside_of_its_namespace(role: str) -> None:
    may = rbac.granted(ROLES[role])
    for path in kube_leases.CLUSTER_SCOPED:
        for method, tail in (("GET", ""), ("DELETE", "/left-behind")):
            assert rbac.asked(method, path + tail, {}) in may
    namespaces = {("GET", "/lab-06"), ("GET", ""), ("DELETE", "/lab-06")}
    assert {rbac.asked(method, f"/api/v1/namespaces{tail}", {}) for method, tail in namespaces} <= may


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/api/v1/namespaces", ("", "namespaces", "list")),
        ("PATCH", "/api/v1/namespaces/lab-06", ("", "namespaces", "patch")),
        ("GET", "/api/v1/namespaces/lab-06/pods/vllm-0/log", ("", "pods/log", "get")),
        ("DELETE", "/apis/batch/v1/namespaces/lab-06/jobs", ("batch", "jobs", "deletecollection")),
        ("GET", "/apis/apps/v1/deployments", ("apps", "deployments", "list")),
        ("GET", "/version", None),
    ],
)
def test_a_request_needs_the_right_that_the_api_server_asks_for(
    method: str, path: str, right: rbac.Grant | None
) -> None:
    assert rbac.asked(method, path, {}) == right


# --- The fence, its expressions run by an implementation of CEL ---

POLICY = next(one for one in rbac.objects() if one["kind"] == "ValidatingAdmissionPolicy")
RUNS = "system:serviceaccount:dagster:lab-runs"


def refused_by_the_fence(
    *,
    operation: str,
    resource: str,
    group: str = "",
    namespace: dict[str, Any] | None = None,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
    user: str = RUNS,
) -> list[str]:
    """The messages with which the policy refuses a request; as an API server, validations see what conditions match."""
    said: dict[str, Any] = {
        "request": {
            "operation": operation,
            "userInfo": {"username": user},
            "resource": {"group": group, "resource": resource},
            "namespace": namespace["metadata"]["name"] if namespace else "",
        },
        "object": new,
        "oldObject": old,
        "namespaceObject": namespace,
    }
    spec, context = POLICY["spec"], {name: json_to_cel(value) for name, value in said.items()}
    if not all(_evaluated(one["expression"], context) for one in spec["matchConditions"]):
        return []
    variables = context["variables"] = celtypes.MapType()
    for variable in spec["variables"]:
        variables[celtypes.StringType(variable["name"])] = _evaluated(variable["expression"], context)
    return [one["message"] for one in spec["validations"] if not _evaluated(one["expression"], context)]


def _evaluated(expression: str, context: dict[str, Any]) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return program.evaluate(context)


def thing(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, **({"labels": labels} if labels else {})}}


LEASE = thing("lab-06", **{OURS: "1e4a"})


def test_the_fence_lets_a_lab_make_fill_renew_and_remove_its_own_namespace() -> None:
    assert refused_by_the_fence(operation="CREATE", resource="namespaces", new=LEASE) == []
    renewed = thing("lab-06", **{OURS: "1e4a", "lab-pipelines-expires": "1"})
    assert refused_by_the_fence(operation="UPDATE", resource="namespaces", old=LEASE, new=renewed) == []
    assert refused_by_the_fence(operation="DELETE", resource="namespaces", old=LEASE) == []
    assert refused_by_the_fence(operation="CREATE", resource="pods", namespace=LEASE, new=thing("vllm")) == []
    assert refused_by_the_fence(operation="DELETE", resource="secrets", namespace=LEASE, old=thing("token")) == []


def test_the_fence_refuses_whatever_is_not_a_labs() -> None:
    foreign = thing("kube-system", **{"kubernetes.io/metadata.name": "kube-system"})
    cases: list[dict[str, Any]] = [
        {"operation": "DELETE", "resource": "namespaces", "old": foreign},
        {"operation": "DELETE", "resource": "namespaces", "old": thing("lab-06")},
        {"operation": "CREATE", "resource": "namespaces", "new": thing("lab-06")},
        {"operation": "CREATE", "resource": "namespaces", "new": thing("production", **{OURS: "1e4a"})},
        {"operation": "UPDATE", "resource": "namespaces", "old": foreign, "new": thing("kube-system", **{OURS: "1"})},
        {"operation": "UPDATE", "resource": "namespaces", "old": LEASE, "new": thing("lab-06", **{OURS: "other"})},
        {"operation": "UPDATE", "resource": "namespaces", "old": LEASE, "new": thing("lab-06")},
        {"operation": "CREATE", "resource": "pods", "namespace": foreign, "new": thing("vllm", **{OURS: "1e4a"})},
        {"operation": "DELETE", "resource": "secrets", "namespace": thing("default"), "old": thing("token")},
        {"operation": "DELETE", "resource": "priorityclasses", "group": "scheduling.k8s.io", "old": thing("high")},
    ]  # fmt: skip
    for case in cases:
        assert refused_by_the_fence(**case), case


def test_the_fence_lets_a_labs_leftovers_and_step_pods_be_removed_and_is_no_business_of_others() -> None:
    role = thing("vllm-stack-reader", **{OURS: "1e4a"})
    group = "rbac.authorization.k8s.io"
    assert refused_by_the_fence(operation="DELETE", resource="clusterroles", group=group, old=role) == []
    step = refused_by_the_fence(
        operation="CREATE", resource="jobs", group="batch", namespace=thing("dagster"), new=thing("step")
    )
    assert step == []
    definition = thing("loraadapters.production-stack.vllm.ai")
    plural, crds = "customresourcedefinitions", "apiextensions.k8s.io"
    assert refused_by_the_fence(operation="CREATE", resource=plural, group=crds, new=definition) == []
    assert refused_by_the_fence(operation="DELETE", resource=plural, group=crds, old=definition)
    somebody: dict[str, Any] = {"operation": "DELETE", "resource": "namespaces", "old": thing("default")}
    assert refused_by_the_fence(**somebody)
    assert refused_by_the_fence(**somebody, user="somebody") == []


def test_the_fence_names_the_accounts_and_the_label_that_the_project_uses() -> None:
    text = yaml.safe_dump(POLICY)
    assert kube_leases.LEASE_LABEL == OURS
    condition = POLICY["spec"]["matchConditions"][0]["expression"]
    assert set(re.findall(r"'system:serviceaccount:dagster:([a-z-]+)'", condition)) == {"lab-runs", "lab-sensors"}
    assert all(re.fullmatch("lab-[0-9]{2}", spec.namespace) for spec in specs())
    assert "^lab-[0-9]{2}$" in text
