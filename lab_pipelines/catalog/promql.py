"""Whether Prometheus would take a query, answered by a parser instead of a server.

Belongs here: syntax, types, and what the oldest Prometheus of our targets does not know yet.
Doesn't belong here: whether the series exist (tests ask a real Prometheus), or which placeholders a query may have
(measures.py, error_budget.py).
"""

from __future__ import annotations

import re
from typing import Any, Literal

LONGEST = 2000
"""Characters. The parser recurses: 20,000 of them, well nested, overflowed the stack and ended the process."""

# promql-parser speaks the PromQL of Prometheus 3; the local target may run Debian's 2.42, whose promtool refuses these.
_TOO_NEW = {
    *("double_exponential_smoothing", "first_over_time", "histogram_avg", "histogram_stddev", "histogram_stdvar"),
    *("info", "limit_ratio", "limitk", "mad_over_time", "sort_by_label", "sort_by_label_desc"),
    *("start", "end", "range", "step"),
    *("ts_of_first_over_time", "ts_of_last_over_time", "ts_of_max_over_time", "ts_of_min_over_time"),
}
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`")
_COMMENT = re.compile(r"#[^\n]*")
_CALLED = re.compile(r"\b([a-z_0-9]+)\s*(?:(?:by|without)\s*\([^()]*\)\s*)?\(")
_AT_BOUND = re.compile(r"@\s*(?:start|end)\s*\(")  # old; the functions of the same names are new
_NO_UNIT = re.compile(r"\[\s*[0-9.]+\s*[:\]]|:\s*[0-9.]+\s*\]|\boffset\s+-?\s*[0-9.]+(?![0-9.]*[a-z])")
_QUOTED_NAME = re.compile(r"\{(?:[^{}]*,)?\s*\"\"")


def refusal(query: str, *, form: Literal["value", "selector"] = "value") -> str | None:
    """Why Prometheus would refuse `query`, in a few words; None if it would take it.

    `value`: an instant vector or a scalar, which is what a measure, a condition and a rule are.
    `selector`: a metric's name with matchers and nothing else, whose raw samples can be read.
    """
    import promql_parser

    if len(query) > LONGEST:
        return f"has {len(query)} characters, and at most {LONGEST} are read"
    try:
        parsed = promql_parser.parse(query)
    except ValueError as error:
        return f"is not PromQL: {error}"
    return _too_new(query) or _wrong_form(parsed, form)


def _too_new(query: str) -> str | None:
    bare = _AT_BOUND.sub("@ 0 (", _COMMENT.sub("", _STRING.sub('""', query)))
    if found := _NO_UNIT.search(bare):
        return f"is not PromQL: a duration needs a unit, such as 30s, in {found.group().strip()!r}"
    if newer := sorted(_TOO_NEW.intersection(_CALLED.findall(bare))):
        return f"calls {newer[0]}, which Prometheus 2.42 does not know"
    if _QUOTED_NAME.search(bare):
        return "quotes a name in {}, which Prometheus 2.42 does not know; write a metric's name in front of the braces"
    return None


def _wrong_form(parsed: Any, form: str) -> str | None:
    if form == "selector" and (type(parsed).__name__ != "VectorSelector" or parsed.offset or parsed.at):
        return 'must be a plain selector, such as up{job="vllm"}, without function, range or offset'
    while type(parsed).__name__ in {"ParenExpr", "UnaryExpr"}:
        parsed = parsed.expr
    match type(parsed).__name__:
        case "MatrixSelector" | "SubqueryExpr":
            return "gives a range of samples for each series; expected one value, e.g. by rate(…[1m])"
        case "StringLiteral":
            return "gives a text; expected one value for each series"
        case _:  # every function and every operator gives a vector or a scalar
            return None
