"""Receiver of Alertmanager's webhook: python -m lab_pipelines.standins.webhook --announce F --log F [--port N]

Each alert of a notification becomes one line of the log: `at` (Unix seconds at which it came in), `status`,
`alertname`, `labels`, `annotations`, `starts_at`, `ends_at` (as Alertmanager wrote them), `group_labels`, `receiver`.
The payload is version 4 of Alertmanager's: prometheus.io/docs/alerting/latest/configuration, webhook_config.

Doesn't belong here: waiting for an alert (resources/alerting.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab_pipelines import loopback
from lab_pipelines.loopback import JSON, Exchange, Receive, Scope, Send

PATH = "/alerts"
MAX_BODY_BYTES = 4 * 1024 * 1024


def lines_of(body: bytes, *, at: float) -> list[dict[str, Any]]:
    """One line per alert of a notification. Raises `ValueError` for what is not Alertmanager's payload."""
    try:
        payload = json.loads(body)
        return [
            {
                "at": at,
                "status": alert["status"],
                "alertname": alert["labels"]["alertname"],
                "labels": alert["labels"],
                "annotations": alert["annotations"],
                "starts_at": alert["startsAt"],
                "ends_at": alert["endsAt"],
                "group_labels": payload["groupLabels"],
                "receiver": payload["receiver"],
            }
            for alert in payload["alerts"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a notification of Alertmanager's: {error!r} is missing or of another type") from None


class WebhookApi:
    """The one endpoint to which Alertmanager posts."""

    def __init__(self, log: Path) -> None:
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        at, exchange = time.time(), Exchange(send)
        if scope["path"] != PATH or scope["method"] != "POST":
            await exchange.reply(404, f"not found; this receiver has POST {PATH}\n".encode())
            return
        body, more = b"", True
        while more and len(body) <= MAX_BODY_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            lines = lines_of(body, at=at)
        except ValueError as error:
            await exchange.reply(400, f"{error}\n".encode())
            return
        with self._log.open("a", encoding="utf-8") as log:
            log.write("".join(json.dumps(line) + "\n" for line in lines))
        await exchange.reply(200, b"{}", JSON)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the receiver until it is told to end. The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lab_pipelines.standins.webhook",
        description="Receives Alertmanager's notifications on loopback and keeps them.",
    )
    parser.add_argument(
        "--announce", type=loopback.in_a_folder, required=True, help="JSON file to write when it answers"
    )
    parser.add_argument(
        "--log", type=loopback.in_a_folder, required=True, help="file to append one JSON line per alert to"
    )
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(argv)
    try:
        listener = loopback.listen(options.port, "--port")
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    loopback.announce(options.announce, {"url": f"{loopback.url_of(listener)}{PATH}"})
    loopback.run(WebhookApi(options.log), listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
