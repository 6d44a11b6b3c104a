#!/usr/bin/env bash
# Dagster's UI and daemon for this checkout, on 127.0.0.1. Ctrl-C stops both.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"
bash scripts/setup.sh --quiet

exec python scripts/serve_ui.py "$@"
