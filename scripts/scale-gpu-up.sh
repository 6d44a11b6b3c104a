#!/usr/bin/env bash
# Gives our pool of a machine type some nodes, with an end: scripts/scale-gpu-up.sh Standard_NC4as_T4_v3 --nodes 2 --for 2h
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/labs.sh" gpu up --target "${LABS_TARGET:-aks}" "$@"
