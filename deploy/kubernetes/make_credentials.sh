#!/bin/bash
# Makes an authority, certificates of it for servers, workers and users, and the token of an admin.
# usage: make_credentials.sh DIR [DAYS [NAME...]]   NAME: further DNS names of the server  The commands that it prints are for the namespace LWQ_NAMESPACE (lwq)
# What is there is kept while it is of this authority, for these names and good for a third of DAYS (365) more, the authority (ten
# years) and the token always: give the same command again to renew, and remove what is to be made anew. A certificate's URI is its
# role (docs/service.md): the worker's may do tasks, the user's all else. Whoever has the authority's key makes any: keep DIR/ca.key
# away from the cluster, and put it back to renew.
set -euo pipefail
directory=${1:?usage: make_credentials.sh DIR [DAYS [NAME...]]}
days=${2:-365}
server_names=$(printf ",DNS:%s" lwq-server localhost "${@:3}")  # localhost: for `kubectl port-forward`
umask 077
mkdir -p "$directory"
cd "$directory"
curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
# The certificate comes last and whole, so that it says whether there is an authority.
if [[ ! -e ca.crt ]]; then
  openssl req -x509 "${curve[@]}" -days 3650 -subj "/CN=lwq authority" -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout ca.key -out ca.new 2>/dev/null
  mv ca.new ca.crt
fi
extensions() {
  case $1 in
    server) echo "subjectAltName=${server_names#,}"; echo "extendedKeyUsage=serverAuth" ;;
    worker) echo "subjectAltName=DNS:lwq-worker,URI:spiffe://lwq/worker/lwq-worker"; echo "extendedKeyUsage=clientAuth" ;;
    user) echo "subjectAltName=DNS:lwq-user,URI:spiffe://lwq/admin/lwq-user"; echo "extendedKeyUsage=clientAuth" ;;
  esac
}
is_good() {
  [[ -e $1.key && -e $1.crt ]] && openssl x509 -checkend $((days * 86400 / 3)) -noout -in "$1.crt" >/dev/null 2>&1 &&
    openssl verify -CAfile ca.crt "$1.crt" >/dev/null 2>&1 && [[ $1 != server || $(names_of server.crt) == "${server_names#,}" ]]
}
names_of() { openssl x509 -noout -ext subjectAltName -in "$1" | sed -n '2s/[[:space:]]//gp'; }
for role in server worker user; do
  if is_good "$role"; then continue; fi
  if [[ ! -e ca.key ]]; then
    echo "make_credentials.sh: $role.crt has to be made anew and $directory has the authority's certificate, ca.crt, without its key, ca.key: put the key back" >&2
    exit 1
  fi
  openssl req "${curve[@]}" -subj "/CN=lwq-$role" -keyout "$role.key" -out "$role.csr" 2>/dev/null
  openssl x509 -req -in "$role.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -out "$role.new" \
    -extfile <(extensions "$role") 2>/dev/null
  mv "$role.new" "$role.crt"
  rm "$role.csr"
done
if [[ ! -s admin.token ]]; then  # of --admin-token-file: 256 random bits
  echo "lwq_admin_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=')" > admin.token
fi
# Applied and not created, so that they also put a renewed one in the old one's place.
namespace=${LWQ_NAMESPACE:-lwq}
secret() { echo "kubectl -n $namespace create secret generic $* --dry-run=client -o yaml | kubectl -n $namespace apply -f -"; }
for role in server worker; do
  secret "lwq-$role-tls" --from-file="tls.crt=$directory/$role.crt" --from-file="tls.key=$directory/$role.key" --from-file="ca.crt=$directory/ca.crt"
done
secret lwq-admin-token --from-file="token=$directory/admin.token"
echo "lwqctl COMMAND --tls-ca $directory/ca.crt --token-file $directory/admin.token ..."
