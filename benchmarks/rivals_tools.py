"""The load generators that are compared: how each is told to make the same load, and what each says it saw.

Belongs here: commands, and reading what a tool exports of each request. Its names for its own requests are joined here
with the server's log, so that every answer stands beside what was really sent.
Doesn't belong here: installing them (rivals_install.py), running and measuring them (rivals.py).
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from streaming_load.prompts import nonce

from benchmarks.rivals_server import MODEL, name_of
from lab_pipelines.deployment import REPO_ROOT
from resources.load_generator import CompletionShape, LoadPlan, StagePlan
from resources.load_locust import LOCUSTFILE, locust_arguments
from resources.load_records import begin_folder, read_result

_RUN_ID = "rivals"
_NOT_OUR_PACKAGES = {"PYTHONPATH": ""}
"""For a program of another virtual environment."""
_SPARE_S = 0.5
"""What a wave of our closed loop may take longer than the server alone does. What begins after the last one is cut."""


@dataclass(frozen=True)
class Level:
    """So many streams at once, each of them so many times over."""

    streams: int
    waves: int
    tokens: int
    ttft_s: float
    itl_s: float

    @property
    def requests(self) -> int:
        return self.streams * self.waves


@dataclass(frozen=True)
class Sent:
    """One answer as the server sent it: a line of its log."""

    id: str
    asked_as: str
    received_ns: int
    sent_ns: list[int]

    @property
    def ttft_s(self) -> float:
        return (self.sent_ns[0] - self.received_ns) / 1e9

    @property
    def mean_itl_s(self) -> float:
        return (self.sent_ns[-1] - self.sent_ns[0]) / 1e9 / (len(self.sent_ns) - 1)

    @cached_property
    def gaps_s(self) -> list[float]:
        return [(after - before) / 1e9 for before, after in pairwise(self.sent_ns)]


@dataclass(frozen=True)
class Seen:
    """The same answer as a tool reports it."""

    sent: Sent
    ttft_s: float
    mean_itl_s: float
    gaps_s: list[float] = field(default_factory=list)
    """Between each event and the next; empty for a tool that keeps none."""

    @classmethod
    def of(cls, sent: Sent, ttft_s: float, gaps_s: Sequence[float]) -> Seen:
        """From the gaps. A tool that counts the event of the finish reason, too, has one more than there are tokens."""
        gaps = list(gaps_s[: len(sent.sent_ns) - 1])
        return cls(sent, ttft_s, sum(gaps) / len(gaps), gaps)

    @property
    def last_event_error_s(self) -> float:
        """How much later than it was sent the last event seems to have come."""
        count = len(self.sent.sent_ns) - 1
        return self.ttft_s + count * self.mean_itl_s - self.sent.ttft_s - count * self.sent.mean_itl_s


class Tool(ABC):
    """A load generator."""

    name: ClassVar[str]

    @abstractmethod
    def command(self, level: Level, *, url: str, folder: Path) -> list[str]:
        """What makes the load of `level` at the server of `url`, leaving its results in `folder`, an empty one."""

    @abstractmethod
    def seen(self, folder: Path, sent: Sequence[Sent]) -> list[Seen]:
        """Every answer that the tool reports whole. `sent` are those that the server finished."""

    @property
    def environ(self) -> dict[str, str]:
        """Added to the environment."""
        return {}


class Ours(Tool):
    """Locust with our locustfile, as a lab runs it."""

    name = "ours"

    def command(self, level: Level, *, url: str, folder: Path) -> list[str]:
        wave_s = level.ttft_s + level.tokens * level.itl_s + _SPARE_S
        stage = StagePlan(
            stage=0,
            users=level.streams,
            hold_wall_s=level.waves * wave_s,
            min_requests=level.streams,
            max_hold_wall_s=level.waves * wave_s + 10,
        )
        shape = CompletionShape(
            prompts=str(REPO_ROOT / "load-tests" / "prompts" / "fixed-512.json"),
            input_tokens=512,
            output_tokens=level.tokens,
            temperature=0.0,
            timeout_wall_s=60,
        )
        plan = LoadPlan(
            run_id=_RUN_ID,
            step="rivals",
            base_url=f"{url}/v1",
            model=MODEL,
            profile="constant",
            shapes=[shape],
            stages=[stage],
        )
        arguments = locust_arguments(str(LOCUSTFILE), plan=str(begin_folder(folder, plan)), records=str(folder))
        return [sys.executable, "-m", "locust", *arguments]

    def seen(self, folder: Path, sent: Sequence[Sent]) -> list[Seen]:
        by_name = {answer.asked_as: answer for answer in sent}
        found = []
        for record in read_result(folder).requests:
            answer = by_name.get(name_of(nonce(_RUN_ID, record.request_id)))
            if answer is not None and record.outcome == "ok":
                gaps = [after - before for before, after in pairwise(record.event_offsets_s)]
                found.append(Seen.of(answer, record.event_offsets_s[0] - record.sent_offset_s, gaps))
        return found


class Bare(Tool):
    """aiohttp on uvloop, and nothing else."""

    name = "bare aiohttp"

    def command(self, level: Level, *, url: str, folder: Path) -> list[str]:
        script = str(Path(__file__).with_name("rivals_bare.py"))
        counts = ["--streams", str(level.streams), "--requests", str(level.requests), "--tokens", str(level.tokens)]
        return [sys.executable, script, "--url", url, *counts, "--out", str(folder / "bare.ndjson")]

    def seen(self, folder: Path, sent: Sequence[Sent]) -> list[Seen]:
        by_id = {answer.id: answer for answer in sent}
        return [
            Seen.of(
                by_id[line["id"]],
                line["events"][0] - line["sent"],
                [after - before for before, after in pairwise(line["events"])],
            )
            for line in _lines(folder / "bare.ndjson")
        ]


class AIPerf(Tool):
    """AIPerf, of NVIDIA's Dynamo project. It sends a name of its own with each request, and exports it."""

    name = "AIPerf"

    def __init__(self, program: Path, tokenizer: Path) -> None:
        self._program, self._tokenizer = program, tokenizer

    def command(self, level: Level, *, url: str, folder: Path) -> list[str]:
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"text": f"prompt {n}"}) + "\n" for n in range(level.requests)))
        return [
            *(str(self._program), "profile", "--model", MODEL, "--url", url, "--endpoint-type", "completions"),
            *("--streaming", "--use-server-token-count", "--tokenizer", str(self._tokenizer)),
            *("--input-file", str(prompts), "--custom-dataset-type", "single_turn"),
            *("--extra-inputs", f"max_tokens:{level.tokens}"),
            *("--concurrency", str(level.streams), "--request-count", str(level.requests)),
            *("--ui", "none", "--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", str(folder)),
        ]

    @property
    def environ(self) -> dict[str, str]:
        # No model hub: its address is a port on which nobody listens. (Told to be offline, it refuses a folder.)
        return {"HF_ENDPOINT": "http://127.0.0.1:9", **_NOT_OUR_PACKAGES}

    def seen(self, folder: Path, sent: Sequence[Sent]) -> list[Seen]:
        by_name = {answer.asked_as: answer for answer in sent}
        found = []
        for line in _lines(folder / "profile_export.jsonl"):
            answer, metrics = by_name.get(line["metadata"]["x_request_id"]), line["metrics"]
            if answer is not None and "inter_chunk_latency" in metrics:
                gaps = [gap / 1000 for gap in metrics["inter_chunk_latency"]["value"]]
                found.append(Seen.of(answer, metrics["time_to_first_token"]["value"] / 1000, gaps))
        return found


class GuideLLM(Tool):
    """guidellm, of the vLLM project. It exports the first and the last token's time of each request, none between."""

    name = "guidellm"

    def __init__(self, program: Path, tokenizer: Path) -> None:
        self._program, self._tokenizer = program, tokenizer

    def command(self, level: Level, *, url: str, folder: Path) -> list[str]:
        return [
            *(str(self._program), "run", "--disable-console"),
            *("--backend", f"kind=openai_http,target={url},model={MODEL},request_format=/v1/completions"),
            *("--profile", f"kind=concurrent,streams={level.streams}"),
            *("--constraint", f"kind=max_requests,count={level.requests}"),
            *("--tokenizer", f"kind=hf_auto,model={self._tokenizer}"),
            *("--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={level.tokens}"),
            *("--output", f"kind=json,path={folder / 'guidellm.json'}"),
        ]

    @property
    def environ(self) -> dict[str, str]:
        return {"HF_HUB_OFFLINE": "1", **_NOT_OUR_PACKAGES}

    def seen(self, folder: Path, sent: Sequence[Sent]) -> list[Seen]:
        by_id = {answer.id: answer for answer in sent}
        (benchmark,) = json.loads((folder / "guidellm.json").read_text(encoding="utf-8"))["benchmarks"]
        found = []
        for request in benchmark["requests"]["successful"]:
            answer, times = by_id.get(request["response_id"]), request["info"]["timings"]
            if answer is not None:
                first = times["first_token_iteration"]
                mean = (times["last_token_iteration"] - first) / (len(answer.sent_ns) - 1)
                found.append(Seen(answer, first - times["request_start"], mean))
        return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
