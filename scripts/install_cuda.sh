#!/bin/bash
# Puts what -DLWQ_CUDA=ON needs of NVIDIA's CUDA Toolkit into a folder, from NVIDIA's packages on PyPI: nvcc, the run-time, cuBLAS
# and cuSOLVER. Needs pip and python3-venv, no GPU and no driver.
# usage: scripts/install_cuda.sh DIR               (then: CUDACXX=DIR/bin/nvcc cmake --preset release-cuda)
#        scripts/install_cuda.sh --runtime DIR TO  copies from it what a worker opens when it runs
set -euo pipefail

# One release of the toolkit; its parts have versions of their own.
packages=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-cusolver==12.0.4.66
  nvidia-cusparse==12.6.3.3 nvidia-nvjitlink==13.0.88  # which cuSOLVER opens
  nvidia-cuda-sanitizer-api==13.0.85  # of the tests on a GPU
)
runtime=(libcudart libcublas libcublasLt libcusolver libcusparse libnvJitLink)

if [[ ${1:-} == --runtime ]]; then
  from=${2:?--runtime needs DIR and TO} to=${3:?--runtime needs DIR and TO}
  # PyPI's packages have lib, NVIDIA's installers lib64.
  if [[ -d $from/lib64 ]]; then from=$from/lib64; else from=$from/lib; fi
  mkdir -p "$to"
  for name in "${runtime[@]}"; do
    # The one name that programs open, the shortest: longer ones are what it is a link to.
    opened=$(ls "$from/$name".so.*[0-9] | awk '{print length, $0}' | sort -n | head -n 1 | cut -d " " -f 2-)
    cp -L "$opened" "$to/"
  done
  exit 0
fi

directory=${1:?usage: scripts/install_cuda.sh DIR}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! python3 -c 'import ensurepip' 2>/dev/null; then
  as_root=()
  [[ $(id -u) == 0 ]] || as_root=(sudo)
  "${as_root[@]}" apt-get update >/dev/null
  "${as_root[@]}" apt-get install -y --no-install-recommends python3-venv >/dev/null
fi
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --target "$work/wheels" "${packages[@]}"
mkdir -p "$directory"
cp -a "$work/wheels/nvidia/cu13/." "$directory/"
# The names that nvcc and CMake look for, which wheels cannot hold.
ln -sfn lib "$directory/lib64"
for library in "$directory"/lib/lib*.so.*; do
  ln -sf "$(basename "$library")" "${library%%.so.*}.so"
done
chmod +x "$directory"/bin/* "$directory"/nvvm/bin/* 2>/dev/null || true
echo "== $("$directory/bin/nvcc" --version | sed -n 's/^Build //p') in $directory"
