# tokend in an image of its own: one static binary and the certificates of the public authorities, no shell, no library.
# `make image` builds it; docs/adr/0015-image.md has the reasons and the figures. `--target debug` gives the same binary
# with its symbols and line tables, for backtraces and profiles. Written for the classic builder and BuildKit alike; on
# aarch64 it builds for aarch64.

ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# Static glibc, of which name resolution is a part since 2.34. --target, though it is the host's own, keeps the flags from
# build scripts and procedural macros, which can't be static. Paths in messages and backtraces start at the crate.
ENV RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/build=. \
--remap-path-prefix=/usr/local/cargo/registry/src=crates" \
    CARGO_INCREMENTAL=0

# The dependencies, for an empty crate: a layer that only a change of these two files builds again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && target=$(rustc --print host-tuple) \
    && cargo build --locked --release --bin tokend --target "$target" \
    && cargo clean --locked --release --package tokend --target "$target" \
    && rm -r src

COPY lua lua
COPY assets/redoc assets/redoc
COPY src src
# The commit, told by `tokend --version` and in the metrics.
ARG REVISION=""
RUN target=$(rustc --print host-tuple) \
    && TOKEND_REVISION="${REVISION}" cargo build --locked --release --bin tokend --target "$target" \
    && mkdir /debug /release \
    && cp "target/$target/release/tokend" /debug/tokend \
    && strip -o /release/tokend /debug/tokend

FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="tokend" \
    org.opencontainers.image.description="Hands out scarce tokens over HTTP, each to at most one holder at a time, and takes them back." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="MIT"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# A number, so that Kubernetes sees that it is not root without a look into the image.
USER 65532:65532
ENV HOST=0.0.0.0 PORT=3000
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/tokend", "healthcheck"]
ENTRYPOINT ["/tokend"]
CMD ["serve"]

FROM base AS debug
ENV RUST_BACKTRACE=1
COPY --from=build /debug/tokend /

FROM base
COPY --from=build /release/tokend /
