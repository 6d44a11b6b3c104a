"""A picture is drawn once, and forgotten when no report shows it any more."""

from __future__ import annotations

from pathlib import Path

from lab_pipelines.report.drawn import drawn, kept_in


class Pen:
    """Counts what it draws."""

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def __call__(self, spec: str) -> str:
        self.drawn.append(spec)
        return f"<svg>{spec}</svg>"


def test_a_kept_picture_is_not_drawn_again_and_an_unused_one_goes(tmp_path: Path) -> None:
    pen = Pen()
    with kept_in(tmp_path):
        assert [drawn(spec, pen, renderer="r 1") for spec in ("a", "b", "a")] == [
            "<svg>a</svg>",
            "<svg>b</svg>",
            "<svg>a</svg>",
        ]
    assert pen.drawn == ["a", "b"]
    with kept_in(tmp_path):
        assert drawn("a", pen, renderer="r 1") == "<svg>a</svg>"
    assert pen.drawn == ["a", "b"]
    assert len(list(tmp_path.iterdir())) == 1
    with kept_in(tmp_path):
        drawn("b", pen, renderer="r 1")
    assert pen.drawn == ["a", "b", "b"]


def test_another_renderer_draws_anew_and_outside_nothing_is_kept(tmp_path: Path) -> None:
    pen = Pen()
    with kept_in(tmp_path):
        drawn("a", pen, renderer="r 1")
        drawn("a", pen, renderer="r 2")
    drawn("a", pen, renderer="r 2")
    assert pen.drawn == ["a", "a", "a"]
