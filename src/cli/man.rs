//! `postern man`: prints or writes the manual pages.

use std::path::PathBuf;

use super::output::{CommandError, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern man | man -l -\n  postern man --directory /usr/share/man/man1")]
pub(super) struct ManArguments {
    /// Write postern.1 and one page per command (postern-serve.1 and so on) to this directory.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArguments, command: clap::Command) -> Result<(), CommandError> {
    if let Some(directory) = &arguments.directory {
        std::fs::create_dir_all(directory)?;
        return Ok(clap_mangen::generate_to(command, directory)?);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.disable_help_subcommand(true)).render(&mut page)?;
    print(String::from_utf8(page)?.trim_end())
}
