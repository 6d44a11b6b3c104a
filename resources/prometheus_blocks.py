"""A real Prometheus over series that were written with timestamps of their own.

Belongs here: making blocks of an OpenMetrics file and serving them. Doesn't belong here: scraping
(prometheus_server.py), or what is asked (telemetry.py).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from resources import binaries, free_port
from resources.cluster import ClusterError

BLOCK_DURATION = "24h"
"""Of one block. promtool reads the file once for each; its own two hours would read a long rehearsal many times."""
RETENTION = "10y"


def serve(openmetrics: Path, *, folder: Path, environ: dict[str, str]) -> str:
    """Make blocks of the file in `folder`, start Prometheus on them, and return its URL. Raises `ClusterError`."""
    blocks = folder / "blocks"
    shutil.rmtree(blocks, ignore_errors=True)
    try:
        promtool = binaries.find("promtool")
    except binaries.BinaryNotFoundError as error:
        raise ClusterError(str(error)) from None
    made = subprocess.run(
        [
            *[str(promtool), "tsdb", "create-blocks-from", f"--max-block-duration={BLOCK_DURATION}", "--quiet"],
            *["openmetrics", str(openmetrics), str(blocks)],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise ClusterError(f"promtool could not make blocks of {openmetrics}: {made.stderr.strip()[-500:]}")
    config = folder / "prometheus.yml"
    config.write_text("{}", encoding="utf-8")
    return free_port.start(
        "prometheus",
        lambda port: [
            f"--config.file={config}",
            f"--storage.tsdb.path={blocks}",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        ready="/-/ready",
        log=folder / "prometheus.log",
        folder=folder,
        environ=environ,
    )
