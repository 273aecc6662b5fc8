#!/usr/bin/env bash
# Builds what a release consists of, in target/dist: archives with the program, man pages, completions and systemd units; a .deb;
# the Helm chart; an SBOM; checksums. The program needs glibc 2.17 or newer (Debian 8, RHEL 7). Nothing in it depends on the
# time or the folder of a build: times are that of the commit (SOURCE_DATE_EPOCH), paths are remapped.
# usage: dist.sh [TRIPLE]…      [default: x86_64-unknown-linux-gnu]; a TRIPLE needs its Rust standard library (rustup target add)
# Needs python3, cargo-zigbuild with zig, cargo-deb and cargo-cyclonedx; helm, unless deploy/helm/check.sh has fetched it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=${CARGO_TARGET_DIR:-target} out=$PWD/target/dist

# A dependency is not released without its licence.
python3 -B deploy/release/licences.py --check
rm -rf "$out"; mkdir -p "$out"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=/ticketlog --remap-path-prefix=$cargo_home=/cargo"
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$PWD=/ticketlog -ffile-prefix-map=$cargo_home=/cargo"
pack() { tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w --mtime="@$SOURCE_DATE_EPOCH" -c "$@" | gzip -9n; }

units() { # FOLDER: the units, and a template of the worker's for several queues: ticketlog@NAME reads /etc/ticketlog/NAME
  local unit; mkdir -p "$1"
  for unit in ticketlog ticketlog-console; do
    sed -e '/^#   install -m/d' -e 's#/usr/local/bin/#/usr/bin/#' "deploy/systemd/$unit.service" >"$1/$unit.service"
  done
  sed -e 's#/usr/local/bin/#/usr/bin/#' deploy/systemd/end-to-end.conf >"$1/end-to-end.conf"
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
  if grep -qaF -e "$PWD" -e "$cargo_home" "$program"; then echo "dist.sh: $program names folders of this machine" >&2; exit 1; fi
  name=ticketlog-$version-${triple%%-*}-linux; folder=$stage/$name
  mkdir -p "$folder"
  # Man pages and completions do not depend on the machine: those of another one come from the first.
  if "$program" --version >/dev/null 2>&1; then pages "$program" "$stage/pages"; fi
  units "$stage/units"
  cp -r "$program" "$stage/pages/man" "$stage/pages/completions" "$stage/units" LICENSE* THIRD-PARTY-LICENSES README.md CHANGELOG.md "$folder/"
  cp config/default.toml "$folder/default.toml"; mv "$folder/units" "$folder/systemd"
  pack -C "$stage" "$name" >"$out/$name.tar.gz"
  rm -rf "$stage/debian"; mkdir -p "$stage/debian"; cp -r "$folder/." "$stage/debian/"
  gzip -9n "$stage"/debian/man/*.1
  cargo deb --no-build --no-strip --target "$triple" --output "$out/"
done

cargo cyclonedx --format json --override-filename sbom --quiet
# Without what differs in each build: a number, the time, the folder.
python3 - "$PWD" sbom.json >"$out/ticketlog-$version.cdx.json" <<'P'
import datetime, json, os, sys
bom = json.loads(open(sys.argv[2]).read().replace(sys.argv[1], "/ticketlog"))
bom.pop("serialNumber", None)
time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
bom["metadata"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
json.dump(bom, sys.stdout, indent=1)
P
rm -f sbom.json benches/sbom.json examples/sbom.json fuzz/sbom.json crates/*/sbom.json
helm=$(command -v helm || echo target/chart-tools/python/bin/helm)
if [ -x "$helm" ]; then
  "$helm" package deploy/helm/ticketlog --version "$version" --app-version "$version" --destination "$stage" >/dev/null 2>&1
  # helm writes the time of today into it.
  mkdir "$stage/chart"; tar -xzf "$stage/ticketlog-$version.tgz" -C "$stage/chart"
  pack -C "$stage/chart" ticketlog >"$out/ticketlog-$version.tgz"
fi
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
