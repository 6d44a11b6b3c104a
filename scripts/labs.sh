#!/usr/bin/env bash
# The project's command line, set up first: `bash scripts/labs.sh sql "select 1"` is `labs sql "select 1"`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"
bash scripts/setup.sh --quiet

exec labs "$@"
