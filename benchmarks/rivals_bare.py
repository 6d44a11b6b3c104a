"""The least that a client of streamed completions can do: aiohttp on uvloop, one stamp per read, nothing decoded.

    python benchmarks/rivals_bare.py --url http://127.0.0.1:PORT --streams 32 --requests 64 --tokens 256 --out FILE

FILE gets a line per request: `id` (the answer's own), `sent`, and `events`, the stamp of each event's arrival, by
CLOCK_MONOTONIC in seconds. It stands alone, and stands for no tool: it draws no prompts, times nothing out, notices no
error, decodes no event but an answer's first. What our generator costs beyond it is what those cost.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

START_EVERY_S = 0.002
"""Between two new streams, as our generator starts its users."""


async def _stream(session: aiohttp.ClientSession, url: str, body: bytes, now: Any) -> dict[str, Any]:
    content, reads = bytearray(), []
    sent = now()
    async with session.post(url, data=body, headers={"content-type": "application/json"}) as answer:
        async for piece in answer.content.iter_any():
            stamp = now()
            content += piece
            reads.append((stamp, len(content)))
    return {"sent": sent, "body": content, "reads": reads}


def _record(answer: dict[str, Any]) -> dict[str, Any]:
    """The arrival of each event but the last three: finish reason, usage and [DONE] bring no token."""
    content, reads = answer["body"], answer["reads"]
    stamps: list[float] = []
    read, end = 0, content.find(b"\n\n")
    first = json.loads(content[6:end])
    while end >= 0:
        while reads[read][1] < end + 2:
            read += 1
        stamps.append(reads[read][0])
        end = content.find(b"\n\n", end + 2)
    return {"id": first["id"], "sent": answer["sent"], "events": stamps[:-3]}


async def _run(options: argparse.Namespace) -> None:
    body = json.dumps({"model": "loopback", "prompt": [1], "max_tokens": options.tokens, "stream": True}).encode()
    records: list[dict[str, Any]] = []
    each = -(-options.requests // options.streams)

    async def user(number: int) -> None:
        await asyncio.sleep(number * START_EVERY_S)
        for _ in range(each):
            records.append(_record(await _stream(session, options.url + "/v1/completions", body, time.monotonic)))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        gc.collect()
        gc.freeze()
        await asyncio.gather(*(user(number) for number in range(options.streams)))
    with options.out.open("w", encoding="ascii") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
