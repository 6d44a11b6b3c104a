"""A post's template: its front matter, its prose, and which questions its placeholders ask.

A placeholder's arguments are constants, so a template can be read without being filled in: what it asks is known before
anything is asked, and a wrong one is refused with its file and line.

Doesn't belong here: answers (answers.py), how they read (render.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from pydantic import Field, ValidationError

from lab_pipelines.catalog.calendar import Calendar, Post, Week
from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.loader import Catalog, SpecError, shown
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.strict import SpecModel
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.wording import VERDICTS

POSTS = REPO_ROOT / "blog" / "posts"
QUERIES = REPO_ROOT / "blog" / "queries"
FINDING, PICTURE = "finding", "picture"
"""Questions that the placeholders of the same names ask."""
COLD_START = "cold-start"
COMMON_PICTURES = (COLD_START, "throughput", "ttft")
"""Pictures that the report draws of labs whose spec has no figures: of the cold start, and of the first load step."""
PARAMETER = re.compile(r"\$([a-z_]+)\b")
Kind = Literal["number", "table", "finding", "picture"]
Constant = str | int | float


class TemplateError(ValueError):
    """A template is wrong. The message names file, line, placeholder and remedy."""


class Front(SpecModel):
    """What a template says of itself; title, week and date are the calendar's."""

    number: int = Field(ge=1)
    labs: list[str] = Field(min_length=1)
    """Those whose numbers the post may quote."""


@dataclass(frozen=True)
class Asked:
    """One question of a placeholder."""

    kind: Kind
    name: str
    """Of the file in blog/queries, without its suffix."""
    params: tuple[tuple[str, Constant], ...]

    @property
    def lab(self) -> str | None:
        """The lab that it asks about; None: several of the post's."""
        return next((str(value) for name, value in self.params if name == "lab"), None)

    @property
    def path(self) -> Path:
        return QUERIES / f"{self.name}.sql"


@dataclass(frozen=True)
class Template:
    """One post, not filled in."""

    path: Path
    post: Post
    week: Week
    labs: Mapping[str, Identity]
    """The post's, by id."""
    source: str
    """The prose. Empty lines stand for the front matter, so that lines keep their numbers."""
    asked: list[Asked]
    """In order of appearance, each once."""

    @property
    def slug(self) -> str:
        """The rendered post's file, without its suffix."""
        return self.path.stem


class FindingTag(Extension):
    """`{% finding 'L11', 'id' %}{% confirmed %}…{% refuted %}…{% inconclusive %}…{% endfinding %}`

    The finding's verdict chooses the text, and evidence follows it. All three have to be written: prose can't have an
    opinion before the rows do.
    """

    tags = {"finding"}  # noqa: RUF012 - Jinja reads a plain set of the class, and types it as one

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        lab = parser.parse_expression()
        parser.stream.expect("comma")
        arguments = [lab, parser.parse_expression()]
        self._only_space(parser, parser.parse_statements(("name:confirmed",)), line)
        bodies = list[list[nodes.Node]]()
        for verdict in VERDICTS:
            if not parser.stream.current.test(f"name:{verdict}"):
                parser.fail(f"finding: expected {{% {verdict} %}}, found {parser.stream.current.value!r}", line)
            next(parser.stream)
            parser.stream.expect("block_end")
            until = tuple(f"name:{word}" for word in (*VERDICTS, "endfinding"))
            bodies.append(parser.subparse(until))
            next_word = parser.stream.current
            if verdict == VERDICTS[-1] and not next_word.test("name:endfinding"):
                parser.fail(f"finding: expected {{% endfinding %}}, found {next_word.value!r}", line)
            if _is_blank(bodies[-1]):
                parser.fail(f"finding: {verdict} has no text; say what follows when the verdict is {verdict}", line)
        parser.stream.expect("name:endfinding")
        verdict_of = self._call("verdict_of", arguments, line)
        tests = [
            nodes.Compare(verdict_of, [nodes.Operand("eq", nodes.Const(verdict))], lineno=line) for verdict in VERDICTS
        ]
        chosen = nodes.If(
            tests[0],
            bodies[0],
            [nodes.If(test, body, [], [], lineno=line) for test, body in zip(tests[1:], bodies[1:], strict=True)],
            [],
            lineno=line,
        )
        return [chosen, nodes.Output([self._call("evidence", arguments, line)], lineno=line)]

    @staticmethod
    def _only_space(parser: Parser, found: Sequence[nodes.Node], line: int) -> None:
        if not _is_blank(found):
            parser.fail("finding: no text may stand before {% confirmed %}", line)

    @staticmethod
    def _call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
        return nodes.Call(nodes.Name(name, "load", lineno=line), arguments, [], None, None, lineno=line)


def _is_blank(body: Sequence[nodes.Node]) -> bool:
    texts = [part for node in body for part in (node.nodes if isinstance(node, nodes.Output) else [node])]
    return all(isinstance(text, nodes.TemplateData) and not text.data.strip() for text in texts)


ENVIRONMENT = jinja2.Environment(
    undefined=jinja2.StrictUndefined, extensions=[FindingTag], trim_blocks=True, keep_trailing_newline=True
)
"""Without autoescape: that is HTML's. render.py escapes what expressions give, for Markdown."""

_ARGUMENTS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("verdict_of", "evidence"), ("lab", "finding")),
    **{
        "number": ("name",),
        "table": ("name",),
        "picture": ("lab", "figure"),
        "results": ("lab",),
        "question": ("lab",),
    },
}
"""What a placeholder's positional arguments are; `number` and `table` take a query's parameters by name."""


def load_posts(catalog: Catalog, calendar: Calendar, folder: Path = POSTS) -> list[Template]:
    """Every template, in the posts' order. Raises `TemplateError`, also where a post has no template or two."""
    found = [load_post(path, catalog, calendar) for path in sorted(folder.glob("*.md"))]
    numbers = [template.post.number for template in found]
    if numbers != [post.number for post in calendar.posts]:
        wanted = ", ".join(str(post.number) for post in calendar.posts)
        raise TemplateError(
            f"{shown(folder)}: has templates of the posts {', '.join(map(str, numbers)) or '(none)'}; the calendar has "
            f"{wanted}, one template each, named by its number"
        )
    return found


def load_post(path: Path, catalog: Catalog, calendar: Calendar) -> Template:
    """The template in `path`, with everything checked that can be without asking. Raises `TemplateError`."""
    front, source = _front_matter(path)
    if front.number > len(calendar.posts):
        raise _wrong(path, 1, "number", f"the calendar has posts 1 to {len(calendar.posts)}")
    post = calendar.posts[front.number - 1]
    try:
        labs = {lab: catalog.lab(lab) for lab in front.labs}
    except (SpecError, LookupError) as error:
        raise _wrong(path, 1, "labs", str(error)) from None
    asked = list(dict.fromkeys(one for one in _placeholders(path, source, labs)))
    return Template(path, post, calendar.week(post.week), labs, source, asked)


def finding_asked(lab: str, finding: str) -> Asked:
    return Asked(FINDING, FINDING, (("lab", lab), ("finding", finding)))


def findings_of(lab: Identity) -> list[Asked]:
    """What `results(lab)` asks: each of a complete lab's findings; nothing of an outline."""
    return [finding_asked(lab.id, finding.id) for finding in lab.findings] if isinstance(lab, LabSpec) else []


def picture_asked(lab: str, figure: str) -> Asked:
    return Asked(PICTURE, PICTURE, (("lab", lab), ("figure", figure)))


def plain_asked(kind: Kind, name: str, params: Mapping[str, Constant]) -> Asked:
    return Asked(kind, name, tuple(params.items()))


def question_of(sql: str) -> str:
    """The comment that a question begins with, as one paragraph."""
    lines = sql.splitlines()
    comment = lines[: next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))]
    return " ".join(line.removeprefix("--").strip() for line in comment)


def _front_matter(path: Path) -> tuple[Front, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, 1, "file", f"can't be read: {error}") from None
    found = re.match(r"---\n(.*?\n)---\n", text, flags=re.DOTALL)
    if found is None:
        raise _wrong(path, 1, "front matter", "begin the file with ---, number: and labs:, ---")
    try:
        front = Front.model_validate(yaml.safe_load(found[1]))
    except yaml.YAMLError as error:
        raise _wrong(path, 1, "front matter", " ".join(str(error).split())) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "front matter"
        raise _wrong(path, 1, place, f"{first['msg']}; it has number: and labs:") from None
    return front, "\n" * found[0].count("\n") + text[found.end() :]


def _placeholders(path: Path, source: str, labs: Mapping[str, Identity]) -> Iterator[Asked]:
    try:
        tree = ENVIRONMENT.parse(source, filename=str(path))
    except jinja2.TemplateSyntaxError as error:
        raise _wrong(path, error.lineno, "syntax", error.message or "not a template") from None
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name):
            yield from _asked_by(path, call, call.node.name, labs)


def _asked_by(path: Path, call: nodes.Call, name: str, labs: Mapping[str, Identity]) -> list[Asked]:
    if name not in _ARGUMENTS:
        known = ", ".join(sorted(_ARGUMENTS.keys() - {"verdict_of", "evidence"}))
        raise _wrong(path, call.lineno, name, f"there is no such placeholder; there are: {known}")
    try:
        given = [argument.as_const() for argument in call.args]
        named = {pair.key: pair.value.as_const() for pair in call.kwargs}
    except nodes.Impossible:
        raise _wrong(
            path, call.lineno, name, "write its arguments out: they have to be known before it is asked"
        ) from None
    positions = _ARGUMENTS[name]
    if len(given) != len(positions) or (named and "name" not in positions):
        raise _wrong(path, call.lineno, name, f"it takes {' and '.join(positions)}")
    values = dict(zip(positions, given, strict=True))
    lab_id = named.get("lab", values.get("lab"))
    if lab_id is not None and lab_id not in labs:
        raise _wrong(path, call.lineno, name, f"{lab_id} is none of the post's labs; add it to labs: at the top")
    lab = None if lab_id is None else labs[str(lab_id)]
    check = {"verdict_of": _finding, "evidence": _finding, "picture": _picture}.get(name)
    if check is not None:
        assert lab is not None
        return [check(path, call.lineno, lab, values)]
    if name in ("number", "table"):
        return [_plain(path, call.lineno, name, str(values["name"]), named)]
    return findings_of(lab) if name == "results" and lab is not None else []


def _finding(path: Path, line: int, lab: Identity, values: Mapping[str, Any]) -> Asked:
    known = [finding.id for finding in lab.findings] if isinstance(lab, LabSpec) else []
    if values["finding"] not in known:
        raise _wrong(path, line, "finding", _none_of(lab, "finding", values["finding"], known))
    return finding_asked(lab.id, values["finding"])


def _picture(path: Path, line: int, lab: Identity, values: Mapping[str, Any]) -> Asked:
    known = [*(figure.id for figure in lab.figures), *COMMON_PICTURES] if isinstance(lab, LabSpec) else []
    if values["figure"] not in known:
        raise _wrong(path, line, "picture", _none_of(lab, "figure", values["figure"], known))
    return picture_asked(lab.id, values["figure"])


def _plain(path: Path, line: int, kind: str, name: str, params: Mapping[str, Constant]) -> Asked:
    file = QUERIES / f"{name}.sql"
    if not re.fullmatch(r"[a-z0-9_]+", name) or not file.is_file():
        known = ", ".join(sorted(one.stem for one in QUERIES.glob("*.sql")))
        raise _wrong(path, line, f"{kind}('{name}')", f"there is no {shown(file)}; there are: {known}")
    wanted = parameters_of(file.read_text(encoding="utf-8")) - {"target"}
    if wanted != params.keys():
        raise _wrong(path, line, f"{kind}('{name}')", f"the query takes {', '.join(sorted(wanted)) or 'nothing'}")
    return plain_asked("number" if kind == "number" else "table", name, params)


def parameters_of(sql: str) -> set[str]:
    """The names of a question's parameters, those in its comments left out."""
    return set(PARAMETER.findall("\n".join(line.partition("--")[0] for line in sql.splitlines())))


def _none_of(lab: Identity, what: str, asked: object, known: Sequence[str]) -> str:
    if not isinstance(lab, LabSpec):
        return f"{lab.id} is an outline and has none yet; write {{{{ results('{lab.id}') }}}} until it is complete"
    return f"{lab.id} has no {what} {asked!r}; it has: {', '.join(known) or 'none'}"


def _wrong(path: Path, line: int, placeholder: str, remedy: str) -> TemplateError:
    return TemplateError(f"{shown(path)}:{line}: {placeholder}: {remedy}")


def located(template: Template, error: Exception) -> TemplateError:
    """`error`, which came up while the template was filled in, with its file and line."""
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(template.path):
            line = trace.tb_lineno
        trace = trace.tb_next
    source = template.source.splitlines()
    return _wrong(template.path, line, source[line - 1].strip(), f"{error}; the models are in lab_pipelines/catalog")
