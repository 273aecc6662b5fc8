//! The integration tests: one binary, real servers. `make test` provides them; see `harness` for what a test gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::too_many_lines)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod alerting;
mod breaker;
mod check;
mod cli;
mod cluster;
mod code_rules;
mod connection_faults;
mod console;
mod console_access;
mod console_proxy;
mod contract_formats;
mod dead_letter_faults;
mod dead_letter_files;
mod dead_letter_runs;
mod dead_letters;
mod dependency_faults;
mod docs;
mod erasure;
mod findings;
mod flow;
mod harness;
mod header_frames;
mod http;
mod inputs;
mod invalid_text;
mod leaks;
mod logins;
mod observability;
mod one_answer;
mod outages;
mod routes;
mod runbooks;
mod same_ids;
mod security;
mod server_faults;
mod shadow;
mod shards;
mod steering;
mod tail;
mod terminal;
mod traces;
mod validate;
mod worker_status;
