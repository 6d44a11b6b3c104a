"""vLLM's command-line arguments, as far as the engine model knows what they do.

Belongs here: parsing, vLLM 0.32's defaults, and a refusal by name for everything else: an argument that is ignored
would make a lab's variant look as if it had been measured.
Doesn't belong here: the server's own options (serve.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from lab_pipelines.engine import tables
from lab_pipelines.engine.tables import Hardware, Model

_SUPPORTED = (
    "MODEL or --model, --served-model-name, --dtype, --quantization, --max-model-len, --max-num-seqs, "
    "--max-num-batched-tokens, --gpu-memory-utilization, --[no-]enable-prefix-caching, --[no-]enable-chunked-prefill, "
    "--tensor-parallel-size, --pipeline-parallel-size, --enforce-eager, --kv-offloading-size, "
    "--kv-offloading-backend native, --speculative-config, --performance-mode {balanced,throughput}, --block-size 16, "
    "--logging-config.formatter json, and "
    "--labs-static-batching, which is the modelled engine's own"
)
_QUANTIZATION: dict[str, str] = {
    "awq": "awq",
    "awq_marlin": "awq",
    "gptq": "gptq",
    "gptq_marlin": "gptq",
}
"""vLLM's name of a quantisation's kernels → the format of the weights."""
_GIB = 1024**3
_DTYPES = {"auto": None, "half": "float16", "float16": "float16", "bfloat16": "bfloat16"}


class EngineArgsError(ValueError):
    """vLLM's arguments are wrong, or ask for something that is not modelled. The message names the remedy."""


@dataclass(frozen=True)
class EngineArgs:
    """The arguments, checked against the GPU and the model."""

    model: Model
    served_model_names: tuple[str, ...]
    """The names that requests may use; the first one labels the metrics."""
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    chunked_prefill: bool
    prefix_caching: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    eager: bool = False
    """Without CUDA graphs."""
    offload_bytes: float = 0.0
    """Of CPU memory for the KV cache of preempted requests."""
    draft: Draft | None = None
    static_batching: bool = False
    """An option of the modelled engine alone."""

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True)
class Draft:
    """What speculation proposes: `tokens` per sequence and step, by a smaller model or from n-grams of the sequence."""

    method: Literal["draft_model", "ngram"]
    tokens: int
    model: Model | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise EngineArgsError(f"vLLM's arguments: {message}; modelled are: {_SUPPORTED}")


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--dtype", default="auto", choices=list(_DTYPES))
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", "-pp", type=int, default=1)
    parser.add_argument("--quantization", "-q", choices=list(_QUANTIZATION))
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--kv-offloading-size", type=float, default=0.0)
    parser.add_argument("--kv-offloading-backend", choices=["native"])
    parser.add_argument("--speculative-config")
    # `interactivity` captures more CUDA graphs for small batches, which are not modelled one by one.
    parser.add_argument("--performance-mode", default="balanced", choices=["balanced", "throughput"])
    parser.add_argument("--block-size", type=int, choices=[16])
    parser.add_argument("--labs-static-batching", action="store_true")
    parser.add_argument("--logging-config.formatter", choices=["json"])  # what the modelled server writes anyway
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--enable-chunked-prefill", action=argparse.BooleanOptionalAction, default=True)
    return parser


def parse_engine_args(arguments: Sequence[str], hardware: Hardware, gpus: int = 1) -> EngineArgs:
    """vLLM's arguments for one server on `gpus` of `hardware`; underscores in a name count as dashes, as in vLLM.

    Raises `EngineArgsError`.
    """
    parsed, unknown = _parser().parse_known_args([_with_dashes(a) for a in arguments])
    if unknown:
        raise EngineArgsError(
            f"vLLM's argument {unknown[0]!r} is not modelled; modelled are: {_SUPPORTED}. "
            "Leave it out, or run the lab on a target with a real engine."
        )
    model = _model(parsed.model_tag, parsed.model)
    _check_dtype(parsed.dtype, hardware)
    _check_quantization(parsed.quantization, model)
    tensor, pipeline = parsed.tensor_parallel_size, parsed.pipeline_parallel_size
    draft = _draft(parsed.speculative_config)
    _check_parallel(tensor, pipeline, [model, draft.model] if draft and draft.model else [model], gpus)
    if parsed.kv_offloading_size < 0:
        raise EngineArgsError(f"--kv-offloading-size {parsed.kv_offloading_size:g} is less than nothing; give GiB")
    if draft is not None and pipeline > 1:
        raise EngineArgsError("speculation with --pipeline-parallel-size above 1 is not modelled; use one of the two")
    longest = model.architecture.max_context
    max_model_len = _positive("--max-model-len", parsed.max_model_len) or longest
    if max_model_len > longest:
        raise EngineArgsError(
            f"--max-model-len {max_model_len} is more than the {longest} tokens that {model.name} was trained for; "
            f"give at most {longest}"
        )
    default_seqs, default_tokens = _default_batch(hardware, parsed.performance_mode)
    max_num_seqs = _positive("--max-num-seqs", parsed.max_num_seqs) or default_seqs
    # vLLM lets a step hold a whole prompt where it may not cut prompts into chunks.
    if not parsed.enable_chunked_prefill:
        default_tokens = max(default_tokens, max_model_len)
    tokens = _positive("--max-num-batched-tokens", parsed.max_num_batched_tokens) or default_tokens
    if not parsed.enable_chunked_prefill and tokens < max_model_len:
        raise EngineArgsError(
            f"--max-num-batched-tokens {tokens} is below --max-model-len {max_model_len}, and without chunked prefill "
            "a longer prompt could never run; increase it, decrease --max-model-len, or allow chunked prefill"
        )
    a_sequence = 1 + (draft.tokens if draft else 0)
    if tokens < max_num_seqs * a_sequence:
        raise EngineArgsError(
            f"--max-num-batched-tokens {tokens} is below --max-num-seqs {max_num_seqs}"
            + (f" times {a_sequence}, a token and its draft; " if draft else "; ")
            + "a step needs room for one token of each sequence"
        )
    utilization = parsed.gpu_memory_utilization
    if not 0 < utilization <= 1:
        raise EngineArgsError(f"--gpu-memory-utilization {utilization:g} is not a share; give one above 0, at most 1")
    return EngineArgs(
        model=model,
        served_model_names=tuple(parsed.served_model_name or [model.name]),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=tokens,
        gpu_memory_utilization=utilization,
        chunked_prefill=parsed.enable_chunked_prefill,
        prefix_caching=parsed.enable_prefix_caching,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        eager=parsed.enforce_eager,
        offload_bytes=parsed.kv_offloading_size * _GIB,
        draft=draft,
        static_batching=parsed.labs_static_batching,
    )


def _with_dashes(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _model(positional: str | None, named: str | None) -> Model:
    if positional and named and positional != named:
        raise EngineArgsError(f"the model is given twice, as {positional!r} and as --model {named!r}; give it once")
    name = positional or named
    if not name:
        raise EngineArgsError("no model is given; name one first, or with --model")
    try:
        return tables.model(name)
    except tables.UnknownNameError as error:
        raise EngineArgsError(str(error)) from None


def _check_quantization(asked: str | None, model: Model) -> None:
    """vLLM finds the format in the checkpoint; saying another one is refused."""
    if asked is not None and _QUANTIZATION[asked] != model.weights:
        raise EngineArgsError(
            f"--quantization {asked} does not match the weights of {model.name} ({model.weights}); leave it out, or "
            "name a checkpoint of that format"
        )


def _default_batch(hardware: Hardware, mode: str) -> tuple[int, int]:
    """Sequences and tokens of a step where none are given, as vLLM's API server chooses them.

    More on GPUs of 70 GiB and above that are no A100, twice as many for throughput (arg_utils.py; vLLM PR 34936).
    """
    large = hardware.memory_bytes.value >= 70 * _GIB and "A100" not in hardware.product
    seqs, tokens = (1024, 8192) if large else (256, 2048)
    return (2 * seqs, 2 * tokens) if mode == "throughput" else (seqs, tokens)


def _check_parallel(tensor: int, pipeline: int, models: Sequence[Model], gpus: int) -> None:
    for name, size in (("--tensor-parallel-size", tensor), ("--pipeline-parallel-size", pipeline)):
        _positive(name, size)
    for model in models:
        heads = model.architecture.heads
        if heads % tensor:
            raise EngineArgsError(
                f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tensor})."
            )
    if tensor * pipeline > gpus:
        raise EngineArgsError(
            f"World size ({tensor * pipeline}) is larger than the number of available GPUs ({gpus}) in this node; "
            "give the lab's node more `gpus`, or use smaller parallel sizes"
        )


def _draft(config: str | None) -> Draft | None:
    if config is None:
        return None
    example = '{"method": "ngram", "num_speculative_tokens": 4}'
    try:
        given = json.loads(config)
        if not isinstance(given, dict):
            raise TypeError
    except (ValueError, TypeError):
        raise EngineArgsError(f"--speculative-config {config} is not a JSON object, such as {example}") from None
    known = {"method", "model", "num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min"}
    if unknown := sorted(given.keys() - known):
        raise EngineArgsError(
            f"--speculative-config: {', '.join(unknown)} is not modelled; modelled are {', '.join(sorted(known))}"
        )
    method, name, tokens = given.get("method"), given.get("model"), given.get("num_speculative_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise EngineArgsError(
            f"--speculative-config: num_speculative_tokens {tokens!r} is not a positive number, as in {example}"
        )
    if method == "ngram":
        return Draft("ngram", tokens, None)
    if method not in (None, "draft_model") or not isinstance(name, str):
        raise EngineArgsError(
            f"--speculative-config: method {method!r} is not modelled; modelled are ngram, and draft_model with a model"
        )
    return Draft("draft_model", tokens, _model(name, None))


def _check_dtype(dtype: str, hardware: Hardware) -> None:
    # `auto` on a GPU without bfloat16 falls back to float16, as in vLLM; bytes and speed are the same.
    if _DTYPES[dtype] == "bfloat16" and not hardware.has_bfloat16:
        major, minor = hardware.compute_capability
        raise EngineArgsError(
            f"Bfloat16 is only supported on GPUs with compute capability of at least 8.0, and {hardware.product} has "
            f"{major}.{minor}; use --dtype half"
        )


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise EngineArgsError(f"{name} {value} is not a positive number")
    return value
