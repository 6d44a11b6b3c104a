"""Writes a rendered post, and beside it what it rests on: each question as it was asked, and the pictures.

Doesn't belong here: what is in them (render.py, answers.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab_pipelines.report.write import replace_file

if TYPE_CHECKING:
    from lab_pipelines.blog.render import Rendered
    from lab_pipelines.blog.template import Template

PAGE_CSS = Path(__file__).parents[1] / "report" / "page.css"
_END_OF_VARIABLES = "\n* {"
"""What follows the variables at the top of the report's style sheet."""


def write_post(template: Template, rendered: Rendered, out_dir: Path) -> Path:
    """Write `<slug>.md` and the folder `<slug>` into `out_dir`, replacing the former ones; the post's path."""
    evidence = out_dir / template.slug
    wanted = dict[str, str]()
    for note in rendered.notes:
        wanted[note.file] = note.answer.sql
        if note.answer.picture is not None and note.answer.picture.svg is not None:
            wanted[f"{note.file.removesuffix('.sql')}.svg"] = standalone(note.answer.picture.svg)
    for name, text in wanted.items():
        replace_file(evidence / name, text)
    post = out_dir / f"{template.slug}.md"
    replace_file(post, rendered.text)
    for stale in (path for pattern in ("*.sql", "*.svg") for path in evidence.glob(pattern)):
        if stale.name not in wanted:
            stale.unlink()
    return post


def standalone(svg: str) -> str:
    """A picture of the report as a file of its own: it brings the colours that the report's page would give it."""
    variables, found, _ = PAGE_CSS.read_text(encoding="utf-8").partition(_END_OF_VARIABLES)
    if not found:
        raise ValueError(f"{PAGE_CSS.name} doesn't begin with its variables any more")
    head, body = svg.split(">", 1)
    return f"{head}><style>{variables} svg {{ color: var(--ink); background: var(--page); }}</style>{body}"
