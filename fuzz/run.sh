#!/bin/bash
# Fuzzes each target for so many minutes, one after the other: fuzz/run.sh MINUTES [TARGET...]
#
# cargo-fuzz needs unstable flags of the compiler; RUSTC_BOOTSTRAP allows them on the pinned one. What is found stays in
# fuzz/artifacts, the growing corpus in fuzz/corpus; only fuzz/seeds is kept in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
minutes=${1:?usage: fuzz/run.sh MINUTES [TARGET...]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list | grep -v '^seeds$')
# Readers of files get them in memory.
[ -d /dev/shm ] && export TMPDIR=/dev/shm
failed=()
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    inputs=("fuzz/corpus/$target")
    [ -d "fuzz/seeds/$target" ] && inputs+=("fuzz/seeds/$target")
    # What PyTorch itself wrote for the tests.
    [ "$target" = encoder_torch ] && inputs+=(shared/tests/data/encoders/bert-{zip,legacy,bfloat})
    # `import` hands the file to threads, whose last breath the leak check takes for a leak.
    leaks=1
    [ "$target" = import ] && leaks=0
    echo "fuzz: $target for $minutes minutes"
    cargo fuzz run "$target" "${inputs[@]}" -- -max_total_time=$((60 * minutes)) -timeout=20 -rss_limit_mb=2048 \
        -max_len=65536 -print_final_stats=1 -detect_leaks=$leaks || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: findings in ${failed[*]}; see fuzz/artifacts" >&2; exit 1; }
