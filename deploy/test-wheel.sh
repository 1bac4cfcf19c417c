#!/bin/bash
# Installs a wheel into an empty folder and runs the demo from there, with the libraries and servers that set-up fetched:
# deploy/test-wheel.sh DEPS WHEEL
set -euo pipefail
deps=$(realpath "${1:?usage: deploy/test-wheel.sh DEPS WHEEL}")
wheel=$(realpath "${2:?usage: deploy/test-wheel.sh DEPS WHEEL}")
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
started=$SECONDS
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target "$folder/site" "$wheel"
cd "$folder"
export PYTHONPATH="$folder/site" PATH="$folder/site/bin:$PATH"
export LIBTORCH="$deps/libtorch" HALFHEARD_NATS_SERVER="$deps/nats/nats-server" HALFHEARD_POSTGRES_BIN="$deps/postgres/bin"
export HALFHEARD_ENCODER_EN="$deps/encoder"
unset LD_LIBRARY_PATH HALFHEARD_DEPS
coord --version
coord demo --data-dir "$folder/data"
coord table 9 --data-dir "$folder/data" | grep -q 'sweep demo'
echo "test-wheel: installed and run in $((SECONDS - started)) s"
