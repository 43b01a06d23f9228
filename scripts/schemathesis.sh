#!/usr/bin/env bash
# Sends what the OpenAPI document allows, and what it does not, to a running tokend, and checks every answer
# against the document. The same seed gives the same requests. Any 500 or 503 is a failure.
#
# EXAMPLES=100 tries more per operation (50 by default); SEED=2 others.
set -euo pipefail
cd "$(dirname "$0")/.."

# A released version, so that what passed today passes tomorrow.
VERSION=4.32.5
EXAMPLES=${EXAMPLES:-50}
SEED=${SEED:-1}
# Longest wait for the service to start, in seconds: the embedded Redis reads its data first.
START_MAX=30

tools=$PWD/target/tools/schemathesis-$VERSION
if [ ! -x "$tools/bin/schemathesis" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet "schemathesis==$VERSION"
fi
cargo build --locked --bin tokend

work=$(mktemp -d "${TMPDIR:-/tmp}/tokend-fuzz-api.XXXXXX")
service=
finish() {
    if [ -n "$service" ]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

# From a folder of its own, so that no .env here decides what is tested. PORT=0: any free one.
binary=$PWD/target/debug/tokend
(cd "$work" && exec env -u REDIS_URL HOST=127.0.0.1 PORT=0 DUMP=true DATA_DIR="$work/data" "$binary" serve) \
    >"$work/log" 2>&1 &
service=$!
url=
for ((tenths = 0; tenths < START_MAX * 10; tenths++)); do
    url=$(sed -nE 's|.* serves (http://[0-9.]+:[0-9]+).*|\1|p' "$work/log" | head -n 1)
    if [ -n "$url" ] && curl -fsS -o "$work/ready" "$url/readyz" 2>"$work/curl"; then
        break
    fi
    if ! kill -0 "$service" 2>/dev/null; then
        cat "$work/log" >&2
        exit 1
    fi
    sleep 0.1
done
if [ ! -s "$work/ready" ]; then
    echo "tokend was not ready within $START_MAX s:" >&2
    cat "$work/log" >&2
    exit 1
fi

checks=not_a_server_error,status_code_conformance,content_type_conformance
checks+=,response_schema_conformance,response_headers_conformance,unsupported_method,allow_header_conformance
checks+=,negative_data_rejection
# What it makes up is hardly ever a pool that exists: this one is named to it in a second run.
json='content-type: application/json'
curl -fsS -o "$work/made" -X PUT "$url/v1/pools/seats" -H "$json" -d '{"cooldown": 1}'
curl -fsS -o "$work/made" "$url/v1/pools/seats/generate" -H "$json" -d '{"count": 1000}'
# A request that waits for a minute finds nothing that one that waits for a moment does not.
cat >"$work/moments.py" <<'PYTHON'
import schemathesis


@schemathesis.hook
def map_body(context, body):
    wait = body.get("wait_seconds") if isinstance(body, dict) else None
    if isinstance(wait, (int, float)) and not isinstance(wait, bool) and 0.1 < wait <= 60:
        body["wait_seconds"] = 0.1
    return body
PYTHON
export SCHEMATHESIS_HOOKS=moments PYTHONPATH="$work"
printf '[parameters]\n"path.pool" = "seats"\n' >"$work/seats.toml"
: >"$work/any.toml"

run() {
    # It keeps notes where it runs.
    cd "$work"
    "$tools/bin/schemathesis" --config-file "$1" run "$url/openapi.json" --checks "$checks" \
        --max-examples "$EXAMPLES" --seed "$SEED" --generation-database none --continue-on-failure "${@:2}"
}
status=0
run "$work/any.toml" --exclude-path /app/token || status=$?
run "$work/seats.toml" --include-path-regex '^/v1/pools/\{pool\}/' || status=$?
# By contract this one ignores a body that it can't read.
checks=${checks/,negative_data_rejection/}
run "$work/any.toml" --include-path /app/token || status=$?
if ! curl -fsS -o "$work/ready" "$url/readyz"; then
    echo "tokend is not ready any more:" >&2
    tail -n 20 "$work/log" >&2
    exit 1
fi
exit "$status"
