"""The modelled vLLM server as a process: python -m lab_pipelines.engine.serve --gpu T4 … -- MODEL [vLLM's arguments]

Belongs here: the process's own options, its part of the cold start, what it logs.
Doesn't belong here: what every server process shares (lab_pipelines/loopback.py), HTTP (api.py), time (pacer.py), what
a request or an argument means (protocol.py, args.py).

It plays the cold-start phases that belong to the engine's process (model_loaded, engine_ready), then binds two ports
and writes the announce file if one is asked for (lab_pipelines/loopback.py). A mistake in the arguments ends it with
exit code 2, a model that doesn't fit its GPU with 1; both say why on stderr, and once the log is open, in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Sequence

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lab_pipelines import loopback
from lab_pipelines.engine import tables
from lab_pipelines.engine.api import RECEIVED_NS, DcgmApi, VllmApi
from lab_pipelines.engine.args import EngineArgsError
from lab_pipelines.engine.cold_start import cold_start_plan
from lab_pipelines.engine.dcgm_metrics import DcgmMetrics
from lab_pipelines.engine.drafts import accepted_drafts
from lab_pipelines.engine.gpu_state import GpuState
from lab_pipelines.engine.memory import BLOCK_TOKENS, GpuMemoryError
from lab_pipelines.engine.pacer import Pacer
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.vllm_metrics import ProcessMetrics, VllmMetrics
from lab_pipelines.loopback import JsonLog

_PLAYED_HERE = ("model_loaded", "engine_ready")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to end. The exit code."""
    options = _options(sys.argv[1:] if argv is None else argv)
    log = JsonLog(options.log)
    try:
        model = EngineModel.of(options.vllm, options.gpu, options.gpus)
    except (EngineArgsError, tables.UnknownNameError) as error:
        return _fail(log, 2, "wrong_arguments", str(error))
    except GpuMemoryError as error:
        return _fail(log, 1, "out_of_memory", str(error))
    _play_cold_start(model, log, options.cold_start_time_scale)
    try:
        sockets = [
            loopback.listen(port, option, host=options.host)
            for port, option in ((options.port, "--port"), (options.dcgm_port, "--dcgm-port"))
        ]
    except OSError as error:
        return _fail(log, 1, "port_in_use", str(error))
    with asyncio.Runner(loop_factory=loopback.event_loop) as runner:
        runner.run(_serve(model, sockets, log, options))
    log.write("info", "stopped")
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab_pipelines.engine.serve",
        description="A modelled vLLM server. vLLM's own arguments follow after --.",
    )
    parser.add_argument("--gpu", required=True, help=f"one of {', '.join(tables.all_hardware())}")
    parser.add_argument("--gpus", type=int, default=1, help="how many of them the engine uses")
    parser.add_argument("--time-scale", type=loopback.positive, default=1.0, help="stack seconds per wall second")
    parser.add_argument(
        "--cold-start-time-scale", type=loopback.positive, default=1.0, help="the same, while it comes up"
    )
    parser.add_argument("--host", default=loopback.HOST, help="address to bind; in a pod 0.0.0.0")
    parser.add_argument("--announce", type=loopback.in_a_folder, help="JSON file to write when it answers")
    parser.add_argument(
        "--log", type=loopback.log_target, required=True, help="file to append JSON lines to; -: standard output"
    )
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--dcgm-port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("vllm", nargs="*", metavar="-- VLLM ARGUMENT")
    # argparse would take vLLM's own options for ours, so they are split off first.
    ours, separator, vllm = list(argv), "--", []
    if separator in ours:
        cut = ours.index(separator)
        ours, vllm = ours[:cut], ours[cut + 1 :]
    options = parser.parse_args(ours)
    options.vllm += vllm
    return options


def _fail(log: JsonLog, code: int, event: str, message: str) -> int:
    log.write("error", event, message=message)
    print(message, file=sys.stderr)
    return code


def _play_cold_start(model: EngineModel, log: JsonLog, time_scale: float) -> None:
    for phase in cold_start_plan(model.hardware.name, model.args.model.name):
        if phase.name not in _PLAYED_HERE:
            continue
        started = time.time()
        time.sleep(phase.duration_s / time_scale)
        log.write(
            "info",
            "cold_start",
            phase=phase.name,
            duration_s=phase.duration_s,
            started_at=started,
            ended_at=time.time(),
            source=phase.source,
            confidence=phase.confidence,
        )


async def _serve(
    model: EngineModel,
    sockets: list[socket.socket],
    log: JsonLog,
    options: argparse.Namespace,
) -> None:
    scale, args = options.time_scale, model.args
    metrics, process = VllmMetrics(args, model.memory, time_scale=scale), ProcessMetrics()
    gpu = GpuState(model.hardware, time.monotonic() * scale)
    engine = model.engine(accepted_drafts(model, lambda stream: stream.job.text))
    pacer = Pacer(
        engine,
        model.cost,
        metrics,
        gpu,
        time_scale=scale,
        on_finished=lambda finished: log.write(**finished.log_fields()),
    )
    exporter = DcgmMetrics(model.hardware, gpu, used_bytes=model.used_bytes, gpus=model.gpus)
    servers = [
        loopback.Server(VllmApi(args, pacer, metrics, process, time_scale=scale), protocol=_StampingProtocol),
        loopback.Server(DcgmApi(exporter, pacer.stack_now)),
    ]
    stop = loopback.stop_on_signals(servers)
    pacing = asyncio.create_task(pacer.run())
    pacing.add_done_callback(lambda _: stop())
    urls = [loopback.url_of(listener) for listener in sockets]
    tokens = model.memory.kv_blocks * BLOCK_TOKENS
    log.write(
        "info",
        "serving",
        base_url=f"{urls[0]}/v1",
        kv_blocks=model.memory.kv_blocks,
        kv_cache_tokens=tokens,
        max_concurrency=round(tokens / args.max_model_len, 2),
        weights_bytes=round(model.memory.weights_bytes),
        time_scale=scale,
    )
    if options.announce is not None:
        loopback.announce(
            options.announce,
            {"base_url": f"{urls[0]}/v1", "metrics_url": f"{urls[0]}/metrics", "dcgm_url": f"{urls[1]}/metrics"},
        )
    await loopback.serve(servers, sockets)
    pacing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pacing  # raises what ended it, if it wasn't this


class _StampingProtocol(HttpToolsProtocol):
    """Notes when a request's last byte was read.

    Several requests often arrive together, as streams that were in step end together. They are read in one go and
    answered one after the other; a stamp taken only when a request's turn comes leaves out the wait for it.
    """

    def on_message_complete(self) -> None:
        self.scope[RECEIVED_NS] = time.monotonic_ns()  # pyright: ignore[reportGeneralTypeIssues] - a key of our own
        super().on_message_complete()


if __name__ == "__main__":
    sys.exit(main())
