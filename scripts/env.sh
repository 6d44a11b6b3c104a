# shellcheck shell=bash
# Sourced by every script here: where the repository is, and the environment its programs run in.
# Doesn't belong here: anything that takes time or changes a file.

LABS_ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The instance belongs to the checkout. A DAGSTER_HOME of the user's own is never touched.
export DAGSTER_HOME=$LABS_ROOT/.dagster

# uv was fetched because the machine's was missing or too old, so it comes first. The system's Prometheus wins over
# the unpacked copy, as in resources/binaries.py.
export PATH=$LABS_ROOT/.venv/bin:$LABS_ROOT/.tools/uv/bin:$PATH:$LABS_ROOT/.tools/prometheus/usr/bin

# Either would put foreign packages in front of the locked ones.
unset PYTHONPATH PYTHONHOME

# Service accounts and containers may have no home, but uv and the browser tests keep caches in one.
if [[ ! -w ${HOME:-/nonexistent} ]]; then
    export HOME=$LABS_ROOT/.tools/home
fi

# Filled by setup.sh only with libraries that the system lacks.
if [[ -d $LABS_ROOT/.tools/lib ]]; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$LABS_ROOT/.tools/lib
fi
