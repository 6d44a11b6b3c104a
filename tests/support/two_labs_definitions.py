"""The code location over the catalog that `TEST_CATALOG_DIR` names: `dagster … -m tests.support.two_labs_definitions`.

Only one lab of the year is complete; tests that need two make a catalog with a copy of it (copied_catalog.py).
"""

import os

from lab_pipelines.build import build_defs
from lab_pipelines.deployment import Deployment
from resources.labs import Labs

_deployment = Deployment.from_env(os.environ)
defs = build_defs(
    target=_deployment.target,
    deployment=_deployment,
    resource_overrides={
        "labs": Labs(
            target=_deployment.target,
            pace=_deployment.pace,
            catalog_dir=os.environ["TEST_CATALOG_DIR"],
        )
    },
)
