"""Locust users who wait for their answers, at one request per second each: what frozen.py compares with.

Writes the seconds of each answer, those that were sent and had ended, as a JSON list to the file that FROZEN_OUT names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task

_BODY = {"model": "loopback", "prompt": [1], "max_tokens": int(os.environ["FROZEN_TOKENS"]), "stream": True}
_times: list[float] = []


class Patient(FastHttpUser):
    """Sends its next request a second after the last one, or when that one's answer is there, whichever is later."""

    wait_time = constant_throughput(1)

    @task
    def complete(self) -> None:
        self.client.post("/v1/completions", json=_BODY)


@events.request.add_listener
def _on_request(response_time: float, **_: Any) -> None:
    _times.append(response_time / 1000)


@events.quitting.add_listener
def _on_quitting(**_: Any) -> None:
    Path(os.environ["FROZEN_OUT"]).write_text(json.dumps(_times), encoding="ascii")
