//! `postern man`: the manual page of the program, and those of its commands.

use std::path::PathBuf;

use super::{Failure, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write postern.1, postern-serve.1 and so on into this folder instead.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, command: clap::Command) -> Result<(), Failure> {
    if let Some(directory) = &arguments.directory {
        std::fs::create_dir_all(directory)?;
        return Ok(clap_mangen::generate_to(command, directory)?);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.disable_help_subcommand(true)).render(&mut page)?;
    print(String::from_utf8(page)?.trim_end());
    Ok(())
}
