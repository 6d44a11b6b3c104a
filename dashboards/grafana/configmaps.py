"""Dashboards as ConfigMaps: python -m dashboards.grafana.configmaps L01 L06 | kubectl apply -f -

kube-prometheus-stack runs a sidecar beside Grafana that loads every ConfigMap of the cluster with the label
`grafana_dashboard: "1"` (its values `grafana.sidecar.dashboards.label`, `labelValue` and `searchNamespace: ALL`), and
takes the dashboard away when the ConfigMap goes. A ConfigMap lies in its lab's own namespace, and goes with it, unless
`--namespace` says another; that of the serving reference lies in `monitoring`. Without names the command prints all.

Doesn't belong here: applying them, Grafana's data sources, which the chart provides, or the dashboard of cost, which
asks a file that no cluster has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from dashboards.grafana import gpu_serving
from dashboards.grafana.build import FOLDER
from lab_pipelines.catalog.loader import load_catalog

SIDECAR_LABEL = ("grafana_dashboard", "1")
WITHOUT_LAB = (gpu_serving.UID,)
"""Dashboards of no lab, by uid."""
MONITORING = "monitoring"
"""The namespace of those."""


def configmap(path: Path, *, namespace: str | None = None) -> dict[str, Any]:
    """The ConfigMap that brings the dashboard in `path`, a file named as the dashboard's uid, to Grafana."""
    label, value = SIDECAR_LABEL
    if path.stem in WITHOUT_LAB:
        home, labels = MONITORING, dict[str, str]()
    else:
        identity = load_catalog().lab(lab_of(path))
        home, labels = identity.namespace, identity.cost_labels
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"dashboard-{path.stem}",
            "namespace": namespace or home,
            "labels": {label: value, **labels},
        },
        "data": {path.name: path.read_text(encoding="utf-8")},
    }


def lab_of(path: Path) -> str:
    """The lab's id from its dashboard's file name: L06 from l06-load-test-contract.json."""
    return path.stem.partition("-")[0].upper()


def main(argv: list[str] | None = None) -> int:
    """Print the ConfigMaps as YAML. The exit code: 2 for a lab without a dashboard."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.grafana.configmaps", description="Print dashboards as ConfigMaps for kubectl apply."
    )
    parser.add_argument("--namespace", help="where the ConfigMaps go, e.g. monitoring; unless given, the lab's own")
    parser.add_argument("labs", nargs="*", metavar="LAB", help="e.g. L06, or gpu-serving; all unless given")
    options = parser.parse_args(argv)
    by_lab = {lab_of(path): path for path in sorted(FOLDER.glob("l[0-9]*.json"))}
    by_lab |= {uid: FOLDER / f"{uid}.json" for uid in WITHOUT_LAB}
    if unknown := [lab for lab in options.labs if lab not in by_lab]:
        print(f"no dashboard for {', '.join(unknown)}; there is one for: {', '.join(by_lab)}", file=sys.stderr)
        return 2
    chosen = [by_lab[lab] for lab in options.labs or by_lab]
    documents = [configmap(path, namespace=options.namespace) for path in chosen]
    yaml.dump_all(documents, sys.stdout, Dumper=_Readable, sort_keys=False, allow_unicode=True)
    return 0


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as lines, so that a dashboard can be read and compared in what is applied."""


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _as_block)


if __name__ == "__main__":
    sys.exit(main())
