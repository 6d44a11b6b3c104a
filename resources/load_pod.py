"""What a pod of a load runs: Locust, and when that has ended well, the way of its records to the lake.

    python -m resources.load_pod --records FOLDER --incoming URL -- LOCUST'S ARGUMENTS

Belongs here: the first process of the pod. Doesn't belong here: what it is started with (load_jobs.py), or anything
that costs time beside Locust: what writes to the lake is imported when the load is over.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab_pipelines.deployment import REPO_ROOT

NOT_BROUGHT = 4
"""Exit code when the load was whole and its records didn't reach the lake."""


def main(argv: Sequence[str] | None = None) -> int:
    """Locust's exit code; 128 + the signal when the pod was told to end, and then nothing is brought."""
    options = _options(argv)
    options.records.mkdir(parents=True)
    told: list[int] = []
    # Paths in the plan are relative to the repository, which is the image's own folder.
    locust = subprocess.Popen([sys.executable, "-m", "locust", *options.locust], cwd=REPO_ROOT)

    def end(number: int, frame: object) -> None:
        told.append(number)
        locust.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    code = locust.wait()
    if told:
        return 128 + told[0]
    if code != 0:
        return code
    return _bring(options.records, options.incoming)


def _bring(records: Path, incoming: str) -> int:
    from resources.load_incoming import IncomingError, put

    try:
        lines = put(incoming, os.environ["POD_NAME"], records)
    except IncomingError as error:
        print(f"load_pod/ERROR/ the records can't be written to {error}", flush=True)
        return NOT_BROUGHT
    print(f"{lines} lines are at {incoming}", flush=True)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m resources.load_pod", description=__doc__)
    parser.add_argument("--records", type=Path, required=True, help="the folder that Locust writes to; made anew")
    parser.add_argument("--incoming", required=True, help="URL of the folder in the lake")
    parser.add_argument("locust", nargs=argparse.REMAINDER, help="Locust's own arguments, behind --")
    options = parser.parse_args(argv)
    options.locust = options.locust[1:] if options.locust[:1] == ["--"] else options.locust
    return options


if __name__ == "__main__":
    sys.exit(main())
