"""The engine model stays as near to public measurements as it is said to be."""

from __future__ import annotations

import yaml

from benchmarks.calibration.__main__ import ROWS, compare
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.trust import trust_of


def test_every_row_with_a_bound_is_within_it() -> None:
    compared = compare(yaml.safe_load(ROWS.read_text(encoding="utf-8")))
    held = [one for one in compared if one.bound is not None]
    # TPOT and throughput of four rates below the knee, the knee's concurrency, throughput in saturation.
    assert len(held) == 4 + 4 + 1 + 1
    assert not [f"{one.row}, {one.quantity}: {one.error:+.1%}" for one in held if not one.met]


def test_the_range_of_trust_is_what_was_compared() -> None:
    inside = trust_of(EngineModel.of(["microsoft/Phi-4-mini-instruct", "--no-enable-prefix-caching"], "A100-80G"))
    assert inside.inside and inside.users == 382 and inside.model_range == "inside"
    for arguments, gpu, gpus, reason in (
        (["microsoft/Phi-3-mini-4k-instruct", "--no-enable-prefix-caching"], "T4", 1, "a Tesla T4"),
        (["microsoft/Phi-4-mini-instruct"], "A100-80G", 1, "prefix caching"),
        (["TheBloke/Mistral-7B-Instruct-v0.2-AWQ", "--no-enable-prefix-caching"], "A100-80G", 1, "weights in awq"),
        (["microsoft/Phi-4-mini-instruct", "-tp", "2", "--no-enable-prefix-caching"], "A100-80G", 2, "2 GPUs"),
    ):
        outside = trust_of(EngineModel.of(arguments, gpu, gpus))
        assert not outside.inside and reason in outside.says
        assert outside.model_range.startswith("outside: ")
        assert outside.error > inside.error
