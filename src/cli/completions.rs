//! Owns `ticketlog completions` and `ticketlog man`, generated from the definition of the command line.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::CommandError;

/// Flags of `ticketlog completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

impl CompletionsArgs {
    pub fn run(&self, mut command: clap::Command) -> Result<u8, CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "ticketlog", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(0)
    }
}

/// Flags of `ticketlog man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// A folder for one page of each command, such as `ticketlog-dead-replay.1`.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

impl ManArgs {
    pub fn run(&self, mut command: clap::Command) -> Result<u8, CommandError> {
        if let Some(directory) = &self.directory {
            std::fs::create_dir_all(directory)?;
            clap_mangen::generate_to(command, directory)?;
            return Ok(0);
        }
        let mut page = Vec::new();
        command.build();
        clap_mangen::Man::new(command.clone()).render(&mut page)?;
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            clap_mangen::Man::new(sub.clone()).render(&mut page)?;
        }
        std::io::stdout().lock().write_all(&page)?;
        Ok(0)
    }
}
