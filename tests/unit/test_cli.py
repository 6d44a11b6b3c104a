"""`labs` as people call it: answers, tables, files, and mistakes that end in one clear message and an exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lab_pipelines import baseline
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.cli import app
from lab_pipelines.cli.ask import QUERIES_DIR
from lab_pipelines.cli.console import ROWS_SHOWN
from lab_pipelines.deployment import REPO_ROOT
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment, refused
from tests.support.rows.common import Row
from tests.support.rows.load import over_budget
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import event_row
from tests.support.warehouses import publish_run, warehouse_in

Labs = Callable[..., Result]


def pinnable_run() -> dict[str, list[Row]]:
    """A whole run of L06 as its spec stands today."""
    spec = load_catalog().spec("L06")
    tables = lab_run(users=[n for n in spec.load_steps[0].stage_users if n is not None], requests_per_stage=40)
    for row in tables["stack_sessions"]:
        row["spec_digest"] = spec.digest
    return tables


def step(name: str, kind: str, **columns: object) -> Row:
    """The event of a step that took four stack seconds."""
    return event_row(name=name, kind=kind, duration_s=4.0, **columns)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


@pytest.fixture
def labs(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    """The command line on this test's warehouse and baselines."""
    own_environment(monkeypatch, warehouse.data_dir)
    monkeypatch.setattr(baseline, "BASELINES_DIR", tmp_path / "baselines")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


# labs sql


@pytest.fixture
def snapshot(warehouse: Warehouse) -> Warehouse:
    publish_run(warehouse, lab_run(users=(1, 4)))
    warehouse.rebuild()
    return warehouse


@pytest.mark.usefixtures("snapshot")
def test_an_answer_is_printed_as_a_table(labs: Labs) -> None:
    result = labs("sql", "select users, target, null as nothing from stage_table order by users")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert lines[0] == ["users", "target", "nothing"]
    assert lines[2:] == [["1", "local", "NULL"], ["4", "local", "NULL"]]


@pytest.mark.usefixtures("snapshot")
def test_an_answer_as_json_keeps_numbers_and_nulls(labs: Labs) -> None:
    result = labs(
        "sql", "select users, 0.5::decimal(3, 2) as half, null as n, [1, 2] as l from stage_table order by 1", "--json"
    )
    assert json.loads(result.stdout) == [
        {"users": users, "half": 0.5, "n": None, "l": [1, 2]} for users in (1, 4)
    ]  # fmt: skip


@pytest.mark.usefixtures("snapshot")
def test_an_answer_as_csv_quotes_what_needs_it(labs: Labs) -> None:
    result = labs("sql", """select users, 'a,"b"' as text from stage_table order by users""", "--csv")
    assert list(csv.reader(io.StringIO(result.stdout))) == [["users", "text"], ["1", 'a,"b"'], ["4", 'a,"b"']]


@pytest.mark.usefixtures("snapshot")
@pytest.mark.parametrize("name", sorted(path.stem for path in QUERIES_DIR.glob("*.sql")))
def test_every_example_question_can_be_asked_by_its_name(labs: Labs, name: str) -> None:
    result = labs("sql", name, "--json")
    assert result.exit_code == 0, result.output
    unanswered = ("forecast_error", "spot_mixes")
    assert bool(json.loads(result.stdout)) == (name not in unanswered), "nothing was rehearsed or drawn here"


@pytest.mark.usefixtures("snapshot")
def test_a_file_of_sql_can_be_asked(labs: Labs, tmp_path: Path) -> None:
    (tmp_path / "mine.sql").write_text("-- How many?\nselect count(*) as stages from load_stages", encoding="utf-8")
    assert json.loads(labs("sql", str(tmp_path / "mine.sql"), "--json").stdout) == [{"stages": 2}]


@pytest.mark.usefixtures("snapshot")
def test_a_long_answer_is_cut_in_the_table_and_says_so_but_whole_as_csv(labs: Labs) -> None:
    question = f"select range as n from range({ROWS_SHOWN + 50})"
    assert f"the first {ROWS_SHOWN} rows" in labs("sql", question).stdout
    assert len(labs("sql", question, "--csv").stdout.splitlines()) == ROWS_SHOWN + 51


@pytest.mark.usefixtures("snapshot")
def test_text_from_rows_can_t_give_orders_to_the_terminal(labs: Labs) -> None:
    assert "\x1b" not in labs("sql", "select chr(27) || '[2Jgone' as t").stdout


@pytest.mark.usefixtures("snapshot")
def test_wrong_sql_is_one_message(labs: Labs) -> None:
    assert "stage_tabel does not exist" in refused(labs("sql", "select * from stage_tabel"), 1)


@pytest.mark.usefixtures("snapshot")
@pytest.mark.parametrize("statement", ["drop view stage_table", "create table x (a int)", "copy (select 1) to 'x.csv'"])
def test_the_warehouse_can_only_be_read(labs: Labs, statement: str) -> None:
    refused(labs("sql", statement), 1)
    assert labs("sql", "select count(*) from stage_table").exit_code == 0


def test_without_a_warehouse_the_remedy_is_named(labs: Labs) -> None:
    assert "make demo" in refused(labs("sql", "select 1 as one"), 1)


def test_an_unknown_name_lists_the_known_questions(labs: Labs) -> None:
    message = refused(labs("sql", "nonsense"), 2)
    assert "where_did_the_money_go" in message


def test_no_question_lists_the_known_ones(labs: Labs) -> None:
    assert "cheapest_stage" in refused(labs("sql", ""), 2)


def test_the_questions_are_listed_whole_and_without_what_follows_them(labs: Labs) -> None:
    listed = refused(labs("sql", ""), 2).splitlines()
    assert len([line for line in listed if line.startswith("  ")]) == len(list(QUERIES_DIR.glob("*.sql")))
    assert all(line.endswith("?") for line in listed if line.startswith("  "))
    assert any(line.endswith("how much of it served requests?") for line in listed)


@pytest.mark.usefixtures("snapshot")
def test_an_answer_without_a_row_says_so(labs: Labs) -> None:
    question = "select users from stage_table where users > 1000"
    assert labs("sql", question).stdout.splitlines()[-1] == "no row"
    assert labs("sql", question, "--csv").stdout.strip() == "users"


def test_two_formats_at_once_are_refused(labs: Labs) -> None:
    assert "exclude each other" in refused(labs("sql", "select 1 as one", "--json", "--csv"), 2)


# labs show-run


def test_a_run_is_shown_with_its_figures_its_provenance_and_what_to_do_next(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4, 8)))
    result = labs("show-run", "L06")
    assert result.exit_code == 0, result.output
    lines = result.stdout.replace("\N{NARROW NO-BREAK SPACE}", "").splitlines()
    assert lines[:2] == [
        "L06 · The Load Test Contract",
        "modelled · 5 stack s per wall s · target local · pace short · modelled-vllm",
    ]
    figures = [line.split() for line in lines if line.split()[:1] in (["1"], ["4"], ["8"])]
    assert [line[0] for line in figures] == ["1", "4", "8"]
    assert {len(line) for line in figures} == {11}
    for part in (
        "≈ too few requests",
        "gap: gpu_power, at 1, 4, 8 users: no such series",
        "make ui",
        'make sql Q="select',
    ):
        assert part in result.stdout


def test_the_report_s_path_is_shown_once_it_is_there(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    assert "not written yet: make report" in labs("show-run", "L06").stdout
    assert labs("report").exit_code == 0
    assert str(Path(warehouse.data_dir) / "report" / "year_in_numbers.html") in labs("show-run", "L06").stdout


def test_the_question_that_show_run_suggests_has_an_answer(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    warehouse.rebuild()
    suggested = labs("show-run", "L06").stdout.split('make sql Q="')[1].split('"')[0]
    assert len(json.loads(labs("sql", suggested, "--json").stdout)) == 1


def test_a_lab_without_a_run_says_what_to_do(labs: Labs) -> None:
    assert "make demo" in refused(labs("show-run", "L06"), 1)


def test_a_stage_whose_client_was_over_its_error_budget_is_marked_and_the_remedy_said(
    labs: Labs, warehouse: Warehouse
) -> None:
    run = lab_run(users=(1, 4, 8))
    reason = over_budget(run, 1)
    publish_run(warehouse, run)
    lines = labs("show-run", "L06").stdout.splitlines()
    assert [line.split()[0] for line in lines if line.split()[:1] in (["1"], ["4"], ["4‡"], ["8"])] == ["1", "4‡", "8"]
    (note,) = [line for line in lines if line.startswith("‡")]
    assert f"(at 4: {reason})" in note and note.endswith("Run it again where the machine has less else to do.")


def test_runs_of_another_target_are_not_shown(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1,)))
    assert "no run on target aks" in refused(labs("show-run", "L06", "--target", "aks"), 1)


def test_a_run_as_json_has_its_stages_and_its_findings(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    shown = json.loads(labs("show-run", "L06", "--json").stdout)
    assert [stage["users"] for stage in shown["stages"]] == [1, 4]
    assert shown["overview"]["provenance"] == "modelled"


def test_a_run_without_load_is_shown_by_its_steps(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, {"events": [step("scraped", "observe"), step("quota", "apply", outcome="failed")]})
    result = labs("show-run", "L06")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["scraped", "observe", "ok", "4.00", "s"] in lines
    assert ["quota", "apply", "failed", "4.00", "s"] in lines
    assert "from events where lab = 'L06'" in result.stdout


def test_an_unknown_lab_or_target_is_refused_with_the_known_ones(labs: Labs) -> None:
    assert "L01 to L78" in refused(labs("show-run", "L99"), 2)
    assert "rehearsal" in refused(labs("show-run", "L06", "--target", "moon"), 2)


def test_a_wrong_setting_is_refused_with_its_remedy(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_TARGET", "moon")
    assert "LABS_TARGET='moon'" in refused(labs("report"), 2)


def test_a_damaged_lake_is_one_message_that_names_the_file(labs: Labs, warehouse: Warehouse) -> None:
    foreign = Path(warehouse.data_dir) / "lake" / "requests" / "target=local" / "lab=L06" / "x.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"not Parquet")
    assert "x.parquet" in refused(labs("report"), 1)


# labs report


def test_the_report_also_builds_labs_duckdb_anew(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    assert labs("report").exit_code == 0
    assert json.loads(labs("sql", "select count(*) as n from stage_table", "--json").stdout) == [{"n": 2}]


def test_the_report_is_written_and_counted(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    result = labs("report")
    assert result.exit_code == 0, result.output
    count, html, markdown, phase = result.stdout.splitlines()
    assert count == "1 of 78 labs have results, 2 stages in all"
    assert Path(html).is_file()
    assert Path(markdown).is_file()
    assert Path(phase).name == "phase-1.html"


def test_one_page_of_the_report_is_written_alone_where_it_is_asked_for(
    labs: Labs, warehouse: Warehouse, tmp_path: Path
) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    for option, value, name in (("--lab", "L06", "L06.html"), ("--phase", "1", "phase-1.html")):
        result = labs("report", option, value, "--out", str(tmp_path / "out"))
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(tmp_path / "out" / name)
        assert (tmp_path / "out" / name).is_file()
    assert not (tmp_path / "out" / "year_in_numbers.html").exists()
    assert "L23 has no results yet" in refused(labs("report", "--lab", "L23"), 1)
    assert "give one of them" in refused(labs("report", "--lab", "L06", "--phase", "1"), 2)


# labs baseline


def test_a_run_is_pinned_shown_and_verified(labs: Labs, warehouse: Warehouse) -> None:
    assert "no baseline is pinned yet" in labs("baseline", "show").stdout
    publish_run(warehouse, pinnable_run())
    result = labs("baseline", "pin", "L06")
    assert result.exit_code == 0, result.output
    assert (baseline.BASELINES_DIR / "L06" / "local" / "0001.json").is_file()
    shown = labs("baseline", "show").stdout
    assert "0001.json" in shown
    assert "modelled-vllm" in shown
    assert labs("baseline", "verify").stdout == "1 baseline, every one as it was pinned\n"


def test_baselines_as_json_carry_their_numbers(labs: Labs, warehouse: Warehouse) -> None:
    assert json.loads(labs("baseline", "show", "--json").stdout) == []
    publish_run(warehouse, pinnable_run())
    assert labs("baseline", "pin", "L06").exit_code == 0
    [pinned] = json.loads(labs("baseline", "show", "--json").stdout)
    assert len(pinned["variants"]["baseline"]["stages"]) == 5


def test_pinning_again_needs_the_flag_and_keeps_the_former_file(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, pinnable_run())
    assert labs("baseline", "pin", "L06").exit_code == 0
    first = (baseline.BASELINES_DIR / "L06" / "local" / "0001.json").read_bytes()
    assert "--again" in refused(labs("baseline", "pin", "L06"), 1)
    assert labs("baseline", "pin", "L06", "--again").exit_code == 0
    assert (baseline.BASELINES_DIR / "L06" / "local" / "0001.json").read_bytes() == first
    assert "0002.json" in labs("baseline", "show").stdout


def test_an_edited_baseline_is_found_out(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, pinnable_run())
    assert labs("baseline", "pin", "L06").exit_code == 0
    path = baseline.BASELINES_DIR / "L06" / "local" / "0001.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"stage": 0', '"stage": 7'), encoding="utf-8")
    for command in ("verify", "show"):
        assert "digest" in refused(labs("baseline", command), 1)


def test_a_lab_without_a_spec_or_a_run_can_t_be_pinned(labs: Labs) -> None:
    assert "L99" in refused(labs("baseline", "pin", "L99"), 2)
    assert "not complete" in refused(labs("baseline", "pin", "L78"), 1)
    assert "no run on target local yet" in refused(labs("baseline", "pin", "L06"), 1)


# The program itself


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = warehouse_in(tmp_path_factory.mktemp("one-run"))
    publish_run(warehouse, lab_run(users=(1,)))
    warehouse.rebuild()
    return warehouse


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (["list"], set()),
        (["list", "--phase", "1", "--json"], set()),
        (["show", "L06"], set()),
        (["calendar"], set()),
        (["validate", "--json"], set()),
        (["plan", "L06", "--no-rehearsal"], set()),
        (["run", "L78"], set()),
        (["status"], {"duckdb"}),
        (["sql", "select 1 as one"], {"duckdb"}),
        (["show-run", "L06"], {"duckdb", "pyarrow", "numpy"}),
        (["baseline", "show"], set()),
        (["gpu", "replay"], {"duckdb", "pyarrow", "numpy"}),
    ],
    # Sorted: all processes that tests run in must name a test alike.
    ids=lambda value: " ".join(sorted(value) if isinstance(value, set) else value),
)
def test_a_command_loads_no_more_than_it_needs(one_run: Warehouse, command: list[str], allowed: set[str]) -> None:
    heavy = {"dagster", "duckdb", "pandas", "pyarrow", "numpy", "scipy", "altair", "vl_convert", "kubernetes", "locust"}
    code = """
import sys
from lab_pipelines.cli import app
try:
    app(sys.argv[1:])
except SystemExit:
    pass
print("loaded", *{name.split(".")[0] for name in sys.modules})
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=REPO_ROOT,
        env={"PATH": os.environ["PATH"], "LABS_DATA_DIR": one_run.data_dir},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"typer", "lab_pipelines"} <= loaded
    assert loaded & heavy <= allowed


def test_the_installed_command_answers(one_run: Warehouse) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("labs"), "sql", "select min(users) as users from stage_table", "--csv"],
        env={"PATH": os.environ["PATH"], "LABS_DATA_DIR": one_run.data_dir},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["users", "1"]
