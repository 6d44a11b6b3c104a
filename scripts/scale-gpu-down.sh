#!/usr/bin/env bash
# Brings every pool of ours that nobody holds to zero nodes; with a pool's name, or other options, what they say.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/labs.sh" gpu down --target "${LABS_TARGET:-aks}" "${@:---all-ours}"
