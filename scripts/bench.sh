#!/usr/bin/env bash
# Measures what the pipeline costs on top of the bare work, and the load generator's own lag (docs/benchmarks.md).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"
bash scripts/setup.sh --quiet

exec python -m benchmarks.run "$@"
