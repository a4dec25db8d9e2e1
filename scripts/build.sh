#!/bin/bash
# Configures a preset once and builds targets of it.
# usage: scripts/build.sh PRESET [TARGET...]   (no target: everything)
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:?usage: scripts/build.sh PRESET [TARGET...]}
shift
hint() {
  echo "build: preset $preset did not build; the first error is above." >&2
  echo "  To build again: cmake --build build/$preset   To start afresh: rm -rf build/$preset" >&2
}
trap hint ERR

# ninja itself configures again when a CMake file or a list of sources changes.
if [[ ! -f build/$preset/build.ninja ]]; then
  echo "== configuring (preset $preset)"
  mkdir -p "build/$preset"
  if ! cmake --preset "$preset" >"build/$preset/configure.log" 2>&1; then
    tail -n 30 "build/$preset/configure.log" >&2
    rm -f "build/$preset/build.ninja" "build/$preset/CMakeCache.txt"
    false
  fi
fi
echo "== building (preset $preset: ${*:-everything})"
# -k 1 would hide later errors; the default stops at the first, which is what one wants to read.
ninja -C "build/$preset" "$@"
