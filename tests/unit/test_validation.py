"""Whatever is wrong with a spec, or with a file that it refers to, is one line with file, line and field."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab_pipelines.catalog.loader import CATALOG_DIR, LARGEST, WHOLE_FILE, Problem, load_catalog, read_lab, read_yaml
from lab_pipelines.catalog.promql import LONGEST, refusal
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.validation import validate_catalog
from lab_pipelines.deployment import REPO_ROOT
from tests.support.mutations import FILE_FIELDS, Mutation, Place, mutations

OUTLINE = """\
id: {id}
title: "Of a test"
phase: 1
week: 1
sessions: 1
namespace: {namespace}
nodes: []
question: "Is it there?"
concepts: [being there]
missing: [everything else]
"""
COMPLETE = [lab.id for lab in load_catalog().labs() if isinstance(lab, LabSpec)]


@dataclass(frozen=True)
class Year:
    """A catalog that holds one complete lab, and a repository that holds what this lab refers to."""

    catalog: Path
    root: Path
    lab: str

    @property
    def spec(self) -> Path:
        return self.catalog / f"{self.lab}.yaml"

    def problems(self) -> list[Problem]:
        return validate_catalog(self.catalog, root=self.root)

    def spoilt(self, file: str, old: str, new: str) -> list[str]:
        """The problems after replacing `old` in a file of the repository, which is put back."""
        path = self.spec if file == "spec" else self.root / file
        text = path.read_text(encoding="utf-8")
        assert old in text, file
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        found = [str(problem).removeprefix(f"{self.root}/") for problem in self.problems()]
        path.write_text(text, encoding="utf-8")
        return found


def year_of(lab: str, folder: Path) -> Year:
    root, catalog = folder / "repository", folder / "repository" / "catalog"
    catalog.mkdir(parents=True)
    for name in (f"{lab}.yaml", "calendar.yaml", "prices.yaml"):
        shutil.copy(CATALOG_DIR / name, catalog)
    for other in load_catalog().spec(lab).builds_on:
        (catalog / f"{other}.yaml").write_text(OUTLINE.format(id=other, namespace=f"lab-{other[1:]}"), encoding="utf-8")
    # A lab before all others, so that whoever takes its namespace is the one who is told.
    (catalog / "L00.yaml").write_text(OUTLINE.format(id="L00", namespace="lab-taken"), encoding="utf-8")
    for name in (f"helm-values/lab{lab[1:]}", "load-tests/prompts", "load-tests/traces", "warehouse/measures"):
        if (REPO_ROOT / name).is_dir():
            shutil.copytree(REPO_ROOT / name, root / name)
    (folder / "outside.txt").write_text("not for a spec", encoding="utf-8")
    for name in set(FILE_FIELDS.values()):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "leads-outside").symlink_to(folder / "outside.txt")
    return Year(catalog, root, lab)


@pytest.fixture
def l06(tmp_path: Path) -> Year:
    return year_of("L06", tmp_path)


# The committed year


def test_the_committed_year_has_no_problem() -> None:
    assert [str(problem) for problem in validate_catalog()] == []


def test_validating_needs_neither_dagster_nor_an_sdk_nor_the_network() -> None:
    program = """
import sys
calls = []
sys.addaudithook(lambda event, args: calls.append(event) if event.startswith(("socket.", "subprocess.")) else None)
from lab_pipelines.catalog.validation import validate_catalog
validate_catalog()
heavy = {"dagster", "kubernetes", "duckdb", "numpy", "pandas", "scipy", "requests", "locust", "azure"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}), calls)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO_ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[] []\n"


# Two hundred spoilt specs and more


def sample(lab: str, of_each_kind: int, at_most: int) -> list[Mutation]:
    """The same mutations in every run: some of each kind, in an order that a seed decides."""
    path = CATALOG_DIR / f"{lab}.yaml"
    data, _ = read_yaml(path)
    by_kind: dict[str, list[Mutation]] = defaultdict(list)
    for mutation in mutations(read_lab(path)[0], data, path.read_text(encoding="utf-8")):
        by_kind[mutation.kind].append(mutation)
    chance = random.Random(f"{lab} 2026")
    chosen = [m for group in by_kind.values() for m in chance.sample(group, min(of_each_kind, len(group)))]
    chance.shuffle(chosen)
    return chosen[:at_most]


def complaints(year: Year, mutation: Mutation) -> Iterator[str]:
    """What the validation's answer to one mutation lacks."""
    text = mutation.text()
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    year.spec.write_bytes(content)
    problems = year.problems()
    lines = content.decode("utf-8", errors="replace").splitlines()
    for problem in problems:
        shape = r"[^:]+\.yaml:[1-9]\d*: [^:]+.*: .+"
        if not re.fullmatch(shape, str(problem)) or not str(problem).isprintable() or len(str(problem)) > 600:
            yield f"{mutation}: not a clear line: {problem!s}"
        if problem.line > max(len(lines), 1):
            yield f"{mutation}: names line {problem.line} of {len(lines)}"
    named = [p for p in problems if p.path == str(year.spec) and is_about(p.field, mutation.place)]
    if not named:
        yield f"{mutation}: nobody names it in {[str(problem) for problem in problems]}"
    for problem in named:
        last = problem.field.rpartition(".")[2]
        line = lines[problem.line - 1] if lines else ""
        inexact = re.search("is required and missing|not valid YAML|is nested", problem.message)
        if last.isidentifier() and not inexact and last not in line:
            yield f"{mutation}: {problem!s} is about line {line!r}"


def is_about(field: str, place: Place) -> bool:
    """Whether a problem's field is the place, a parent of it or a child of it."""
    expected = ".".join(map(str, place))
    return not place or field == expected or f"{expected}.".startswith(f"{field}.") or field.startswith(f"{expected}.")


def test_every_kind_of_mistake_in_l06_is_one_clear_line_that_names_file_line_and_field(l06: Year) -> None:
    chosen = sample("L06", of_each_kind=2, at_most=1000)
    assert len(chosen) >= 100
    assert [complaint for mutation in chosen for complaint in complaints(l06, mutation)] == []


@pytest.mark.parametrize("lab", [lab for lab in COMPLETE if lab != "L06"])
def test_mistakes_in_the_other_complete_labs_are_such_lines_too(lab: str, tmp_path: Path) -> None:
    chosen = sample(lab, of_each_kind=1, at_most=25)
    year = year_of(lab, tmp_path)
    assert year.problems() == []
    assert [complaint for mutation in chosen for complaint in complaints(year, mutation)] == []


def test_the_mistakes_are_two_hundred_and_more_and_of_many_kinds() -> None:
    chosen = sample("L06", of_each_kind=2, at_most=1000)
    others = [mutation for lab in COMPLETE if lab != "L06" for mutation in sample(lab, of_each_kind=1, at_most=25)]
    assert len(chosen) + len(others) >= 200
    assert len({mutation.kind for mutation in chosen}) >= 80


def test_a_check_that_found_nothing_would_be_noticed(l06: Year) -> None:
    harmless = Mutation("nothing", ("week",), lambda: (CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8"))
    assert list(complaints(l06, harmless)) == ["nothing at week: nobody names it in []"]


# Several files


def test_every_problem_of_every_file_is_reported_not_only_the_first(l06: Year) -> None:
    spec = l06.spec.read_text(encoding="utf-8")
    l06.spec.write_text(spec.replace("week: 3", "week: three").replace("sessions: 1", "sessions: 9"), encoding="utf-8")
    (l06.catalog / "L05.yaml").write_text("id: L05\n", encoding="utf-8")
    (l06.catalog / "calendar.yaml").write_text("year: [", encoding="utf-8")
    found = {(Path(problem.path).name, problem.field) for problem in l06.problems()}
    assert found >= {
        *{("L06.yaml", "week"), ("L06.yaml", "sessions"), ("L05.yaml", "title"), ("calendar.yaml", "year")}
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("spec", "week: 3", "week: 7", r"L06\.yaml:5: week: phase 1 has the weeks 1 to 6, but not 7"),
        ("spec", "[L05]", "[L04]", r"L06\.yaml:\d+: builds_on\.0: there is no lab L04"),
        ("spec", "NC4as", "NC6s", r"nodes\.0\.sku: prices\.yaml has no SKU 'Standard_NC6s_T4_v3'; it has: Standard_"),
        (
            "spec",
            "Standard_NC4as_T4_v3",
            "Standard_NC6s_v3",
            r"nodes\.0\.sku: Azure retired Standard_NC6s_v3 on 2025-09",
        ),
        ("spec", "gpus: 1", "gpus: 2", r"nodes\.0\.gpus: one Standard_NC4as_T4_v3 has 1 GPUs, but not 2"),
        ("spec", "fixed-512.json", "fixed-256.json", r"prompts: there is no file load-tests/prompts/fixed-256\.json"),
        ("spec", "prompts/fixed-512.json", "leads-outside", r"is a link that leads out of load-tests/"),
        ("spec", "input_tokens: 512", "input_tokens: 500", r"has prompts of 512 tokens, but input_tokens is 500"),
        ("spec", "lab06/values.yaml", "lab06", r"chart\.values: there is no file helm-values/lab06"),
        (
            "spec",
            "version: 0.1.12",
            "version: 0.1.99",
            r"chart\.version: nothing is recorded of .* recorded: .*vllm-stack",
        ),
        (
            "spec",
            "variants:\n  - id: baseline\n",
            "variants:\n  - id: baseline\n"
            "    values: {vllm: {'servingEngineSpec.modelSpec[0].vllmConfig.maxNumSeq': 8}}\n",
            r"maxNumSeq: is not a value that vllm-stack 0\.1\.12 knows; did you mean maxNumSeqs\?",
        ),
        (
            "spec",
            "variants:\n  - id: baseline\n",
            "variants:\n  - id: baseline\n    values: {vllm: {'servingEngineSpec.modelSpec[1].replicaCount': 2}}\n",
            r"helm-values/lab06/values\.yaml has no servingEngineSpec\.modelSpec\.1 that this could change",
        ),
        (
            "helm-values/lab06/values.yaml",
            "maxModelLen: 4096",
            "maxModelLength: 4096",
            r"^helm-values/lab06/values\.yaml:\d+: servingEngineSpec\.modelSpec\[0\]\.vllmConfig\.maxModelLength: is "
            r"not .* did you mean maxModelLen\?",
        ),
        (
            "helm-values/lab06/values.yaml",
            "replicaCount: 1",
            "replicaCount: one",
            r"values\.yaml:\d+: servingEngineSpec\.modelSpec\[0\]\.replicaCount: expected int, but found 'one'",
        ),
        (
            "helm-values/lab06/values.yaml",
            "routerSpec:",
            "routerSpec: [",
            r"values\.yaml:\d+: routerSpec: not valid YAML",
        ),
        (
            "helm-values/lab06/values.yaml",
            "routerSpec:",
            "---\nrouterSpec:",
            r"expected one document of values, but a second begins here",
        ),
        ("load-tests/prompts/fixed-512.json", '{"prompts"', '{"prompt"', r"is not a JSON file of the form"),
        ("load-tests/prompts/fixed-512.json", '{"prompts"', "[" * 100_000, r"is not a JSON file of the form"),
        (
            "catalog/calendar.yaml",
            "last_week: 6",
            "last_week: 2",
            r"calendar\.yaml:\d+: phases: phase 2 must begin with week 3",
        ),
        ("catalog/prices.yaml", "currency: USD", "currency: EUR", r"prices\.yaml:\d+: currency: input should be 'USD'"),
    ],
)
def test_what_only_two_files_together_can_tell_is_told(l06: Year, file: str, old: str, new: str, said: str) -> None:
    found = l06.spoilt(file, old, new)
    assert any(re.search(said, line) for line in found), found
    assert l06.problems() == []


REPLAY = """steps:
  - kind: load
    name: replay
    profile:
      kind: trace
      file: load-tests/traces/synthetic-mooncake.jsonl
      format: mooncake
    requests:
      - {kind: traced, max_input_tokens: 2048, max_output_tokens: 256, temperature: 0.0, timeout_s: 600.0}

"""


def replaying(l06: Year) -> None:
    """Let the lab replay a trace instead of its ramp, and claim nothing of the ramp's stages."""
    text = l06.spec.read_text(encoding="utf-8")
    text = re.sub(r"^steps:\n.*?(?=^[a-z#])", REPLAY, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^findings:\n.*?(?=^[a-z#]|\Z)", "findings: []\n", text, flags=re.DOTALL | re.MULTILINE)
    l06.spec.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "spec",
            "synthetic-mooncake",
            "synthetic-moonkake",
            r"file: there is no file load-tests/traces/synthetic-moonk",
        ),
        ("spec", "format: mooncake", "format: azure", r"profile\.file: load-tests/traces/.*jsonl, line 1: the column"),
        (
            "load-tests/traces/synthetic-mooncake.jsonl",
            '"hash_ids": [0, 2]',
            '"hash_ids": [0]',
            r"steps\.0\.profile\.file: load-tests/traces/synthetic-mooncake\.jsonl, line 2: hash_ids has 1 ids",
        ),
        (
            "spec",
            "format: mooncake\n",
            "format: mooncake\n      speed: 0.01\n",
            r"profile\.speed: the load takes 5402\.4 s, longer than max_hold_s of the paces full \(900 s\), short",
        ),
    ],
)
def test_a_trace_that_can_t_be_replayed_is_told_of(l06: Year, file: str, old: str, new: str, said: str) -> None:
    replaying(l06)
    assert l06.problems() == []
    found = l06.spoilt(file, old, new)
    assert any(re.search(said, line) for line in found), found


def test_a_values_file_that_no_lab_names_is_told_of(l06: Year) -> None:
    (l06.root / "helm-values" / "lab06" / "vlaues.yaml").write_text("replicaCount: 1\n", encoding="utf-8")
    (problem,) = l06.problems()
    assert (Path(problem.path).name, problem.field) == ("vlaues.yaml", WHOLE_FILE)
    assert "is a values file that no lab names" in problem.message


def test_a_spec_with_a_wrong_file_name_is_told_of_rather_than_forgotten(l06: Year) -> None:
    (l06.catalog / "L7.yaml").write_text(OUTLINE.format(id="L07", namespace="lab-07"), encoding="utf-8")
    (l06.catalog / "L08b.yaml").write_text(OUTLINE.format(id="L08", namespace="lab-08"), encoding="utf-8")
    assert [(Path(problem.path).name, problem.line, problem.field) for problem in l06.problems()] == [
        ("L7.yaml", 1, WHOLE_FILE),
        ("L08b.yaml", 1, "id"),
    ]


RULES = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: of-a-test}
spec:
  groups:
    - name: one
      rules:
        - alert: Up
          expr: up{job="a"} == 0
        - record: job:up:sum
          expr: >-
            sum by (job) (up)
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'up{job="a"} == 0',
            'up{job="a"',
            r"rules\.yaml:9: spec\.groups\.0\.rules\.0\.expr: is not PromQL: unexpected end",
        ),
        (
            "sum by (job) (up)",
            "rate(up)",
            r"rules\.yaml:11: spec\.groups\.0\.rules\.1\.expr: is not PromQL: expected type",
        ),
        ("metadata: {name: of-a-test}", "metadata: {}", r"rules\.yaml:3: metadata\.name: is required in a manifest"),
        ("kind: PrometheusRule", "kind: 3", r"rules\.yaml:2: kind: is required in a manifest and must be text"),
    ],
)
def test_manifests_and_the_queries_of_rules_are_read_too(l06: Year, old: str, new: str, said: str) -> None:
    path = l06.root / "helm-values" / "lab06" / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    assert l06.problems() == []
    found = l06.spoilt("helm-values/lab06/rules.yaml", old, new)
    assert any(re.search(said, line) for line in found), found


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("-- How many?\nSELECT 1 WHERE $session_id <> '$day'\n", None),
        ("SELECT 1\n", r"must begin with the question that it answers"),
        ("-- How many?\n", r"has no statement"),
        ("-- How many?\nSELECT $sesion_id\n", r"unknown parameter \$sesion_id; known: \$end, \$run_id, \$session_id"),
    ],
)
def test_a_measure_in_sql_is_looked_into(l06: Year, sql: str, said: str | None) -> None:
    (l06.root / "warehouse" / "measures" / "of_a_test.sql").write_text(sql, encoding="utf-8")
    measure = "measures:\n  - {name: of-a-test, unit: count, sql: warehouse/measures/of_a_test.sql, over: run}\n"
    found = l06.spoilt("spec", "measures:\n", measure)
    if said is None:
        assert found == []
    else:
        (line,) = found
        assert re.search(rf"L06\.yaml:\d+: measures\.0\.sql: .*{said}", line), line


# PromQL


GOOD = [
    'sum(rate(vllm:generation_tokens_total{namespace="lab-06"}[8250ms]))',
    'histogram_quantile(0.95, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket{a="b",}[1m])))',
    "sum without (pod) (a) / on (job) group_left (node) b",
    "max_over_time(rate(a[1m])[5m:10s])",
    "a offset -5m and b unless c or d",
    "a @ end() + b @ 1609746000",
    'label_replace(up, "x", "$1", "y", "(.*)")',
    '{__name__=~"DCGM_FI_DEV_.+", gpu!~"[5]"}',
    "1 - avg(up) > bool 0.5",
    "quantile_over_time(0.9, a[1h30m])",
    "time() - process_start_time_seconds",
    "# a comment [5]\nup",
    "count_values('v', a) ^ 2 % 3",
    "-a",
    "a atan2 b",
]
BAD = [
    *["sum(rate(a))", "rate(a)", "sum(a[5m])", "a{b=c}", 'a{b="c"', "sum(a", "histogram_quantile(a)", "a +"],
    *["a[5]", "a[5m:10]", "a[5x]", "a offset 5", "a offset", "a[-5m]", "rate(a[0s])", "rate(a[5m])[5m]"],
    *["{}", '{a=""}', 'a{b=~"("}', "sum by le (a)", "a == bool", "foo(a)", "1 > 2", '"a" + 1', "a and 1", "topk(a)"],
    *["a b", 'a{__name__="b"}', '-"x"', "sum(1)", 'up{a="b"}}', "a @ foo", "vector(a)", "a on (b) c", "$x", ""],
    *["count_values(a)", "sum(a, b)", "a and on(b) group_left c", "time(1)", "# nothing", '{"a.b"}', 'a{"b.c"="d"}'],
    *["mad_over_time(a[5m])", "limitk by (a) (2, b)", "sort_by_label(a)", "start()", "holt_winters(a, 1, 1)"],
]


def test_the_parser_agrees_with_prometheus_about_good_and_bad_queries(tmp_path: Path) -> None:
    queries = [*GOOD, *BAD]
    rules = tmp_path / "rules.yml"
    rules.write_text(
        "groups:\n"
        + "".join(f"- name: g{n}\n  rules: [{{record: r, expr: {quoted(q)}}}]\n" for n, q in enumerate(queries)),
        encoding="utf-8",
    )
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with Prometheus; scripts/setup.sh fetches it"
    checked = subprocess.run(
        [promtool, "check", "rules", "--lint=none", rules], check=False, capture_output=True, text=True
    )
    refused = {int(number) for number in re.findall(r'group "g(\d+)"', checked.stdout + checked.stderr)}
    theirs = {query: number in refused for number, query in enumerate(queries)}
    assert theirs == {**dict.fromkeys(GOOD, False), **dict.fromkeys(BAD, True)}
    assert theirs == {query: refusal(query) is not None for query in queries}


def quoted(query: str) -> str:
    """As a YAML string in double quotes."""
    escaped = query.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def test_a_query_must_give_one_value_for_each_series() -> None:
    assert refusal("up[5m]") == "gives a range of samples for each series; expected one value, e.g. by rate(…[1m])"
    assert refusal('("text")') == "gives a text; expected one value for each series"
    assert refusal('up{job="a"}', form="selector") is None
    for query in ("sum(up)", "up offset 5m", "up[5m]", "up @ end()", "-up"):
        assert "must be a plain selector" in str(refusal(query, form="selector"))


def test_a_query_that_would_overflow_the_parsers_stack_is_not_given_to_it() -> None:
    assert f"at most {LONGEST} are read" in str(refusal("(" * 1_000_000))
    deepest = "(" * (LONGEST // 2 - 1) + "a" + ")" * (LONGEST // 2 - 1)
    assert refusal(deepest) is None


def test_the_largest_file_that_is_read_is_far_larger_than_any_of_ours() -> None:
    largest = max(
        path.stat().st_size for folder in (CATALOG_DIR, REPO_ROOT / "helm-values") for path in folder.rglob("*.yaml")
    )
    assert largest < LARGEST / 10
