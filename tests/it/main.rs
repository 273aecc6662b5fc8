//! The integration tests: one binary, real servers. `make test` provides them; see `harness` for what a test gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::too_many_lines)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod alerting;
mod checks;
mod cli;
mod desk;
mod desk_faults;
mod exposition;
mod faults_links;
mod faults_rows;
mod faults_servers;
mod flow;
mod harness;
mod inputs;
mod leaks;
mod observability;
mod outages;
mod rules;
mod security;
