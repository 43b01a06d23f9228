#!/usr/bin/env bash
# Runs every fuzz target for so many seconds (first argument) and prints how many inputs it tried and which of
# them crashed it. What it has learnt stays in target/fuzz/corpus. Fails where anything crashed.

set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?seconds per target}
crashed=0
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    corpus=target/fuzz/corpus/$target
    crashes=target/fuzz/crashes/$target
    log=target/fuzz/$target.log
    mkdir -p "$corpus" "$crashes"
    binary=$(find target/fuzz -path "*/release/$target" -type f -perm -u+x -print -quit)
    failed=no
    "$binary" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$crashes/" "$corpus" \
        >"$log" 2>&1 || failed=yes
    runs=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)$/\1/p' "$log")
    found=$(find "$crashes" -type f | wc -l)
    printf '%-10s %12s runs, %s crashes\n' "$target" "${runs:-?}" "$found"
    if [ "$failed" = yes ] || [ "$found" -gt 0 ]; then
        echo "  see $log and $crashes"
        crashed=1
    fi
done
exit "$crashed"
