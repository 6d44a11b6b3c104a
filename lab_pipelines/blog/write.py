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


def write_post(template: Template, rendered: Rendered, out_dir: Path) -> Path:
    """Write `<slug>.md` and the folder `<slug>` into `out_dir`, replacing the former ones; the post's path."""
    from lab_pipelines.report.svg import standalone

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
