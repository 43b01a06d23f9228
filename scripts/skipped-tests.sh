#!/usr/bin/env bash
# Lists every test that did not run, by name and with the reason, from the output of cargo test: those
# marked #[ignore = "reason"], and those that wrote a line `SKIPPED name: reason` to stderr because
# the machine lacks something (written past the test harness's capture, with std::io::stderr()).
set -euo pipefail

skipped=$(sed -nE \
    -e 's/^test (.*) \.\.\. ignored, (.*)$/\1: \2/p' \
    -e 's/^test (.*) \.\.\. ignored$/\1: no reason given/p' \
    -e 's/^.*SKIPPED ([^:]+(::[^:]+)*): (.*)$/\1: \3/p' "$1" | sort -u)
if [ -z "$skipped" ]; then
    echo "Skipped tests: none."
else
    printf 'Skipped tests:\n%s\n' "$skipped" | sed '2,$s/^/  /'
fi
