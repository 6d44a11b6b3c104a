#!/usr/bin/env bash
# Lint, then the tests: two files at a time, for much of a test is waiting, and those that judge times alone. Arguments go
# to pytest instead, e.g. `bash scripts/test.sh tests/unit -k lease`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"

bash scripts/lint.sh
if (($#)); then
    exec pytest "$@"
fi
# Files stay whole, since what they share is a run that took a minute; the long ones come first.
status=0
pytest --quiet --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not alone" || status=$?
if ((status == 1)); then
    echo "test: once more alone, what failed beside another (docs/decisions/0037-tests-run-two-files-at-a-time.md)" >&2
    status=0
    pytest --quiet --last-failed --last-failed-no-failures none -m "not alone" || status=$?
fi
pytest --quiet -m alone || status=$?
exit "$status"
