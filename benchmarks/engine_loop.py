"""How many tokens the engine's loop generates per second of wall time, beside another simulator on the same load.

The load: a closed loop of 32 users, 512 tokens in and 256 out, on Phi-3-mini and one T4. The other is the mocker of
ai-dynamo-runtime, a scheduler in Rust with constant costs; it is asked in a process of its own, and left out, with a
note, where it is not installed (`pip install '.[bench]'`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.figures import Figure
from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.setup import EngineModel

NAME = "engine"
USERS, INPUT_TOKENS, OUTPUT_TOKENS = 32, 512, 256
ARGUMENTS = ["microsoft/Phi-3-mini-4k-instruct", "--no-enable-prefix-caching", "--max-num-batched-tokens", "2048"]
TURNAROUND_S = 0.0015

_MOCKER = """
import json, time
import dynamo._core as core
given = {given}
engine = {{"num_gpu_blocks": given["blocks"], "block_size": 16, "max_num_seqs": 256, "max_num_batched_tokens": 2048,
          "enable_prefix_caching": False, "enable_chunked_prefill": True}}
began = time.perf_counter()
done = core.run_mocker_synthetic_trace_replay(
    given["input"], given["output"], given["requests"], replay_concurrency=given["users"],
    extra_engine_args={{"engine": engine}},
)
taken_s = time.perf_counter() - began
print(json.dumps({{"taken_s": taken_s, "tokens": done.summary["total_output_tokens"]}}))
"""


def measure(*, virtual_s: float) -> list[Figure]:
    """The loop with a cache too small for all users at once, as a T4's is, and with one that is large enough."""
    model = EngineModel.of(ARGUMENTS, "T4")
    _tokens_per_s(model, 20.0, leaps=True)  # the first leap imports NumPy
    requests, tight = _tokens_per_s(model, virtual_s, leaps=True)
    _, roomy = _tokens_per_s(EngineModel.of(ARGUMENTS, "A100-80G"), virtual_s, leaps=True)
    _, stepwise = _tokens_per_s(model, virtual_s, leaps=False)
    other, note = _mocker(requests, model.memory.kv_blocks)
    return [
        Figure(NAME, "tokens per wall second, cache full", tight / 1e6, "million", at_least=1.0),
        Figure(NAME, "the same, every step by itself", stepwise / 1e6, "million"),
        Figure(NAME, "the same, on an A100: room for all", roomy / 1e6, "million", at_least=1.0),
        Figure(NAME, "dynamo's mocker on the same load", other / 1e6 if other else None, "million", note=note),
        Figure(NAME, "ours over the mocker's", tight / other if other else None, "times"),
    ]


def _tokens_per_s(model: EngineModel, virtual_s: float, *, leaps: bool) -> tuple[int, float]:
    """Requests that ended, and tokens per wall second."""
    replica: Replica[Tracked] = Replica(model.engine(), model.cost, start_s=0.0, leaps=leaps)
    for user in range(USERS):
        replica.submit(Tracked(INPUT_TOKENS, OUTPUT_TOKENS, arrived_s=user * 0.002))
    ended = 0
    began = time.perf_counter()
    while replica.now_s < virtual_s:
        for request in replica.advance(virtual_s):
            replica.event_times(request)
            ended += 1
            replica.submit(Tracked(INPUT_TOKENS, OUTPUT_TOKENS, arrived_s=replica.now_s + TURNAROUND_S))
    return ended, ended * OUTPUT_TOKENS / (time.perf_counter() - began)


def _mocker(requests: int, blocks: int) -> tuple[float | None, str]:
    """Its tokens per wall second on as many requests, or why there are none."""
    given = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS, "users": USERS, "requests": requests, "blocks": blocks}
    done = subprocess.run(
        [sys.executable, "-c", _MOCKER.format(given=given)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return None, f"not measured: {last[0]}; install it with: pip install '.[bench]'"
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen["tokens"] != requests * OUTPUT_TOKENS:
        return None, f"not measured: it generated {seen['tokens']} tokens of {requests * OUTPUT_TOKENS}"
    return (
        seen["tokens"] / seen["taken_s"],
        f"{requests} requests; its costs are constants, so that only speed compares",
    )
