#!/usr/bin/env bash
# Takes one lab's namespace away, and the nodes that it holds: scripts/teardown-namespace.sh L11
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/labs.sh" teardown --target "${LABS_TARGET:-aks}" "$@"
