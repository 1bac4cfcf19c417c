#!/bin/bash
# The C compiler of `make dist`. Zig has other names for targets, and its additions to debug builds need its runtime.
arguments=()
for argument in "$@"; do
    [[ $argument == --target=* ]] || arguments+=("$argument")
done
exec python3 -m ziglang cc -target x86_64-linux-musl -fno-sanitize=undefined "${arguments[@]}"
