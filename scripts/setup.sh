#!/usr/bin/env bash
# Makes sure that what tokend and its tests need is on PATH: a redis-server (7.0 or newer) or valkey-server,
# and, for the tour of the README, curl. With `tests`, where there is apt-get, also what single tests need: Python for a
# standard OAuth client and for schemas, Prometheus and Alertmanager for the alert rules and the dashboards, nginx for the
# rolling restart. (Without them these tests are skipped, and say so.) No package's own service is started: tokend and its
# tests start what they need, on sockets and ports of their own.
set -euo pipefail

packages=()
if ! command -v redis-server >/dev/null && ! command -v valkey-server >/dev/null; then
    packages+=(redis-server)
fi
if ! command -v curl >/dev/null; then
    packages+=(curl)
fi
if [ "${1:-}" = tests ] && command -v apt-get >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
fi
# Debian calls Alertmanager's program prometheus-alertmanager; others leave that out.
if [ "${1:-}" = tests ] && command -v apt-get >/dev/null; then
    command -v promtool >/dev/null || packages+=(prometheus)
    command -v alertmanager >/dev/null || command -v prometheus-alertmanager >/dev/null \
        || packages+=(prometheus-alertmanager)
    [ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || packages+=(nginx-light)
fi
if [ ${#packages[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "Missing: ${packages[*]}, and no apt-get to install them with (Redis 7.0 or newer)." >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing: ${packages[*]}. As root, run apt-get install ${packages[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# Debian's way to install a package without starting its service: a policy that forbids starts, there
# for the time of the installation. One that is there already is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

echo "Installing ${packages[*]}."
"${as_root[@]}" apt-get update -q </dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${packages[@]}" </dev/null
