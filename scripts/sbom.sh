#!/usr/bin/env bash
# Writes the software bill of materials of the tokend binary, CycloneDX 1.5 as JSON: sbom.sh CARGO_CYCLONEDX OUTPUT.
# The same commit gives the same bytes. Fails if a crate that is linked into the binary is not listed.
set -euo pipefail
cd "$(dirname "$0")/.."

cyclonedx=$1 output=$2
target=$(rustc -vV | sed -n 's/^host: //p')
# The tool writes beside Cargo.toml.
written=tokend_bin.cdx.json
trap 'rm -f "$written"' EXIT

# When the commit was made, not when this runs. Outside of a clone the tool says neither.
if epoch=$(git log -1 --format=%ct 2>/dev/null); then
    export SOURCE_DATE_EPOCH=$epoch
fi
"$cyclonedx" cyclonedx --format json --spec-version 1.5 --describe binaries --no-build-deps --target "$target" --quiet
mkdir -p "$(dirname "$output")"
# Where the clone lies is no part of it.
sed "s|path+file://$PWD#|path+file:///#|" "$written" >"$output"

# What cargo itself says is linked in: `name vVERSION`, and a note on what is built on this machine alone.
linked=$(cargo tree --locked --edges normal --target "$target" --prefix none --format '{p}' | awk '{print $1 "@" substr($2, 2)}' \
    | sort -u)
missing=0
while read -r crate; do
    if ! grep -q "\"pkg:cargo/${crate//+/%2B}[\"?]" "$output"; then
        echo "not in $output: $crate" >&2
        missing=1
    fi
done <<<"$linked"
echo "$output: $(wc -l <<<"$linked") crates"
exit "$missing"
