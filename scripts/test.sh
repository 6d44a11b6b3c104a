#!/usr/bin/env bash
# Lint, then the tests. Arguments go to pytest, e.g. `bash scripts/test.sh tests/unit -k lease`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"

bash scripts/lint.sh
pytest "$@"
