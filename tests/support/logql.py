"""The part of LogQL's grammar that the dashboards use, after grafana.com/docs/loki/latest/query/.

A recogniser: `refusal` says where a query leaves the grammar. It is stricter than Loki, which knows more functions and
stages; a dashboard that needs another one adds it here. All queries of the dashboards were also read by Grafana's own
grammar (npm package @grafana/lezer-logql 0.3.0), which needs Node.js and so isn't part of the tests.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""\s*(?: (?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`) | (?P<duration>[0-9]+(?:ms|[smhd]))
    | (?P<number>[0-9]+(?:\.[0-9]+)?) | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>\|=|\|~|!=|!~|=~|==|>=|<=|[{}()\[\],|=<>]) )""",
    re.VERBOSE,
)
_OVER_RANGE = {"rate", "count_over_time", "sum_over_time", "avg_over_time", "max_over_time", "quantile_over_time"}
_NEEDS_NUMBER_FIELD = {"sum_over_time", "avg_over_time", "max_over_time", "quantile_over_time"}
_AGGREGATIONS = {"sum", "avg", "min", "max", "count"}


class _Refused(ValueError):
    pass


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position, text = 0, text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _Refused(f"no LogQL from {text[position:]!r} on")
            self.tokens.append((str(match.lastgroup), str(match[str(match.lastgroup)])))
            position = match.end()

    def peek(self) -> str:
        return self.tokens[0][1] if self.tokens else "the end"

    def take(self, *, kind: str | None = None, text: str | None = None) -> str:
        if not self.tokens:
            raise _Refused(f"expected {text or kind}, found the end")
        found_kind, found = self.tokens[0]
        if (kind is not None and found_kind != kind) or (text is not None and found != text):
            raise _Refused(f"expected {text or kind}, found {found!r}")
        self.tokens.pop(0)
        return found

    def metric(self) -> None:
        name = self.take(kind="name")
        if name in _AGGREGATIONS:
            self.grouping()
            self.take(text="(")
            self.metric()
            self.take(text=")")
            return
        if name not in _OVER_RANGE:
            raise _Refused(f"{name} is no function over a range")
        self.take(text="(")
        if name == "quantile_over_time":
            if not 0 <= float(self.take(kind="number")) <= 1:
                raise _Refused("a quantile lies between 0 and 1")
            self.take(text=",")
        unwrapped = self.lines()
        if name in _NEEDS_NUMBER_FIELD and not unwrapped:
            raise _Refused(f"{name} needs a field to unwrap")
        self.take(text="[")
        self.take(kind="duration")
        self.take(text="]")
        self.take(text=")")
        self.grouping()

    def grouping(self) -> None:
        if self.peek() not in ("by", "without"):
            return
        self.take(kind="name")
        self.take(text="(")
        self.take(kind="name")
        while self.peek() == ",":
            self.take(text=",")
            self.take(kind="name")
        self.take(text=")")

    def lines(self) -> bool:
        """A stream selector and its pipeline; whether it ends in numbers."""
        self.take(text="{")
        self.matcher()
        while self.peek() == ",":
            self.take(text=",")
            self.matcher()
        self.take(text="}")
        unwrapped = False
        while self.peek() in ("|", "|=", "|~", "!=", "!~"):
            if self.take(kind="mark") != "|":
                self.take(kind="string")
                continue
            stage = self.take(kind="name")
            if stage == "unwrap":
                self.take(kind="name")
                unwrapped = True
            elif stage in ("regexp", "line_format", "pattern"):
                self.take(kind="string")
            elif stage not in ("json", "logfmt"):
                self.comparison()
        return unwrapped

    def matcher(self) -> None:
        self.take(kind="name")
        if self.take(kind="mark") not in ("=", "!=", "=~", "!~"):
            raise _Refused("a label is matched by =, !=, =~ or !~")
        self.take(kind="string")

    def comparison(self) -> None:
        if self.take(kind="mark") not in ("=", "==", "!=", "=~", "!~", ">", ">=", "<", "<="):
            raise _Refused("a field is compared by =, ==, !=, =~, !~, >, >=, < or <=")
        if self.tokens and self.tokens[0][0] in ("string", "number", "duration"):
            self.tokens.pop(0)
            return
        raise _Refused(f"expected a value, found {self.peek()!r}")


def refusal(query: str) -> str | None:
    """Why `query` is not LogQL, or None."""
    try:
        reader = _Reader(query)
        if reader.peek() == "{":
            if reader.lines():
                return "unwrap belongs into a function over a range"
        else:
            reader.metric()
        return f"more after the end: {reader.peek()!r}" if reader.tokens else None
    except _Refused as refused:
        return str(refused)
