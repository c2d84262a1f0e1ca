//! `postern completions`: prints a completion script for a shell.

use clap_complete::Shell;

use super::output::{CommandError, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern completions bash > /etc/bash_completion.d/postern")]
pub(super) struct CompletionsArguments {
    /// Shell that the script is for.
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments, mut command: clap::Command) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "postern", &mut script);
    print(String::from_utf8(script)?.trim_end())
}
