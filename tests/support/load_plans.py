"""Plans as a load process reads them, for tests that need one around a stage."""

from __future__ import annotations

from typing import Any, Literal

from streaming_load.plan import HttpShape, Plan, Stage


def gets(profile: Literal["ramp", "constant", "burst", "rate"], *stages: Stage, **changes: Any) -> Plan:
    """A plan of plain GETs in one shape."""
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "step": "traffic",
        "base_url": "http://127.0.0.1:1",
        "model": None,
        "profile": profile,
        "arrivals": "even",
        "burstiness": None,
        "max_in_flight": 512 if profile in ("burst", "rate") else None,
        "shapes": (HttpShape("http", 1.0, "/status/200", 200, 5.0),),
        "stages": stages,
    }
    return Plan(**{**fields, **changes})
