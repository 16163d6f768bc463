#!/bin/sh
# Makes the CMS vectors anew with the `openssl` command (3.0 or later). Run in this folder; see SOURCES.md.
set -eu
openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj "/CN=test recipient" \
    -addext subjectKeyIdentifier=hash -keyout recipient.key -out recipient.crt 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj "/CN=second recipient" \
    -addext subjectKeyIdentifier=hash -keyout /dev/null -out second.crt 2>/dev/null
printf 'a data key of 32 bytes, made up.' > data-key.txt
printf '' > empty.txt
i=0; while [ $i -lt 512 ]; do printf 'twelve bytes'; i=$((i + 1)); done > six-kib.txt
OAEP="-keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 -keyopt rsa_mgf1_md:sha256"
encrypt() { # NAME PLAINTEXT, then options
    name=$1; plain=$2; shift 2
    openssl cms -encrypt -binary -in "$plain" -outform DER -out "$name.cms" "$@"
}
# What must open: definite and indefinite lengths, by key identifier (as KMS) and by issuer.
encrypt data-key data-key.txt -aes256 -keyid -recip recipient.crt $OAEP
encrypt data-key-stream data-key.txt -aes256 -keyid -stream -recip recipient.crt $OAEP
encrypt data-key-issuer data-key.txt -aes256 -recip recipient.crt $OAEP
encrypt empty empty.txt -aes256 -keyid -recip recipient.crt $OAEP
encrypt six-kib six-kib.txt -aes256 -keyid -recip recipient.crt $OAEP
encrypt six-kib-stream six-kib.txt -aes256 -keyid -stream -recip recipient.crt $OAEP
# What must not: other algorithms, two recipients, another key.
encrypt refuse-oaep-sha1 data-key.txt -aes256 -keyid -recip recipient.crt -keyopt rsa_padding_mode:oaep
encrypt refuse-mgf1-sha1 data-key.txt -aes256 -keyid -recip recipient.crt \
    -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 -keyopt rsa_mgf1_md:sha1
encrypt refuse-oaep-label data-key.txt -aes256 -keyid -recip recipient.crt $OAEP -keyopt rsa_oaep_label:746561
encrypt refuse-pkcs1 data-key.txt -aes256 -keyid -recip recipient.crt
encrypt refuse-aes128 data-key.txt -aes128 -keyid -recip recipient.crt $OAEP
encrypt refuse-gcm data-key.txt -aes-256-gcm -keyid -recip recipient.crt $OAEP
encrypt refuse-other-key data-key.txt -aes256 -keyid -recip second.crt $OAEP
openssl cms -encrypt -binary -in data-key.txt -outform DER -out refuse-two-recipients.cms -aes256 -keyid \
    -recip recipient.crt $OAEP -recip second.crt $OAEP
rm -f second.crt recipient.crt
