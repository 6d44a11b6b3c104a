"""The bare work, for comparison: the modelled server, Locust and one curl, without Dagster, Prometheus or warehouse.

    python benchmarks/bare.py --plan plan.json --records FOLDER --gpu T4 --time-scale 5 -- <vLLM's arguments>

`plan.json` is the plan that a lab run gave to Locust; only its base URL is replaced. Prints one JSON object with the
moments of its life, Unix time in seconds. It stands alone, so that what it takes is what the work itself takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0


def main() -> None:
    """Run it all and print when what happened. Exits with a message when a part fails."""
    began = time.time()
    options = _options()
    records: Path = options.records
    records.mkdir(parents=True)
    moments: dict[str, Any] = {"started_at": began}
    server = _start_server(options)
    try:
        served = _announced(server, records / "server.json")
        moments["server_ready_at"] = time.time()
        plan = records / "plan.json"
        plan.write_text(json.dumps({**json.loads(options.plan.read_text()), "base_url": served["base_url"]}))
        with (records / "locust.log").open("wb") as log:
            command = [sys.executable, "-m", "locust", "-f", str(ROOT / "load-tests" / "locust" / "locustfile.py")]
            command += ["--headless", "--only-summary", "--exit-code-on-error", "0"]
            command += ["--plan", str(plan), "--records", str(records)]
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if code != 0:
            sys.exit(f"Locust ended with code {code}; see {log.name}")
        moments["locust_ended_at"] = time.time()
        page = subprocess.run(["curl", "--silent", "--fail", served["metrics_url"]], capture_output=True, check=False)
        if page.returncode != 0:
            sys.exit(f"curl {served['metrics_url']} ended with code {page.returncode}")
        (records / "metrics.txt").write_bytes(page.stdout)
        moments["metrics_read_at"] = time.time()
    finally:
        server.terminate()
        server.wait()
    stages = [json.loads(line) for line in (records / "stages.ndjson").read_text().splitlines()]
    print(json.dumps({**moments, "stages": stages, "ended_at": time.time()}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--records", type=Path, required=True, help="a folder that doesn't exist yet")
    parser.add_argument("--gpu", required=True)
    parser.add_argument("--time-scale", required=True)
    parser.add_argument("--cold-start-time-scale", required=True)
    parser.add_argument("arguments", nargs="+", metavar="-- ARGUMENT", help="vLLM's own")
    return parser.parse_args()


def _start_server(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lab_pipelines.engine.serve", "--gpu", options.gpu]
    command += ["--time-scale", options.time_scale, "--cold-start-time-scale", options.cold_start_time_scale]
    command += ["--announce", str(options.records / "server.json"), "--log", str(options.records / "server.jsonl")]
    command += ["--", *options.arguments]
    with (options.records / "server.out").open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)


def _announced(server: subprocess.Popen[bytes], announcement: Path) -> dict[str, Any]:
    """What the server says of itself once it answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not announcement.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the modelled server did not start; see {announcement.with_name('server.out')}")
        time.sleep(0.02)
    return json.loads(announcement.read_text())


if __name__ == "__main__":
    main()
