#!/bin/bash
# Bar 1: ./quickstart and ./test in a fresh Debian 12 root, from a clone, with their times.
# usage: scripts/bars/fresh_root.sh [ROOT_DIR] [arguments of ./test, such as --peers]
# Needs root, debootstrap and the network. The root is kept: rm -rf it afterwards.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
root=${1:-$(mktemp -d /tmp/lwq-root.XXXXXX)}
shift || true

if [[ ! -x $root/usr/bin/apt-get ]]; then
  debootstrap --variant=minbase bookworm "$root" http://deb.debian.org/debian >"$root.log"
fi
# The host's way to the mirrors: its resolver, and (below) its certificates.
cp /etc/resolv.conf "$root/etc/resolv.conf"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --rbind /dev "$root/dev"
trap 'umount -l "$root/dev" "$root/proc"' EXIT
chroot "$root" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates git' >/dev/null 2>&1
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
rm -rf "$root/root/lwq"
git clone --quiet "$source_dir" "$root/root/lwq"

measure() {
  local begin=$SECONDS
  if chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    bash -c 'cd /root/lwq && "$@"' - "$@" >"$root.out" 2>&1; then
    tail -n "${keep:-25}" "$root.out"
    echo "== $*: passed in $((SECONDS - begin)) s"
  else
    tail -n 60 "$root.out"
    echo "== $*: FAILED after $((SECONDS - begin)) s; all of it in $root.out"
    exit 1
  fi
}
measure ./quickstart
measure ./quickstart
measure ./test "$@"
