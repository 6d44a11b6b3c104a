"""terraform/aks is sound as far as that can be told without Azure: names, references, rights, pools, format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

from lab_pipelines import deployment
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT
from resources import ownership
from tests.support import rbac

FOLDER = REPO_ROOT / "terraform" / "aks"
FILES = sorted(FOLDER.glob("*.tf"))
KNOWN = json.loads((REPO_ROOT / "tests" / "data" / "azurerm-4.81.0.json").read_text("utf-8"))["resources"]
META = {"count", "for_each", "lifecycle", "dynamic", "depends_on"}
INTERNAL = re.compile(r"__\w+__")
"""Keys that the parser adds."""

Block = dict[str, Any]


@cache
def parsed() -> tuple[Block, ...]:
    return tuple(hcl2.loads(path.read_text(encoding="utf-8")) for path in FILES)


def plain(value: Any) -> Any:
    """A parsed value without the quotes that the parser leaves around strings, and without its own keys."""
    if isinstance(value, str):
        return value.removeprefix('"').removesuffix('"') if value.startswith('"') else value
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items() if not INTERNAL.fullmatch(key)}
    return value


def named(kind: str) -> dict[str, Block]:
    """Variables or outputs, by name."""
    return {
        name: block
        for file in parsed()
        for one in file.get(kind, [])
        for name, block in plain(one).items()
    }  # fmt: skip


def resources() -> Iterator[tuple[str, str, Block]]:
    """(type, name, body) of every resource."""
    for file in parsed():
        for one in file.get("resource", []):
            for kind, of_kind in plain(one).items():
                for name, body in of_kind.items():
                    yield kind, name, body


def resource(kind: str, name: str) -> Block:
    return next(body for one, called, body in resources() if (one, called) == (kind, name))


def nested(body: Block) -> Iterator[tuple[str, Block]]:
    """(name, content) of the blocks within a block, also of those that `dynamic` makes."""
    for name, value in body.items():
        if name == "dynamic":
            yield from ((made, dynamic["content"][0]) for one in value for made, dynamic in one.items())
        elif name != "lifecycle" and isinstance(value, list) and value and isinstance(value[0], dict):
            yield from ((name, one) for one in value)


def problems_of(kind: str, body: Block, of: str = "arguments") -> list[str]:
    known = {argument.rstrip("!") for argument in KNOWN[kind][of]}
    required = {argument.rstrip("!") for argument in KNOWN[kind][of] if argument.endswith("!")}
    blocks = list(nested(body))
    given = {name for name in body if name not in META} | {name for name, _ in blocks}
    problems = [f"{kind} {of}: {name} is not known" for name in sorted(given - known)]
    problems += [f"{kind} {of}: {name} is required" for name in sorted(required - given)]
    for name, content in blocks:
        problems += problems_of(kind, content, name) if name in known else []
    return problems


def test_every_argument_is_one_that_the_provider_knows_and_none_that_it_requires_is_missing() -> None:
    found = list(resources())
    assert len(found) > 12
    assert [problem for kind, _, body in found for problem in problems_of(kind, body)] == []


def test_a_wrong_a_missing_and_a_misplaced_argument_would_be_found() -> None:
    pool = {"name": "t4", "vm_sku": "y", "upgrade_settings": [{"max_surges": "1"}]}
    assert problems_of("azurerm_kubernetes_cluster_node_pool", pool) == [
        "azurerm_kubernetes_cluster_node_pool arguments: vm_sku is not known",
        "azurerm_kubernetes_cluster_node_pool arguments: kubernetes_cluster_id is required",
        "azurerm_kubernetes_cluster_node_pool upgrade_settings: max_surges is not known",
    ]


def test_every_reference_leads_to_something_and_every_variable_is_used() -> None:
    text = "\n".join(_without_comments(path) for path in FILES)
    declared = {(kind, name) for kind, name, _ in resources()}
    variables, local = named("variable"), {key for file in parsed() for one in file.get("locals", []) for key in one}
    assert set(re.findall(r"\bvar\.(\w+)", text)) == set(variables)
    assert set(re.findall(r"\blocal\.(\w+)", text)) == {name for name in local if not INTERNAL.fullmatch(name)}
    references = re.findall(r"(?<![.\w])(azurerm_\w+)\.(\w+)(?:\.(\w+))?", text)
    assert len(references) > 20
    for kind, name, attribute in references:
        assert (kind, name) in declared, f"{kind}.{name}"
        known = {*KNOWN[kind]["attributes"], *(one.rstrip("!") for one in KNOWN[kind]["arguments"])}
        assert not attribute or attribute in known, f"{kind}.{name}.{attribute}"


def _without_comments(path: Path) -> str:
    return re.sub(r"(?m)^\s*#.*$", "", path.read_text(encoding="utf-8"))


def test_every_variable_and_output_says_what_it_is() -> None:
    variables = named("variable")
    assert all(one.get("type") and one.get("description", "").endswith(".") for one in variables.values())
    assert {name for name, one in variables.items() if "default" not in one} == {"subscription_id", "lake_account"}
    assert all(one.get("description") for one in named("output").values())
    assert not any("sensitive" in one for one in named("output").values())


def test_gpu_pools_begin_at_zero_tainted_and_tagged_as_ours_and_are_the_pipelines_from_then_on() -> None:
    pool = resource("azurerm_kubernetes_cluster_node_pool", "gpu")
    assert (pool["node_count"], pool["mode"]) == (0, "User")
    assert pool["auto_scaling_enabled"] == "${var.pool_autoscaling}"
    assert named("variable")["pool_autoscaling"]["default"] is False
    assert f'"{ownership.POOL_TAG}" = "{ownership.POOL_TAG_VALUE}"' in (FOLDER / "pools.tf").read_text("utf-8")
    for taints in re.findall(r"\[([^\]]*)\]", pool["node_taints"]):
        assert "sku=gpu:NoSchedule" in taints
    assert set(pool["lifecycle"][0]["ignore_changes"]) == {"node_count", "tags"}


def test_every_gpu_that_a_lab_asks_for_has_a_pool_of_its_size_and_a_spot_pool() -> None:
    catalog = load_catalog()
    specs = [lab for one in catalog.ids if isinstance(lab := catalog.lab(one), LabSpec)]
    wanted = {node.sku for spec in specs for node in spec.nodes if node.gpus}
    assert {"Standard_NC4as_T4_v3", "Standard_NC64as_T4_v3", "Standard_NC24ads_A100_v4"} <= wanted
    pools = named("variable")["gpu_pools"]["default"]
    assert wanted <= {pool["vm_size"] for pool in pools.values() if not pool.get("spot")}
    assert wanted <= {pool["vm_size"] for pool in pools.values() if pool.get("spot")}
    assert all(re.fullmatch(r"[a-z][a-z0-9]{0,11}", name) for name in pools)


def test_the_pipelines_roles_give_single_rights_and_none_to_delete() -> None:
    rights: list[str] = []
    for kind, name, body in resources():
        if kind == "azurerm_role_definition":
            permissions = body["permissions"][0]
            assert set(permissions) <= {"actions", "data_actions"}, name
            rights += permissions.get("actions", []) + permissions.get("data_actions", [])
    assert "Microsoft.ContainerService/managedClusters/agentPools/write" in rights
    assert not [one for one in rights if "*" in one or "delete" in one.lower() or "Authorization" in one]
    built_in = {body.get("role_definition_name") for kind, _, body in resources() if kind == "azurerm_role_assignment"}
    assert built_in == {None, "Azure Kubernetes Service RBAC Cluster Admin", "Cost Management Reader"}
    administrators = [
        body["principal_id"]
        for _, _, body in resources()
        if "Admin" in str(body.get("role_definition_name", ""))
    ]  # fmt: skip
    assert administrators == ["${data.azurerm_client_config.current.object_id}"]


def test_the_identity_is_federated_with_the_accounts_that_need_azure_and_that_exist() -> None:
    federation = resource("azurerm_federated_identity_credential", "pipeline")
    names = set(re.findall(r'"([a-z-]+)"', federation["for_each"]))
    accounts = {one["metadata"]["name"] for one in rbac.objects() if one["kind"] == "ServiceAccount"}
    assert names == {"lab-runs", "lab-sensors"} <= accounts
    assert federation["subject"] == "system:serviceaccount:dagster:${each.key}"


def test_the_cluster_has_no_local_account_enforces_policies_and_sends_no_logs_unless_asked() -> None:
    cluster = resource("azurerm_kubernetes_cluster", "this")
    assert cluster["local_account_disabled"] is cluster["oidc_issuer_enabled"] is True
    assert cluster["workload_identity_enabled"] is True
    network = cluster["network_profile"][0]
    assert (network["network_plugin"], network["network_policy"]) == ("azure", "cilium")
    variables = named("variable")
    assert variables["log_analytics"]["default"] is False
    assert variables["monthly_budget_usd"]["default"] in (None, "null", "${null}")


def test_the_output_sets_only_variables_that_the_project_reads() -> None:
    shell = named("output")["labs_environment"]["value"]
    exported = dict(re.findall(r"export (\w+)=(\S+)", shell))
    read = Path(deployment.__file__).read_text(encoding="utf-8")
    assert exported["LABS_TARGET"] == "aks"
    assert {"AZURE_SUBSCRIPTION_ID", "LABS_AKS_RESOURCE_GROUP", "LABS_AKS_CLUSTER", "LABS_LAKE_URL"} <= set(exported)
    assert [name for name in exported if f'"{name}"' not in read] == []


# --- The format of `terraform fmt`, as far as these files use it ---

ARGUMENT = re.compile(r'^(?P<indent> *)(?P<name>[\w".-]+)(?P<space> +)= (?P<value>.*)$')


def misformatted(text: str) -> list[str]:
    """Lines that `terraform fmt` would change: tabs, trailing blanks, indent, and the `=` of neighbouring lines."""
    wrong, depth, group = [], 0, list[tuple[int, str, int, int]]()

    def close() -> None:
        widest = max((name for _, _, name, _ in group), default=0)
        wrong.extend(f"{at}: {line}" for at, line, _, equals in group if equals != widest + 1)
        group.clear()

    heredoc = None
    for number, line in enumerate(text.splitlines(), start=1):
        if heredoc:
            heredoc = None if line.strip() == heredoc else heredoc
            continue
        code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line).split("#")[0]
        closes_first = len(re.match(r"^\s*([\]})]*)", code)[1])  # type: ignore[index]
        if line.strip() and len(line) - len(line.lstrip()) != 2 * max(depth - bool(closes_first), 0):
            wrong.append(f"{number}: {line}")
        if "\t" in line or line != line.rstrip():
            wrong.append(f"{number}: {line!r}")
        argument = ARGUMENT.match(line)
        if argument and (not group or len(argument["indent"]) == _indent(group[0][1])):
            group.append((number, line, argument.end("name"), argument.end("space")))
        else:
            close()
            if argument:
                group.append((number, line, argument.end("name"), argument.end("space")))
        opened = code.count("{") + code.count("[") + code.count("(")
        closed = code.count("}") + code.count("]") + code.count(")")
        depth += (opened > closed) - (closed > opened)
        if opened > closed:
            close()  # what follows is another level
        if start := re.search(r"<<-?([A-Z]+)$", line):
            heredoc = start[1]
    close()
    return wrong


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_in_canonical_format(path: Path) -> None:
    assert misformatted(path.read_text(encoding="utf-8")) == []


def test_the_check_of_the_format_finds_what_terraform_fmt_would_change() -> None:
    good = 'a "b" {\n  one   = 1\n  three = 3\n\n  c {\n    d = 1\n  }\n}\n'
    assert misformatted(good) == []
    for bad in (good.replace("one   =", "one ="), good.replace("    d", "   d"), good.replace("= 3", "= 3 ")):
        assert len(misformatted(bad)) >= 1
