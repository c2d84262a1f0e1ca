//! Output of the commands for the operator: results on standard output, errors on standard error.

use std::fmt::Display;
use std::io::Write;

/// The error that ends a command, with a message for the operator who ran it.
pub(super) type CommandError = Box<dyn std::error::Error>;

/// Prints a command's result to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints the error that ended a command to standard error.
pub(super) fn print_error(error: &CommandError) {
    let _ = writeln!(std::io::stderr(), "postern: {error}");
}
