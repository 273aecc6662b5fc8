#!/usr/bin/env bash
# Builds the documentation as a site, in target/site, with mdBook, and checks its links. The pages are laid out as in the repository, so
# that every relative link works in both: files of the repository that the pages link to are copied, and so are the pages' sources, to
# which the alerts' `runbook_url` and the console's `--docs` lead. Gets mdBook from crates.io, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.5.4 tools=target/site-tools stage=target/site-src site=target/site
if [ ! -x "$tools/bin/mdbook" ]; then
  CARGO_TARGET_DIR=$tools/build cargo install mdbook --version "$version" --locked --debug --no-default-features --features search --root "$tools"
fi
rm -rf "$stage"; mkdir -p "$stage"
git ls-files -z -- '*.md' docs deploy config examples docker-compose.yml .env.example LICENSE-MIT LICENSE-APACHE | xargs -0 cp -rL --parents -t "$stage"
sed -e 's#](#](docs/#' -e 's#](docs/\.\./#](#' "$stage/docs/SUMMARY.md" >"$stage/SUMMARY.md"
rm "$stage"/docs/{SUMMARY.md,book.toml,site.sh}
"$tools/bin/mdbook" build docs
(cd "$stage" && find . -name '*.md' ! -name SUMMARY.md -exec cp --parents -t "../site" {} +)
python3 docs/check_site.py "$site"
