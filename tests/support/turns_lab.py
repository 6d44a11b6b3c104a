"""A lab whose variants are compared by pairs of one turn: L06 with two engines alike, a narrow one, and a refused one.

Requests come at random and at moderate rate, so that each turn has a draw of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab_pipelines.catalog.loader import CATALOG_DIR
from tests.support.copied_catalog import copied_catalog

SETTING = "servingEngineSpec.modelSpec[0].vllmConfig"
VARIANTS: list[dict[str, Any]] = [
    {"id": "wide", "description": "256 sequences at once"},
    {"id": "also-wide", "description": "the same under another name"},
    {
        "id": "narrow",
        "description": "four sequences at once",
        "values": {"vllm": {f"{SETTING}.maxNumSeqs": 4}},
    },
    {
        "id": "no-memory",
        "description": "a share of memory that the weights alone exceed",
        "refused": "No available memory for the cache blocks",
        "values": {"vllm": {f"{SETTING}.gpuMemoryUtilization": 0.4}},
    },
]
WAITS_LONGER: dict[str, Any] = {
    "id": "narrow-waits-longer",
    "kind": "paired",
    "quantity": "ttft_p95",
    "claim": "With four sequences at once, one request in twenty waits longer for its first token",
    "variant": "narrow",
    "over": "wide",
    "comparison": "above",
    "threshold": 1.2,
}
FINDINGS: list[dict[str, Any]] = [
    WAITS_LONGER,
    WAITS_LONGER | {"id": "never-so-long", "threshold": 1000.0},
    WAITS_LONGER | {"id": "by-the-server", "quantity": None, "measure": "ttft_p95_server", "threshold": 1.0},
    WAITS_LONGER | {"id": "alike", "variant": "also-wide", "threshold": 1.0},
    WAITS_LONGER | {"id": "as-many-tokens", "quantity": "throughput", "comparison": "below", "threshold": 1.0},
    {
        "id": "in-the-last-turn",
        "kind": "ratio",
        "quantity": "throughput",
        "claim": "The last turn's throughput is about the same",
        "numerator": {"variant": "narrow"},
        "denominator": {"variant": "wide"},
        "comparison": "above",
        "threshold": 0.1,
    },
    {"id": "all-came", "kind": "outcomes", "claim": "All is as expected", "steps": ["deploy", "traffic"]},
    {
        "id": "never-in-vain",
        "kind": "bound",
        "measure": "preemptions",
        "claim": "No sequence is preempted in any turn",
        "comparison": "below",
        "threshold": 0.5,
    },
]


def turns_catalogue(
    folder: Path, *, turns: int, pace: Mapping[str, Any] | None = None, then: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """A folder whose L06 is this lab: with changes of its one pace, `smoke`, and steps that come after the load."""
    catalog = copied_catalog(folder, labs=["L06"])
    spec: dict[str, Any] = yaml.safe_load((CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8"))
    load = spec["steps"][0]
    load |= {"name": "traffic", "profile": {"kind": "rate", "per_s": [0.8], "arrivals": "poisson"}}
    load["requests"][0] |= {"output_tokens": 64}
    spec["measures"] = [m for m in spec["measures"] if m["name"] in ("ttft_p95_server", "preemptions")]
    spec["steps"] += map(dict, then)
    spec["paces"]["smoke"] |= {"hold_s": 60.0, "min_requests": 40} | dict(pace or {})
    spec["default_pace"] = dict.fromkeys(spec["default_pace"], "smoke")
    findings = [{name: value for name, value in one.items() if value is not None} for one in FINDINGS]
    spec |= {"variants": VARIANTS, "findings": findings, "turns": turns}
    (catalog / "L06.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return catalog
