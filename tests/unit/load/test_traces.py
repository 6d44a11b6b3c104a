"""Traces: both formats are read as they are published, and what can't be replayed is refused by file and line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from streaming_load.traces import Replayed, TraceError, TraceRow, replayed

from lab_pipelines.deployment import REPO_ROOT

TRACES = REPO_ROOT / "load-tests" / "traces"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROOMY = {"start_s": 0.0, "duration_s": None, "max_input_tokens": 100_000, "max_output_tokens": 10_000}


def read(path: Path, form: Any = "azure", **window: Any) -> Replayed:
    return replayed(path, form, **{**ROOMY, **window})


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def line(at_ms: float, tokens_in: int, tokens_out: int, *ids: int) -> str:
    return json.dumps({"timestamp": at_ms, "input_length": tokens_in, "output_length": tokens_out, "hash_ids": ids})


def test_the_committed_traces_are_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate_traces", TRACES / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert set(generate.TRACES) == {path.name for path in TRACES.iterdir() if path.suffix in (".csv", ".jsonl")}
    for name, write in generate.TRACES.items():
        assert (TRACES / name).read_text(encoding="utf-8") == write()


def test_both_forms_of_azure_stamps_say_the_same(tmp_path: Path) -> None:
    of_2023, of_2024 = (read(TRACES / f"synthetic-azure-{year}.csv") for year in ("2023", "2024"))
    assert of_2023 == of_2024
    assert len(of_2023.rows) == 120 and of_2023.rows[0].at_s == 0.0
    # A stamp on the full second has no decimals in the form of 2024, and the seventh one of 2023 is left out.
    mixed = written(tmp_path, f"{AZURE}2023-11-16 18:15:46.9999999,4,5\n2023-11-16 18:15:48+00:00,6,7\n")
    assert read(mixed).rows == (TraceRow(0.0, 4, 5, None), TraceRow(1.000001, 6, 7, None))


def test_mooncake_s_milliseconds_and_ids_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, f"{line(3000, 513, 9, 0, 7)}\n\n{line(4500.5, 512, 1, 0)}\n")
    found = read(path, "mooncake")
    assert found.rows == (TraceRow(0.0, 513, 9, (0, 7)), TraceRow(1.5005, 512, 1, (0,)))
    assert (found.length_s, found.clipped) == (1.5005, 0)


def test_conversations_of_the_synthetic_mooncake_trace_share_their_beginnings() -> None:
    rows = read(TRACES / "synthetic-mooncake.jsonl", "mooncake").rows
    assert {row.hash_ids and row.hash_ids[0] for row in rows} == {0}
    before: dict[int, tuple[int, ...]] = {}
    for row in rows:
        assert row.hash_ids is not None
        for end, one in enumerate(row.hash_ids):
            assert before.setdefault(one, row.hash_ids[:end]) == row.hash_ids[:end], "an id stands for all before it"
    assert sum(len(row.hash_ids or ()) for row in rows) > 1.3 * len(before), "some are found again"


def test_a_window_is_counted_from_the_first_request_and_its_times_from_its_own_start() -> None:
    path = TRACES / "synthetic-azure-2023.csv"
    whole = read(path).rows
    window = read(path, start_s=10.0, duration_s=20.0)
    expected = [row._replace(at_s=row.at_s - 10.0) for row in whole if 10.0 <= row.at_s < 30.0]
    assert [row[1:] for row in window.rows] == [row[1:] for row in expected]
    assert [row.at_s for row in window.rows] == pytest.approx([row.at_s for row in expected])
    assert window.length_s == 20.0 and window.per_s == len(expected) / 20.0
    assert window.digest not in (read(path).digest, read(path, start_s=10.0, duration_s=19.0).digest)


def test_nothing_is_read_beyond_the_window(tmp_path: Path) -> None:
    stamps = "".join(f"2023-11-16 18:15:{second}.0,4,5\n" for second in range(10, 20))
    assert len(read(written(tmp_path, f"{AZURE}{stamps}spoilt\n"), duration_s=5.0).rows) == 5


def test_what_is_too_long_is_clipped_and_counted_and_nothing_is_raised_to_one(tmp_path: Path) -> None:
    lines = [line(0, 1500, 40, 0, 1, 2), line(1000, 600, 400, 0, 3), line(2000, 0, 0), line(3000, 600, 40, 0, 3)]
    found = read(written(tmp_path, "\n".join(lines)), "mooncake", max_input_tokens=1024, max_output_tokens=100)
    assert [row[1:] for row in found.rows] == [
        (1024, 40, (0, 2)), (600, 100, (0, 3)), (1, 1, None), (600, 40, (0, 3))
    ]  # fmt: skip
    assert found.clipped == 3


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("azure", "", r"line 1: the column TIMESTAMP is missing"),
        ("azure", "TIMESTAMP,ContextTokens\n", r"line 1: the column GeneratedTokens is missing"),
        ("azure", line(0, 1, 1, 0), r"line 1: the column TIMESTAMP is missing.*give the file's own `format`"),
        ("azure", f"{AZURE}2023-11-16 18:15:46.68,4\n", r"line 2: 2 cells, and the file has 3 columns; mend or remove"),
        ("azure", f"{AZURE}yesterday,4,5\n", r"line 2: TIMESTAMP is 'yesterday', and must be like 2023-11-16"),
        ("azure", f"{AZURE}2023-11-16 18:15:46.68,4.5,5\n", r"line 2: ContextTokens is '4\.5', and must be a whole"),
        ("azure", f"{AZURE}2023-11-16 18:15:46.68,4,-5\n", r"line 2: GeneratedTokens is '-5'"),
        (
            "azure",
            f"{AZURE}2023-11-16 18:15:46,4,5\n2023-11-16 18:15:45,4,5\n",
            r"line 3: TIMESTAMP is 1 s before the line above; sort the file by time",
        ),
        ("azure", f"{AZURE}2023-11-16 18:15:46,4,5\n", r"from 0 s on there are not two requests at different times"),
        ("azure", f"{AZURE}2023-11-16 18:15:46,9{'0' * 5000},5\n", r"line 2: ContextTokens is '9000"),
        ("azure", f"{AZURE}{'9' * 90_000},4,5\n", r"line 2: TIMESTAMP is '9{78}"),
        ("azure", "x" * 200_000, r"line 1: longer than 100,000 characters; give a trace with one line for each"),
        ("mooncake", line(10**400, 5, 5, 0), r"line 1: timestamp is 1000"),
        ("mooncake", line(0, 10**300, 5, 0), r"line 1: input_length is 1000"),
        ("mooncake", f"{AZURE}", r"line 1: not a JSON object; give the file's own `format`"),
        ("mooncake", "[" * 99_000, r"line 1: not a JSON object"),
        ("mooncake", '{"timestamp": 0}', r"line 1: the field input_length is missing"),
        ("mooncake", line(0, 5, 5, 0).replace(": 0,", ': "0",'), r"line 1: timestamp is '0', and must be milliseconds"),
        ("mooncake", line(0, 5, 5, 0).replace(": 0,", ": NaN,"), r"line 1: timestamp is nan"),
        ("mooncake", line(0, 5, -5, 0), r"line 1: output_length is -5"),
        ("mooncake", line(0, 5, 5).replace("[]", "[true]"), r"line 1: hash_ids must be a list of whole numbers"),
        ("mooncake", line(0, 513, 5, 0), r"line 1: hash_ids has 1 ids, and a prompt of 513 tokens has 2 blocks of 512"),
        ("mooncake", f"{line(5, 4, 5, 0)}\n{line(4, 4, 5, 0)}", r"line 2: timestamp is 0\.001 s before the line above"),
    ],
)
def test_what_can_t_be_replayed_is_refused_by_file_line_and_field(
    tmp_path: Path, form: str, text: str, says: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError, match=says) as refused:
        read(path, form)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < len(str(path)) + 300


def test_a_file_that_is_missing_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere\.csv can't be read \(No such file"):
        read(tmp_path / "nowhere.csv")
    packed = tmp_path / "trace.csv"
    packed.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(TraceError, match=r"line 1: not UTF-8; give a trace as text, unpacked"):
        read(packed)


def test_a_window_beyond_the_trace_is_refused() -> None:
    with pytest.raises(TraceError, match=r"from 600 s to 660 s there are not two requests"):
        read(TRACES / "synthetic-azure-2024.csv", start_s=600.0, duration_s=60.0)
