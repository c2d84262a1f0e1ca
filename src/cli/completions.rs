//! `postern completions`: what makes a shell complete the command line.

use clap_complete::Shell;

use super::{Failure, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "postern", &mut script);
    print(String::from_utf8(script)?.trim_end());
    Ok(())
}
