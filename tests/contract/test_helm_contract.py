"""Releases on a cluster: installed, upgraded, taken back, recovered, removed, by Helm's own code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.deployment import REPO_ROOT
from resources import helm
from resources.helm import Applied
from resources.helm_sdk import ReleaseError
from resources.kube_api import Deadline
from tests.support.contract import IMAGE, LABELS, NOWHERE, WITHIN_S, Place, unique, until

pytestmark = pytest.mark.cluster

CHART = REPO_ROOT / "tests/data/charts/pause"
MakeNode = Callable[..., dict[str, str]]


def apply(
    place: Place, values: Mapping[str, Any], *, within_s: float = WITHIN_S, told: list[str] | None = None
) -> Applied:
    return place.releases.apply(
        "rest",
        CHART,
        values,
        labels=LABELS,
        deadline=Deadline.within(within_s),
        progress=(told if told is not None else []).append,
    )


def statuses(place: Place) -> list[tuple[int, str]]:
    history = place.releases.history("rest", deadline=Deadline.within(WITHIN_S))
    return [(one.revision, one.status) for one in history]


def deployment(place: Place) -> Any:
    return place.ask("GET", f"/apis/apps/v1/namespaces/{place.namespace}/deployments/rest")


def test_a_chart_is_installed_and_every_object_and_pod_carries_the_labels(place: Place, make_node: MakeNode) -> None:
    told: list[str] = []
    applied = apply(place, {"replicas": 2, "nodeSelector": make_node()}, told=told)
    assert (applied.release.revision, applied.release.status, applied.release.chart) == (1, "deployed", "pause-0.1.0")
    assert applied.manifest_digest.startswith("sha256:")
    assert applied.notes is not None and "rest does nothing, 2 times. Braces stay: {{ so }}" in applied.notes
    assert deployment(place)["status"]["availableReplicas"] == 2
    every = {**LABELS, helm.RELEASE_LABEL: "rest"}
    for one in (deployment(place), place.read("configmaps", "rest-notes"), *place.pods(app="rest")):
        assert one["metadata"]["labels"].items() >= every.items()
    assert place.read("configmaps", "rest-notes")["data"] == {
        "braces": "{{ .Values }}",
        "mode": "0644",
        "at": "12:30:00",
    }
    assert told[0] == "rest: installing pause 0.1.0" and told[-1] == "rest: revision 1 is ready"


DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rests.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Rest, listKind: RestList, plural: rests, singular: rest}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, required: [hours], properties: {hours: {type: integer}}}
"""
OF_THE_KIND = """
{{- if .Capabilities.APIVersions.Has "GROUP/v1" }}
apiVersion: GROUP/v1
kind: Rest
metadata: {name: rest}
spec: {hours: 8}
{{- end }}
"""


def test_a_kind_that_the_chart_itself_brings_is_served_before_it_is_rendered(place: Place, tmp_path: Path) -> None:
    group, chart = f"{unique('g')}.labs.example", tmp_path / "chart"
    (chart / "crds").mkdir(parents=True)
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: rest\nversion: 0.1.0\n", encoding="utf-8")
    (chart / "crds/rest.yaml").write_text(DEFINITION.replace("GROUP", group), encoding="utf-8")
    (chart / "templates/rest.yaml").write_text(OF_THE_KIND.replace("GROUP", group), encoding="utf-8")
    try:
        place.releases.apply(
            "rest", chart, {}, labels=LABELS, deadline=Deadline.within(WITHIN_S), progress=lambda line: None
        )
        rest = place.ask("GET", f"/apis/{group}/v1/namespaces/{place.namespace}/rests/rest")
        assert rest["spec"] == {"hours": 8} and rest["metadata"]["labels"].items() >= LABELS.items()
    finally:
        place.ask("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rests.{group}")


def test_an_upgrade_replaces_the_pods_and_the_same_values_render_to_the_same_digest(
    place: Place, make_node: MakeNode
) -> None:
    node = make_node()
    first = apply(place, {"nodeSelector": node})
    second = apply(place, {"nodeSelector": node, "replicas": 2})
    again = apply(place, {"nodeSelector": node})
    assert [first.release.revision, second.release.revision, again.release.revision] == [1, 2, 3]
    assert statuses(place) == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
    assert first.manifest_digest == again.manifest_digest != second.manifest_digest
    assert len([one for one in place.pods(app="rest") if "deletionTimestamp" not in one["metadata"]]) == 1


def test_an_upgrade_whose_pods_find_no_node_is_explained_and_rolled_back(place: Place, make_node: MakeNode) -> None:
    node = make_node()
    apply(place, {"nodeSelector": node})
    with pytest.raises(ReleaseError, match="release rest was not ready in time") as raised:
        apply(place, {"nodeSelector": NOWHERE}, within_s=4.0)
    said = str(raised.value)
    assert "\n" not in said
    assert "nodes are available" in said and "didn't match Pod's node affinity/selector" in said
    assert said.endswith("(it was rolled back to revision 1)")
    [trouble] = [one for one in raised.value.troubles if one.about.startswith("pod ")]
    assert any(event.startswith("FailedScheduling: ") for event in trouble.events)
    assert statuses(place) == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
    assert deployment(place)["spec"]["template"]["spec"]["nodeSelector"] == node


def test_an_installation_that_fails_leaves_nothing(place: Place) -> None:
    with pytest.raises(ReleaseError, match=r"not ready in time: .*\(it was removed\)$"):
        apply(place, {"nodeSelector": NOWHERE}, within_s=4.0)
    assert statuses(place) == []
    until(lambda: not place.pods(app="rest"), "its pods are gone")


def test_an_installation_that_a_quota_refuses_quotes_the_quota(place: Place, make_node: MakeNode) -> None:
    hard = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    assert place.apply(hard) is None
    with pytest.raises(ReleaseError, match="exceeded quota: none, requested: pods=1") as raised:
        apply(place, {"nodeSelector": make_node()}, within_s=4.0)
    assert "Deployment rest: " in str(raised.value)


def test_values_that_the_api_server_refuses_change_nothing(place: Place, make_node: MakeNode) -> None:
    node = make_node()
    apply(place, {"nodeSelector": node})
    with pytest.raises(ReleaseError, match=r"release rest can't be (rendered|upgraded): ") as raised:
        apply(place, {"nodeSelector": node, "replicas": "many"})
    assert "\n" not in str(raised.value)
    assert deployment(place)["spec"]["replicas"] == 1
    assert statuses(place)[-1][1] == "deployed"


def test_a_secret_among_the_values_is_in_no_error(place: Place) -> None:
    secret = "correct-horse-battery"
    with pytest.raises(ReleaseError) as raised:
        apply(place, {"password": secret, "replicas": f"password: {secret}", "nodeSelector": NOWHERE}, within_s=4.0)
    assert secret not in str(raised.value) and secret not in repr(raised.value.troubles)


def test_a_revision_can_be_gone_back_to(place: Place, make_node: MakeNode) -> None:
    node = make_node()
    apply(place, {"nodeSelector": node})
    apply(place, {"nodeSelector": node, "replicas": 3})
    back = place.releases.rollback("rest", 1, deadline=Deadline.within(WITHIN_S), progress=lambda line: None)
    assert (back.revision, back.status) == (3, "deployed")
    until(lambda: deployment(place)["status"].get("replicas") == 1, "two pods are gone")


def test_what_is_uninstalled_is_gone_with_what_lies_outside_of_the_namespace(place: Place, make_node: MakeNode) -> None:
    apply(place, {"nodeSelector": make_node(), "clusterRole": True})
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    mine = {"query": {"labelSelector": f"{helm.RELEASE_LABEL}=rest"}}
    name = f"{place.namespace}-rest"
    assert name in [one["metadata"]["name"] for one in place.ask("GET", roles, **mine)["items"]]
    deadline = Deadline.within(WITHIN_S)
    assert place.releases.uninstall("rest", deadline=deadline, progress=lambda line: None)
    assert name not in [one["metadata"]["name"] for one in place.ask("GET", roles, **mine)["items"]]
    assert statuses(place) == []
    assert not place.releases.uninstall("rest", deadline=deadline, progress=lambda line: None)


RUN = """
import sys
from pathlib import Path
from resources import kube_api
from resources.helm import HelmReleases
from resources.kube_api import Deadline
kubeconfig, namespace, chart, image = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
with kube_api.connect(kubeconfig) as api_client:
    HelmReleases(api_client, kubeconfig=kubeconfig, context=None, namespace=namespace).apply(
        "rest", chart, {"hookOn": {"labs.example/no-such-label": "true"}, "image": image},
        labels={}, deadline=Deadline.within(300), progress=print,
    )
"""


def kill_in_the_middle(place: Place, status: str) -> None:
    """A run that installs or upgrades `rest` in a process of its own, killed while its hook waits for a node."""
    command = [sys.executable, "-c", RUN, str(place.kubeconfig), place.namespace, str(CHART), IMAGE]
    run = subprocess.Popen(command, cwd=REPO_ROOT, start_new_session=True)
    try:
        until(lambda: statuses(place)[-1:] and statuses(place)[-1][1] == status, f"the release is {status}")
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    assert statuses(place)[-1][1] == status


def test_a_run_killed_while_it_installs_is_recovered_from(place: Place, make_node: MakeNode) -> None:
    kill_in_the_middle(place, "pending-install")
    told: list[str] = []
    applied = apply(place, {"nodeSelector": make_node()}, told=told)
    assert told[0] == "rest: was left pending-install; removing it"
    assert (applied.release.revision, applied.release.status) == (1, "deployed")


def test_a_run_killed_while_it_upgrades_is_recovered_from(place: Place, make_node: MakeNode) -> None:
    node = make_node()
    apply(place, {"nodeSelector": node})
    kill_in_the_middle(place, "pending-upgrade")
    told: list[str] = []
    applied = apply(place, {"nodeSelector": node, "replicas": 2}, told=told)
    assert told[0] == "rest: was left pending-upgrade; rolling back to revision 1"
    assert (applied.release.revision, applied.release.status) == (4, "deployed")
    assert deployment(place)["status"]["availableReplicas"] == 2


def test_a_killed_installation_can_be_uninstalled(place: Place) -> None:
    kill_in_the_middle(place, "pending-install")
    assert place.releases.uninstall("rest", deadline=Deadline.within(WITHIN_S), progress=lambda line: None)
    assert statuses(place) == []


def test_nothing_is_printed(place: Place, make_node: MakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    apply(place, {"nodeSelector": make_node()})
    with pytest.raises(ReleaseError):
        apply(place, {"nodeSelector": NOWHERE}, within_s=2.0)
    assert capfd.readouterr() == ("", "")


def test_a_chart_that_is_not_there_is_named(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=f"chart {tmp_path}/none can't be used: "):
        place.releases.apply(
            "rest", tmp_path / "none", {}, labels={}, deadline=Deadline.within(WITHIN_S), progress=lambda line: None
        )
