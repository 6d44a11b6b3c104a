#!/usr/bin/env bash
# Writes Grafana's dashboards (dashboards/grafana/*.json) from their code. Commit what changed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"
bash scripts/setup.sh --quiet

exec python -m dashboards.grafana.build
