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

/// A time span in its largest whole unit.
pub(super) fn time_span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::time_span;

    #[test]
    fn a_time_span_has_its_largest_unit() {
        let spans = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(time_span);
        assert_eq!(spans, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
