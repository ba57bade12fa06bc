#!/bin/sh
# The kernels' GPU tests under compute-sanitizer: loads and stores outside a tensor, and races in shared memory.
# PYTHON names the interpreter. Where the tool or a CUDA device is missing it says so and fails nothing.
set -eu
python="${PYTHON:-python3}"

if ! command -v compute-sanitizer >/dev/null; then
    echo "NOTICE: compute-sanitizer is not on the path, so no kernel was checked for races or stray loads."
    exit 0
fi
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "NOTICE: no CUDA device here, so no kernel was checked for races or stray loads."
    exit 0
fi

# Each tensor in an allocation of its own: out of torch's pool a load past one tensor would fall into the next.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
# Compiled graphs are left out: they launch the same kernels, and the compiler starts processes of its own.
for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$python" -m pytest -q -p no:xdist -m gpu tests/kernels/gpu -k "not compiled and not trajectory"
done
