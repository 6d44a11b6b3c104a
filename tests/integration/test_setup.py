"""The scripts as a newcomer's machine meets them: what is there, what is missing, two at once, and what is left behind.

The machines are folders: a checkout of a few files, and a PATH that holds only the programs that the machine has.
Doesn't belong here: what needs a network. That the set-up fetches what is missing, .ci/run shows on a clean machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from lab_pipelines.deployment import REPO_ROOT

# What every Debian and Ubuntu has (its "essential" and "required" packages), as far as the scripts use it.
# fmt: off
ALWAYS_THERE = [
    "awk", "bash", "cat", "chmod", "cmp", "cp", "cut", "dirname", "dpkg-deb", "echo", "env", "find", "flock", "grep",
    "head", "ls", "mkdir", "mktemp", "mv", "rm", "sed", "sha256sum", "sort", "tail", "test", "touch",
]
# fmt: on


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the scripts work on, as in a fresh clone; no environment, no tools."""
    root = tmp_path / "clone"
    for name in ("scripts", "deploy"):
        shutil.copytree(REPO_ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "Makefile", "README.md"):
        shutil.copy(REPO_ROOT / name, root / name)
    for package in ("lab_pipelines", "assets", "resources"):
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    return root


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder for PATH with what every Debian has, and neither Python nor apt nor anything of ours."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ALWAYS_THERE:
        found = shutil.which(name)
        if found is not None:
            (programs / name).symlink_to(found)
    return programs


def add_program(machine: Path, name: str, script: str) -> None:
    (machine / name).write_text(f"#!{shutil.which('bash')}\n{script}\n", encoding="utf-8")
    (machine / name).chmod(0o755)


def run(
    command: list[str], *, cwd: Path, path: str | Path, environ: Mapping[str, str] | None = None, timeout_s: float = 60
):
    """Run with an environment that holds only PATH and `environ`: no HOME, no settings of this machine."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": str(path), **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


# --- setup.sh on machines that lack something ---


def test_without_python_the_set_up_says_the_one_command(checkout: Path, machine: Path) -> None:
    result = run(["bash", "scripts/setup.sh"], cwd=checkout, path=machine)
    assert result.returncode == 1
    assert lines(result.stdout + result.stderr) == [
        "setup: Python 3.11 or newer is needed: sudo apt-get install python3"
    ]


def test_a_python_that_is_too_old_is_named_with_its_version_and_a_remedy(checkout: Path, machine: Path) -> None:
    add_program(machine, "python3", 'if [[ $* == --version ]]; then echo "Python 3.9.2"; else exit 1; fi')
    result = run(["bash", "scripts/setup.sh"], cwd=checkout, path=machine)
    assert result.returncode == 1
    said = lines(result.stdout + result.stderr)
    assert len(said) == 1
    assert "python3 is 3.9.2" in said[0]
    assert "sudo apt-get install" in said[0]
    assert not (checkout / ".venv").exists()


def test_a_newer_python_is_found_beside_one_that_is_too_old(checkout: Path, machine: Path) -> None:
    add_program(machine, "python3", "exit 1")
    add_program(machine, "python3.12", "case $* in *_base_executable*) echo /opt/python3.12 ;; *) exit 1 ;; esac")
    result = run(["bash", "scripts/setup.sh"], cwd=checkout, path=machine)
    # It went on with 3.12, to the next thing that this machine lacks.
    assert "Python 3.11 or newer" not in result.stderr
    assert lines(result.stderr)[-1].endswith("sudo apt-get install python3-pip")


def test_without_uv_pip_and_apt_the_set_up_says_the_one_command(checkout: Path, machine: Path) -> None:
    # Debian's python3 comes without pip: `-m pip` fails.
    add_program(machine, "python3", "case $* in *_base_executable*) echo python3 ;; *) exit 1 ;; esac")
    result = run(["bash", "scripts/setup.sh"], cwd=checkout, path=machine)
    assert result.returncode == 1
    assert lines(result.stdout + result.stderr) == [
        "setup: fetching uv",
        "setup: neither uv nor pip is installed, and apt can't fetch one: sudo apt-get install python3-pip",
    ]


def test_what_apt_says_is_passed_on_when_it_cannot_fetch(checkout: Path, machine: Path) -> None:
    add_program(machine, "python3", "case $* in *_base_executable*) echo python3 ;; *) exit 1 ;; esac")
    add_program(machine, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    result = run(["bash", "scripts/setup.sh"], cwd=checkout, path=machine)
    assert result.returncode == 1
    assert "setup: apt says E: Unable to locate package" in result.stderr
    assert lines(result.stderr)[-1].endswith("sudo apt-get install python3-pip")
    assert not list((checkout / ".tools").glob("apt.*/")), "the folder of the failed fetch was left behind"


# --- setup.sh for real, from uv's cache ---


def set_up_environ(tmp_path: Path) -> dict[str, str]:
    """Offline, with this machine's cache of packages; nothing else of this machine's settings."""
    cache = subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    return {"UV_OFFLINE": "1", "UV_CACHE_DIR": cache, "HOME": str(tmp_path)}


@pytest.mark.slow
def test_two_set_ups_at_once_make_one_sound_checkout_and_a_third_does_nothing(checkout: Path, tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv is not on PATH; run the tests through `make test`")
    path = os.environ["PATH"]
    environ = {"PATH": path, **set_up_environ(tmp_path)}
    both = [
        subprocess.Popen(
            ["bash", "scripts/setup.sh"],
            cwd=checkout,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in both]
    if any("offline" in text or "network connectivity is disabled" in text for text in said):
        pytest.skip(
            "uv's cache doesn't hold the locked packages, because something else than the set-up installed them"
        )
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("installing the locked packages" in text for text in said) == 1, said
    assert sum("initialising Dagster's instance" in text for text in said) == 1, said

    # The project itself is installed, from the checkout.
    installed = run(
        [str(checkout / ".venv/bin/python"), "-c", "import lab_pipelines; print(lab_pipelines.__file__)"],
        cwd=tmp_path,
        path=path,
    )
    assert installed.stdout.strip() == str(checkout / "lab_pipelines" / "__init__.py"), installed.stderr
    # The instance opens, with its settings.
    opened = run(
        [
            str(checkout / ".venv/bin/python"),
            "-c",
            "from dagster import DagsterInstance; print(DagsterInstance.get().run_monitoring_enabled)",
        ],
        cwd=tmp_path,
        path=path,
        environ={"DAGSTER_HOME": str(checkout / ".dagster"), "HOME": str(tmp_path)},
    )
    assert opened.stdout.strip() == "True", opened.stderr

    stamp = (checkout / ".venv" / "labs-installed").stat().st_mtime_ns
    third = run(["bash", "scripts/setup.sh"], cwd=checkout, path=path, environ={"UV_OFFLINE": "1"})
    assert (third.returncode, lines(third.stderr)) == (0, ["setup: everything is in place"])
    assert (checkout / ".venv" / "labs-installed").stat().st_mtime_ns == stamp
    silent = run(["bash", "scripts/setup.sh", "--quiet"], cwd=checkout, path=path, environ={"UV_OFFLINE": "1"})
    assert (silent.returncode, silent.stdout + silent.stderr) == (0, "")

    # A changed dependency is noticed, and only the packages are seen to: the environment is kept.
    made = (checkout / ".venv" / "labs-made-for").stat().st_mtime_ns
    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as pyproject:
        pyproject.write("\n# changed\n")
    again = run(["bash", "scripts/setup.sh"], cwd=checkout, path=path, environ=set_up_environ(tmp_path), timeout_s=120)
    assert again.returncode == 0, again.stderr
    assert "installing the locked packages" in again.stderr
    assert (checkout / ".venv" / "labs-made-for").stat().st_mtime_ns == made


# --- Dagster's instance ---


def test_dagster_accepts_every_setting_of_the_local_instance(tmp_path: Path) -> None:
    from dagster import DagsterInstance
    from dagster._core.instance.config import PoolGranularity

    shutil.copy(REPO_ROOT / "deploy" / "local" / "dagster.yaml", tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled is True
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert instance.get_settings("run_monitoring")["free_slots_after_run_end_seconds"] == 60
        assert instance.get_settings("sensors")["use_threads"] is True
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert pools.pool_granularity is PoolGranularity.OP


# --- env.sh ---


def sourced(variable: str, *, cwd: Path, environ: Mapping[str, str]) -> str:
    script = f'source "{REPO_ROOT}/scripts/env.sh"; printf %s "${{{variable}-unset}}"'
    return run(["bash", "-euo", "pipefail", "-c", script], cwd=cwd, path=os.environ["PATH"], environ=environ).stdout


def test_the_instance_is_the_checkouts_own_from_any_folder_and_whatever_the_user_has_set(tmp_path: Path) -> None:
    environ = {"DAGSTER_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert sourced("DAGSTER_HOME", cwd=tmp_path, environ=environ) == str(REPO_ROOT / ".dagster")


def test_foreign_packages_cannot_shadow_the_locked_ones(tmp_path: Path) -> None:
    environ = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}
    assert sourced("PYTHONPATH", cwd=tmp_path, environ=environ) == "unset"
    assert sourced("PYTHONHOME", cwd=tmp_path, environ=environ) == "unset"


def test_a_home_is_kept_when_it_can_be_written_and_replaced_when_it_cannot(tmp_path: Path) -> None:
    ours = str(REPO_ROOT / ".tools" / "home")
    assert sourced("HOME", cwd=tmp_path, environ={"HOME": str(tmp_path)}) == str(tmp_path)
    assert sourced("HOME", cwd=tmp_path, environ={}) == ours
    assert sourced("HOME", cwd=tmp_path, environ={"HOME": ""}) == ours
    assert sourced("HOME", cwd=tmp_path, environ={"HOME": str(tmp_path / "missing")}) == ours


def test_the_systems_prometheus_wins_over_the_unpacked_copy(tmp_path: Path) -> None:
    folders = sourced("PATH", cwd=tmp_path, environ={}).split(":")
    assert folders[0] == str(REPO_ROOT / ".venv" / "bin")
    assert folders[-1] == str(REPO_ROOT / ".tools" / "prometheus" / "usr" / "bin")


# --- Makefile and the thin scripts ---

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_plain_make_lists_every_target(checkout: Path) -> None:
    result = run(["make"], cwd=checkout, path=os.environ["PATH"])
    declared = re.findall(r"^([a-z]+):(?!=| export)", (checkout / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    listed = [line.split()[1] for line in lines(result.stdout)]
    assert result.returncode == 0
    assert {"setup", "demo", "test", "ui", "sql"} <= set(listed)
    assert listed == declared


@needs_make
@pytest.mark.parametrize(
    "question", ["select '$1' as \"a b\"", "select 1 -- 100% `true` $(false) \\n", "-- a comment\nselect 1"]
)
def test_a_question_reaches_the_warehouse_as_it_was_typed(checkout: Path, question: str) -> None:
    (checkout / "scripts" / "labs.sh").write_text('printf "%s|" "$@"', encoding="utf-8")
    result = run(["make", "sql", f"Q={question}"], cwd=checkout, path=os.environ["PATH"])
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"sql|--|{question}|"


def as_if_set_up(checkout: Path, *, dagster: str, labs: str = "exit 0") -> Path:
    """A checkout whose set-up has nothing to do, and whose `dagster` and `labs` are the given scripts."""
    (checkout / "scripts" / "setup.sh").write_text("exit 0", encoding="utf-8")
    programs = checkout / ".venv" / "bin"
    programs.mkdir(parents=True)
    add_program(programs, "dagster", dagster)
    add_program(programs, "labs", labs)
    return checkout


def test_the_demo_runs_the_main_command_and_then_shows_the_run(checkout: Path) -> None:
    as_if_set_up(checkout, dagster='printf "[%s]" dagster "$@"; echo; echo "$DAGSTER_HOME"', labs='echo labs "$@"')
    result = run(["bash", "scripts/demo.sh"], cwd=checkout.parent / "clone", path=os.environ["PATH"])
    assert result.returncode == 0, result.stderr
    assert lines(result.stdout) == [
        "[dagster][asset][materialize][--select][*][--partition][L06][-m][lab_pipelines.definitions]",
        str(checkout / ".dagster"),
        "labs show-run L06",
    ]


def test_a_demo_that_fails_keeps_the_exit_code_and_says_where_the_logs_are(checkout: Path) -> None:
    as_if_set_up(checkout, dagster="exit 3", labs="echo must not run")
    result = run(["bash", "scripts/demo.sh"], cwd=checkout, path=os.environ["PATH"])
    assert result.returncode == 3
    assert result.stdout == ""
    assert len(lines(result.stderr)) == 1
    assert str(checkout / ".dagster" / "storage") in result.stderr


def test_clean_removes_what_set_up_made_and_keeps_what_was_measured(checkout: Path) -> None:
    made = [".venv/bin/python", ".tools/uv/bin/uv", ".dagster/history/runs.db", "assets/__pycache__/x.pyc"]
    kept = ["warehouse/data/lake/requests/x.parquet", "results/baselines/L06.json", "assets/__init__.py"]
    for name in [*made, *kept]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    result = run(["bash", "scripts/clean.sh"], cwd=checkout, path=os.environ["PATH"])
    assert result.returncode == 0, result.stderr
    assert [name for name in made if (checkout / name).exists()] == []
    assert [name for name in kept if not (checkout / name).exists()] == []


# --- .ci/run ---


def ci_machine(checkout: Path, machine: Path, *, makefile: str) -> Path:
    """A checkout with another Makefile, on a machine that lacks nothing."""
    (checkout / ".ci").mkdir()
    shutil.copy(REPO_ROOT / ".ci" / "run", checkout / ".ci" / "run")
    (checkout / "Makefile").write_text(makefile, encoding="utf-8")
    make = shutil.which("make")
    assert make
    (machine / "make").symlink_to(make)
    # Of these, .ci/run asks only whether they are there; apt-get is asked when ca-certificates are missing here.
    for name in ("python3", "git", "chromium", "openssl", "apt-get", "sudo"):
        add_program(machine, name, "exit 0")
    return checkout


@needs_make
def test_ci_runs_the_tests_and_then_the_demo_and_times_both(checkout: Path, machine: Path) -> None:
    ci_machine(checkout, machine, makefile="setup test demo:\n\t@echo ran $@, CI=$(CI)\n")
    result = run(["bash", ".ci/run"], cwd=checkout, path=machine)
    assert result.returncode == 0, result.stderr
    ran = [line for line in lines(result.stdout) if line.startswith("ran ")]
    assert ran == ["ran setup, CI=true", "ran test, CI=true", "ran demo, CI=true"]
    assert "ci: make test took" in result.stdout
    assert "ci: make demo took" in result.stdout


@needs_make
@pytest.mark.parametrize("failing", ["setup", "test", "demo"])
def test_ci_fails_when_any_phase_fails_and_names_it(checkout: Path, machine: Path, failing: str) -> None:
    ci_machine(checkout, machine, makefile=f"setup test demo:\n\t@test $@ != {failing}\n")
    result = run(["bash", ".ci/run"], cwd=checkout, path=machine)
    assert result.returncode != 0
    assert f"in: make {failing}" in result.stdout
    assert "all passed" not in result.stdout


# --- the UI ---

TINY_DEFINITIONS = """
import threading
from pathlib import Path
from dagster import Definitions, asset, in_process_executor

@asset
def held() -> None:
    Path("held").touch()
    try:
        threading.Event().wait()
    finally:
        Path("released").touch()

defs = Definitions(assets=[held], executor=in_process_executor)
"""
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on PythonError { message } }
}
"""
MARK = "LABS_TEST_UI"


def marked_processes(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def launch_held_run(url: str) -> None:
    params = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "tiny",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": ["held"]}],
        },
        "runConfigData": {},
        "mode": "default",
    }
    request = urllib.request.Request(
        f"{url}/graphql",
        json.dumps({"query": LAUNCH, "variables": {"params": params}}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        launched = json.load(response)
    assert launched["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", launched


@pytest.mark.slow
def test_an_interrupt_of_the_ui_ends_runs_in_order_and_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY_DEFINITIONS, encoding="utf-8")
    (tmp_path / "workspace.yaml").write_text(
        "load_from:\n  - python_file: {relative_path: tiny.py, location_name: tiny}\n", encoding="utf-8"
    )
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(REPO_ROOT / "deploy" / "local" / "dagster.yaml", home)
    environ = {**os.environ, "DAGSTER_HOME": str(home), MARK: str(tmp_path)}
    subprocess.run([sys.executable, REPO_ROOT / "scripts" / "initialise_instance.py"], env=environ, check=True)

    log = tmp_path / "ui.log"
    with log.open("w") as output:
        ui = subprocess.Popen(
            [sys.executable, REPO_ROOT / "scripts" / "serve_ui.py"],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 200

    def wait_for(happened: Callable[[], bool]) -> None:
        while not happened():
            assert ui.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def url() -> str:
        said = [line for line in log.read_text().splitlines() if line.startswith("ui: starting on ")]
        return said[0].split()[3] if said else ""

    try:
        wait_for(lambda: bool(url()) and answers(f"{url()}/server_info"))
        assert url().startswith("http://127.0.0.1:")
        launch_held_run(url())
        wait_for((tmp_path / "held").exists)
        assert len(marked_processes(str(tmp_path))) >= 5, "the script, dagster dev, the web server, the daemon, the run"
        ui.send_signal(signal.SIGINT)
        assert ui.wait(timeout=100) == 0, log.read_text()
        assert (tmp_path / "released").exists(), "the run was killed before it could take its stack down"
        assert marked_processes(str(tmp_path)) == [], log.read_text()
        assert not answers(f"{url()}/server_info")
    finally:
        for process in marked_processes(str(tmp_path)):
            process.kill()
