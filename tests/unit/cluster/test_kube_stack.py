"""What a lab's components become in a cluster: charts, values, guards of a namespace, the way to a service's pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import ClusterEngine
from resources.cluster import ClusterError
from resources.kube_namespace import external_secrets, guards, secret_names, without_secrets
from resources.kube_pods import refusal_in
from resources.kube_reach import Service, service_of
from resources.kube_stack import MODELLED_CHART, Release, Surroundings, release_of
from resources.ownership import EXPIRES_LABEL, labels_within, lease_labels
from resources.port_forward import pick
from tests.support.sessions import READY


def lab(lab_id: str) -> LabSpec:
    spec = load_catalog().lab(lab_id)
    assert isinstance(spec, LabSpec)
    return spec


def engine_of(
    lab_id: str, *, engine: ClusterEngine = "vllm", variant: int = 0, secrets: bool = False, monitors: bool = True
) -> Release:
    spec = lab(lab_id)
    component, node = spec.stack.component("vllm"), spec.nodes_of(spec.variants[variant])
    around = Surroundings(
        namespace=spec.namespace, engine=engine, image="registry.example/labs:1", sku=node.sku, gpus=node.gpus,
        time_scale=5.0, cold_start_time_scale=400.0, labels={"lab": lab_id.lower(), "run-id": "r1"}, monitors=monitors,
        secrets=secrets,
    )  # fmt: skip
    return release_of(component, [spec.variants[variant].values.get("vllm", {})], around)


def test_vllms_chart_gets_the_labs_values_and_pods_that_are_replaced() -> None:
    release = engine_of("L11", variant=1)
    serving = release.values["servingEngineSpec"]
    model = serving["modelSpec"][0]

    assert model["vllmConfig"]["gpuMemoryUtilization"] == 0.85
    assert serving["strategy"] == {"type": "Recreate"}  # a rolling one would wait for a second GPU
    assert serving["serviceMonitor"]["enabled"] is True
    assert release.endpoint.base_url == "http://vllm-phi-3-mini-engine-service.lab-11.svc:80/v1"
    assert release.endpoint.cluster_url == release.endpoint.base_url  # load from within goes there, wherever we are
    assert release.arguments[0] == "microsoft/Phi-3-mini-4k-instruct"


def test_the_modelled_engine_has_the_same_arguments_from_our_own_chart() -> None:
    release = engine_of("L11", engine="modelled")
    assert release.chart == MODELLED_CHART
    assert release.values["arguments"] == engine_of("L11").arguments
    assert (release.values["gpu"], release.values["gpus"]) == ("T4", 1)
    assert release.values["image"] == "registry.example/labs:1"
    assert release.endpoint.base_url == "http://vllm.lab-11.svc:80/v1"


def test_a_chart_is_told_of_a_secret_only_where_the_secret_will_be() -> None:
    assert set(secret_names(engine_of("L06", secrets=True).values)) == {"huggingface"}
    assert set(secret_names(engine_of("L06", secrets=False).values)) == set()


def test_a_cluster_without_the_operator_gets_no_service_monitor() -> None:
    assert engine_of("L05", monitors=False).values["servingEngineSpec"]["serviceMonitor"]["enabled"] is False


def test_secrets_are_found_and_left_out_at_any_depth() -> None:
    values = {"a": [{"hf_token": {"secretName": "hf", "secretKey": "token"}, "b": 1}], "c": {"secretName": "other"}}
    assert sorted(secret_names(values)) == ["hf", "other"]
    assert without_secrets(values) == {"a": [{"b": 1}]}
    assert external_secrets(["hf"], store="vault")[0]["spec"]["dataFrom"] == [{"extract": {"key": "hf"}}]


def test_a_closed_namespace_denies_by_default_and_an_open_one_has_no_policy() -> None:
    closed = guards(lab("L06"), monitoring_namespace="monitoring")
    deny = next(one for one in closed if one["metadata"]["name"] == "default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    allow = next(one for one in closed if one["metadata"]["name"] == "within-the-lab")["spec"]
    assert {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}} in allow["egress"][2]["to"]
    opened = guards(lab("L06").model_copy(update={"network": "open"}), monitoring_namespace="monitoring")
    assert [one["kind"] for one in opened] == ["ResourceQuota"]


def test_a_lab_can_have_no_public_address_and_no_more_gpus_than_its_nodes() -> None:
    def hard(lab_id: str) -> dict[str, str]:
        return guards(lab(lab_id), monitoring_namespace="monitoring")[-1]["spec"]["hard"]

    assert hard("L06")["services.loadbalancers"] == "0"
    assert hard("L06")["requests.nvidia.com/gpu"] == "1"
    assert "requests.nvidia.com/gpu" not in hard("L07")  # its own quota is what the lab is about


def test_what_is_in_a_namespace_has_its_labels_but_for_their_end() -> None:
    labels = lease_labels({"lab": "l06"}, run_id="r1", lease_id="x1", expires_at=READY)
    within = labels_within({**labels, "kubernetes.io/metadata.name": "lab-06"})
    assert within == {key: value for key, value in labels.items() if key != EXPIRES_LABEL}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://vllm.lab-06.svc:80/v1", Service("lab-06", "vllm", 80)),
        ("http://prometheus.example.com:9090", None),
        ("http://vllm.lab-06.svc/v1", None),
        ("http://127.0.0.1:9090", None),
    ],
)
def test_an_address_within_the_cluster_is_told_from_one_that_anybody_can_use(
    address: str, expected: Service | None
) -> None:
    assert service_of(address) == expected


def service(port: int, target: int | str) -> dict[str, Any]:
    return {
        "metadata": {"name": "vllm", "namespace": "lab-06"},
        "spec": {"selector": {"app": "vllm"}, "ports": [{"port": port, "targetPort": target}]},
    }


def pod(name: str, *, ready: bool = True, going: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    metadata = {"name": name, **({"deletionTimestamp": "2026-03-14T09:00:00Z"} if going else {})}
    containers = [{"name": "vllm", "ports": [{"name": "http", "containerPort": 8000}]}]
    return {"metadata": metadata, "spec": {"containers": containers}, "status": {"conditions": conditions}}


def test_a_forward_goes_to_the_first_pod_that_is_ready_and_stays() -> None:
    pods = [pod("a", ready=False), pod("b", going=True), pod("c"), pod("d")]
    assert pick(service(80, "http"), pods, 80) == ("c", 8000)
    assert pick(service(80, 8001), pods, 80) == ("c", 8001)


@pytest.mark.parametrize(
    ("target", "pods", "port", "says"),
    [
        ("http", [pod("a", ready=False)], 80, "no pod that is ready, of 1"),
        ("http", [pod("a")], 81, "has no port 81; it has: 80"),
        ("grpc", [pod("a")], 80, "wants port 'grpc', and pod a has none of that name"),
    ],
)
def test_a_forward_that_is_not_possible_says_why(target: str, pods: list[dict[str, Any]], port: int, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        pick(service(80, target), pods, port)


def test_an_engine_that_refuses_is_heard_in_its_own_words() -> None:
    ours = '{"ts": 1, "level": "error", "event": "out_of_memory", "message": "no room for \\"KV\\" blocks"}'
    assert refusal_in(["before", ours]) == 'no room for "KV" blocks'
    vllm = ["INFO starting", "ValueError: No available memory for the cache blocks.", "  File …", "Traceback …"]
    assert refusal_in(vllm) == "ValueError: No available memory for the cache blocks."
    assert refusal_in(["INFO all is well"]) is None


def test_our_chart_lies_where_the_code_says() -> None:
    assert (Path(MODELLED_CHART) / "Chart.yaml").is_file()
