"""`labs blog`: the posts, which of their numbers are there, and a draft with the warehouse's numbers filled in.

Doesn't belong here: the posts (blog/posts), how they are filled in (lab_pipelines/blog).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, TargetOption, settings_for, warehouse_of

if TYPE_CHECKING:
    from lab_pipelines.blog.render import Rendered
    from lab_pipelines.blog.template import Template
    from lab_pipelines.deployment import Deployment


def blog(
    post: Annotated[list[int] | None, typer.Option(help="Write this post, e.g. 2; may be repeated.")] = None,
    target: TargetOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; unset: blog in the data folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The year's posts and which of their numbers are there; with --post, drafts filled from the warehouse."""
    from lab_pipelines.blog.answers import questions
    from lab_pipelines.blog.render import render
    from lab_pipelines.blog.template import TemplateError, load_posts
    from lab_pipelines.catalog.calendar import load_calendar
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from resources.contract import WarehouseError

    with explained(TemplateError, SpecError, WarehouseError):
        settings = settings_for(target)
        posts = load_posts(load_catalog(), load_calendar())
        if unknown := [number for number in post or [] if not 1 <= number <= len(posts)]:
            fail(f"--post {unknown[0]}: the calendar has posts 1 to {len(posts)}", code=WRONG_CALL)
        chosen = [posts[number - 1] for number in post] if post else posts
        with questions(warehouse_of(settings)) as asked:
            filled = [
                (template, render(template, asked.ask(template, settings.target), settings.target))
                for template in chosen
            ]
    if post:
        _write(filled, out or settings.data_dir / "blog", quiet=as_json)
    if as_json:
        print_json([_state(template, rendered) for template, rendered in filled])
    elif not post:
        _print(filled, settings)


def _write(filled: Sequence[tuple[Template, Rendered]], out: Path, *, quiet: bool) -> None:
    from lab_pipelines.blog.write import write_post

    for template, rendered in filled:
        try:
            path = write_post(template, rendered, out)
        except OSError as error:
            where, why = error.filename or out, error.strerror or error
            fail(f"{where} can't be written: {why}. Free some space or give it another folder: --out DIR")
        if not quiet:
            say(str(path))
            for gap in dict.fromkeys(rendered.gaps):
                say(f"  gap: {gap}")


def _state(template: Template, rendered: Rendered) -> dict[str, Any]:
    from lab_pipelines.blog.render import is_measured

    measured = [is_measured(note.answer) for note in rendered.notes]
    return {
        "number": template.post.number,
        "title": template.post.title,
        "week": template.week.number,
        "publish": template.post.publish,
        "labs": list(template.labs),
        "measured": sum(measured),
        "modelled": len(measured) - sum(measured),
        "missing": len(rendered.gaps),
        "gaps": list(dict.fromkeys(rendered.gaps)),
    }


def _print(filled: Sequence[tuple[Template, Rendered]], settings: Deployment) -> None:
    states = [_state(template, rendered) for template, rendered in filled]
    counts = ("measured", "modelled", "missing")
    lines = [
        [*(str(state[name]) for name in ("number", "title", "publish", *counts)), next(iter(state["gaps"]), "")]
        for state in states
    ]
    print_table(["post", "title", "publish", *counts, "first gap"], lines, right=[0, 3, 4, 5], whole=[0])
    say(f"\ntarget {settings.target}. A draft: labs blog --post 2 --target {settings.target}")
