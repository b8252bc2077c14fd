#!/usr/bin/env bash
# Builds, tests and measures on a machine with a GPU: CUDA 13, Python 3.12, PyTorch 2.11, no network.
#   tools/gpu_check.sh [--wheels FOLDER] [--again] [STAGE...]     stages: build tests sanitizer ops steps
# FOLDER has wheels of what Python lacks there (cmake, ninja, nanobind, pytest, numpy). A stage takes at most eight
# minutes and writes bench/results/cuda/DATE-STAGE.json as it ends; one that passed at this commit on this GPU is not
# repeated without --again, so a run that was cut off goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" tools/gpu_check.py "$@"
