#!/bin/bash
# Builds lwq's images with buildah: lwq-server, lwq-worker-cpu, lwqctl, lwq, each as latest and by its version.
# usage: deploy/images/build.sh [--debootstrap] [--binaries DIR] [TARGET...]   (no target: all)
#   --debootstrap   where no registry is reachable: makes the base image from Debian's packages (once)
#   --binaries DIR  takes lwq's programs from DIR, such as build/release/bin, instead of compiling them in the image
#   --cuda DIR TOOLKIT  takes the worker with CUDA from DIR, such as build/release-cuda/bin, and CUDA's libraries from TOOLKIT
# worker-cuda is built only where it is named: it fetches the CUDA Toolkit, a gigabyte.
set -euo pipefail
cd "$(dirname "$0")/../.."

base=debian:bookworm-slim
context=()
targets=()
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

# What Debian's slim images leave out, left out of later installations too.
slim_base() {
  base=localhost/debian-bookworm-slim
  if buildah inspect --type image "$base" >/dev/null 2>&1; then return; fi
  echo "== making $base with debootstrap"
  debootstrap --variant=minbase bookworm "$work/root" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
  cat >"$work/root/etc/dpkg/dpkg.cfg.d/slim" <<'EOF'
path-exclude /usr/share/doc/*
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-include /usr/share/doc/*/copyright
EOF
  cat >"$work/root/etc/apt/sources.list" <<'EOF'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
EOF
  find "$work/root/usr/share/doc" -type f ! -name copyright -delete
  rm -rf "$work"/root/usr/share/{man,info,locale}/* "$work"/root/var/lib/apt/lists/* "$work"/root/var/cache/apt/* \
    "$work"/root/var/log/*
  local container
  container=$(buildah from scratch)
  buildah copy --quiet "$container" "$work/root" / >/dev/null
  buildah config --cmd bash "$container"
  buildah commit --quiet --rm "$container" "$base" >/dev/null
}

while [[ $# -gt 0 ]]; do
  case $1 in
    --debootstrap) slim_base; shift ;;
    --binaries)
      mkdir -p "$work/build/out"
      for file in lwq-server lwq-worker lwqctl lwq-sentencepiece.so; do
        strip --strip-unneeded -o "$work/build/out/$file" "${2:?--binaries needs a directory}/$file"
      done
      context+=(--build-context "build=$work/build")
      shift 2 ;;
    --cuda)
      mkdir -p "$work/build-cuda/out"
      for file in lwq-worker lwq-sentencepiece.so; do
        strip --strip-unneeded -o "$work/build-cuda/out/$file" "${2:?--cuda needs a directory and a toolkit}/$file"
      done
      scripts/install_cuda.sh --runtime "${3:?--cuda needs a directory and a toolkit}" "$work/build-cuda/out/cuda"
      context+=(--build-context "build-cuda=$work/build-cuda")
      shift 3 ;;
    --help | -h) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
    *) targets+=("$1"); shift ;;
  esac
done
version=$(sed -n 's/^project(lwq VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
[[ ${#targets[@]} -gt 0 ]] || targets=(server worker-cpu lwqctl lwq)

for target in "${targets[@]}"; do
  case $target in lwq*) name=$target ;; *) name=lwq-$target ;; esac
  echo "== building $name"
  # Docker's format, because OCI's has no health checks.
  buildah build --quiet --layers --format docker --build-arg "BASE=$base" \
    --label "org.opencontainers.image.revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
    "${context[@]}" --target "$target" --tag "$name" . >/dev/null
  buildah tag "$name" "$name:$version"  # which the manifests name
done
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' | grep '/lwq.*:latest'
