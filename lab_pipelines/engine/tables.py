"""The tables of facts behind the engine model, typed: GPUs (hardware.yaml) and models (models.yaml).

Belongs here: the shape of those tables and looking a row up by name.
Doesn't belong here: what follows from the numbers (roofline.py, memory.py), cold starts (cold_start.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model

TABLES_DIR = Path(__file__).parent
Confidence = Literal["A", "B", "C"]
"""A: from a primary source. B: from a secondary one. C: an estimate."""
WeightFormat = Literal["fp16", "awq", "gptq"]
"""fp16 stands for bf16 too. awq and gptq: 4 bits per weight, in groups of 128."""
TABLE_BYTES = 2
"""Bytes per weight of embeddings and output head, which stay in 16 bits where the rest is quantised."""
WEIGHT_BYTES: dict[WeightFormat, float] = {"fp16": 2.0, "awq": 0.53, "gptq": 0.53}
"""Bytes per weight of the layers. 4 bits, and for each group of 128 a 16-bit scale and a 4-bit zero point or more."""
KV_BYTES = 2
"""Bytes per KV-cache element."""


class UnknownNameError(LookupError):
    """No row of that name. The message lists the names that exist."""


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Fact(_Row):
    """One number, where it comes from, and how far to trust it."""

    value: float = Field(ge=0)
    source: str
    confidence: Confidence
    calibrated: bool = False
    """Chosen so that the model meets measurements of benchmarks/calibration."""


class Hardware(_Row):
    """One GPU. Units are in hardware.yaml's head."""

    name: str
    product: str
    """As nvidia-smi names it."""
    status: Literal["current", "retired"]
    compute_capability: list[int] = Field(min_length=2, max_length=2)
    fp16_flops: Fact
    memory_bandwidth: Fact
    memory_bytes: Fact
    mfu: Fact
    mbu: Fact
    int4_mfu: Fact
    int4_mbu: Fact
    attention_mfu: Fact
    attention_mbu: Fact
    attention_layer_s: Fact
    layer_s: Fact
    eager_layer_s: Fact
    """In the place of `layer_s` without CUDA graphs."""
    link_bandwidth: Fact
    """Between two GPUs of a node, one direction."""
    link_latency_s: Fact
    host_bandwidth: Fact
    """Between GPU and CPU memory, one direction."""
    host_s: Fact
    host_per_sequence_s: Fact
    power_w: Fact
    idle_power_w: Fact
    sm_clock_mhz: Fact
    idle_sm_clock_mhz: Fact
    memory_clock_mhz: Fact
    idle_memory_clock_mhz: Fact
    idle_temperature_c: Fact
    load_temperature_c: Fact
    memory_sensor: bool

    @property
    def has_bfloat16(self) -> bool:
        """bfloat16 needs compute capability 8.0."""
        return self.compute_capability[0] >= 8


class Architecture(_Row):
    """A decoder's shape: L layers, h hidden, nq query and nkv key-value heads of d elements, V tokens."""

    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    tied_embeddings: bool
    """The output head shares its weights with the input embedding."""
    max_context: int = Field(gt=0)
    dtype: Literal["bfloat16", "float16"]
    source: str
    confidence: Confidence


class Model(_Row):
    """One model. `name` is its repository on the Hugging Face hub, as vLLM is told."""

    name: str
    parameters: Fact
    weights: WeightFormat = "fp16"
    architecture: Architecture

    @property
    def table_parameters(self) -> float:
        """Weights of the output head, and as many of the input embedding."""
        return float(self.architecture.vocabulary * self.architecture.hidden)

    @property
    def body_parameters(self) -> float:
        """Weights of the layers: all but input embedding and output head, which are one table when tied."""
        return self.parameters.value - self.table_parameters * (1 if self.architecture.tied_embeddings else 2)

    @property
    def intermediate(self) -> float:
        """Width of the gated feed-forward network: what the attention leaves of a layer's weights, over 3 * h."""
        shape = self.architecture
        attention = 2 * shape.hidden * (shape.heads + shape.kv_heads) * shape.head_dim
        return (self.body_parameters / shape.layers - attention) / (3 * shape.hidden)

    @property
    def weights_bytes(self) -> float:
        """Bytes of weights in GPU memory."""
        tables = self.parameters.value - self.body_parameters
        return self.body_parameters * WEIGHT_BYTES[self.weights] + tables * TABLE_BYTES

    @property
    def kv_bytes_per_token(self) -> int:
        """2 * L * nkv * d * bytes per element."""
        shape = self.architecture
        return 2 * shape.layers * shape.kv_heads * shape.head_dim * KV_BYTES


class _HardwareTable(_Row):
    hardware: list[Hardware]


class _ModelTable(_Row):
    models: list[Model]


@cache
def all_hardware() -> dict[str, Hardware]:
    """Every GPU by name. Raises `SpecError` for a wrong table."""
    return {row.name: row for row in read_model(TABLES_DIR / "hardware.yaml", _HardwareTable).hardware}


@cache
def all_models() -> dict[str, Model]:
    """Every model by name. Raises `SpecError` for a wrong table."""
    return {row.name: row for row in read_model(TABLES_DIR / "models.yaml", _ModelTable).models}


def hardware(name: str) -> Hardware:
    """One GPU. Raises `UnknownNameError`."""
    table = all_hardware()
    if name not in table:
        raise UnknownNameError(f"GPU {name!r} is not modelled; modelled are: {', '.join(table)}")
    return table[name]


def model(name: str) -> Model:
    """One model. Raises `UnknownNameError`."""
    table = all_models()
    if name not in table:
        raise UnknownNameError(
            f"model {name!r} is not modelled; modelled are: {', '.join(table)}. For another one, add a row to "
            "lab_pipelines/engine/models.yaml: its config.json says what it needs"
        )
    return table[name]
