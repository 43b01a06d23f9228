#!/usr/bin/env bash
# Restarts the replicas of compose.yaml one after the other, each only when the one before is ready again, with whatever
# is new in compose.yaml, its env file or the image. Arguments go to `docker compose`: --env-file .env.compose
set -euo pipefail
cd "$(dirname "$0")/../.."

for replica in tokend-1 tokend-2 tokend-3; do
    docker compose "$@" up --detach --no-deps --force-recreate --wait "$replica"
    # For as long nginx may still pass over one that refused it (fail_timeout in nginx.conf).
    sleep 2
done
