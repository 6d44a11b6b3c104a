"""A baseline is pinned once, from a run that deserves it, and can't be changed or lost unnoticed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines import baseline
from lab_pipelines.baseline import BaselineError, current, history, pin, verify
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.steps import LoadStep
from resources.warehouse import Warehouse
from tests.support.rows.decisions import run_mark_row
from tests.support.rows.measures import gap_row
from tests.support.rows.runs import get_run, lab_run
from tests.support.warehouses import publish_run, warehouse_in

SPEC = load_catalog().spec("L06")
USERS = [users for users in SPEC.load_steps[0].stage_users if users is not None]


def run(run_id: str = "run-1", *, spec: LabSpec = SPEC, users: list[int] = USERS, **columns: Any) -> dict[str, Any]:
    """A run that deserves to be pinned, unless `columns` say otherwise."""
    tables = lab_run(users=users, run_id=run_id, session_id=run_id, **columns)
    for row in tables["stack_sessions"]:
        row["spec_digest"] = spec.digest
    return tables


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where this test pins."""
    return tmp_path / "baselines"


def refusal(warehouse: Warehouse, directory: Path, spec: LabSpec = SPEC, **choice: Any) -> str:
    before = sorted(directory.rglob("*"))
    with pytest.raises(BaselineError) as caught:
        pin(warehouse, spec, target="local", directory=directory, **choice)
    assert sorted(directory.rglob("*")) == before
    return str(caught.value)


def test_a_baseline_holds_the_stage_table_and_all_that_produced_it(warehouse: Warehouse, directory: Path) -> None:
    published = run()
    publish_run(warehouse, published)
    pinned = pin(warehouse, SPEC, target="local", directory=directory)
    assert pinned.path == directory / "L06" / "local" / "0001.json"
    content = json.loads(pinned.path.read_text())
    assert content == pinned.content
    session = published["stack_sessions"][1]
    assert {k: content[k] for k in ("lab", "target", "run_id", "engine", "provenance", "pace", "time_scale")} == {
        "lab": "L06",
        "target": "local",
        "run_id": "run-1",
        "engine": "modelled-vllm",
        "provenance": "modelled",
        "pace": "short",
        "time_scale": 5.0,
    }
    assert content["spec_digest"] == session["spec_digest"]
    assert content["previous"] is None
    variant = content["variants"]["baseline"]
    assert variant["values_digest"] == session["values_digest"]
    assert variant["engine_args"] == json.loads(session["engine_args"])
    [*stages] = variant["stages"]
    assert [s["users"] for s in stages] == USERS
    assert set(stages[0]) == {"step", "stage", "users", "offered_per_s", *content["units"]}
    first = published["load_stages"][0]
    assert stages[0]["output_tokens_per_s"] == pytest.approx(first["output_tokens"] / first["duration_s"])
    assert stages[0]["usd_per_1k_tokens"] == published["finops_sheet"][0]["usd_per_1k_tokens"]
    assert stages[0]["ttft_p50_s"] == pytest.approx(0.32)
    assert verify(directory) == [pinned.path]


def test_pinning_again_needs_the_flag_and_leaves_the_former_as_it_was(warehouse: Warehouse, directory: Path) -> None:
    publish_run(warehouse, run())
    first = pin(warehouse, SPEC, target="local", directory=directory)
    before = first.path.read_bytes()
    message = refusal(warehouse, directory)
    assert str(first.path) in message
    assert "--again" in message
    publish_run(warehouse, run("run-2"))
    second = pin(warehouse, SPEC, target="local", again=True, run_id="run-2", directory=directory)
    assert second.path.name == "0002.json"
    assert second.content["previous"] == {"file": "0001.json", "digest": first.digest}
    assert first.path.read_bytes() == before
    found = current("L06", "local", directory)
    assert found is not None
    assert (found.path, found.content["run_id"]) == (second.path, "run-2")
    assert [b.path for b in history("L06", "local", directory)] == verify(directory) == [first.path, second.path]


def test_without_a_pin_there_is_no_baseline(directory: Path) -> None:
    assert current("L06", "local", directory) is None
    assert history("L06", "local", directory) == []
    assert verify(directory) == []


def test_the_newest_run_is_pinned(warehouse: Warehouse, directory: Path) -> None:
    publish_run(warehouse, run("earlier"))
    later = run("later")
    for row in (row for table in later.values() for row in table):
        row["recorded_at"] += timedelta(days=1)
    publish_run(warehouse, later)
    # Whatever the stack's own clock says: that of every rehearsal begins at the lab's date.
    odd = run("odd")
    for stage in odd["load_stages"]:
        stage["started_at"] += timedelta(days=1)
    publish_run(warehouse, odd)
    assert pin(warehouse, SPEC, target="local", directory=directory).content["run_id"] == "later"


def test_a_run_that_was_cut_is_passed_over_and_refused_by_its_reason(warehouse: Warehouse, directory: Path) -> None:
    publish_run(warehouse, run("run-1"))
    publish_run(warehouse, run("run-2"))
    mark = run_mark_row(run_id="run-2")
    warehouse.publish("run_marks", [mark], target="local", lab="L06", run_id="run-2", part="cut")
    assert refusal(warehouse, directory, run_id="run-2") == f"run run-2 can't be pinned: {mark['reason']}"
    assert pin(warehouse, SPEC, target="local", directory=directory).content["run_id"] == "run-1"


def test_of_several_turns_the_last_one_is_pinned(warehouse: Warehouse, directory: Path) -> None:
    first, second = run(), run(trial=2, slower=2.0)
    for table, own in second.items():
        first[table] += [row | {"session_id": "run-1.baseline.T2"} for row in own]
    publish_run(warehouse, first)
    [stage, *_] = pin(warehouse, SPEC, target="local", directory=directory).content["variants"]["baseline"]["stages"]
    spoken = second["load_stages"][0]
    assert stage["output_tokens_per_s"] == pytest.approx(spoken["output_tokens"] / spoken["duration_s"])


def test_a_gap_stays_a_gap(warehouse: Warehouse, directory: Path) -> None:
    published = run(priced=False)
    published["metric_summaries"] = [
        gap_row(**{k: row[k] for k in ("run_id", "session_id", "stage", "users")}, measure="queue_depth")
        for row in published["metric_summaries"]
        if row["measure"] == "queue_depth"
    ]
    publish_run(warehouse, published)
    stages = pin(warehouse, SPEC, target="local", directory=directory).content["variants"]["baseline"]["stages"]
    for column in ("queue_depth", "kv_cache_usage", "usd_per_1k_tokens", "usd_per_1k_output_tokens"):
        assert [stage[column] for stage in stages] == [None] * len(USERS), column


def test_a_lab_without_a_run_or_with_another_run_is_refused(warehouse: Warehouse, directory: Path) -> None:
    assert "L06 has no run on target local yet: labs run L06 --target local" in refusal(warehouse, directory)
    publish_run(warehouse, run())
    assert "has no run 'run-9' on local; it has: run-1" in refusal(warehouse, directory, run_id="run-9")


def test_a_pace_that_is_not_for_baselines_is_refused(warehouse: Warehouse, directory: Path) -> None:
    publish_run(warehouse, run(pace="smoke", time_scale=40.0, users=[1, 4]))
    assert refusal(warehouse, directory) == (
        "run run-1 can't be pinned: the pace 'smoke' is not meant for baselines; set LABS_PACE to one of: full, short"
    )


def test_a_stage_with_too_few_requests_is_refused(warehouse: Warehouse, directory: Path) -> None:
    published = run()
    published["load_stages"][2] |= {"requests_in_stage": 19, "requests_ok": 19}
    publish_run(warehouse, published)
    message = refusal(warehouse, directory)
    assert message == (
        "run run-1 can't be pinned: baseline: stage 2 of ramp (8 users): 19 requests; the pace asks for at least 20"
    )


def test_too_many_errors_are_refused(warehouse: Warehouse, directory: Path) -> None:
    published = run()
    published["load_stages"][1]["requests_ok"] -= 1
    publish_run(warehouse, published)
    assert "stage 1 of ramp (4 users): the error rate is 4.17%; allowed 1.00%" in refusal(warehouse, directory)


def test_a_run_that_was_cut_short_is_refused_with_every_reason(warehouse: Warehouse, directory: Path) -> None:
    published = run(users=USERS[:3])
    del published["finops_sheet"]
    published["stack_sessions"] = published["stack_sessions"][:1]
    publish_run(warehouse, published)
    reasons = refusal(warehouse, directory).splitlines()
    assert [reason.removeprefix("run run-1 can't be pinned: ") for reason in reasons] == [
        "no session of baseline was closed; materialize the whole lab",
        "baseline has no finops_sheet, so a check failed or the run was cut short",
        "baseline: stage 3 of ramp (16 users) is missing",
        "baseline: stage 4 of ramp (32 users) is missing",
    ]


GETS = SPEC.model_copy(
    update={
        "steps": [
            LoadStep.model_validate(
                {
                    "kind": "load",
                    "name": "traffic",
                    "profile": {"kind": "rate", "per_s": [2.5, 8.0]},
                    "requests": [{"kind": "http", "path": "/status/200", "timeout_s": 5.0}],
                }
            )
        ],
        "error_budget": SPEC.error_budget.model_copy(update={"error_rate": 0.05}),
    }
)
"""As L06, but at rates of plain GETs."""


def run_of_gets(**columns: Any) -> dict[str, Any]:
    tables = get_run(**{"lab": "L06", "offered": (2.5, 8.0)} | columns)
    for row in tables["stack_sessions"]:
        row["spec_digest"] = GETS.digest
    return tables


def test_rates_of_plain_gets_can_be_pinned_without_a_token(warehouse: Warehouse, directory: Path) -> None:
    publish_run(warehouse, run_of_gets())
    variant = pin(warehouse, GETS, target="local", directory=directory).content["variants"]["baseline"]
    assert variant["model"] is None
    assert [(s["users"], s["offered_per_s"], s["requests"]) for s in variant["stages"]] == [
        (None, 2.5, 40),
        (None, 8.0, 40),
    ]
    first = variant["stages"][0]
    assert (first["requests_per_s"], first["e2e_p50_s"]) == (pytest.approx(2.5), pytest.approx(0.0125))
    assert (first["ttft_p50_s"], first["output_tokens_per_s"]) == (None, None)


def test_another_rate_than_the_specs_and_a_missing_latency_are_refused(warehouse: Warehouse, directory: Path) -> None:
    published = run_of_gets(offered=(2.5, 9.0))
    for row in published["requests"]:
        row["valid"] = row["stage"] != 0
    publish_run(warehouse, published)
    reasons = refusal(warehouse, directory, spec=GETS).splitlines()
    assert [reason.removeprefix("run get-run can't be pinned: ") for reason in reasons] == [
        "baseline: stage 1 of traffic (8/s) is missing",
        "baseline: stage 1 of traffic (9/s) is there twice, or isn't the spec's",
        "baseline: stage 0 of traffic (2.5/s): e2e_p50_s is not known",
    ]


def test_stages_without_latencies_are_refused(warehouse: Warehouse, directory: Path) -> None:
    published = run()
    for row in published["requests"]:
        row["valid"] = row["stage"] != 0
    publish_run(warehouse, published)
    assert "stage 0 of ramp (1 user): ttft_p50_s is not known" in refusal(warehouse, directory)


def test_a_spec_that_has_changed_since_the_run_is_refused(warehouse: Warehouse, directory: Path) -> None:
    publish_run(warehouse, run())
    changed = SPEC.model_copy(update={"question": "Another one?"})
    assert "the spec of L06 has changed since the run" in refusal(warehouse, directory, changed)


@pytest.fixture
def chain(warehouse: Warehouse, directory: Path) -> list[Path]:
    """Three pins of one run."""
    publish_run(warehouse, run())
    return [pin(warehouse, SPEC, target="local", again=n > 0, directory=directory).path for n in range(3)]


def problems(directory: Path) -> str:
    with pytest.raises(BaselineError) as caught:
        verify(directory)
    return str(caught.value)


def test_an_edited_file_is_found_out_and_nothing_is_pinned_on_top(
    warehouse: Warehouse, directory: Path, chain: list[Path]
) -> None:
    content = json.loads(chain[1].read_text())
    content["variants"]["baseline"]["stages"][0]["ttft_p50_s"] *= 0.9
    chain[1].write_text(json.dumps(content))
    expected = f"{chain[1]}: its digest doesn't match its content: it was changed after it was pinned"
    assert problems(directory).startswith(expected)
    assert refusal(warehouse, directory, again=True).startswith(expected)
    with pytest.raises(BaselineError):
        current("L06", "local", directory)


def test_a_file_replaced_with_a_fitting_digest_breaks_the_chain(directory: Path, chain: list[Path]) -> None:
    content = json.loads(chain[1].read_text())
    del content["digest"]
    content["run_id"] = "another"
    content["digest"] = baseline.canonical_digest(content)
    chain[1].write_text(json.dumps(content))
    assert problems(directory).startswith(f"{chain[2]}: it names another predecessor than the file before it")


def test_a_missing_file_breaks_the_chain(directory: Path, chain: list[Path]) -> None:
    chain[0].unlink()
    assert problems(directory).startswith(f"{chain[1]}: 0001.json, which comes before it, is missing")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is not JSON"), (b"[]", "has no digest"), (b"{}", "has no digest"), (b"\xff", "is not JSON")],
)
def test_a_broken_file_is_named(directory: Path, chain: list[Path], content: bytes, said: str) -> None:
    chain[2].write_bytes(content)
    assert problems(directory).startswith(f"{chain[2]}: {said}")


def test_a_foreign_or_misplaced_file_is_named(directory: Path, chain: list[Path]) -> None:
    stray = chain[0].with_name("notes.txt")
    stray.write_text("x")
    assert problems(directory).startswith(f"{stray}: is no baseline")
    stray.unlink()
    elsewhere = directory / "L07" / "local" / "0001.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(chain[0].read_bytes())
    assert problems(directory).startswith(f"{elsewhere}: it is of L06 on local, and lies in another folder")


def test_what_a_killed_pin_left_behind_is_no_problem(warehouse: Warehouse, directory: Path, chain: list[Path]) -> None:
    left = chain[0].with_name(".0004.json.0123.tmp")
    left.write_bytes(b"{")
    assert verify(directory) == chain
    assert pin(warehouse, SPEC, target="local", again=True, directory=directory).path.name == "0004.json"
    assert not left.exists()


def test_the_committed_baselines_are_what_was_pinned() -> None:
    verify()
