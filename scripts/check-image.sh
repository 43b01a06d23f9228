#!/usr/bin/env bash
# Builds the image on the Docker engine that answers (DOCKER_HOST, or the usual socket), and runs the tests of
# tests/operations/image*.rs on it. Where no registry can be reached, the base images are made here: Debian by mmdebstrap,
# the Rust one with this machine's toolchain and the crates that it has fetched, so that the build needs no network.
#
# IMAGE=tokend:dev names what is built. KEEP=1 takes an image that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${IMAGE:-tokend:check}
rust=rust:1.95-bookworm
redis=redis:8.10.0-alpine
suite=bookworm

command -v docker >/dev/null || { echo "check-image: there is no docker on PATH" >&2; exit 1; }
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 \
    || { echo "check-image: no Docker engine answers" >&2; exit 1; }

have() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1; }

# tree IMAGE PACKAGES: a Debian with these.
tree() {
    command -v mmdebstrap >/dev/null || { echo "check-image: needs a registry, or mmdebstrap" >&2; exit 1; }
    mmdebstrap --quiet --variant=minbase --include="$2" "$suite" - | docker import - "$1" >/dev/null
}

# What rust:1.95-bookworm has, as far as it is used.
make_rust() {
    local sysroot cargo=${CARGO_HOME:-$HOME/.cargo} work
    sysroot=$(rustc --print sysroot)
    docker image inspect tokend-check/debian >/dev/null 2>&1 \
        || tree tokend-check/debian gcc,g++,libc6-dev,make,perl,ca-certificates
    cargo fetch --locked
    work=$(mktemp -d)
    cat >"$work/Dockerfile" <<'DOCKERFILE'
FROM tokend-check/debian
COPY toolchain /usr/local
COPY registry /usr/local/cargo/registry
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true
DOCKERFILE
    tar -c --exclude=lib/rustlib/src --transform "s,^${sysroot#/},toolchain," --transform "s,^${cargo#/},," \
        -C / "${sysroot#/}/bin" "${sysroot#/}/lib" "${sysroot#/}/libexec" \
        "${cargo#/}/registry/index" "${cargo#/}/registry/cache" -C "$work" Dockerfile \
        | docker build --quiet --tag tokend-check/rust - >/dev/null
    rm -r "$work"
}

arguments=()
if ! have "$rust"; then
    echo "check-image: no registry gives $rust: making one of this machine's toolchain"
    make_rust
    rust=tokend-check/rust
    arguments+=(--network none)
fi
if ! have "$redis"; then
    echo "check-image: no registry gives $redis: making one of Debian's redis-server"
    docker image inspect tokend-check/redis >/dev/null 2>&1 || tree tokend-check/redis redis-server
    redis=tokend-check/redis
fi
if [ -z "${KEEP:-}" ] || ! docker image inspect "$image" >/dev/null 2>&1; then
    revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || true)
    docker build "${arguments[@]}" --build-arg "RUST_IMAGE=$rust" --build-arg "REVISION=$revision" --tag "$image" .
fi
docker image inspect --format "check-image: $image has {{.Size}} bytes" "$image"
TOKEND_TEST_IMAGE=$image TOKEND_TEST_REDIS_IMAGE=$redis \
    cargo test --locked --test operations -- image::
