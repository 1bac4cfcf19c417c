#!/usr/bin/env bash
# Makes the secrets of an installation, one file each, as deploy/compose.yaml and deploy/kubernetes mount them:
#
#   deploy/secrets.sh deploy/secrets
#
# What is there already stays. The folder is for its owner only. The files are readable inside it, because a container
# whose user is another reads them where they are mounted.

set -euo pipefail

folder=${1:?usage: deploy/secrets.sh FOLDER}

umask 022
mkdir -p -- "$folder"
chmod 700 -- "$folder"
cd -- "$folder"

# NATS reads a password that begins with a digit as a number.
random() {
    printf 'h%s' "$(od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n')"
}

put() {
    [[ -s $1 ]] || printf '%s' "$2" >"$1"
}

put postgres-password "$(random)"
put nats-coord-password "$(random)"
put nats-worker-password "$(random)"
put http-token "$(random)"
put coord-nats-url "nats://coord:$(<nats-coord-password)@nats:4222"
put worker-nats-url "nats://worker:$(<nats-worker-password)@nats:4222"
put coord-database-url "postgres://halfheard:$(<postgres-password)@postgres/halfheard"
