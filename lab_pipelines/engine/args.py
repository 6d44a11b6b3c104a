"""vLLM's command-line arguments, as far as the engine model knows what they do.

Belongs here: parsing, vLLM 0.32's defaults, and a refusal by name for everything else: an argument that is ignored
would make a lab's variant look as if it had been measured.
Doesn't belong here: the server's own options (serve.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from lab_pipelines.engine import tables
from lab_pipelines.engine.tables import Hardware, Model

_SUPPORTED = (
    "MODEL or --model, --served-model-name, --dtype, --max-model-len, --max-num-seqs, --max-num-batched-tokens, "
    "--gpu-memory-utilization, --[no-]enable-prefix-caching, --[no-]enable-chunked-prefill, --tensor-parallel-size, "
    "--logging-config.formatter json"
)
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
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--logging-config.formatter", choices=["json"])  # what the modelled server writes anyway
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--enable-chunked-prefill", action=argparse.BooleanOptionalAction, default=True)
    return parser


def parse_engine_args(arguments: Sequence[str], hardware: Hardware) -> EngineArgs:
    """vLLM's arguments for one server on `hardware`; underscores in an argument's name count as dashes, as in vLLM.

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
    if parsed.tensor_parallel_size != 1:
        raise EngineArgsError(
            f"--tensor-parallel-size {parsed.tensor_parallel_size} is not modelled yet; only 1 is, on one GPU"
        )
    if parsed.enable_prefix_caching:
        raise EngineArgsError(
            "prefix caching, which vLLM turns on by default, is not modelled yet; add --no-enable-prefix-caching"
        )
    longest = model.architecture.max_context
    max_model_len = _positive("--max-model-len", parsed.max_model_len) or longest
    if max_model_len > longest:
        raise EngineArgsError(
            f"--max-model-len {max_model_len} is more than the {longest} tokens that {model.name} was trained for; "
            f"give at most {longest}"
        )
    max_num_seqs = _positive("--max-num-seqs", parsed.max_num_seqs) or 256
    # vLLM lets a step hold a whole prompt where it may not cut prompts into chunks.
    default_tokens = 2048 if parsed.enable_chunked_prefill else max(2048, max_model_len)
    tokens = _positive("--max-num-batched-tokens", parsed.max_num_batched_tokens) or default_tokens
    if not parsed.enable_chunked_prefill and tokens < max_model_len:
        raise EngineArgsError(
            f"--max-num-batched-tokens {tokens} is below --max-model-len {max_model_len}, and without chunked prefill "
            "a longer prompt could never run; increase it, decrease --max-model-len, or allow chunked prefill"
        )
    if tokens < max_num_seqs:
        raise EngineArgsError(
            f"--max-num-batched-tokens {tokens} is below --max-num-seqs {max_num_seqs}; "
            "a step needs room for one token of each sequence"
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
