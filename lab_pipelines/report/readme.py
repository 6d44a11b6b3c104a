"""The README's table of the permanent baseline: the pinned file's numbers between two markers, and nothing else.

Doesn't belong here: pinning (lab_pipelines/baseline.py), the columns of the table (stage_table.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab_pipelines.baseline import BaselineError
from lab_pipelines.report.stage_table import cells_markdown, columns, notes, stage_cells
from lab_pipelines.report.wording import Row, markdown_text, provenance_line

BEGIN, END = "<!-- baseline:begin -->", "<!-- baseline:end -->"
_P95_NEEDS, _P99_NEEDS = 72, 368
"""As the view `stage_table` has them."""


def baseline_markdown(content: Mapping[str, Any]) -> str:
    """A pinned baseline as Markdown: a table for each load step, variants side by side, under its provenance."""
    steps: dict[str, list[Row]] = {}
    for variant, pinned in content["variants"].items():
        for stage in pinned["stages"]:
            steps.setdefault(stage["step"], []).append(_stage(content, variant, stage))
    return "\n\n".join(_step_markdown(content, rows) for rows in steps.values())


def with_baseline(readme: str, content: Mapping[str, Any]) -> str:
    """The README's text with the table between its markers. Raises `BaselineError` where it hasn't both, in order."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BaselineError(f"the README has no place for the table: put {BEGIN} and {END} on lines of their own")
    return f"{before}{BEGIN}\n{baseline_markdown(content)}\n{END}{after}"


def _step_markdown(content: Mapping[str, Any], rows: list[Row]) -> str:
    shown, cells = columns(rows), stage_cells(rows)
    variants = list(content["variants"])
    name = f"{content['lab']} {'baseline' if variants == ['baseline'] else ', '.join(variants)}"
    lines = [
        f"**{markdown_text(name)}** · {markdown_text(provenance_line(content))}",
        "",
        *cells_markdown(shown, cells),
    ]
    footnotes = [*notes(cells), f"All of it {content['provenance']}; pinned {content['pinned_at'][:10]}."]
    return "\n".join([*lines, "", " ".join(footnotes)])


def _stage(content: Mapping[str, Any], variant: str, stage: Mapping[str, Any]) -> Row:
    """A pinned stage as a row of the view `stage_table`. Files from before loads had rates name users alone."""
    rate = stage.get("offered_per_s")
    is_get = stage.get("e2e_p50_s") is not None and stage.get("ttft_p50_s") is None
    return {
        "offered_per_s": None,
        "requests_per_s": None,
        **{f"e2e_p{q}_s": None for q in (50, 95, 99)},
        **stage,
        "variant": variant,
        "trial": 1,
        "started_at": content["started_at"],
        "profile": "ramp" if rate is None else "rate",
        "request_kind": "http" if is_get else "completion",
        "model_range": None,
        "client_fault": None,
        **{f"{of}_p95_supported": stage["requests"] >= _P95_NEEDS for of in ("ttft", "e2e")},
        **{f"{of}_p99_supported": stage["requests"] >= _P99_NEEDS for of in ("ttft", "e2e")},
    }
