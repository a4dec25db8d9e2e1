#!/bin/bash
# Everything about a GPU in one command: builds lwq with the CUDA device and its tests, checks every operation (also under NVIDIA's
# sanitizer), times every operation beside what the card can do, and runs whole jobs beside GPTQModel and llm-compressor.
# usage: bench/gpu/run.sh [DEVICE]      (cuda:0; LWQ_PEERS_PYTHON: a Python that has the peers; CUDACXX: an nvcc that is there)
# Prints to the terminal and to build/gpu/report.txt. docs/results/cuda.md says what the figures are held against.
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${1:-cuda:0}
if [[ -z ${CUDACXX:-} ]] && ! command -v nvcc >/dev/null; then
  [[ -x build/cuda/bin/nvcc ]] || scripts/install_cuda.sh build/cuda
  export CUDACXX=$PWD/build/cuda/bin/nvcc PATH=$PWD/build/cuda/bin:$PATH LD_LIBRARY_PATH=$PWD/build/cuda/lib:${LD_LIBRARY_PATH:-}
fi
scripts/install_packages.sh
scripts/build.sh gpu
{
  echo "== $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
  failed=0  # what is measured does not wait for what fails, and is not trusted then
  ctest --test-dir build/gpu -L gpu --output-on-failure --no-tests=error || failed=$?
  broken=0
  for shape in sample 1b 7b; do build/gpu/bin/device_bench "$device" "$shape" || broken=$?; done
  for model in 1b 7b; do "${LWQ_PEERS_PYTHON:-python3}" bench/gpu/whole_job.py --device "$device" --model "$model" || broken=$?; done
  ((broken == 0)) || echo "== something could not be measured: see above"
  ((failed == 0)) || { echo "== tests failed: no figure above counts"; exit "$failed"; }
  failed=$broken
  exit "$failed"
} 2>&1 | tee build/gpu/report.txt
