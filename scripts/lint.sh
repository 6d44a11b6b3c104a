#!/usr/bin/env bash
# Style, format and types. `ruff check --fix` and `ruff format` repair most of what the first two find.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"
bash scripts/setup.sh --quiet

ruff check .
ruff format --check .
basedpyright
