"""How a GPU's memory is divided: weights, working space, and the KV cache that is left.

Belongs here: the arithmetic, and the errors of a model that doesn't fit.
Doesn't belong here: handing blocks out (core.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from lab_pipelines.engine.tables import Hardware, Model

BLOCK_TOKENS = 16
"""Tokens per KV-cache block: vLLM's default on CUDA."""
WORKING_BYTES = 1.0e9
"""Activations of the largest batch plus CUDA graphs. An estimate (confidence C): vLLM profiles it at start-up."""
GIB = 1024**3


class GpuMemoryError(RuntimeError):
    """The model can't be served on this GPU with these settings. The message says by how much, and the remedy."""


@dataclass(frozen=True)
class MemoryPlan:
    """The division. Bytes."""

    weights_bytes: float
    kv_cache_bytes: int
    kv_blocks: int


def plan_memory(hardware: Hardware, model: Model, *, utilization: float, max_model_len: int) -> MemoryPlan:
    """blocks = floor((M_total * utilization - weights - working space) / (16 * KV bytes per token)).

    Raises `GpuMemoryError` where vLLM refuses to start: weights that don't fit, no room for any block, or less room
    than one sequence of `max_model_len` tokens needs.
    """
    total, weights = hardware.memory_bytes.value, model.weights_bytes
    if weights > total:
        raise GpuMemoryError(
            f"CUDA out of memory: {model.name} needs {weights / GIB:.2f} GiB for its weights, and GPU 0 "
            f"({hardware.product}) has a total capacity of {total / GIB:.2f} GiB. Use a larger GPU or a smaller model."
        )
    block_bytes = BLOCK_TOKENS * model.kv_bytes_per_token
    available = total * utilization - weights - WORKING_BYTES
    blocks = int(available // block_bytes) if available > 0 else 0
    if blocks == 0:
        raise GpuMemoryError(
            f"No available memory for the cache blocks: {utilization:g} of {total / GIB:.2f} GiB less "
            f"{weights / GIB:.2f} GiB of weights and {WORKING_BYTES / GIB:.2f} GiB of working space leaves "
            f"{available / GIB:.2f} GiB. Increase --gpu-memory-utilization, use a larger GPU or a smaller model."
        )
    tokens = blocks * BLOCK_TOKENS
    if tokens < max_model_len:
        raise GpuMemoryError(
            f"One request of the model's max seq len ({max_model_len}) needs "
            f"{max_model_len * model.kv_bytes_per_token / GIB:.2f} GiB of KV cache, but {available / GIB:.2f} GiB are "
            f"available, which is enough for {tokens} tokens. Increase --gpu-memory-utilization or decrease "
            "--max-model-len."
        )
    return MemoryPlan(weights_bytes=weights, kv_cache_bytes=blocks * block_bytes, kv_blocks=blocks)
