"""year_in_numbers: the report of everything that the warehouse holds, as one HTML page and as Markdown.

Not partitioned: it shows all labs, whichever was materialized last.
"""

from pathlib import Path

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.finops_sheet import finops_sheet
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.write import write_report
from resources.labs import Labs
from resources.warehouse import Warehouse


@asset(group_name="report", deps=[finops_sheet], description=__doc__)
def year_in_numbers(context: AssetExecutionContext, labs: Labs, warehouse: Warehouse) -> MaterializeResult:
    files = write_report(warehouse, load_catalog(Path(labs.catalog_dir)), Path(warehouse.data_dir) / "report")
    context.log.info(f"the report is at {files.html}")
    return MaterializeResult(
        metadata={
            "page": MetadataValue.path(files.html),
            "summary": MetadataValue.md(files.markdown.read_text(encoding="utf-8")),
        }
    )
