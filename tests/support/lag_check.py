"""How far off are the load generator's own stamps? Prints numbers; asserts nothing, since machines differ.

    python -m tests.support.lag_check --users 32 --tokens 256 --itl 0.02
    python -m tests.support.lag_check --rate 50 --tokens 8

Server and Locust run as processes of their own on loopback; both stamp with the same clock.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resources.load_generator import CompletionShape, LoadPlan, StagePlan
from resources.load_locust import LocustLoadGenerator


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--rate", type=float, help="requests per second, Poisson, instead of users")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--ttft", default="0.2")
    parser.add_argument("--itl", default="0.02")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.sse_server", "--ttft", given.ttft, "--itl", given.itl],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout and server.stdin
    try:
        base_url = server.stdout.readline().strip()
        stage = StagePlan(
            stage=0,
            users=None if given.rate else given.users,
            per_wall_s=given.rate,
            hold_wall_s=given.seconds,
            min_requests=given.users,
            max_hold_wall_s=given.seconds + 30,
        )
        plan = LoadPlan(
            run_id="lag",
            step="lag",
            base_url=base_url,
            model="m",
            profile="rate" if given.rate else "constant",
            arrivals="poisson",
            max_in_flight=512 if given.rate else None,
            shapes=[
                CompletionShape(
                    prompts="load-tests/prompts/fixed-512.json",
                    input_tokens=512,
                    output_tokens=given.tokens,
                    temperature=0.0,
                    timeout_wall_s=60,
                )
            ],
            stages=[stage],
        )
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            result = LocustLoadGenerator(processes=given.processes).run(
                plan, workdir=Path(folder), environ={}, progress=print
            )
            took_s = time.monotonic() - began
    finally:
        server.stdin.close()
        server.wait(10)

    done = [request for request in result.requests if request.outcome == "ok"]
    errors = [1000 * abs(r.event_offsets_s[0] - r.server_ttft_s) for r in done if r.server_ttft_s is not None]
    lags = [1000 * r.receive_lag_p99_s for r in done if r.receive_lag_p99_s is not None]
    late = [1000 * r.sent_offset_s for r in done]
    stage_record = result.stages[0]
    held_s = stage_record.ended_at - stage_record.started_at
    events = sum(
        stage_record.started_at <= request.scheduled_at + offset <= stage_record.ended_at
        for request in result.requests
        for offset in request.event_offsets_s
    )
    cpu = stage_record.client_cpu_share or 0.0
    print(f"requests ok {len(done)}, others {sorted({r.outcome for r in result.requests} - {'ok'})}")
    print(f"|client TTFT - server TTFT| ms: p50 {quantile(errors, 0.5):.2f}  p99 {quantile(errors, 0.99):.2f}")
    print(f"schedule lag ms: p50 {quantile(late, 0.5):.2f}  p99 {quantile(late, 0.99):.2f}")
    print(f"receive lag p99 per request, ms: p50 {quantile(lags, 0.5):.2f}  p99 {quantile(lags, 0.99):.2f}")
    print(f"client CPU share {cpu:.3f}, {1e6 * cpu * held_s / events:.1f} us per event ({events} events)")
    print(f"wall time beyond the hold: {took_s - held_s:.1f} s")


if __name__ == "__main__":
    main()
