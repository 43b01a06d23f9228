#!/usr/bin/env bash
# Lists every test that could not run here, by name and with the reason, from the output of cargo test: such
# a test writes a line `SKIPPED name: reason` to stderr (past the test harness's capture).
set -euo pipefail

skipped=$(sed -nE 's/^.*SKIPPED ([^:]+(::[^:]+)*): (.*)$/\1: \3/p' "$1" | sort -u)
if [ -z "$skipped" ]; then
    echo "Skipped tests: none."
else
    printf 'Skipped tests:\n%s\n' "$skipped" | sed '2,$s/^/  /'
fi
