#!/usr/bin/env bash
# Removes what set-up and the tools made. Keeps what was measured: warehouse/data and results/ stay.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"

# Not while a set-up is at work. Its lock file stays, or the next two set-ups could each hold a lock.
mkdir -p .tools
exec {lock}>>.tools/setup.lock
flock "$lock"
find .tools -mindepth 1 -maxdepth 1 ! -name setup.lock -exec rm -rf {} +
rm -rf .venv .dagster .pytest_cache .ruff_cache .hypothesis
find . -name __pycache__ -type d -prune -exec rm -rf {} +
echo "Removed .venv, .tools, .dagster (Dagster's history of runs) and caches. What was measured is still in warehouse/data."
