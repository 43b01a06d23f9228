#!/usr/bin/env bash
# Makes k8s/components/monitoring/prometheus-rule.yaml: the rules of grafana/rules/tokend.yaml, as the Prometheus operator
# takes them. A test compares the two (tests/tidy/kubernetes.rs).
set -euo pipefail
cd "$(dirname "$0")/.."

{
    cat <<'END'
# Made by scripts/prometheus-rule.sh from grafana/rules/tokend.yaml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tokend
  labels:
    app.kubernetes.io/name: tokend
    app.kubernetes.io/component: server
    app.kubernetes.io/part-of: tokend
spec:
END
    sed -n '/^groups:/,$p' grafana/rules/tokend.yaml | sed 's/^\(.\)/  \1/'
} >k8s/components/monitoring/prometheus-rule.yaml
