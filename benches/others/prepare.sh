#!/usr/bin/env bash
# Installs the packages of the Node and Python workers, with which `make bench` compares, in target/others. If Node, npm or pip
# is missing, prints that, and ends with exit code 0: then these workers are left out.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/target/others; mkdir -p "$work"
missing() { echo "bench: no $1: the workers in Node and Python are left out" >&2; rm -f "$work/ready"; exit 0; }
for program in node npm python3; do command -v $program >/dev/null || missing $program; done
cp "$root"/benches/others/*.js* "$root"/benches/others/*.py "$work/"
(cd "$work" && npm install --no-package-lock --no-audit --no-fund --silent) || missing "package from npm"
[ -d "$work/python/pymongo" ] || python3 -m pip install -q --root-user-action ignore --target "$work/python" pika==1.3.2 pymongo==4.15.0 ||
  missing "package from pip"
touch "$work/ready"
