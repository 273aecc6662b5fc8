# The commands of a developer. `make demo` and `make test` need a Rust toolchain and nothing else prepared: they provide
# the real servers by themselves (see deploy/local/services.sh).
SHELL := /bin/bash
SERVICES := deploy/local/services.sh
FUZZ_SECONDS ?= 900
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help demo test lint interop chaos fuzz audit bench docs up down
help:            ## what there is
	@sed -n 's/^\([a-z]*\): *\([^#]*\)## \(.*\)/  make \1\t\3/p' $(MAKEFILE_LIST) | expand -t 20

demo:            ## the main job, shown: publish, store, dead-letter, read back
	cargo build --bins --examples
	$(SERVICES) run deploy/local/demo.sh

test: lint       ## formatting, clippy, unit, property and integration tests
ifeq ($(NEXTEST),yes)
	cargo nextest run --lib --bins
	cargo nextest run --no-run --test it
	$(SERVICES) run cargo nextest run --test it
else
	cargo test --lib --bins
	cargo test --no-run --test it
	$(SERVICES) run cargo test --test it -- --test-threads=4
endif

lint:            ## formatting and clippy
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

chaos:           ## every fault at full length, and the table in docs/reliability.md (about 15 minutes)
	cargo nextest run --no-run --test it
	$(SERVICES) run tests/chaos.sh

fuzz:            ## random bytes for what comes from outside, FUZZ_SECONDS a target (needs cargo-fuzz and clang)
	for target in message archive headers configuration; do \
	  mkdir -p fuzz/corpus/$$target && cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 -print_final_stats=1 || exit 1; done

audit:           ## licences, banned crates and sources of the dependencies (needs cargo-deny; advisories need the network)
	cargo deny check licenses bans sources

interop:         ## Node's amqplib and Python's pika publish, Mongoose reads (needs node, npm, python3)
	cargo build
	$(SERVICES) run tests/interop/run.sh

# What is measured are release builds; what measures them is built like a test.
bench:           ## throughput, latency, growth, tuning and memory against bare pipes, into docs/performance.md (well over an hour)
	cargo build --release --bin ticketlog
	cargo bench --no-run --bench parts --bench bare_pipe --bench best_pipe
	cargo bench --bench parts
	cargo test --no-run --bench end_to_end --bench latency
	benches/others/prepare.sh
	$(SERVICES) run cargo test --bench latency
	$(SERVICES) run cargo test --bench end_to_end

docs:            ## writes the pages that are made from the code
	TICKETLOG_WRITE_DOCS=1 cargo test --lib the_page_is_the_catalogue
	python3 -B deploy/grafana/generate.py
	deploy/kubernetes/overlays/monitoring/prometheusrule.sh

up:              ## servers that stay; prints what to export
	@$(SERVICES) up

down:            ## ends them
	@$(SERVICES) down
