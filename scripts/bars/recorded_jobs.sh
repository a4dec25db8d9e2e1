#!/bin/bash
# Six jobs of the sample and the SHA-256 of what they write, to hold two builds against each other.
# usage: scripts/bars/recorded_jobs.sh BIN_DIRECTORY OUT_DIRECTORY   (of lwqctl, lwq-server, lwq-worker; OUT is emptied)
set -euo pipefail
bin=$1 out=$2 root=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$out"
mkdir -p "$out"

job() {
  local name=$1
  shift
  "$bin/lwqctl" quantize "$root/examples/lwq-books-10m" --calibration "$root/examples/calibration/books.txt" \
    --calibration-tokens 8192 --no-eval --data-dir "$out/data" --out "$out/$name" "$@" >"$out/$name.log" 2>&1
}

job gptq-kl --budget 3.0bpw --method gptq
job rtn-kl --budget 3.0bpw --method rtn
job gptq-plain --budget 3.3bpw --bits 3 --method gptq --method-option refinement=false --allocator uniform --scorer lim
job rtn-zd --budget 3.5bpw --bits 3,4 --method rtn --allocator two-level --scorer zd
job gptq-random --budget 3.5bpw --bits 3,4 --method gptq --method-option act-order=false --allocator two-level --scorer random
job gguf --budget Q3_K_M --for llama.cpp --scorer weight-error
cd "$out"
find . \( -name model.safetensors -o -name model.gguf -o -name config.json \) -not -path './data/*' | sort | xargs sha256sum
