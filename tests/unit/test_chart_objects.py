"""What a chart renders to, taken apart and put into a chart of its own."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import yaml

from resources import chart_objects

TEXT = """---
# Source: x/templates/a.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data:
  text: |
    one
      ---
    two
---
# Source: x/templates/empty.yaml
# nothing but comments

---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Service, metadata: {name: b}}
  - {apiVersion: v1, kind: Service, metadata: {name: c}}
"""


def names(manifests: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["name"] for one in manifests]


def test_documents_are_told_apart_as_helm_does_and_lists_are_opened() -> None:
    manifests = chart_objects.objects_of(TEXT, yaml.safe_load)
    assert names(manifests) == ["a", "b", "c"]
    assert manifests[0]["data"]["text"] == "one\n  ---\ntwo\n"


def hook(name: str, kinds: str) -> str:
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"helm.sh/hook": kinds}}}
    )


def test_hooks_are_taken_but_for_those_of_a_test() -> None:
    templates = {
        "x/templates/a.yaml": f"{hook('before', 'pre-install, pre-upgrade')}---\n{hook('check', 'test')}",
        "x/templates/b.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: plain}\n",
        "x/templates/NOTES.txt": "says helm.sh/hook: and is no YAML: {",
    }
    assert names(chart_objects.hooks_of(templates, yaml.safe_load)) == ["before"]


def test_the_digest_knows_the_objects_and_not_their_order() -> None:
    one, two = {"kind": "A", "metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "kind": "B"}
    assert chart_objects.digest_of([one, two]) == chart_objects.digest_of([two, one])
    assert chart_objects.digest_of([one]) != chart_objects.digest_of([one, two])


def test_a_finished_chart_has_the_charts_name_and_the_labelled_objects_and_no_dependency() -> None:
    metadata = {
        "name": "x",
        "version": "1.2.3",
        "apiVersion": "v2",
        "dependencies": [{"name": "y"}],
        "kubeVersion": ">1",
    }
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {}}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": {"template": template},
    }
    archive = chart_objects.finished_chart(metadata, [manifest], labels={"lab": "l06"}, notes="read {{ this }}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {one.name: tar.extractfile(one).read().decode() for one in tar.getmembers()}  # pyright: ignore[reportOptionalMemberAccess]
    assert json.loads(files["x/Chart.yaml"]) == {"name": "x", "version": "1.2.3", "apiVersion": "v2"}
    assert files["x/templates/NOTES.txt"] == 'read {{ "{{" }} this }}'
    [made] = yaml.safe_load_all(files["x/templates/objects.yaml"])
    assert made["metadata"]["labels"] == {"lab": "l06"}
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "a", "lab": "l06"}
