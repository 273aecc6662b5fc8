#!/usr/bin/env bash
# Builds what a release consists of, in target/dist: archives with the program, man pages, completions and systemd units; a .deb;
# the Helm chart; an SBOM; checksums. The program needs glibc 2.17 or newer (Debian 8, RHEL 7).
# usage: dist.sh [TRIPLE]…      [default: x86_64-unknown-linux-gnu]; a TRIPLE needs its Rust standard library (rustup target add)
# Needs cargo-zigbuild with zig, cargo-deb and cargo-cyclonedx; helm, unless deploy/helm/check.sh has fetched it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=${CARGO_TARGET_DIR:-target} out=$PWD/target/dist
rm -rf "$out"; mkdir -p "$out"

units() { # FOLDER: the units, and a template of the worker's for several queues: ticketlog@NAME reads /etc/ticketlog/NAME
  local unit; mkdir -p "$1"
  for unit in ticketlog ticketlog-console; do
    sed -e '/^#   install -m/d' -e 's#/usr/local/bin/#/usr/bin/#' "deploy/systemd/$unit.service" >"$1/$unit.service"
  done
  sed -e 's#=\([a-z.-]*\):/etc/ticketlog/#=\1:/etc/ticketlog/%i/#' -e 's#^Description=ticketlog#& %i#' "$1/ticketlog.service" >"$1/ticketlog@.service"
}

pages() { # PROGRAM FOLDER: man pages and completions
  "$1" man --directory "$2/man"; mkdir -p "$2/completions"
  "$1" completions bash >"$2/completions/ticketlog.bash"
  "$1" completions zsh >"$2/completions/_ticketlog"
  "$1" completions fish >"$2/completions/ticketlog.fish"
}

stage=$PWD/target/dist-stage; rm -rf "$stage"
for triple in "${@:-x86_64-unknown-linux-gnu}"; do
  cargo zigbuild --release --locked --bin ticketlog --target "$triple.2.17"
  program=$target/$triple/release/ticketlog
  name=ticketlog-$version-${triple%%-*}-linux; folder=$stage/$name
  mkdir -p "$folder"
  # Man pages and completions do not depend on the machine: those of another one come from the first.
  if "$program" --version >/dev/null 2>&1; then pages "$program" "$stage/pages"; fi
  units "$stage/units"
  cp -r "$program" "$stage/pages/man" "$stage/pages/completions" "$stage/units" LICENSE* README.md CHANGELOG.md "$folder/"
  cp config/default.toml "$folder/default.toml"; mv "$folder/units" "$folder/systemd"
  tar -C "$stage" --sort=name --owner=0 --group=0 --mtime="@$(git log -1 --format=%ct)" -czf "$out/$name.tar.gz" "$name"
  rm -rf "$stage/debian"; mkdir -p "$stage/debian"; cp -r "$folder/." "$stage/debian/"
  gzip -9n "$stage"/debian/man/*.1
  cargo deb --no-build --no-strip --target "$triple" --output "$out/"
done

cargo cyclonedx --format json --override-filename sbom --quiet
mv sbom.json "$out/ticketlog-$version.cdx.json"; rm -f examples/sbom.json fuzz/sbom.json
helm=$(command -v helm || echo target/chart-tools/bin/helm)
[ ! -x "$helm" ] || "$helm" package deploy/helm/ticketlog --version "$version" --app-version "$version" --destination "$out" >/dev/null 2>&1
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
