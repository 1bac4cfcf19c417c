#!/usr/bin/env bash
# Updates .sqlx/: compiles against the database in DATABASE_URL while sqlx's macros record their queries. Called by
# `make sqlx-prepare`; does not need sqlx-cli.
set -euo pipefail
cd "$(dirname "$0")/.."

# One at a time: it empties .sqlx/ for a moment.
exec 9>>"${CARGO_TARGET_DIR:-target}/.sqlx-prepare"
flock 9

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

# A build of its own: the macros run only when the crate is compiled.
touch coordinator/store/src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" cargo check -p halfheard-store --all-targets

if ! compgen -G "$fresh/query-*.json" >/dev/null; then
    echo "sqlx-prepare: the build asked nothing of the database; .sqlx/ is left as it is" >&2
    exit 1
fi
mkdir -p .sqlx
find .sqlx -name 'query-*.json' -delete
find "$fresh" -name 'query-*.json' -exec cp {} .sqlx/ \;
echo "sqlx-prepare: $(find .sqlx -name 'query-*.json' | wc -l) queries in .sqlx/"
