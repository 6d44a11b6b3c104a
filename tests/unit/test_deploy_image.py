"""The container image's recipe: what it copies, what it installs, who it runs as, and what it can start."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab_pipelines.deployment import REPO_ROOT

DOCKERFILE = REPO_ROOT / "deploy" / "Dockerfile"
LOCK, IMAGE_LOCK = REPO_ROOT / "requirements.lock", REPO_ROOT / "deploy" / "requirements.lock"
COMMANDS = [
    ["dagster", "api", "grpc", "--help"],
    ["dagster", "api", "execute_run", "--help"],
    ["dagster", "api", "execute_step", "--help"],
    ["dagster-daemon", "run", "--help"],
    ["dagster-webserver", "--help"],
    ["python", "-m", "lab_pipelines.cli", "--help"],
    ["python", "-m", "lab_pipelines.engine.serve", "--help"],
    ["python", "-m", "locust", "-f", "load-tests/locust/locustfile.py", "--help"],
    ["python", "-m", "resources.load_pod", "--help"],
]
"""What the cluster starts: code location, run worker, step worker, daemon, web server, CLI, modelled vLLM, Locust."""


def instructions() -> Iterator[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined, comments left out."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8")).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            name, _, arguments = line.partition(" ")
            yield name, arguments.strip()


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, arguments in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, arguments))
    return found


def copied() -> list[str]:
    """What is taken from the checkout."""
    return [shlex.split(one)[0] for name, one in instructions() if name == "COPY" and not one.startswith("--from")]


def test_hadolint_finds_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_is_all_that_the_build_is_given() -> None:
    assert all((REPO_ROOT / path).exists() for path in copied())
    ignored = (REPO_ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == set(copied())
    assert "warehouse/data" in ignored


def test_every_package_of_the_project_and_every_folder_it_reads_is_in_the_image() -> None:
    wheel = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    folders = {path.split("/")[0] for path in wheel["wheel"]["packages"]}
    for package in ("assets", "lab_pipelines", "resources"):
        for source in (REPO_ROOT / package).rglob("*.py"):
            for first in re.findall(r'REPO_ROOT / "([\w.-]+)"', source.read_text(encoding="utf-8")):
                folders.add(first)
    # A checkout's own: in a cluster DAGSTER_HOME is set, nothing runs Prometheus, and nobody writes the README's table.
    read = folders - {".dagster", ".tools", "README.md"}
    assert {"lab_pipelines", "warehouse", "load-tests", "helm-values"} <= read <= set(copied())


def test_packages_come_from_the_lock_by_hash_and_nothing_is_built() -> None:
    installs = [arguments for name, arguments in instructions() if name == "RUN" and " install --no-cache" in arguments]
    assert len(installs) == 1
    # Complete as it is: pip alone would look for packages' extras, which the lock has without their names.
    assert {"--require-hashes", "--no-deps", "--only-binary", "/build/requirements.lock"} <= set(installs[0].split())
    assert not re.search(r"https?://|--index-url|--trusted-host|apt-get|gcc|build-essential", DOCKERFILE.read_text())


def test_the_images_lock_is_the_projects_without_the_developers_tools() -> None:
    whole, image = _pins(LOCK), _pins(IMAGE_LOCK)
    assert {name: whole[name] for name in image} == image, "run `make lock` and commit deploy/requirements.lock"
    project = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["aks"]]
    assert {canonicalize_name(Requirement(line).name) for line in wanted} <= set(image)
    # pytest isn't among them: Locust needs it at run time.
    assert not {"ruff", "playwright", "basedpyright", "hatchling", "xllamacpp"} & set(image)


def _pins(lock: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name → (requirement with its marker, hashes)."""
    pins: dict[str, tuple[str, tuple[str, ...]]] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        if match := re.match(r"([A-Za-z0-9._-]+)(\[[\w,]+\])?(==[^\\\n]+?)\s*\\?\n", block):
            hashes = tuple(re.findall(r"sha256:([0-9a-f]{64})", block))
            assert hashes, block
            pins[canonicalize_name(match[1])] = (match[3].split(";")[0].strip(), hashes)
    return pins


def test_it_runs_as_nobody_in_particular_and_leaves_the_command_to_dagsters_chart() -> None:
    last = dict(stages()[-1])
    uid, _, gid = last["USER"].partition(":")
    assert int(uid) > 1000 and int(gid) > 1000
    assert "ENTRYPOINT" not in last
    values = yaml.safe_load((REPO_ROOT / "deploy" / "dagster" / "values.yaml").read_text("utf-8"))
    assert values["dagsterWebserver"]["podSecurityContext"]["runAsUser"] == int(uid)
    assert sum(name == "USER" for name, _ in instructions()) == 1


def test_every_command_of_the_image_starts_from_the_folders_that_it_copies(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    for path in copied():
        if (REPO_ROOT / path).is_dir():
            (app / path).symlink_to(REPO_ROOT / path)
    environment = next(arguments for name, arguments in stages()[-1] if name == "ENV" and "PYTHONPATH" in arguments)
    python_path = re.search(r"PYTHONPATH=(\S+)", environment)
    assert python_path
    environ = {
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": python_path[1].replace("/app", str(app)),
        "HOME": str(tmp_path),
        "DAGSTER_HOME": str(tmp_path),
    }
    running = [
        subprocess.Popen(command, cwd=app, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in COMMANDS
    ]
    failed = {
        " ".join(command): process.stderr.read() if process.stderr else ""
        for command, process in zip(COMMANDS, running, strict=True)
        if process.wait() != 0
    }
    for process in running:
        process.communicate()
    assert failed == {}
