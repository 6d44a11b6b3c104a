"""What our chart for the modelled server renders to: what a pod may, what it runs, who finds it."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from resources import chart_objects, helm_sdk
from resources.kube_stack import MODELLED_CHART
from tests.support.kube_types import mistakes

REQUIRED = {
    "image": "labs.example/lab-pipelines:1",
    "arguments": ["microsoft/Phi-3-mini-4k-instruct", "--dtype", "half"],
}


def rendered(**values: Any) -> dict[str, dict[str, Any]]:
    """The objects, by kind."""
    with helm_python.Chart.load(MODELLED_CHART) as chart:
        templates = chart.render({**REQUIRED, **values}, name="vllm", namespace="lab-06")
    texts = [text for name, text in templates.items() if name.endswith(".yaml")]
    objects = [one for text in texts for one in chart_objects.objects_of(text, helm_sdk.read_yaml)]
    return {one["kind"]: one for one in objects}


def container(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    [only] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def test_its_objects_are_ones_that_kubernetes_knows() -> None:
    objects = rendered()
    assert objects.keys() == {"Deployment", "Service"}
    assert [said for one in objects.values() for said in mistakes(one)] == []


def test_its_pod_is_admitted_where_pod_security_is_restricted() -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    pod = rendered()["Deployment"]["spec"]["template"]["spec"]
    [one] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"]["allowPrivilegeEscalation"] is False
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False


def test_it_asks_for_no_gpu_unless_it_is_told_to() -> None:
    assert "nvidia.com/gpu" not in str(container(rendered())["resources"])
    told = container(rendered(resources={"limits": {"nvidia.com/gpu": 1}}))
    assert told["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_engines_arguments_come_last_and_as_they_are() -> None:
    arguments = container(rendered(gpu="A100-80GB", gpus=2, timeScale=5))["args"]
    assert arguments[-4:] == ["--", *REQUIRED["arguments"]]
    own = dict(zip(arguments[:-4:2], arguments[1:-4:2], strict=True))
    assert own["--host"] == "0.0.0.0" and (own["--gpu"], own["--gpus"], own["--time-scale"]) == ("A100-80GB", "2", "5")


def test_traffic_comes_only_to_a_pod_whose_model_is_loaded() -> None:
    one = container(rendered())
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    assert ports == {"http": 8000, "dcgm": 9400}
    for probe in ("startupProbe", "readinessProbe"):
        assert one[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] >= 1800


def test_service_and_monitor_select_what_the_deployment_makes() -> None:
    objects = rendered(serviceMonitor={"enabled": True, "labels": {"release": "kube-prometheus-stack"}})
    made = objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert made >= objects["Service"]["spec"]["selector"].items()
    assert made >= objects["Deployment"]["spec"]["selector"]["matchLabels"].items()
    monitor = objects["ServiceMonitor"]
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert objects["Service"]["metadata"]["labels"].items() >= selected
    named = {port["name"] for port in objects["Service"]["spec"]["ports"]}
    assert {one["port"] for one in monitor["spec"]["endpoints"]} <= named


@pytest.mark.parametrize("missing", REQUIRED)
def test_what_is_required_is_named_where_it_is_missing(missing: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=f"{missing}: "):
        rendered(**{missing: None})
