"""What a chart renders to, as objects: their labels, their digest, and a chart that holds them as they are.

Belongs here: pure functions between Helm's text and objects; what Helm's program calls post-rendering, which its SDK
has no way to do. Doesn't belong here: calls of Helm's SDK (helm.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from resources.manifests import Manifest, labelled

HOOK_ANNOTATION = "helm.sh/hook"
TEST_HOOKS = ("test", "test-success", "test-failure")

_SEPARATOR = re.compile(r"(?:^|\s*\n)---\s*(?:#[^\n]*)?(?:\n|$)")
"""As Helm itself splits what a template renders to."""


def objects_of(text: str, read: Callable[[str], Mapping[str, Any]]) -> list[Manifest]:
    """The objects of a rendered manifest, lists taken apart. `read` reads one YAML document as Kubernetes does."""
    found: list[Manifest] = []
    for document in _SEPARATOR.split(text):
        if any(line.strip() and not line.lstrip().startswith("#") for line in document.splitlines()):
            one = dict(read(f"{document}\n"))  # a block of text that ends the document ends with a line break
            if one.get("kind", "").endswith("List") and isinstance(one.get("items"), list):
                found += one["items"]
            elif one:
                found.append(one)
    return found


def hooks_of(
    templates: Mapping[str, str], read: Callable[[str], Mapping[str, Any]], *, notes: str = "NOTES.txt"
) -> list[Manifest]:
    """The hooks among rendered templates, but for those that only `helm test` runs."""
    texts = [text for name, text in sorted(templates.items()) if not name.endswith(notes)]
    return [one for text in texts if HOOK_ANNOTATION in text for one in objects_of(text, read) if _is_hook(one)]


def _is_hook(manifest: Manifest) -> bool:
    said = ((manifest.get("metadata") or {}).get("annotations") or {}).get(HOOK_ANNOTATION, "")
    return bool(said) and not any(one.strip() in TEST_HOOKS for one in said.split(","))


def digest_of(manifests: Sequence[Manifest]) -> str:
    """`sha256:…` of the objects, whatever their order, as the chart and its values made them: without our labels, so
    that two runs of the same configuration have the same one."""
    written = "\n".join(sorted(json.dumps(one, sort_keys=True) for one in manifests))
    return f"sha256:{hashlib.sha256(written.encode()).hexdigest()}"


def scaled(manifests: Sequence[Manifest], replicas: int) -> list[Manifest]:
    """The objects, with `replicas` pods for every deployment and stateful set among them."""
    return [
        {**one, "spec": {**one["spec"], "replicas": replicas}} if one["kind"] in ("Deployment", "StatefulSet") else one
        for one in manifests
    ]


def workloads_of(manifests: Sequence[Manifest]) -> list[tuple[str, str]]:
    """(kind, name) of the objects whose pods are waited for."""
    return [
        (one["kind"], one["metadata"]["name"])
        for one in manifests
        if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet") and one["apiVersion"] == "apps/v1"
    ]


def finished_chart(
    metadata: Mapping[str, Any], manifests: Sequence[Manifest], *, labels: Mapping[str, str], notes: str | None
) -> bytes:
    """A chart archive whose templates render to exactly these objects with `labels`, pod templates included.

    Name and versions stay the chart's own. Its dependencies are left out: what they render to is among the objects.
    """
    kept = {name: value for name, value in metadata.items() if name not in ("dependencies", "kubeVersion", "type")}
    files = {"Chart.yaml": json.dumps(kept), "templates/objects.yaml": "".join(_written(manifests, labels))}
    if notes:
        files["templates/NOTES.txt"] = _literal(notes)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"{metadata['name']}/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def _written(manifests: Sequence[Manifest], labels: Mapping[str, str]) -> Iterator[str]:
    for one in manifests:
        yield f"---\n{_literal(json.dumps(labelled(one, labels)))}\n"


def _literal(text: str) -> str:
    """Text that Helm's template engine gives back as it is."""
    return text.replace("{{", '{{ "{{" }}')
