"""How long one engine step takes: a roofline over the batch, for one GPU and one model.

Belongs here: the pure formula from a batch's composition to seconds, and the GPU's shares behind it.
Doesn't belong here: what is put into a batch (core.py), how much fits (memory.py).

Symbols: P parameters, L layers, h hidden, nq/nkv heads, d head dim, V vocabulary, F peak FLOP/s, B peak bytes/s.
The linear part and the attention part are summed, as each has its own efficiency. Within each, compute and memory
overlap imperfectly: a p-norm with p = 3 instead of the maximum, which is some 25 % optimistic where both matter
(Vidur's A100 profile at 128 tokens reaches 0.47 of peak compute and 0.57 of peak bandwidth at once).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lab_pipelines.engine.tables import WEIGHT_BYTES, Hardware, Model

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

_THIRD = 1.0 / 3.0


class Batch(NamedTuple):
    """What one engine step computes. Counts of tokens, except where said."""

    decodes: int
    """Sequences that generate one token each."""
    context: int
    """Sum over the decodes of the tokens that each attends to, its new one included."""
    prefill: int
    """Prompt tokens (or recomputed ones) in this step's chunks."""
    prefill_work: float
    """Sum over the chunks of c * (s + c / 2): c tokens after s already in the KV cache."""
    prefill_prefix: int
    """Sum over the chunks of s, which their attention reads."""
    sampled: int
    """Positions that go through the output head."""
    sequences: int
    """Sequences in the batch."""
    drafts: int = 0
    """Draft tokens that the decodes' step verifies, all sequences together."""
    moved: int = 0
    """Tokens whose KV is moved between GPU and CPU memory in this step."""


class Shares(NamedTuple):
    """Where a step's time goes, each as a share of its duration in [0, 1]."""

    busy: float
    """A kernel is running (not the host alone)."""
    compute: float
    """FLOPs done / FLOPs that the GPU's peak would allow."""
    memory: float
    """Bytes moved / bytes that the GPU's peak bandwidth would allow."""


class StepCost:
    """The cost of a step for one GPU and one model in fp16 or bf16."""

    def __init__(self, hardware: Hardware, model: Model) -> None:
        shape = model.architecture
        table = shape.vocabulary * shape.hidden
        # The input embedding is a lookup and the output head sees sampled positions only: neither costs FLOPs per
        # token. When tied, they are one table.
        body = model.parameters.value - (table if shape.tied_embeddings else 2 * table)
        self._token_flops = 2.0 * body
        self._head_flops = 2.0 * table
        self._weight_bytes = (body + table) * WEIGHT_BYTES
        self._attention_flops = 4.0 * shape.layers * shape.heads * shape.head_dim
        self._kv_bytes = float(model.kv_bytes_per_token)
        self._peak_flops = hardware.fp16_flops.value
        self._peak_bandwidth = hardware.memory_bandwidth.value
        self._linear_s_per_flop = 1.0 / (self._peak_flops * hardware.mfu.value)
        self._weights_s_cubed = (self._weight_bytes / (self._peak_bandwidth * hardware.mbu.value)) ** 3
        self._attention_s_per_work = self._attention_flops / (self._peak_flops * hardware.attention_mfu.value)
        self._attention_s_per_read = self._kv_bytes / (self._peak_bandwidth * hardware.attention_mbu.value)
        self._fixed_gpu_s = shape.layers * (hardware.layer_s.value + hardware.attention_layer_s.value)
        self._host_s = hardware.host_s.value
        self._host_per_sequence_s = hardware.host_per_sequence_s.value

    def step_s(self, batch: Batch) -> float:
        """Seconds that the step takes.

        linear: FLOPs 2*(P - 2*V*h)*tokens + 2*V*h*sampled (P - V*h with tied embeddings) against the weights' bytes;
        attention: FLOPs 4*L*nq*d*(context + sum of c*(s + c/2)) against 2*L*nkv*d*2 bytes per cached token read or
        written; then a fixed cost per layer, and the host's a + b * sequences.
        """
        decodes, context, prefill, work, prefix, sampled, sequences, *_ = batch
        linear = (self._token_flops * (decodes + prefill) + self._head_flops * sampled) * self._linear_s_per_flop
        attention = self._attention_s_per_work * (context + work)
        read = self._attention_s_per_read * (context + prefix + decodes + prefill)
        return (
            (linear * linear * linear + self._weights_s_cubed) ** _THIRD
            + (attention * attention * attention + read * read * read) ** _THIRD
            + self._fixed_gpu_s
            + self._host_s
            + self._host_per_sequence_s * sequences
        )

    def steps_s(self, batch: Batch, steps: int) -> NDArray[float64]:
        """Seconds of so many steps in a row that begin with `batch` and only decode: each adds one token of context a
        sequence. The same numbers as `step_s` gives for each."""
        import numpy as np

        decodes = batch.decodes
        context = batch.context + decodes * np.arange(steps, dtype=float)
        linear = (self._token_flops * decodes + self._head_flops * batch.sampled) * self._linear_s_per_flop
        attention = self._attention_s_per_work * context
        read = self._attention_s_per_read * (context + decodes)
        return (
            (linear * linear * linear + self._weights_s_cubed) ** _THIRD
            + np.cbrt(attention * attention * attention + read * read * read)
            + self._fixed_gpu_s
            + self._host_s
            + self._host_per_sequence_s * batch.sequences
        )

    def shares(self, batch: Batch, duration_s: float) -> Shares:
        """Where `duration_s`, the step's time, goes."""
        decodes, context, prefill, work, prefix, sampled, sequences, *_ = batch
        flops = (
            self._token_flops * (decodes + prefill)
            + self._head_flops * sampled
            + self._attention_flops * (context + work)
        )
        moved = self._weight_bytes + self._kv_bytes * (context + prefix + decodes + prefill)
        host = self._host_s + self._host_per_sequence_s * sequences
        return Shares(
            busy=1.0 - host / duration_s,
            compute=flops / (self._peak_flops * duration_s),
            memory=moved / (self._peak_bandwidth * duration_s),
        )
