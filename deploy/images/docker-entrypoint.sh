#!/usr/bin/env bash
# What Flink's Kubernetes operator starts: `kubernetes-jobmanager.sh ...`, `kubernetes-taskmanager.sh ...` or
# `bash -c "..."` of them, all found in FLINK_HOME/bin.
set -euo pipefail
exec "$@"
