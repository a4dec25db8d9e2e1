#!/bin/bash
# Installs the Debian 12 packages that lwq is built from. Takes well under a second when they are
# all there. usage: scripts/install_packages.sh [--peers] [--fuzz]   (--peers: also what the Python
# venv needs, and the servers that tests start; --fuzz: also clang with libFuzzer, for tests/fuzz/run)
set -euo pipefail

packages=(
  # tools
  g++ cmake ninja-build ccache pkg-config git ca-certificates
  # RPC and messages (gRPC's CMake files also ask for re2 and c-ares)
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libre2-dev libc-ares-dev
  libabsl-dev libspdlog-dev prometheus-cpp-dev
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
  # numerics (oneDNN's CMake files also ask for OpenCL)
  libdnnl-dev ocl-icd-opencl-dev opencl-headers libopenblas-dev libhwy-dev libgomp1
  # tokenizers, state, hashes, S3
  libsentencepiece-dev libpcre2-dev libsqlite3-dev libpq-dev libssl-dev
  libcurl4-openssl-dev
  # tests and benches
  libgtest-dev libgmock-dev libbenchmark-dev
)
if [[ " $* " == *" --fuzz "* ]]; then
  packages+=(clang libclang-rt-14-dev)
fi
if [[ " $* " == *" --peers "* ]]; then
  packages+=(python3 python3-venv python3-dev)
  # The tests of the PostgreSQL store start a server of their own; without it they are skipped.
  packages+=(postgresql-15)
  # Scrapes lwq in the tests of dashboards and alerts; without it they are skipped.
  packages+=(prometheus)
fi

missing=()
installed=$(dpkg-query -W -f '${Package} ${Status}\n' "${packages[@]}" 2>/dev/null |
            sed -n 's/ install ok installed$//p' | sort -u || true)
for package in "${packages[@]}"; do
  grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

fail() {
  echo "install_packages: $1" >&2
  echo "  needed and not installed: ${missing[*]}" >&2
  exit 1
}
command -v apt-get >/dev/null || fail "this script knows only apt-get (Debian 12); install these with your system's packages, then run again"
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || fail "not root and no sudo here; run as root: apt-get install ${missing[*]}"
  as_root=(sudo)
fi

echo "== installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 \
       -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get $1 failed (its last lines are above); is the network there, and is this Debian 12?"
  fi
}
apt update
apt install --yes --no-install-recommends "${missing[@]}"
echo "== packages installed (${SECONDS} s)"
