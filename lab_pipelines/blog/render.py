"""Template and answers → a post. Pure: the same two give the same text, byte for byte.

Whatever a placeholder puts into the prose is escaped, and kept in `Rendered.said`: what isn't there was written by
hand. Each number is followed by whether it was measured or modelled and by a footnote that leads to its query; a number
that isn't there is a gap that can't be overlooked.

Doesn't belong here: which questions are asked (template.py), asking them (answers.py), files (write.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from lab_pipelines.blog.answers import OPTIONAL_ORIGIN, ORIGIN, Answer
from lab_pipelines.blog.template import (
    ENVIRONMENT,
    Asked,
    Constant,
    Template,
    finding_asked,
    findings_of,
    located,
    picture_asked,
    plain_asked,
)
from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import Target
from lab_pipelines.report.wording import (
    GAP,
    Row,
    clock,
    effect,
    in_order,
    markdown_text,
    number,
    outside_range,
    percent,
    place,
    short,
)

_OUTCOMES = "each step's outcome"
"""Begins the method of a finding whose effect is a yes or no."""
_ORIGIN = {*ORIGIN, *OPTIONAL_ORIGIN}
"""Columns that say where a row is from, and are no column of a table."""
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Note:
    """One footnote: an answer that the post quotes."""

    asked: Asked
    answer: Answer
    file: str
    """Of the question, beside the post; a picture's stands beside it with the suffix .svg."""


@dataclass(frozen=True)
class Rendered:
    text: str
    notes: list[Note]
    said: list[str]
    """Every text that came from a placeholder, as it stands in the post."""
    gaps: list[str]
    """Every gap, in words."""


def render(template: Template, answers: Mapping[Asked, Answer], target: Target) -> Rendered:
    """The post. Raises `TemplateError` with file and line, where the catalogue lacks what is quoted of it."""
    filling = _Filling(template, answers, target)
    # Compiled anew, since Jinja writes `finalize` into the code.
    environment = ENVIRONMENT.overlay(finalize=filling.finalize)
    code = environment.compile(template.source, filename=str(template.path))
    try:
        body = jinja2.Template.from_code(environment, code, filling.names()).render()
    except jinja2.TemplateError as error:
        raise located(template, error) from None
    body = _BLANK_LINES.sub("\n\n", body).strip() + "\n"
    return Rendered(
        "\n".join([filling.head(), body, *filling.footnotes(), ""]), filling.notes, filling.said, filling.gaps
    )


def is_measured(answer: Answer) -> bool:
    return all(row["provenance"] == "measured" for row in answer.rows)


@dataclass
class _Filling:
    """The placeholders of one post, and what they have said so far."""

    template: Template
    answers: Mapping[Asked, Answer]
    target: Target
    notes: list[Note] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def names(self) -> dict[str, Any]:
        """What a template may use."""
        placeholders = [self.number, self.table, self.picture, self.results, self.question]
        hidden = [self.verdict_of, self.evidence]  # of the tag `finding`
        return {"spec": self.template.labs, **{one.__name__: one for one in (*placeholders, *hidden)}}

    def finalize(self, value: object) -> str:
        """What an expression gave, as Markdown."""
        if isinstance(value, jinja2.Undefined | Markup):
            return str(value)  # an undefined one raises here
        return self._say(Markup(markdown_text(value)))

    # Placeholders

    def number(self, name: str, **params: Constant) -> Markup:
        """One number, its interval, and where it is from."""
        asked = plain_asked("number", name, params)
        answer = self.answers[asked]
        if not answer.rows:
            return self._not_run(asked.lab)
        row = answer.rows[0]
        if row["value"] is None:
            return self._gap(f"no value: {row.get('gap') or 'the rows that it needs are not there'}")
        if row["unit"] == "text":
            quoted = f'"{markdown_text(row["value"])}" ({row["provenance"]})'
            return self._say(Markup(quoted) + self._note(asked, answer))
        bounds = ""
        if row.get("low") is not None and row.get("high") is not None:
            bounds = f"95 % interval {_with_unit(row['low'], row['unit'])} to {_with_unit(row['high'], row['unit'])}; "
        shown = f"{_with_unit(row['value'], row['unit'])} ({bounds}{row['provenance']})"
        return self._say(Markup(shown) + self._note(asked, answer))

    def table(self, name: str, **params: Constant) -> Markup:
        """The answer as a table, with a line below it that says where it is from."""
        asked = plain_asked("table", name, params)
        answer = self.answers[asked]
        if not answer.rows:
            return self._not_run(asked.lab)
        columns = [column for column in answer.rows[0] if column not in _ORIGIN]
        cells = [_cells([row[column] for row in answer.rows]) for column in columns]
        numeric = [any(_is_number(row[column]) for row in answer.rows) for column in columns]
        mixed = len({row["provenance"] for row in answer.rows}) > 1
        if mixed:
            columns, numeric = [*columns, "measured or modelled"], [*numeric, False]
            cells.append([str(row["provenance"]) for row in answer.rows])
        lines = [
            [markdown_text(column) for column in columns],
            ["---:" if right else "---" for right in numeric],
            *(list(line) for line in zip(*cells, strict=True)),
        ]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        below = markdown_text(_origins(answer.rows))
        return self._say(Markup(f"{text}\n\n*{below}*") + self._note(asked, answer))

    def picture(self, lab: str, figure: str) -> Markup:
        """A figure of the lab's spec, drawn from its newest run."""
        asked = picture_asked(lab, figure)
        answer = self.answers[asked]
        if answer.picture is None or answer.picture.svg is None:
            return self._not_run(lab)
        note = self._note(asked, answer)
        file = self._file_of(asked, ".svg")
        caption = f"*{markdown_text(f'{answer.picture.title}. {_origins(answer.rows)}')}*"
        return self._say(Markup(f"![{markdown_text(answer.picture.title)}]({file})\n\n{caption}") + note)

    def results(self, lab: str) -> Markup:
        """Question and verdicts of a complete lab; of an outline, what it is to record."""
        of_lab = self.template.labs[lab]
        lines = [Markup(f"**{lab}: {markdown_text(of_lab.title)}.** {markdown_text(of_lab.question)}"), Markup("")]
        if isinstance(of_lab, LabSpec):
            lines += [Markup("- ") + self._judged(asked, of_lab) for asked in findings_of(of_lab)]
        else:
            lines[0] += " " + self._not_run(lab)
            for record in getattr(of_lab, "records", []):
                self.gaps.append(f"{lab}: {record}")
                lines.append(Markup(f"- {markdown_text(record)}: **\\[not measured\\]**"))
        return self._say(Markup("\n").join(lines))

    def question(self, lab: str) -> Markup:
        """The lab's question, as the catalogue has it."""
        return self._say(Markup(f"*{lab} asks: {markdown_text(self.template.labs[lab].question)}*"))

    def verdict_of(self, lab: str, finding: str) -> str | None:
        """Which text a `finding` shows; None: there is no verdict yet."""
        rows = self.answers[finding_asked(lab, finding)].rows
        return rows[0]["verdict"] if rows else None

    def evidence(self, lab: str, finding: str) -> Markup:
        """What the chosen text rests on, set off from it."""
        return Markup("\n> ") + self._say(self._judged(finding_asked(lab, finding), self.template.labs[lab])) + "\n"

    # Parts

    def _judged(self, asked: Asked, lab: Identity) -> Markup:
        answer = self.answers[asked]
        if not answer.rows:
            finding = next(one for one in getattr(lab, "findings", []) if one.id == dict(asked.params)["finding"])
            return Markup(f"Claim: {markdown_text(finding.claim)}: ") + self._not_run(lab.id)
        row = answer.rows[0]
        rests_on = markdown_text(f"{_rests_on(row)}; {row['provenance']}")
        verdict = f"Claim: {markdown_text(row['claim'])}: **{row['verdict']}** ({rests_on})"
        return Markup(verdict) + self._note(asked, answer)

    def _not_run(self, lab: str | None) -> Markup:
        of_lab = self.template.labs.get(lab or "")
        if of_lab is not None and not isinstance(of_lab, LabSpec):
            return self._gap(f"not measured: {of_lab.id} is an outline; `labs show {of_lab.id}` says what it lacks")
        runnable = [one for one in ([of_lab] if of_lab else self.template.labs.values()) if isinstance(one, LabSpec)]
        if not runnable:
            return self._gap("not measured: none of this post's labs is complete yet")
        here = [one.id for one in runnable if self.target in one.targets]
        if not here:
            other = runnable[0]
            return self._gap(f"can't be had on target {self.target}: `labs run {other.id} --target {other.targets[0]}`")
        return self._gap(f"not measured on target {self.target} yet: `labs run {here[0]} --target {self.target}`")

    def _gap(self, reason: str) -> Markup:
        self.gaps.append(reason)
        # What stands in backticks is a command, of ids from the catalogue.
        words = "".join(f"`{part}`" if n % 2 else _escaped(part) for n, part in enumerate(reason.split("`")))
        return self._say(Markup(f"**\\[{words}\\]**"))

    def _say(self, text: Markup) -> Markup:
        self.said.append(str(text))
        return text

    def _note(self, asked: Asked, answer: Answer) -> Markup:
        if all(note.asked != asked for note in self.notes):
            self.notes.append(Note(asked, answer, f"{len(self.notes) + 1:02}-{asked.name}.sql"))
        return Markup(f"[^{1 + next(n for n, note in enumerate(self.notes) if note.asked == asked)}]")

    def _file_of(self, asked: Asked, suffix: str) -> str:
        name = next(note.file for note in self.notes if note.asked == asked)
        return f"{self.template.slug}/{name.removesuffix('.sql')}{suffix}"

    # Around the prose

    def head(self) -> str:
        post, week = self.template.post, self.template.week
        front = {
            "number": post.number,
            "title": post.title,
            "publish": post.publish,
            "week": f"{week.number}, {week.starts} to {week.ends}",
            "labs": list(self.template.labs),
            "target": self.target,
        }
        measured = sum(is_measured(note.answer) for note in self.notes)
        counts = f"{measured} measured, {len(self.notes) - measured} modelled, {len(self.gaps)} missing"
        modelled = " Modelled means: by this project's model of engine and cluster, not on a GPU."
        if outside := sum(_outside(note.answer.rows) != "" for note in self.notes):
            modelled += f" {outside} lie outside of the range in which that model was compared with measurements."
        return "\n".join(
            [
                "---",
                yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110).strip(),
                "---",
                "",
                f"# {markdown_text(post.title)}",
                "",
                f"> Draft, from target {self.target}. Answers of the warehouse in it: {counts}. Each leads to the SQL "
                f"that gave it.{modelled if measured < len(self.notes) else ''}",
                "",
            ]
        )

    def footnotes(self) -> list[str]:
        return [f"[^{n}]: {self._footnote(note)}" for n, note in enumerate(self.notes, start=1)]

    def _footnote(self, note: Note) -> str:
        rows, answer = note.answer.rows, note.answer
        recorded = max(row["recorded_at"] for row in rows).astimezone(UTC)
        where = f"{_origins(rows).removesuffix('.')}; {_runs(rows)}, recorded {recorded:%Y-%m-%d %H:%M} UTC."
        finding = ""
        if note.asked.name == "finding":
            finding = f" {rows[0]['reason']}; n = {rows[0]['n']}; {rows[0]['method']}."
        where += finding + _outside(rows)
        link = f"[{note.file}]({self._file_of(note.asked, '.sql')})"
        return f"{markdown_text(where)} {link}: {markdown_text(answer.says)}"


def _origins(rows: Sequence[Row]) -> str:
    """Where an answer's rows are from, each place once."""
    lines = in_order(
        f"{row['provenance'].capitalize()}, {clock(row)}, {place(row)}"
        if row.get("pace")
        else f"{row['provenance'].capitalize()}, target {row['target']}"
        for row in rows
    )
    return "; ".join(lines).replace(" · ", ", ") + "."


def _outside(rows: Sequence[Row]) -> str:
    """A warning where the engine model was compared with no measurement that is like these."""
    found = [reason for row in rows if "model_range" in row and (reason := outside_range(row))]
    reasons = in_order(part for reason in found for part in reason.split("; "))
    if not reasons:
        return ""
    return f" Outside of the range in which the engine model was compared with measurements: {'; '.join(reasons)}."


def _rests_on(finding: Row) -> str:
    """What a verdict rests on, in a few words: an effect and its interval, or else the reason."""
    if finding["method"].startswith(_OUTCOMES) or finding["effect"] is None:
        return finding["reason"]
    unbounded = "" if finding["interval_low"] is not None else ", without an interval"
    why = f"; {finding['reason']}" if finding["verdict"] == "inconclusive" else ""
    return f"{effect(finding)}{unbounded}{why}"


def _runs(rows: Sequence[Row]) -> str:
    runs = in_order(
        run for row in rows for run in (row["run_id"] if isinstance(row["run_id"], list) else [row["run_id"]])
    )
    if len(runs) > 3:
        return f"{len(runs)} runs, among them {runs[0]}"
    return f"run{'s'[: len(runs) > 1]} {', '.join(runs)}"


def _escaped(text: str) -> str:
    """`markdown_text`, which strips, with the blanks around it kept."""
    return f"{' ' * text.startswith(' ')}{markdown_text(text)}{' ' * text.endswith(' ')}"


def _is_number(value: object) -> bool:
    return not isinstance(value, bool | str) and value is not None and not isinstance(value, list)


def _with_unit(value: Any, unit: str) -> str:
    if unit == "share":
        return percent(float(value))
    if unit == "count":
        return number(value, 0)
    return f"{short(value)} {unit}"


def _cells(values: Sequence[Any]) -> list[str]:
    """A column of a table: whole numbers as they are, others with three significant digits each."""
    return [
        GAP if v is None else number(v, 0) if isinstance(v, int) else short(v) if _is_number(v) else markdown_text(v)
        for v in values
    ]
