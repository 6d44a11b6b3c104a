"""The form of a file of measurements such as rows.yaml, typed.

Belongs here: what a row may say. Doesn't belong here: what the engine model says of it (compare.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.engine.tables import Confidence

ROWS = Path(__file__).parent / "rows.yaml"


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    fitted: bool = False
    """A constant of hardware.yaml was chosen to meet this row: its error proves nothing."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    source: str
    confidence: Confidence
    gpu: str
    """As hardware.yaml names it."""


class Bounds(BaseModel):
    """Relative errors that are allowed. `itl` and `output` below the knee, the other two there and in saturation."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    itl: float
    output: float
    knee_users: float
    saturation: float


class Rate(_Row):
    """Requests at a rate. A quantity that was not measured is left out; the model's is printed all the same."""

    per_s: float = Field(gt=0)
    part: Literal["below the knee", "knee", "saturated"] | None = None
    users: float | None = None
    """Requests at once, in the mean."""
    ttft_ms: float | None = None
    itl_ms: float | None = None
    """Mean over requests of (last token - first token) / (tokens - 1); so are its quantiles."""
    itl_p50_ms: float | None = None
    itl_p99_ms: float | None = None
    output_tokens_per_s: float | None = None


class Poisson(_Part):
    """Requests of one size that arrive as a Poisson process, at one rate after another."""

    model: str
    requests: int = Field(gt=1)
    input_tokens: int = Field(gt=0)
    output_tokens: int = Field(gt=1)
    burst_and_seed: int | None = None
    """guidellm's draw of arrival times with this seed, after a burst of one second's requests; else several draws."""
    in_flight: int | None = None
    """Requests that the client lets be under way; the others wait in it, unseen."""
    client_floor_s: float = 0.0
    """Time in every TTFT that is no part of the engine."""
    bounds: Bounds | None = None
    rows: list[Rate]


class Tokens(_Row):
    tokens: int
    ms: float


class Linear(_Part):
    """A step's matrix multiplications and elementwise operations, by tokens in it."""

    model: str
    gpus: int = 1
    """That share each layer."""
    rows: list[Tokens]


class Kernel(_Row):
    """`decodes` sequences of `context` tokens each, or one prompt."""

    decodes: int | None = None
    context: int | None = None
    prompt: int | None = None
    us: float


class Attention(_Part):
    """The attention of one layer."""

    model: str
    rows: list[Kernel]


class Lone(_Row):
    context: int | None = None
    decode_per_s: float | None = None
    prompt: int | None = None
    prefill_per_s: float | None = None
    ttft_ms: float | None = None


class Alone(_Part):
    """One sequence: tokens/s of decoding at a context, and of the prefill of a prompt, or its TTFT."""

    model: str
    rows: list[Lone]


class Batch(_Row):
    input_tokens: int
    requests_per_s: float | None = None


class Offline(_Part):
    """All requests at once."""

    model: str
    requests: int
    output_tokens: int
    rows: list[Batch]


class Loop(_Row):
    model: str
    users: int = Field(gt=0)
    ttft_ms: float | None = None
    itl_ms: float | None = None
    output_tokens_per_s: float | None = None
    note: str = ""


class Closed(_Part):
    """So many requests at once until all have ended."""

    requests: int
    input_tokens: int
    output_tokens: int = Field(gt=1)
    rows: list[Loop]


class Rows(BaseModel):
    """A file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    poisson: list[Poisson] = []
    linear: list[Linear] = []
    attention: list[Attention] = []
    alone: list[Alone] = []
    offline: list[Offline] = []
    closed: list[Closed] = []


def read_rows(path: Path = ROWS) -> Rows:
    """The file. Raises `SpecError` that names file, line and field."""
    return read_model(path, Rows)
