//! Owns `ticketlog completions` and `ticketlog man`: both are made from the command line's own definition.

use std::io::Write as _;

use clap::Args;
use clap_complete::Shell;

use super::Fault;

/// Flags of `ticketlog completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell to complete in.
    shell: Shell,
}

impl Completions {
    pub fn run(&self, mut command: clap::Command) -> Result<u8, Fault> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "ticketlog", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(0)
    }
}

/// The manual page with every command in it.
pub(super) fn man(command: clap::Command) -> Result<u8, Fault> {
    let mut page = Vec::new();
    let mut command = command;
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        clap_mangen::Man::new(sub.clone()).render(&mut page)?;
    }
    std::io::stdout().lock().write_all(&page)?;
    Ok(0)
}
