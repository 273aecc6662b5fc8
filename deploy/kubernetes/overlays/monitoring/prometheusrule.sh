#!/usr/bin/env bash
# Makes prometheusrule.yaml of deploy/prometheus/alerts.yml, so that the alerts are written once: kustomize can neither reach a file
# outside its folder nor put one into a custom resource.
# usage: prometheusrule.sh            writes it
#        prometheusrule.sh --check    exits 1 if it is not what would be written
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
made() {
  cat <<'Y'
# The alerts, for the Prometheus Operator. Made by prometheusrule.sh of deploy/prometheus/alerts.yml: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ticketlog
spec:
Y
  # The file from `groups:` on, two columns further in.
  sed -n '/^groups:/,$p' ../../../prometheus/alerts.yml | sed 's/^\(.\)/  \1/'
}
case ${1:-} in
  '') made >prometheusrule.yaml ;;
  --check) made | diff -u prometheusrule.yaml - ;;
  *) sed -n 's/^# //p' "$0" >&2; exit 64 ;;
esac
