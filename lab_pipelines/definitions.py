"""The code location: `dagster … -m lab_pipelines.definitions`. Everything is built in build.py."""

import os

from lab_pipelines.build import build_defs
from lab_pipelines.deployment import Deployment

_deployment = Deployment.from_env(os.environ)
defs = build_defs(target=_deployment.target, deployment=_deployment)
