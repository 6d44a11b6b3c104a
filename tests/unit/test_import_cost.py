"""Loading the code location brings no heavy SDK and touches no network, beyond what `import dagster` itself does."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TypedDict

from lab_pipelines.deployment import REPO_ROOT

HEAVY = {
    *[
        "kubernetes",
        "azure",
        "locust",
        "gevent",
        "geventhttpclient",
        "requests",
        "prometheus_api_client",
        "helm_python",
    ],
    *["pandas", "pyarrow", "numpy", "duckdb", "altair", "vl_convert"],
    *["uvicorn", "starlette", "prometheus_client", "psutil"],
}

# Tells which modules an import brought, which calls into the network it made, and which sockets it left open.
OBSERVED_IMPORT = """
import json, os, sys
calls = []
sys.addaudithook(lambda event, args: calls.append(event) if event.startswith("socket.") else None)
__import__(sys.argv[1])
sockets = []
for descriptor in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # the one that listed the folder
        continue
    if target.startswith("socket:"):
        sockets.append(target)
print(json.dumps({"modules": sorted({name.split(".")[0] for name in sys.modules}), "calls": calls, "sockets": sockets}))
"""


class Observation(TypedDict):
    modules: list[str]
    """Top-level packages."""
    calls: list[str]
    """Audit events of the socket module, in order."""
    sockets: list[str]


@cache
def observed_import(module: str, folder: Path = REPO_ROOT) -> Observation:
    done = subprocess.run(
        [sys.executable, "-c", OBSERVED_IMPORT, module],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_the_code_location_imports_no_heavy_package_beyond_what_dagster_imports() -> None:
    brought = set(observed_import("lab_pipelines.definitions")["modules"]) - set(observed_import("dagster")["modules"])
    assert {"lab_pipelines", "assets", "resources"} <= brought
    assert brought & HEAVY == set()


def test_loading_the_code_location_makes_no_network_call_that_dagster_does_not_make() -> None:
    assert observed_import("lab_pipelines.definitions")["calls"] == observed_import("dagster")["calls"]
    assert observed_import("lab_pipelines.definitions")["sockets"] == []


def test_an_import_that_connects_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "connecting.py").write_text(
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
    )
    seen = observed_import("connecting", tmp_path)
    assert "socket.connect" in seen["calls"]
    assert len(seen["sockets"]) >= 2
