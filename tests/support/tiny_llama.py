"""A real OpenAI-compatible engine that is not ours: llama.cpp's server with a tiny model of random weights.

    with tiny_llama(tmp_path) as engine: ...        # in a test
    python -m tests.support.tiny_llama FOLDER       # the server's own process; prints its base URL, then serves

Belongs here: making the model and running the server. Doesn't belong here: anything that knows of labs.

What it says is noise, but how it says it is llama.cpp: its usage, its streams, its `/metrics` with names of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MODEL = "tiny-llama"
VOCABULARY = 1024
CONTEXT_PER_SLOT = 1024
SLOTS = 4
"""Answers that are generated at once; further requests wait in the server's queue."""

_WIDTH, _HEADS, _FEED_FORWARD, _LAYERS = 64, 4, 128, 2
_FIRST_WORD = 3 + 256
"""Ids below it are the three special tokens and one token per byte, as in every SentencePiece vocabulary."""
_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TinyLlama:
    base_url: str
    """Ends in /v1."""
    process: subprocess.Popen[str]
    """The server; its pid is its own to kill."""

    @property
    def metrics_url(self) -> str:
        return f"{self.base_url.removesuffix('/v1')}/metrics"


@contextlib.contextmanager
def tiny_llama(folder: Path) -> Iterator[TinyLlama]:
    """Serve the model on a free loopback port until the block ends. `folder` keeps the model and the server's log."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "llama.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_REPOSITORY,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        base_url = process.stdout.readline().strip()  # an empty line: the process has ended
        assert base_url, f"the server ended before it was ready:\n{log.read_text(errors='replace')[-2000:]}"
        yield TinyLlama(base_url, process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def write_model(path: Path) -> None:
    """Write a GGUF file: llama architecture, two layers, 1,024 ids, weights from a fixed seed. Under 1 MB."""
    from gguf import GGUFWriter, TokenType

    random = np.random.default_rng(6)

    def weights(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    writer = GGUFWriter(str(path), "llama")
    writer.add_name(MODEL)
    writer.add_context_length(CONTEXT_PER_SLOT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(VOCABULARY)

    words = [f"\u2581w{number}" for number in range(_FIRST_WORD, VOCABULARY)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words])
    writer.add_token_scores([0.0] * VOCABULARY)
    kinds = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * len(words)]
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)

    output = weights(VOCABULARY, _WIDTH)
    # Logits of zero never win against the best of hundreds of words, so every token is text that a client can see.
    output[:_FIRST_WORD] = 0.0
    writer.add_tensor("token_embd.weight", weights(VOCABULARY, _WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, dtype=np.float32))
    writer.add_tensor("output.weight", output)
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights(_WIDTH, _WIDTH))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(_WIDTH, dtype=np.float32))
        for name in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights(_FEED_FORWARD, _WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", weights(_WIDTH, _FEED_FORWARD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(folder: Path) -> None:
    """Serve the model from this process until its standard input ends, as it does when whoever started it dies.

    Prints the base URL once the server answers.
    """
    from xllamacpp import CommonParams, Server  # pyright: ignore[reportAttributeAccessIssue] - compiled, no stubs

    model = folder / "tiny-llama.gguf"
    write_model(model)
    params = CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the kernel chooses
    params.n_ctx = CONTEXT_PER_SLOT * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # so small a model gains nothing from a second
    params.endpoint_metrics = True
    server = Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
