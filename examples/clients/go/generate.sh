#!/bin/bash
# Makes the Go package lwqv1 of proto/lwq/v1 in this folder, by protoc with protoc-gen-go and protoc-gen-go-grpc.
# usage: generate.sh   (go generate calls it)
set -euo pipefail
cd "$(dirname "$0")"
root=../../..
options=module=lwq-example
for file in "$root"/proto/lwq/v1/*.proto; do options+=,M${file#"$root"/}=lwq-example/lwqv1; done
protoc -I"$root" --go_out=. --go_opt="$options" --go-grpc_out=. --go-grpc_opt="$options" "$root"/proto/lwq/v1/*.proto
