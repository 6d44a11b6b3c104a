"""A lab's objective: stated, or the one for completions, and everywhere the same numbers."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT


def spec(lab: str) -> LabSpec:
    found = load_catalog().lab(lab)
    assert isinstance(found, LabSpec)
    return found


def test_a_lab_of_completions_has_the_default_and_a_lab_of_gets_none() -> None:
    assert spec("L06").objective == INTERACTIVE
    assert spec("L01").objective is None


def test_what_a_lab_states_holds() -> None:
    own = Slo(e2e_s=5.0)
    assert spec("L06").model_copy(update={"slo": own}).objective == own
    assert spec("L01").model_copy(update={"slo": own}).objective == own


@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "gives no bound"), ({"ttft_s": 0.0}, "greater than 0"), ({"p95_s": 1.0}, "Extra inputs")],
)
def test_an_objective_that_bounds_nothing_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Slo(**fields)


def test_an_objective_in_one_line() -> None:
    assert INTERACTIVE.line == "TTFT 2 s, TPOT 0.08 s"
    assert Slo(e2e_s=30.0).line == "E2E 30 s"


@pytest.mark.parametrize(
    "name",
    [
        "measures/goodput_2s_80ms",
        "measures/right_sizing_disagreements",
        "measures/useful_share",
        "queries/right_sizing",
        "views/45_capacity_results",
    ],
)
def test_the_sql_of_the_rule_for_interactive_work_says_the_same(name: str) -> None:
    text = (REPO_ROOT / "warehouse" / f"{name}.sql").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert {float(bound) for bound in re.findall(r"ttft_\w+ <= ([0-9.]+)", code)} == {INTERACTIVE.ttft_s}
    assert {float(bound) for bound in re.findall(r"tpot_\w+(?:, 0\))? <= ([0-9.]+)", code)} == {INTERACTIVE.tpot_s}
