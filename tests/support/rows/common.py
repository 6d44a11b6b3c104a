"""The columns that every table begins with, and what the run that they are of is made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Row = dict[str, Any]

REQUESTED_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SKU = "Standard_NC4as_T4_v3"
USD_PER_NODE_HOUR = Decimal("0.526")
RUN_ID = "2f1c9a54-7d1e-4b7c-9a63-0f4b8f5f1a11"


def shared(**columns: Any) -> Row:
    """The columns that every table begins with."""
    return {
        "lab": "L06",
        "variant": "baseline",
        "trial": 1,
        "run_id": RUN_ID,
        "target": "local",
        "engine": "modelled-vllm",
        "pace": "short",
        "time_scale": 5.0,
        "provenance": "modelled",
        "recorded_at": REQUESTED_AT + timedelta(minutes=10),
        "session_id": "session-1",
    } | columns
