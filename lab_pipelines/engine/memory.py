"""How a GPU's memory is divided: weights, working space, and the KV cache that is left.

Belongs here: the arithmetic, and the errors of a model that doesn't fit.
Doesn't belong here: handing blocks out (blocks.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab_pipelines.engine.tables import Hardware, Model

BLOCK_TOKENS = 16
"""Tokens per KV-cache block: vLLM's default on CUDA."""
WORKING_BYTES = 1.0e9
"""Activations of the largest batch plus CUDA graphs. An estimate (confidence C): vLLM profiles it at start-up."""
GRAPH_BYTES = 0.4e9
"""The part of it that CUDA graphs take (confidence C); `--enforce-eager` leaves it to the KV cache."""
GIB = 1024**3


class GpuMemoryError(RuntimeError):
    """The model can't be served on this GPU with these settings. The message says by how much, and the remedy."""


@dataclass(frozen=True)
class MemoryPlan:
    """The division, on each GPU. Bytes."""

    weights_bytes: float
    kv_cache_bytes: int
    kv_blocks: int
    """Blocks of the engine, whose parts lie on all of its GPUs."""
    offload_blocks: int = 0
    """Blocks in CPU memory."""


def plan_memory(
    hardware: Hardware,
    models: Sequence[Model],
    *,
    utilization: float,
    max_model_len: int,
    shards: int = 1,
    eager: bool = False,
    offload_bytes: float = 0.0,
) -> MemoryPlan:
    """Divide each GPU's memory as vLLM does at start-up; `models` are the target, and its draft if there is one.

    `shards` GPUs hold a part each of weights and KV cache (tensor times pipeline parallel). blocks =
    floor((M_total * utilization - weights - working space) / (16 * KV bytes per token)), all but M per shard.

    Raises `GpuMemoryError` where vLLM refuses to start: weights that don't fit, no room for any block, or less room
    than one sequence of `max_model_len` tokens needs.
    """
    total, weights = hardware.memory_bytes.value, sum(model.weights_bytes for model in models) / shards
    names = " and ".join(model.name for model in models)
    if weights > total:
        raise GpuMemoryError(
            f"CUDA out of memory: {names} needs {weights / GIB:.2f} GiB for its weights, and GPU 0 "
            f"({hardware.product}) has a total capacity of {total / GIB:.2f} GiB. Use a larger GPU or a smaller model."
        )
    token_bytes = sum(model.kv_bytes_per_token for model in models) / shards
    block_bytes = BLOCK_TOKENS * token_bytes
    working = WORKING_BYTES - (GRAPH_BYTES if eager else 0.0)
    available = total * utilization - weights - working
    blocks = int(available // block_bytes) if available > 0 else 0
    if blocks == 0:
        raise GpuMemoryError(
            f"No available memory for the cache blocks: {utilization:g} of {total / GIB:.2f} GiB less "
            f"{weights / GIB:.2f} GiB of weights and {working / GIB:.2f} GiB of working space leaves "
            f"{available / GIB:.2f} GiB. Increase --gpu-memory-utilization, use a larger GPU or a smaller model."
        )
    tokens = blocks * BLOCK_TOKENS
    if tokens < max_model_len:
        raise GpuMemoryError(
            f"One request of the model's max seq len ({max_model_len}) needs "
            f"{max_model_len * token_bytes / GIB:.2f} GiB of KV cache, but {available / GIB:.2f} GiB are "
            f"available, which is enough for {tokens} tokens. Increase --gpu-memory-utilization or decrease "
            "--max-model-len."
        )
    return MemoryPlan(
        weights_bytes=weights,
        kv_cache_bytes=int(blocks * block_bytes),
        kv_blocks=blocks,
        offload_blocks=int(offload_bytes // (block_bytes * shards)),
    )
