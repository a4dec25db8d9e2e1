#!/bin/bash
# Makes an authority, and certificates of it for servers, workers and users.
# usage: make_certificates.sh DIR [DAYS]
# A certificate's URI is its role (docs/service.md): the worker's may do tasks, the user's all else. Whoever has the authority's key makes
# any: keep DIR/ca.key away from the cluster.
set -euo pipefail
directory=${1:?usage: make_certificates.sh DIR [DAYS]}
days=${2:-365}
umask 077
mkdir -p "$directory"
cd "$directory"
curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${curve[@]}" -days "$days" -subj "/CN=lwq authority" -keyout ca.key -out ca.crt 2>/dev/null
# localhost: for `kubectl port-forward`.
names() {
  case $1 in
    server) echo "DNS:lwq-server,DNS:localhost" ;;
    worker) echo "DNS:lwq-worker,URI:spiffe://lwq/worker/lwq-worker" ;;
    user) echo "DNS:lwq-user,URI:spiffe://lwq/admin/lwq-user" ;;
  esac
}
for role in server worker user; do
  openssl req "${curve[@]}" -subj "/CN=lwq-$role" -keyout "$role.key" -out "$role.csr" 2>/dev/null
  openssl x509 -req -in "$role.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -out "$role.crt" \
    -extfile <(echo "subjectAltName=$(names "$role")") 2>/dev/null
  rm "$role.csr"
done
for role in server worker; do
  echo "kubectl -n lwq create secret generic lwq-$role-tls --from-file=tls.crt=$directory/$role.crt --from-file=tls.key=$directory/$role.key --from-file=ca.crt=$directory/ca.crt"
done
echo "lwqctl --tls-ca $directory/ca.crt --tls-cert $directory/user.crt --tls-key $directory/user.key ..."
