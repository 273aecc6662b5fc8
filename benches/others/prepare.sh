#!/usr/bin/env bash
# Packages of the workers in Node and Python that `make bench` measures against, under target/others. Says so and ends
# well where Node, npm or pip are missing: then these are left out.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/target/others; mkdir -p "$work"
missing() { echo "bench: no $1 here: the workers in Node and Python are left out" >&2; rm -f "$work/ready"; exit 0; }
for program in node npm python3; do command -v $program >/dev/null || missing $program; done
cp "$root"/benches/others/*.js* "$root"/benches/others/*.py "$work/"
(cd "$work" && npm install --no-package-lock --no-audit --no-fund --silent) || missing "package from npm"
[ -d "$work/python/pymongo" ] || python3 -m pip install -q --root-user-action ignore --target "$work/python" pika==1.3.2 pymongo==4.15.0 ||
  missing "package from pip"
touch "$work/ready"
