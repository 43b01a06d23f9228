#!/usr/bin/env bash
# Makes a Python environment with the packages of a requirements file (that of tests/clients if none is named), once,
# under target/, and prints the path of its interpreter. Where it can't, it says why on stderr and fails: the test is
# skipped then.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=${1:-tests/clients/requirements.txt}
home=target/$(basename "$(dirname "$requirements")")
# Named after what is in it: another pin makes another one.
environment=$home/$(cksum <"$requirements" | tr ' ' -)
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment"
    command -v python3 >/dev/null || { echo "no python3" >&2; exit 1; }
    python3 -m venv "$environment" >"$home/log" 2>&1 || { echo "no python3-venv" >&2; exit 1; }
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 20 \
        --requirement "$requirements" >"$home/log" 2>&1 \
        || { echo "pip could not install $requirements: $(tail -n 1 "$home/log")" >&2; exit 1; }
    touch "$environment/complete"
fi
echo "$PWD/$environment/bin/python"
