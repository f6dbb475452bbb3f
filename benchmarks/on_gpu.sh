#!/usr/bin/env bash
# Everything that is to be known of one GPU, in less than eight minutes: the checks, then one table.
#
#   benchmarks/on_gpu.sh                 on the first GPU (needs torch with CUDA and `pip install -e '.[survey]'`)
#   benchmarks/on_gpu.sh --device cpu    the same on a CPU, small: to see that the script itself works
#
# Without network access nothing is fetched: weights are random unless --weights names a file. captum is timed if it is
# installed. The exit code is 1 where a check failed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python3}"
if [[ " $* " != *" --device "* ]]; then
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
        echo "No GPU that torch can use: add --device cpu to try the script itself." >&2
        exit 2
    }
    command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    set -- --device cuda "$@"
fi
exec timeout 480 "$python" benchmarks/on_gpu.py "$@"
