"""The other load generators, each in a virtual environment of its own below .tools/rivals, and a tokenizer for them.

They are installed when first needed, at pinned versions, and kept: guidellm brings torch, so the two take 7 GB. Where
one can't be installed the benchmark says so and goes on without it. Neither needs a model hub: both are given a folder
with a tokenizer that is made here, whose tokens are the 256 bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lab_pipelines.deployment import REPO_ROOT

FOLDER = REPO_ROOT / ".tools" / "rivals"
AIPERF, GUIDELLM = "aiperf==0.13.0", "guidellm==0.8.1"
_WITHIN_S = 1200.0
_INSTALLED = "installed.txt"
"""Written last, so that an installation that was broken off is done again."""
_END = "<end>"


class InstallError(RuntimeError):
    """A tool isn't there and can't be installed. The message says why."""


def program(requirement: str) -> Path:
    """The tool's command, installed first where it isn't. Raises `InstallError`."""
    name, _, _ = requirement.partition("==")
    home = FOLDER / name
    if not (home / _INSTALLED).is_file() or (home / _INSTALLED).read_text(encoding="ascii") != requirement:
        _run([sys.executable, "-m", "venv", "--clear", str(home)], requirement)
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement], requirement)
        (home / _INSTALLED).write_text(requirement, encoding="ascii")
    return home / "bin" / name


def tokenizer() -> Path:
    """A folder in the format of the `tokenizers` library: byte by byte, so that it knows every text."""
    folder = FOLDER / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    # ByteLevel writes a byte as a printable character: itself where it is one, else one from 256 upwards.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    characters = {**{byte: chr(byte) for byte in shown}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 256, "content": _END, "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content = {
        "version": "1.0",
        "added_tokens": [{**end, **flags}],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {**{c: b for b, c in characters.items()}, _END: 256}, "merges": []},
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END, "model_max_length": 1_000_000}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 257}), encoding="utf-8")
    return folder


def _run(command: list[str], requirement: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{requirement} can't be installed: {error}") from error
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:] or ["pip gave no reason"]
        raise InstallError(f"{requirement} can't be installed: {last[0]}")
