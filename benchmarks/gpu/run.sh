#!/usr/bin/env bash
# Runs the GPU job in the root of the repository, beside what `make gpu-job` packed into .gpu/; needs no network.
#
#   bash benchmarks/gpu/run.sh [STAGE...]       within SECONDS_IN_ALL (540) seconds; results in OUT (.gpu/out)
#   REHEARSAL=1 bash benchmarks/gpu/run.sh      the same in small on a CPU
#
# PACKED (.gpu) is the folder that was packed, PYTHON (python3) has torch 2.11 or newer and pytorch-lightning.
set -euo pipefail
cd "$(dirname "$0")/../.."
packed=${PACKED:-.gpu}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -d "$packed/wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" \
        "$packed"/wheels/*.whl
fi
if [ -f "$packed/images.tar.gz" ] || [ -z "${REHEARSAL:-}" ]; then
    tar -xzf "$packed/images.tar.gz" -C "$work"
fi
export PYTHONPATH=$work/site:$PWD OMP_NUM_THREADS=1
"$python" benchmarks/gpu/job.py "$work" "${OUT:-$packed/out}" "$@"
