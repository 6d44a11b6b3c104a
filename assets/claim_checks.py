"""A lab's findings as asset checks, so that the UI shows beside an asset what became of the lab's claims.

Belongs here: how they are shown. Doesn't belong here: the verdicts (findings.py), or rules that block (checks.py): a
claim that is refuted is a result, and stops nothing.
"""

from typing import Any

from dagster import AssetCheckResult, AssetCheckSeverity

from assets.checks import warning
from assets.common import shown_table
from assets.finops_sheet import finops_sheet
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines.catalog.spec import LabSpec

_FINDINGS = "SELECT * FROM findings WHERE run_id = $run_id ORDER BY finding"
_COLUMNS = {
    **{"finding": "string", "verdict": "string", "effect": "float", "low": "float", "high": "float", "n": "int"},
    **{"claim": "string", "reason": "string", "method": "string"},
}


def told(findings: list[dict[str, Any]], spec: LabSpec) -> AssetCheckResult:
    """Passed when all are confirmed, with each one's effect, interval, n and reason."""
    others = [f"{row['finding']} is {row['verdict']}" for row in findings if row["verdict"] != "confirmed"]
    confirmed = f"{len(findings) - len(others)} of {len(findings)} claims confirmed"
    return AssetCheckResult(
        passed=not others,
        severity=AssetCheckSeverity.WARN,
        description="; ".join([confirmed, *others]) if findings else f"{spec.id} claims nothing of this kind",
        metadata={
            "findings": shown_table(
                _COLUMNS, [{**row, "low": row["interval_low"], "high": row["interval_high"]} for row in findings]
            )
        },
    )


@warning(metrics_snapshot, _FINDINGS)
def claims(findings: list[dict[str, Any]], spec: LabSpec) -> AssetCheckResult:
    """Every claim of the lab on what the run measured is confirmed. It blocks nothing."""
    return told(_of(findings, spec, after_cost=False), spec)


@warning(finops_sheet, _FINDINGS, name="claims")
def claims_on_cost(findings: list[dict[str, Any]], spec: LabSpec) -> AssetCheckResult:
    """Every claim of the lab on what the run cost is confirmed. It blocks nothing."""
    return told(_of(findings, spec, after_cost=True), spec)


def _of(findings: list[dict[str, Any]], spec: LabSpec, *, after_cost: bool) -> list[dict[str, Any]]:
    asked = {finding.id for finding in spec.findings if spec.is_judged_after_cost(finding) == after_cost}
    return [row for row in findings if row["finding"] in asked]


__all__ = ["claims", "claims_on_cost"]
