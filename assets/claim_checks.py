"""A lab's findings as asset checks, so that the UI shows beside an asset what became of the lab's claims.

Belongs here: how they are shown. Doesn't belong here: the verdicts (findings.py), or rules that block (checks.py): a
claim that is refuted is a result, and stops nothing.
"""

from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetsDefinition,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset_check,
)

from assets.finops_sheet import finops_sheet
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines.catalog.spec import LabSpec
from resources.labs import Labs
from resources.warehouse import Warehouse

_FINDINGS = "SELECT * FROM findings WHERE run_id = $run_id ORDER BY finding"
_COLUMNS = {
    **{"finding": "string", "verdict": "string", "effect": "float", "low": "float", "high": "float", "n": "int"},
    **{"claim": "string", "reason": "string", "method": "string"},
}


def _check(asset: AssetsDefinition, *, after_cost: bool) -> AssetChecksDefinition:
    """A check of `asset` on the findings that it publishes of the lab's newest run."""
    said = "on what the run cost" if after_cost else "on what the run measured"

    @asset_check(
        asset=asset, name="claims", description=f"Every claim of the lab {said} is confirmed. It blocks nothing."
    )
    def claims(context: AssetCheckExecutionContext, labs: Labs, warehouse: Warehouse) -> AssetCheckResult:
        spec = labs.spec(context.op_execution_context.partition_key)
        run_id = warehouse.latest_run_id("stack_sessions", spec.id, labs.target, prefer=context.run.run_id)
        asked = {finding.id for finding in spec.findings if spec.is_judged_after_cost(finding) == after_cost}
        found = warehouse.query(_FINDINGS, {"run_id": run_id}, within={"run_id": run_id} if run_id else None)
        return told([row for row in found if row["finding"] in asked], spec)

    return claims


def told(findings: list[dict[str, Any]], spec: LabSpec) -> AssetCheckResult:
    """Passed when all are confirmed, with each one's effect, interval, n and reason."""
    others = [f"{row['finding']} is {row['verdict']}" for row in findings if row["verdict"] != "confirmed"]
    confirmed = f"{len(findings) - len(others)} of {len(findings)} claims confirmed"
    return AssetCheckResult(
        passed=not others,
        severity=AssetCheckSeverity.WARN,
        description="; ".join([confirmed, *others]) if findings else f"{spec.id} claims nothing of this kind",
        metadata={
            "findings": MetadataValue.table(
                [TableRecord({name: _cell(row, name) for name in _COLUMNS}) for row in findings],
                schema=TableSchema([TableColumn(name, kind) for name, kind in _COLUMNS.items()]),
            )
        },
    )


def _cell(row: dict[str, Any], name: str) -> str | float:
    value = row[{"low": "interval_low", "high": "interval_high"}.get(name, name)]
    return "" if value is None else value


claims = _check(metrics_snapshot, after_cost=False)
claims_on_cost = _check(finops_sheet, after_cost=True)

__all__ = ["claims", "claims_on_cost"]
