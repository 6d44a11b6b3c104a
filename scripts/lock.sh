#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock, takes the container image's part of it into deploy/requirements.lock,
# and installs the result. What is locked stays locked unless pyproject.toml no longer allows it; `--upgrade` and
# `--upgrade-package NAME` are handed to uv.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"

command -v uv >/dev/null || bash scripts/setup.sh
# A requirements file with hashes, not uv.lock: that would record the address of every file, and so the registry's host.
compile=(uv pip compile --quiet pyproject.toml --generate-hashes --universal --python-version 3.11 --no-header)
"${compile[@]}" --extra aks --extra dev --output-file requirements.lock "$@"
# Without the developers' tools, a third of it. Anew each time: the constraint alone says which versions.
rm -f deploy/requirements.lock
"${compile[@]}" --extra aks --constraint requirements.lock --output-file deploy/requirements.lock
bash scripts/setup.sh
