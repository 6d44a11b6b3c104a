"""Guards over the committed files: what no file may name, what must parse, and that the lock keeps step.

Doesn't belong here: tests of what the files do.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lab_pipelines.deployment import REPO_ROOT

# Joined here, so that this file doesn't name what it forbids.
REGISTRY_HOSTS = [
    "".join(parts)
    for parts in [
        ("py", "pi.", "org"),
        ("python", "hosted.", "org"),
        ("npm", "js.", "org"),
        ("npm", "js.", "com"),
        ("yarn", "pkg.", "com"),
        ("deb.", "debian.", "org"),
        ("security.", "debian.", "org"),
        ("archive.", "ubuntu.", "com"),
        ("security.", "ubuntu.", "com"),
        ("crates.", "io"),
        ("proxy.", "golang.", "org"),
        ("ruby", "gems.", "org"),
        ("ana", "conda.", "org"),
    ]
]

# A home, or a scratch folder: right on the machine where it was written, and nowhere else.
MACHINE_PATH = re.compile(rb"(?<![\w.~$}/-])/(?:home|Users|work|tmp|root)/[\w.-]+")
# Paths inside a container, or of a test that needs some path; each with its reason.
MACHINE_PATHS_ALLOWED = {
    "helm-values": "paths inside the chart's containers",
}


def repository_files() -> list[Path]:
    """Every file that is committed or about to be. Skips the test outside a git checkout."""
    if shutil.which("git") is None or not (REPO_ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of committed files")
    listed = subprocess.run(
        # safe.directory: in a container the checkout often belongs to another user.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO_ROOT,
        check=True,
        capture_output=True,
    ).stdout
    files = [REPO_ROOT / name.decode() for name in listed.split(b"\0") if name]
    return [file for file in files if file.is_file()]


def with_suffix(*suffixes: str) -> list[Path]:
    return [file for file in repository_files() if file.suffix in suffixes]


def relative(file: Path) -> str:
    return file.relative_to(REPO_ROOT).as_posix()


def test_no_file_names_a_package_registrys_host() -> None:
    forbidden = re.compile("|".join(map(re.escape, REGISTRY_HOSTS)).encode())
    found = [
        f"{relative(file)}: {m.group().decode()}" for file in repository_files() for m in _matches(forbidden, file)
    ]
    assert not found, "\n".join(found)


def test_no_file_holds_a_path_of_one_machine() -> None:
    found = [
        f"{relative(file)}: {match.group().decode()}"
        for file in repository_files()
        if relative(file).split("/", 1)[0] not in MACHINE_PATHS_ALLOWED
        for match in _matches(MACHINE_PATH, file)
    ]
    assert not found, "\n".join(found)


def _matches(pattern: re.Pattern[bytes], file: Path) -> list[re.Match[bytes]]:
    return list(pattern.finditer(file.read_bytes()))


def test_the_guards_see_what_they_forbid() -> None:
    assert MACHINE_PATH.search(b"open('/" + b"home/ada/labs')")
    assert MACHINE_PATH.search(b"DAGSTER_HOME=/" + b"tmp/x")
    assert not MACHINE_PATH.search(b"https://example.com/home/page and $HOME/work/x and ~/tmp/x")


def test_every_json_yaml_and_toml_file_parses() -> None:
    parsed = 0
    for file in with_suffix(".json", ".yaml", ".yml", ".toml"):
        if _is_template(file):
            continue
        text = file.read_text(encoding="utf-8")
        try:
            match file.suffix:
                case ".json":
                    json.loads(text)
                case ".toml":
                    tomllib.loads(text)
                case _:
                    list(yaml.safe_load_all(text))
        except ValueError as error:
            pytest.fail(f"{relative(file)}: {error}")
        except yaml.YAMLError as error:
            pytest.fail(f"{relative(file)}: {error}")
        parsed += 1
    assert parsed >= 5


def _is_template(file: Path) -> bool:
    """Whether a file is a chart's template, which becomes YAML once Helm has filled it in."""
    return file.parent.name == "templates" and (file.parent.parent / "Chart.yaml").exists()


def test_every_shell_script_is_sound_bash() -> None:
    scripts = [*with_suffix(".sh"), REPO_ROOT / ".ci" / "run"]
    assert REPO_ROOT / "scripts" / "setup.sh" in scripts
    for script in scripts:
        result = subprocess.run(["bash", "-n", script], check=False, capture_output=True, text=True)
        assert result.returncode == 0, f"{relative(script)}: {result.stderr}"


def test_every_executed_script_stops_at_its_first_failure() -> None:
    for script in [*with_suffix(".sh"), REPO_ROOT / ".ci" / "run"]:
        if script.name != "env.sh":  # sourced, also by people's own shells, which must survive a failure
            assert "\nset -euo pipefail\n" in script.read_text(encoding="utf-8"), relative(script)


# --- requirements.lock ---

LOCKED_LINE = re.compile(r"^(?P<requirement>[A-Za-z0-9][^#\\]*?==[^#\\]+?)\s*\\?$")


def locked_blocks(lock: Path) -> list[tuple[Requirement, int]]:
    """Each locked requirement with the number of its hashes, in the file's order."""
    blocks: list[tuple[Requirement, int]] = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("--hash=sha256:"):
            requirement, hashes = blocks[-1]
            blocks[-1] = (requirement, hashes + 1)
            continue
        match = LOCKED_LINE.match(line)
        assert match, f"{lock.name}: not a pinned requirement, a hash or a comment: {line!r}"
        blocks.append((Requirement(match["requirement"]), 0))
    return blocks


@pytest.mark.parametrize("lock", ["requirements.lock", "scripts/uv.txt"])
def test_every_locked_package_is_pinned_and_hashed(lock: str) -> None:
    blocks = locked_blocks(REPO_ROOT / lock)
    assert blocks
    for requirement, hashes in blocks:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"{requirement} is not pinned to one version"
        assert hashes > 0, f"{requirement} has no hash"


def test_the_lock_holds_every_direct_dependency_at_a_version_that_is_allowed() -> None:
    project = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [Requirement(line) for line in project["dependencies"]]
    # `bench` is for one comparison, 200 MB, and installed by whoever makes it.
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "bench"}
    direct += [Requirement(line) for lines in extras.values() for line in lines]
    locked: dict[str, list[str]] = defaultdict(list)
    for requirement, _ in locked_blocks(REPO_ROOT / "requirements.lock"):
        locked[canonicalize_name(requirement.name)].append(str(requirement.specifier).removeprefix("=="))
    wrong = [
        f"{requirement} (locked: {locked.get(canonicalize_name(requirement.name), 'not at all')})"
        for requirement in direct
        if not locked.get(canonicalize_name(requirement.name))
        or not all(
            requirement.specifier.contains(v, prereleases=True) for v in locked[canonicalize_name(requirement.name)]
        )
    ]
    assert not wrong, f"run `make lock` and commit requirements.lock: {wrong}"


def test_the_build_backend_comes_from_the_lock() -> None:
    # The set-up installs the project without build isolation, so the lock must hold exactly what builds it.
    pyproject = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement, _ in locked_blocks(REPO_ROOT / "requirements.lock")
    }
    for line in pyproject["build-system"]["requires"]:
        requirement = Requirement(line)
        assert locked.get(canonicalize_name(requirement.name)) == requirement.specifier


def test_the_set_up_asks_for_the_python_that_the_project_requires() -> None:
    project = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert SpecifierSet(project["requires-python"]) == SpecifierSet(">=3.11")
    setup = (REPO_ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    assert "sys.version_info >= (3, 11)" in setup
