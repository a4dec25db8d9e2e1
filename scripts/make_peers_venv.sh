#!/bin/bash
# Makes .venv-peers with the Python packages that the tests labelled "peers" compare lwq with.
# Quick when it is there and tests/peers/requirements.txt has not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-peers
stamp=$venv/requirements.sha256
want=$(sha256sum tests/peers/requirements.txt | cut -d' ' -f1)
if [[ -f $stamp && $(cat "$stamp") == "$want" ]]; then
  echo "== venv of the peers is up to date"
  exit 0
fi
echo "== making the venv of the peers ($venv)"
rm -rf "$venv"
python3 -m venv "$venv"
pip=("$venv/bin/pip" --disable-pip-version-check install --quiet --no-input --retries 5)
# GPTQModel's metadata imports torch and setuptools, so those come first.
mapfile -t first < <(grep -E '^(torch|setuptools|wheel|numpy)==' tests/peers/requirements.txt)
"${pip[@]}" "${first[@]}"
"${pip[@]}" --no-build-isolation -r tests/peers/requirements.txt
echo "$want" >"$stamp"
echo "== venv of the peers is ready ($SECONDS s)"
