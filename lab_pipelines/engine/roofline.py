"""How long one engine step takes: a roofline over the batch, for a model on one GPU or several.

Belongs here: the pure formula from a batch's composition to seconds, and the GPU's shares behind it.
Doesn't belong here: what is put into a batch (core.py), how much fits (memory.py).

Symbols: P parameters, L layers, h hidden, nq/nkv heads, d head dim, V vocabulary, F peak FLOP/s, B peak bytes/s.
The linear part and the attention part are summed, as each has its own efficiency. Within each, compute and memory
overlap imperfectly: a p-norm with p = 3 instead of the maximum, which is some 25 % optimistic where both matter
(Vidur's A100 profile at 128 tokens reaches 0.47 of peak compute and 0.57 of peak bandwidth at once).

Elementwise kernels (norms, residuals, rotation, gating) move some 8 h + 2 (nq + nkv) d + 3 m elements per token and
layer, m the feed-forward network's width, beside the fixed cost of launching them. That gives 87 us a layer for 512
tokens of Llama-3-8B on an A100, where Vidur's profile has 95.

Tensor parallel: each GPU has its share of every layer's FLOPs and bytes, and the layers' results are summed over the
GPUs twice per layer. Pipeline parallel: each GPU has its share of the layers; a batch is cut into as many micro-batches
as there are stages, or sequences if fewer, which follow one another through them, so that a step takes what one micro-
batch takes through all stages. A lone sequence fills one stage at a time: the bubble.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lab_pipelines.engine.tables import TABLE_BYTES, WEIGHT_BYTES, Hardware, Model

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

_THIRD = 1.0 / 3.0
NGRAM_S = 0.2e-3
"""Host time of proposing n-gram drafts, per step (confidence C)."""


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
    link_bytes_per_s: float = 0.0
    """Bytes per second that each GPU sends to the others, and gets from them; not a share."""


class StepCost:
    """The cost of a step of `model` on `tensor` times `pipeline` GPUs.

    `eager`: without CUDA graphs. `drafts` tokens are proposed per sequence and step, by `draft_model` or, without one,
    by n-grams of what is there.
    """

    def __init__(
        self,
        hardware: Hardware,
        model: Model,
        *,
        tensor: int = 1,
        pipeline: int = 1,
        eager: bool = False,
        drafts: int = 0,
        draft_model: Model | None = None,
    ) -> None:
        shape = model.architecture
        quantised = model.weights != "fp16"
        mfu = (hardware.int4_mfu if quantised else hardware.mfu).value
        mbu = (hardware.int4_mbu if quantised else hardware.mbu).value
        # The input embedding is a lookup and the output head sees sampled positions only: neither costs FLOPs per
        # token. When tied, they are one table.
        self._token_flops = 2.0 * model.body_parameters / tensor
        self._head_flops = 2.0 * model.table_parameters / tensor
        self._weight_bytes = (
            model.body_parameters * WEIGHT_BYTES[model.weights] + model.table_parameters * TABLE_BYTES
        ) / tensor
        self._attention_flops = 4.0 * shape.layers * shape.heads * shape.head_dim / tensor
        self._kv_bytes = model.kv_bytes_per_token / tensor
        self._peak_flops = hardware.fp16_flops.value
        self._peak_bandwidth = hardware.memory_bandwidth.value
        self._linear_s_per_flop = 1.0 / (self._peak_flops * mfu)
        # The output head stays in 16 bits, but it is a few per cent of the bytes: one efficiency for all.
        self._weights_s_cubed = (self._weight_bytes / (self._peak_bandwidth * mbu)) ** 3
        self._attention_s_per_work = self._attention_flops / (self._peak_flops * hardware.attention_mfu.value)
        self._attention_s_per_read = self._kv_bytes / (self._peak_bandwidth * hardware.attention_mbu.value)
        layer_s = (hardware.eager_layer_s if eager else hardware.layer_s).value + hardware.attention_layer_s.value
        # Norms and residuals see the whole hidden state on every GPU; rotation and gating only what is the GPU's own.
        halves = 2 * (shape.heads + shape.kv_heads) * shape.head_dim + 3 * model.intermediate
        self._elementwise_bytes = shape.layers * TABLE_BYTES * (8 * shape.hidden + halves / tensor)
        self._host_s = hardware.host_s.value
        self._host_per_sequence_s = hardware.host_per_sequence_s.value
        self._moved_s = model.kv_bytes_per_token / hardware.host_bandwidth.value
        activation_s = shape.hidden * TABLE_BYTES / hardware.link_bandwidth.value
        latency_s = hardware.link_latency_s.value
        # Ring all-reduce: 2 * (tp - 1) / tp of the bytes and 2 * (tp - 1) messages, twice in each layer.
        reductions = 2 * shape.layers if tensor > 1 else 0
        self.elementwise_s = self._elementwise_bytes / (self._peak_bandwidth * hardware.mbu.value)
        """Seconds of elementwise kernels per token, all layers together."""
        self._token_s = self.elementwise_s + reductions * 2 * (tensor - 1) / tensor * activation_s
        self._link_bytes = reductions * 2 * (tensor - 1) / tensor * shape.hidden * TABLE_BYTES
        self._fixed_gpu_s = shape.layers * layer_s + reductions * 2 * (tensor - 1) * latency_s
        self._pipeline = pipeline
        self._hop_s = latency_s * (pipeline - 1)
        self._hop_token_s = activation_s * (pipeline - 1)
        if pipeline > 1:
            self._link_bytes = shape.hidden * TABLE_BYTES * (pipeline - 1) / pipeline
        self._drafts = drafts
        # vLLM cuts the draft model as it cuts the target.
        self._draft = StepCost(hardware, draft_model, tensor=tensor, eager=eager) if draft_model is not None else None

    def step_s(self, batch: Batch) -> float:
        """Seconds that the step takes.

        linear: FLOPs 2*(P - 2*V*h)*tokens + 2*V*h*sampled (P - V*h with tied embeddings) against the weights' bytes;
        attention: FLOPs 4*L*nq*d*(context + sum of c*(s + c/2)) against 2*L*nkv*d*2 bytes per cached token read or
        written; then the elementwise bytes of each token, a fixed cost per layer, and the host's a + b * sequences.
        Tokens are the decodes, their drafts and the prefill's; every draft is sampled too, and attends to its
        sequence's context.
        """
        seconds = self._gpu_s(batch) + self._host_s + self._host_per_sequence_s * batch.sequences
        if batch.moved:
            seconds += self._moved_s * batch.moved
        if self._drafts:
            seconds += self._drafting_s(batch)
        return seconds

    def _gpu_s(self, batch: Batch) -> float:
        decodes, context, prefill, work, prefix, sampled, sequences, drafts, _ = batch
        tokens = decodes + prefill + drafts
        heads = sampled + drafts
        attended = context * (1 + drafts / decodes) if drafts else context
        read = context + prefix + tokens
        if self._pipeline > 1:
            parts = min(self._pipeline, sequences) or 1
            hops_s = self._hop_s + self._hop_token_s * tokens / parts
            tokens, heads, attended, work, read = (
                tokens / parts,
                heads / parts,
                attended / parts,
                work / parts,
                read / parts,
            )
        else:
            hops_s = 0.0
        linear = (self._token_flops * tokens + self._head_flops * heads) * self._linear_s_per_flop
        attention = self._attention_s_per_work * (attended + work)
        moved = self._attention_s_per_read * read
        return (
            (linear * linear * linear + self._weights_s_cubed) ** _THIRD
            + (attention * attention * attention + moved * moved * moved) ** _THIRD
            + self._fixed_gpu_s
            + self._token_s * tokens
            + hops_s
        )

    def _drafting_s(self, batch: Batch) -> float:
        """Seconds of proposing drafts. A draft model takes as many steps as there are tokens in a draft; the first of
        them also computes the prompts' chunks, for the draft's own KV cache."""
        if self._draft is None:
            return NGRAM_S
        decodes, context, prefill, work, prefix, sampled, sequences, _, _ = batch
        first = Batch(decodes, context, prefill, work, prefix, sampled, sequences)
        further = Batch(decodes, context, 0, 0.0, 0, decodes, decodes)
        return self._draft._gpu_s(first) + ((self._drafts - 1) * self._draft._gpu_s(further) if decodes else 0.0)

    def steps_s(self, batch: Batch, steps: int) -> NDArray[float64]:
        """Seconds of so many steps in a row that only decode and begin with `batch`: each adds one token of context a
        sequence. The same numbers as `step_s` gives for each, but for the last bits."""
        import numpy as np

        decodes, sequences = batch.decodes, batch.sequences
        parts = min(self._pipeline, sequences) or 1
        tokens = decodes / parts
        context = (batch.context + decodes * np.arange(steps, dtype=float)) / parts
        linear = (self._token_flops * tokens + self._head_flops * batch.sampled / parts) * self._linear_s_per_flop
        attention = self._attention_s_per_work * context
        read = self._attention_s_per_read * (context + tokens)
        fixed_s = (
            (linear * linear * linear + self._weights_s_cubed) ** _THIRD
            + self._fixed_gpu_s
            + self._token_s * tokens
            + self._host_s
            + self._host_per_sequence_s * sequences
        )
        if self._pipeline > 1:
            fixed_s += self._hop_s + self._hop_token_s * tokens
        return np.cbrt(attention * attention * attention + read * read * read) + fixed_s

    def shares(self, batch: Batch, duration_s: float) -> Shares:
        """Where `duration_s`, the step's time, goes, on each GPU."""
        decodes, context, prefill, work, prefix, sampled, sequences, drafts, moved_kv = batch
        tokens, stages = decodes + prefill + drafts, self._pipeline
        flops = (
            self._token_flops * tokens
            + self._head_flops * (sampled + drafts)
            + self._attention_flops * (context + work)
        ) / stages
        parts = min(stages, sequences) or 1
        # Every micro-batch reads the weights of each stage anew.
        bytes_of_tokens = self._kv_bytes * (context + prefix + tokens) + self._elementwise_bytes * tokens
        moved = (self._weight_bytes * parts + bytes_of_tokens) / stages
        host = self._host_s + self._host_per_sequence_s * sequences + self._moved_s * moved_kv
        return Shares(
            busy=(1.0 - host / duration_s) * parts / stages,
            compute=flops / (self._peak_flops * duration_s),
            memory=moved / (self._peak_bandwidth * duration_s),
            link_bytes_per_s=self._link_bytes * tokens / duration_s,
        )
