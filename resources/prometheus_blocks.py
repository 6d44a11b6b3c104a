"""A real Prometheus over series that were written with timestamps of their own.

Belongs here: making blocks of OpenMetrics files and serving them. Doesn't belong here: scraping
(prometheus_server.py), or what is asked (telemetry.py).
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from resources import binaries, free_port, processes
from resources.cluster import ClusterError

BLOCK_DURATION = "24h"
"""Of one block at most. promtool reads a file once for each; its own two hours would read a long one many times."""
RETENTION = "10y"
LOOKBACK = "15s"
"""How old a series' last sample may be: three scrapes of a rehearsal. No block says that a target has gone, as a
scraping Prometheus does, and its own five minutes let one variant's gauges answer in the next one's first stage."""
LONGEST_MAKING_S = 300.0
"""promtool takes in some three hundred thousand samples a second: nothing that is rehearsed comes near."""


class PrometheusBlocks:
    """Blocks below `folder`, and the Prometheus that serves them. `environ` marks every process that is started.

    Blocks are made in the background, so that a file that is complete costs no time of whoever writes the next one.
    """

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self._blocks = folder / "blocks"
        self._blocks.mkdir(parents=True)
        self._making: list[tuple[Path, subprocess.Popen[bytes]]] = []
        self._url: str | None = None
        """Of the Prometheus that is up."""

    def add(self, openmetrics: Path) -> None:
        """Begin to make blocks of a file, whose samples are later than those of every other; the file goes then.

        Raises `ClusterError`.
        """
        try:
            promtool = binaries.find("promtool")
        except binaries.BinaryNotFoundError as error:
            raise ClusterError(str(error)) from None
        process = processes.spawn(
            [
                *[str(promtool), "tsdb", "create-blocks-from", f"--max-block-duration={BLOCK_DURATION}", "--quiet"],
                *["openmetrics", str(openmetrics), str(openmetrics.with_suffix(".blocks"))],
            ],
            environ=self._environ,
            log=openmetrics.with_suffix(".log"),
            cwd=self._folder,
        )
        self._making.append((openmetrics, process))

    def serve(self) -> str:
        """The URL of a Prometheus that has everything that was added. Raises `ClusterError`."""
        if self._url is not None and not self._making:
            return self._url
        while self._making:
            self._finish(*self._making.pop())
        self._stop()
        config = self._folder / "prometheus.yml"
        config.write_text("{}", encoding="utf-8")
        self._url = free_port.start(
            "prometheus",
            lambda port: [
                f"--config.file={config}",
                f"--storage.tsdb.path={self._blocks}",
                f"--storage.tsdb.retention.time={RETENTION}",
                f"--query.lookback-delta={LOOKBACK}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            ready="/-/ready",
            log=self._folder / "prometheus.log",
            folder=self._folder,
            environ=self._environ,
        )
        return self._url

    def _finish(self, openmetrics: Path, process: subprocess.Popen[bytes]) -> None:
        """Wait for a file's blocks, and put them with the others."""
        # wait(timeout) looks every 50 ms; this returns when the process does.
        limit = threading.Timer(LONGEST_MAKING_S, process.kill)
        limit.start()
        code = process.wait()
        limit.cancel()
        log, made = openmetrics.with_suffix(".log"), openmetrics.with_suffix(".blocks")
        if code != 0:
            said = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
            raise ClusterError(f"promtool could not make blocks of {openmetrics}; it ended with code {code}: {said}")
        for meta in made.glob("*/meta.json"):
            meta.parent.rename(self._blocks / meta.parent.name)
        made.rmdir()
        openmetrics.unlink()
        log.unlink()

    def _stop(self) -> None:
        """End the Prometheus that is up, if any: nothing else of the lease runs while none of its blocks are made."""
        if self._url is not None:
            state_dir, lease_id = (
                self._environ[name] for name in (processes.STATE_DIR_VARIABLE, processes.LEASE_ID_VARIABLE)
            )
            processes.end(processes.find_marked_in(state_dir).get(lease_id, []))
            self._url = None
