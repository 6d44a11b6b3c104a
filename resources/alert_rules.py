"""From a PrometheusRule, as the Prometheus operator takes it, to a rule file for the Prometheus of a local stack. Pure.

A local stack may run `time_scale` times as fast as the wall clock that Prometheus goes by. So every duration in a rule,
`for`, `keep_firing_for`, a group's `interval`, ranges such as `[5m]`, subqueries and offsets, is divided by it. Values
are not: servers observe their histograms in stack seconds, and a ratio of two rates has no clock. A rule that compares
a single rate per second with a number does read the wall clock; such a rule has no place in a file that is scaled.

What would become shorter than Prometheus can tell is lengthened, and the lengthening is told in `notes`: an interval
to the scrape interval, since no data comes in between, and a range or a `for` to two evaluations of its group.

Doesn't belong here: starting a Prometheus (prometheus_server.py), waiting for alerts (alerting.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from resources import durations

FILE = "prometheus-rules.yaml"
"""The name of a lab's rules, beside the Helm values of its monitoring."""
DEFAULT_INTERVAL = "30s"
"""The operator's, where neither a group nor the Prometheus object says another."""

# A string or a comment is passed over; what stands in brackets or behind `offset` is a duration.
_PROMQL = re.compile(
    r'(?P<skipped>"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|\#[^\n]*)'
    rf"|\[\s*(?P<range>{durations.PATTERN})\s*(?P<sub>:\s*(?P<step>{durations.PATTERN})?\s*)?\]"
    rf"|(?P<offset>\boffset\s+-?\s*)(?P<by>{durations.PATTERN})"
)


class RulesError(ValueError):
    """A rules file can't be used. The message names the file, the field and what was expected."""


@dataclass(frozen=True)
class LocalRules:
    """A rule file for Prometheus, ready to be written as JSON, which is YAML. `notes` say what was lengthened."""

    content: dict[str, Any]
    notes: list[str]


def load(path: Path) -> dict[str, Any]:
    """A PrometheusRule from its file. Raises `RulesError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RulesError(f"{path}: can't be read as YAML: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != "PrometheusRule":
        raise RulesError(f"{path}: kind: expected PrometheusRule")
    groups = (document.get("spec") or {}).get("groups")
    if not isinstance(groups, list) or not groups:
        raise RulesError(f"{path}: spec.groups: expected a list of groups of rules")
    return document


def local_rules(document: Mapping[str, Any], *, time_scale: float, scrape_interval_s: float, source: str) -> LocalRules:
    """The rules of `document` for a stack that runs `time_scale` times as fast. Raises `RulesError` naming `source`."""
    notes: list[str] = []
    groups = []
    for group in document["spec"]["groups"]:
        where = f"{source}: group {group.get('name')}"
        interval_ms = _lengthened(
            group.get("interval", DEFAULT_INTERVAL),
            time_scale,
            at_least_ms=round(scrape_interval_s * 1000),
            where=f"{where}: interval",
            notes=notes,
        )
        rules = [_rule(rule, time_scale, interval_ms, where=where, notes=notes) for rule in group["rules"]]
        groups.append({**group, "interval": durations.from_ms(interval_ms), "rules": rules})
    return LocalRules({"groups": groups}, notes)


def _rule(
    rule: Mapping[str, Any], time_scale: float, interval_ms: int, *, where: str, notes: list[str]
) -> dict[str, Any]:
    where = f"{where}: {rule.get('alert') or rule.get('record')}"

    def waited(text: str, field: str) -> str:
        at_least = 2 * interval_ms if durations.to_ms(text) else 0  # `for: 0s` means at once, and stays so
        return durations.from_ms(_lengthened(text, time_scale, at_least_ms=at_least, where=field, notes=notes))

    scaled = dict(rule)
    for field in ("for", "keep_firing_for"):
        if field in rule:
            try:
                scaled[field] = waited(str(rule[field]), f"{where}: {field}")
            except ValueError as error:
                raise RulesError(f"{where}: {field}: {error}") from None
    scaled["expr"] = scaled_promql(
        str(rule["expr"]),
        ranged=lambda text: waited(text, f"{where}: [{text}]"),
        moved=lambda text: durations.scaled(text, time_scale),
    )
    return scaled


def scaled_promql(expr: str, *, ranged: Callable[[str], str], moved: Callable[[str], str]) -> str:
    """`expr` with `ranged` applied to its ranges, and `moved` to its offsets and the steps of its subqueries."""

    def replaced(found: re.Match[str]) -> str:
        if found["skipped"]:
            return found[0]
        if found["offset"]:
            return found["offset"] + moved(found["by"])
        step = "" if not found["sub"] else f":{moved(found['step'])}" if found["step"] else ":"
        return f"[{ranged(found['range'])}{step}]"

    return _PROMQL.sub(replaced, expr)


def _lengthened(text: str, time_scale: float, *, at_least_ms: int, where: str, notes: list[str]) -> int:
    try:
        wanted_ms = round(durations.to_ms(text) / time_scale)
    except ValueError as error:
        raise RulesError(f"{where}: {error}") from None
    if wanted_ms >= at_least_ms:
        return wanted_ms
    notes.append(
        f"{where}: {text} at {time_scale:g} times the speed is {wanted_ms} ms, and was made {at_least_ms} ms, "
        "the shortest that Prometheus can tell here"
    )
    return at_least_ms
