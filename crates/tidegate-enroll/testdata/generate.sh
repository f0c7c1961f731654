#!/bin/sh
# Makes the requests and messages anew, see README.md.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
request() { # NAME SUBJECT OPTIONS...
    name=$1 subject=$2
    shift 2
    openssl req -new -nodes -keyout "$folder/key.pem" -subj "$subject" -outform DER -out "$name.der" "$@"
}
request p256 /CN=device-001 -newkey ec -pkeyopt ec_paramgen_curve:P-256
request p384 /CN=device-001 -newkey ec -pkeyopt ec_paramgen_curve:P-384
request ed25519 /CN=device-001 -newkey ed25519
request names "/C=XX/O=Evil/OU=a/OU=b/CN=device-002/emailAddress=a@b.example" \
    -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
    -addext "subjectAltName=URI:urn:tidegate:operator:root,DNS:localhost,IP:127.0.0.1" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=keyCertSign,cRLSign" \
    -addext "extendedKeyUsage=serverAuth,clientAuth"
request p521 /CN=device-001 -newkey ec -pkeyopt ec_paramgen_curve:P-521
request explicit /CN=device-001 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit
request rsa /CN=device-001 -newkey rsa:2048
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$folder/ca-key.pem" \
    -subj /CN=CA -days 30 -out "$folder/ca.pem"
openssl req -x509 -newkey ed25519 -nodes -keyout "$folder/key.pem" -subj /CN=d -days 30 -out "$folder/d.pem"
: > "$folder/index"
printf '[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index\ndefault_md=sha256\ndefault_crl_days=1\n' "$folder" > "$folder/conf"
openssl ca -gencrl -config "$folder/conf" -cert "$folder/ca.pem" -keyfile "$folder/ca-key.pem" -out "$folder/crl.pem"
openssl crl2pkcs7 -nocrl -certfile "$folder/ca.pem" -certfile "$folder/d.pem" -outform DER -out certificates.p7
openssl crl2pkcs7 -in "$folder/crl.pem" -certfile "$folder/ca.pem" -outform DER -out with-list.p7
openssl crl2pkcs7 -in "$folder/crl.pem" -outform DER -out only-list.p7
openssl smime -sign -in "$0" -signer "$folder/ca.pem" -inkey "$folder/ca-key.pem" -outform DER -out signed.p7
