"""`labs list`, `show`, `calendar` and `plan` on the year's own catalogue, and what a shell completes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lab_pipelines.catalog.calendar import load_calendar
from lab_pipelines.catalog.loader import CATALOG_DIR, load_catalog
from lab_pipelines.catalog.spec import LabSpec, Outline
from lab_pipelines.cli import app
from lab_pipelines.cli.options import nearest
from lab_pipelines.deployment import REPO_ROOT
from tests.support.command_line import own_environment, refused

Labs = Callable[..., Result]


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    own_environment(monkeypatch, tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def listed(result: Result) -> list[str]:
    """The ids of a list that was asked for as JSON."""
    assert result.exit_code == 0, result.output
    return [row["id"] for row in json.loads(result.stdout)]


# labs list


def test_the_whole_year_is_listed_in_its_order(labs: Labs) -> None:
    assert listed(labs("list", "--json")) == [f"L{number:02d}" for number in range(1, 79)]


def test_a_lab_s_line_has_its_dates_gpus_and_targets(labs: Labs) -> None:
    result = labs("list", "--week", "3")
    lines = [line.split() for line in result.stdout.splitlines()]
    [l06] = [line for line in lines if line[:1] == ["L06"]]
    assert (
        " ".join(l06) == "L06 The Load Test Contract 1 3 Mar 11 - Mar 17 T4 1 complete local rehearsal kubernetes aks"
    )
    assert lines[-1][:4] == ["2", "of", "78", "labs,"]


def test_filters_narrow_the_list_together(labs: Labs) -> None:
    catalog = load_catalog()
    complete = [lab.id for lab in catalog.labs() if isinstance(lab, LabSpec)]
    assert listed(labs("list", "--status", "complete", "--json")) == complete
    assert listed(labs("list", "--status", "complete", "--phase", "1", "--week", "3", "--json")) == ["L05", "L06"]
    chaos = listed(labs("list", "--kind", "chaos", "--json"))
    assert chaos == [lab.id for lab in catalog.labs() if "chaos" in lab.kinds] != []


@pytest.mark.parametrize("asked", ["2", "GPU Serving Internals", "gpu"])
def test_a_phase_is_known_by_number_or_by_the_beginning_of_its_name(labs: Labs, asked: str) -> None:
    expected = [lab.id for lab in load_catalog().labs() if lab.phase == 2]
    assert listed(labs("list", "--phase", asked, "--json")) == expected


def test_a_gpu_is_known_by_its_family_and_none_means_no_node_has_one(labs: Labs) -> None:
    assert "L06" in listed(labs("list", "--gpu", "t4", "--json"))
    a100 = listed(labs("list", "--gpu", "A100", "--json"))
    assert a100 == listed(labs("list", "--gpu", "A100-80G", "--json")) != []
    without = listed(labs("list", "--gpu", "none", "--json"))
    assert without == [lab.id for lab in load_catalog().labs() if not any(node.gpus for node in lab.nodes)] != []


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("--phase", "holidays", "3 Autoscaling"),
        ("--gpu", "V100", "A100-80G"),
        ("--status", "done", "complete, outline"),
        ("--kind", "fun", "chaos, finops"),
        ("--week", "46", "less than or equal to 45"),
    ],
)
def test_a_filter_that_means_nothing_is_refused_with_what_it_could_be(
    labs: Labs, option: str, value: str, known: str
) -> None:
    assert known in refused(labs("list", option, value), 2)


# labs show


def test_a_complete_lab_is_shown_with_all_that_its_spec_says(labs: Labs) -> None:
    spec = load_catalog().spec("L06")
    shown = labs("show", "L06").stdout
    for part in (
        "L06 · The Load Test Contract",
        "phase 1 Foundation · week 3 (Mar 11 - Mar 17) · 1 session · complete",
        "L05 vLLM Standing Up",
        "1 x Standard_NC4as_T4_v3 (T4)",
        "cost-center=llm-serving-labs, lab=l06, phase=1",
        "helm-values/lab06/values.yaml",
        "- ramp: load on vllm: 1, 4, 8, 16, 32 users; 512 tokens in, 256 out",
        "(default on local)",
        *(measure.name for measure in spec.measures),
        *(finding.claim for finding in spec.findings),
        "at most schedule_lag_p99_wall_s 0.05, ttft_lag_p99_wall_s 0.05,",
    ):
        assert part in shown, part


def test_every_lab_can_be_shown(labs: Labs) -> None:
    for lab in load_catalog().labs():
        result = labs("show", lab.id)
        assert result.exit_code == 0, result.output
        assert lab.question.split()[-1] in result.stdout
        for erratum in lab.errata:
            assert f"source: {erratum.source}" in result.stdout
        if isinstance(lab, Outline):
            assert all(f"- {what}" in result.stdout for what in lab.missing)
        else:
            assert all(f"- {step.name}: " in result.stdout for step in lab.steps)


def test_a_lab_as_json_is_its_spec_with_its_dates(labs: Labs) -> None:
    shown = json.loads(labs("show", "L06", "--json").stdout)
    assert (shown["status"], shown["starts"], shown["phase_name"]) == ("complete", "2026-03-11", "Foundation")
    assert shown["stack"]["components"][0]["chart"]["version"] == "0.1.12"
    assert json.loads(labs("show", "L78", "--json").stdout)["missing"]


def test_an_unknown_lab_is_answered_with_the_nearest_id(labs: Labs) -> None:
    assert "did you mean L06?" in refused(labs("show", "lab-06"), 2)
    assert "L01 to L78" in refused(labs("show", "nonsense"), 2)


@pytest.mark.parametrize(
    ("typed", "meant"), [("6", "L06"), ("l6", "L06"), ("L006", "L06"), ("Lab 11", "L11"), ("L79", "L77"), ("x", None)]
)
def test_a_number_written_otherwise_finds_its_lab(typed: str, meant: str | None) -> None:
    found = nearest(typed, load_catalog().ids)
    assert (found is None) == (meant is None)
    if typed != "L79":  # no number of the year's: any of the ids that look like it
        assert found == meant


# labs calendar


def test_the_calendar_has_every_week_with_its_labs_tags_and_posts(labs: Labs) -> None:
    shown = json.loads(labs("calendar", "--json").stdout)
    weeks = {week["number"]: week for week in shown["weeks"]}
    assert sorted(weeks) == list(range(1, 46))
    assert weeks[3]["labs"] == ["L05", "L06"]
    assert (weeks[6]["tag"], weeks[6]["posts"]) == ("v0.1.0-foundation", [1])
    assert [lab for week in shown["weeks"] for lab in week["labs"]] == list(load_catalog().ids)
    assert len(shown["posts"]) == len(load_calendar().posts)


def test_the_weeks_that_hold_today_are_marked(labs: Labs) -> None:
    shown = json.loads(labs("calendar", "--json").stdout)
    current = [week["number"] for week in shown["weeks"] if week["current"]]
    today = date.fromisoformat(shown["today"])
    assert current == [week.number for week in load_calendar().weeks if week.starts <= today <= week.ends]
    marked = [line.split()[1] for line in labs("calendar").stdout.splitlines() if line.startswith("▶")]
    assert marked == [str(number) for number in current]


# labs plan


def test_a_plan_shows_what_is_deployed_how_long_and_what_it_costs_at_most(labs: Labs) -> None:
    shown = labs("plan", "L06", "--no-rehearsal").stdout
    planned = json.loads(labs("plan", "L06", "--no-rehearsal", "--json").stdout)
    for part in (
        "target local · pace short · baseline",
        "1 x Standard_NC4as_T4_v3 (T4), 0.526 USD/h each",
        "namespace  lab-06",
        "vllm-stack",
        "50 min 0 s",
        f"{planned['at_most_usd']:.3f} USD at most, {planned['expected_usd']:.3f} USD expected",
        "on-demand list prices of eastus",
        "modelled",
        "nothing is rented",
    ):
        assert part in shown, part
    assert planned["provenance"] == "modelled"
    assert planned["at_most_s"] > planned["expected_s"] > 0


def test_a_pace_and_a_region_change_the_plan(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    short = json.loads(labs("plan", "L06", "--no-rehearsal", "--json").stdout)
    full = json.loads(labs("plan", "L06", "--pace", "full", "--no-rehearsal", "--json").stdout)
    assert full["at_most_s"] - short["at_most_s"] == pytest.approx(5 * 300)
    monkeypatch.setenv("LABS_REGION", "centralus")
    dearer = json.loads(labs("plan", "L06", "--no-rehearsal", "--json").stdout)
    assert (dearer["region"], dearer["nodes"][0]["usd_per_hour"]) == ("centralus", 0.594)


def test_the_plan_of_an_outline_says_what_is_known_and_what_is_missing(labs: Labs) -> None:
    missing = load_catalog().lab("L77")
    assert isinstance(missing, Outline)
    shown = labs("plan", "L77").stdout
    assert "outline: it can't run yet" in shown
    assert "USD at most, if the nodes stay up through its sessions" in shown
    assert all(f"- {what}" in shown for what in missing.missing)


def test_a_plan_is_refused_for_a_pace_variant_or_target_that_the_lab_does_not_have(labs: Labs) -> None:
    assert "full, short, smoke" in refused(labs("plan", "L06", "--pace", "slow"), 2)
    assert "choose from: baseline" in refused(labs("plan", "L06", "--variant", "big"), 2)
    assert "It runs on: rehearsal, kubernetes, aks" in refused(labs("plan", "L07", "--target", "local"), 1)


def test_turns_are_planned_with_their_time_and_cost(labs: Labs) -> None:
    once, thrice = (
        json.loads(labs("plan", "L11", "--no-rehearsal", "--turns", turns, "--json").stdout) for turns in ("1", "3")
    )
    assert (once["turns"], thrice["turns"], thrice["variants"]) == (1, 3, once["variants"])
    assert {part["trial"] for part in thrice["parts"]} == {1, 2, 3}
    assert 2.5 * float(once["at_most_usd"]) < float(thrice["at_most_usd"]) < 3 * float(once["at_most_usd"])
    shown = labs("plan", "L11", "--no-rehearsal", "--turns", "3").stdout
    assert "gmu-0.95 · 3 turns" in shown
    assert shown.count("2 more turns") == 3
    assert shown.count("ramp") == 3, "a line for each step of the first turn alone"
    assert "2 more turn" not in labs("plan", "L11", "--no-rehearsal").stdout


def test_a_lab_that_this_machine_can_t_serve_is_planned_for_a_target_that_can(labs: Labs) -> None:
    spec = load_catalog().spec("L07")
    assert "local" not in spec.targets
    shown = labs("plan", "L07").stdout
    assert f"target {spec.targets[0]}" in shown
    assert "what is not in this plan comes on top" in shown  # its nodes' start is not modelled
    message = refused(labs("plan", "L07", "--target", "local"), 1)
    assert spec.needs is not None
    assert spec.needs in message


# The shell


def completed(line: str) -> list[str]:
    """What bash offers at the end of `line`."""
    words = line.split(" ")
    done = subprocess.run(
        [Path(sys.executable).with_name("labs")],
        env={
            "PATH": os.environ["PATH"],
            "_LABS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout.split("\n")[:-1] if done.stdout.endswith("\n") else done.stdout.split("\n")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("labs sh", ["show", "show-run"]),
        ("labs show L7", [f"L7{n}" for n in range(9)]),
        ("labs list --phase Auto", ["Autoscaling"]),
        ("labs list --gpu A1", ["A10", "A100"]),
        ("labs list --status c", ["complete"]),
        ("labs run L06 --target a", ["aks"]),
        ("labs run L06 --pace s", ["short", "smoke"]),
        ("labs plan L06 --variant b", ["baseline"]),
        ("labs sql cheap", ["cheapest_stage"]),
    ],
)
def test_the_shell_completes_commands_labs_and_what_options_take(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


def test_the_completion_script_can_be_shown() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("labs"), "--show-completion", "bash"],
        env={"PATH": os.environ["PATH"], "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_LABS_COMPLETE=complete_bash" in done.stdout


def test_help_states_the_exit_codes(labs: Labs) -> None:
    shown = " ".join(labs("--help").stdout.split())
    assert "0 done; 1 it can't be done, or failed; 2 a wrong call; 3 ci-guard cleaned up; 130 interrupted" in shown


# labs validate


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The year's catalogue in a folder of the test's own."""
    return shutil.copytree(CATALOG_DIR, tmp_path / "catalog", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def test_a_sound_catalogue_is_counted_and_called_valid(labs: Labs) -> None:
    result = labs("validate")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("78 labs, calendar, prices, ")
    assert result.stdout.endswith(": all valid\n")
    assert json.loads(labs("validate", "--json").stdout)["problems"] == []


def test_each_problem_is_one_line_with_file_line_and_field(labs: Labs, copied: Path) -> None:
    path = copied / "L06.yaml"
    text = path.read_text(encoding="utf-8").replace("week: 3", "week: 44").replace("phase: 1", "phase: one")
    path.write_text(text, encoding="utf-8")
    result = labs("validate", str(path))
    assert result.exit_code == 1
    assert [line.split(" ", 2)[1] for line in result.stdout.splitlines()] == ["phase:"]
    assert result.stdout.startswith(f"{path}:4: phase: ")
    assert "1 problem" in result.stderr
    [problem] = json.loads(labs("validate", str(path), "--json").stdout)["problems"]
    assert (problem["path"], problem["line"], problem["field"]) == (str(path), 4, "phase")


def test_problems_of_files_that_were_not_named_stay_out(labs: Labs, copied: Path) -> None:
    (copied / "L07.yaml").write_text("id: L07\n", encoding="utf-8")
    assert labs("validate", str(copied / "L06.yaml")).exit_code == 0
    assert labs("validate", str(copied / "L06.yaml"), str(copied / "L07.yaml")).exit_code == 1


def test_a_file_that_no_catalogue_reads_is_refused(labs: Labs, tmp_path: Path) -> None:
    assert "no such file" in refused(labs("validate", str(tmp_path / "L06.yaml")), 2)
    assert "no file of a catalogue" in refused(labs("validate", str(REPO_ROOT / "README.md")), 2)
