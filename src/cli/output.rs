//! Output of the commands for the operator: results on standard output, errors on standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// The error that ends a command, with a message for the operator who ran it.
pub(super) type CommandError = Box<dyn std::error::Error>;

/// The form of a command's result on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    Text,
    Json,
}

/// Prints a command's result and a line feed to standard output. A closed pipe (`| head`) is not an error.
///
/// # Errors
/// If the output can't be written, to a full disk for example: its reader would take what is missing for the result.
pub(super) fn print(text: impl Display) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("can't write to standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Prints the error that ended a command, and its causes, to standard error.
pub(super) fn print_error(error: &CommandError) {
    // There is no other place to report that standard error is closed.
    let _ = writeln!(io::stderr(), "postern: {error}");
}
