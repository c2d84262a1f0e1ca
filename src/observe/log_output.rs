//! Writes log lines to standard error, and reports each line that could not be written.
//!
//! Another process may share standard error, and may have made it non-blocking. Lines are therefore written to a pipe or socket in
//! pieces that the system writes as a whole, and a full pipe is waited for. If writing fails (the disk is full, the reader is gone),
//! the output goes on at the boundary of a line later: the rest of a line whose beginning was written is written first.

use std::io::{self, ErrorKind, Write};

use memchr::{memchr, memchr_iter, memrchr};
use rustix::fs::{FileType, fstat};

/// Most bytes that a pipe takes as a whole or not at all: `PIPE_BUF` of Linux (pipe(7)).
const ATOMIC_WRITE: usize = 4096;

/// Standard error. To a pipe or a socket, each write is of whole lines, and of at most `ATOMIC_WRITE` bytes if several lines
/// are written.
#[derive(Debug)]
pub struct StandardError {
    is_stream: bool,
}

impl StandardError {
    /// Standard error as the process has it now.
    #[must_use]
    pub fn new() -> Self {
        let kind = fstat(io::stderr()).map(|status| FileType::from_raw_mode(status.st_mode));
        Self { is_stream: matches!(kind, Ok(FileType::Fifo | FileType::Socket)) }
    }
}

impl Default for StandardError {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for StandardError {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        io::stderr().write(if self.is_stream { whole_lines(lines, ATOMIC_WRITE) } else { lines })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the first lines, as many as the limit allows and at least one.
fn whole_lines(lines: &[u8], limit: usize) -> &[u8] {
    if lines.len() <= limit {
        return lines;
    }
    let end = memrchr(b'\n', &lines[..limit]).or_else(|| memchr(b'\n', lines));
    end.map_or(lines, |end| &lines[..=end])
}

/// An output for whole lines, and the rest of a line whose beginning was written.
pub(super) struct LineOutput<W> {
    out: W,
    rest: Vec<u8>,
    format: Option<LineFormat>,
}

/// Turns whole lines into the same number of lines of another form.
type LineFormat = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

impl<W: Write> LineOutput<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, rest: Vec::new(), format: None }
    }

    /// An output that writes lines in another form.
    pub(super) fn formatted(out: W, format: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        Self { format: Some(Box::new(format)), ..Self::new(out) }
    }

    /// Writes lines, and returns the number of those that could not be written. Each time that the output is full, `wait` waits
    /// and returns whether to try again.
    pub(super) fn write(&mut self, lines: &[u8], mut wait: impl FnMut() -> bool) -> u64 {
        let written = push(&mut self.out, &self.rest, &mut wait);
        self.rest.drain(..written);
        if !self.rest.is_empty() {
            return count(lines);
        }
        let formatted = self.format.as_ref().map(|format| format(lines));
        let lines = formatted.as_deref().unwrap_or(lines);
        let written = push(&mut self.out, lines, &mut wait);
        let lost = &lines[written..];
        let begins_line = written == 0 || lines[written - 1] == b'\n';
        if lost.is_empty() || begins_line {
            return count(lost);
        }
        let (rest, lost) = lost.split_at(memchr(b'\n', lost).map_or(lost.len(), |end| end + 1));
        self.rest.extend_from_slice(rest);
        count(lost)
    }
}

/// Writes bytes until an error, and returns the number of those that were written.
fn push(out: &mut impl Write, bytes: &[u8], wait: &mut impl FnMut() -> bool) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && wait() => {}
            // There is no other place to report the error; the lines that are lost are counted.
            Err(_) => break,
        }
    }
    written
}

fn count(lines: &[u8]) -> u64 {
    memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes bytes as planned: `Ok` is the most bytes of one write, `Err` fails it. After the plan it takes everything.
    struct Planned {
        /// The last one is the next.
        plan: Vec<Result<usize, ErrorKind>>,
        taken: Vec<u8>,
    }

    impl Write for Planned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self.plan.pop().unwrap_or(Ok(bytes.len()))?;
            let taken = most.min(bytes.len());
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lost lines and the output after two batches of lines.
    fn written(plan: &[Result<usize, ErrorKind>]) -> (u64, String) {
        let out = Planned { plan: plan.iter().rev().copied().collect(), taken: Vec::new() };
        let mut output = LineOutput::new(out);
        let lost = output.write(b"one\ntwo\nthree\n", || true) + output.write(b"four\nfive\n", || true);
        (lost, String::from_utf8(output.out.taken).expect("UTF-8"))
    }

    #[test]
    fn a_full_output_loses_no_line_and_tears_none() {
        let all = "one\ntwo\nthree\nfour\nfive\n";
        for plan in [
            vec![Err(ErrorKind::WouldBlock)],
            vec![Ok(5), Err(ErrorKind::WouldBlock), Ok(1), Err(ErrorKind::WouldBlock), Err(ErrorKind::WouldBlock)],
            vec![Ok(1), Err(ErrorKind::Interrupted), Ok(2), Err(ErrorKind::WouldBlock)],
        ] {
            assert_eq!(written(&plan), (0, all.to_owned()), "{plan:?}");
        }
    }

    #[test]
    fn output_goes_on_at_a_lines_boundary_after_an_error() {
        let full = Err(ErrorKind::StorageFull);
        for (plan, lost, output) in [
            (vec![Ok(5), full], 1, "one\ntwo\nfour\nfive\n"),
            (vec![Ok(4), full], 2, "one\nfour\nfive\n"),
            (vec![full], 3, "four\nfive\n"),
            (vec![Ok(1), full, full], 4, "o"),
            (vec![Ok(1), full, Ok(1), full], 4, "on"),
            (vec![Ok(0)], 3, "four\nfive\n"),
            (vec![Err(ErrorKind::BrokenPipe), Err(ErrorKind::BrokenPipe)], 5, ""),
            (vec![Ok(12), full], 0, "one\ntwo\nthree\nfour\nfive\n"),
        ] {
            assert_eq!(written(&plan), (lost, output.to_owned()), "{plan:?}");
        }
    }

    #[test]
    fn a_wait_can_be_given_up() {
        let out = Planned { plan: vec![Err(ErrorKind::WouldBlock)], taken: Vec::new() };
        assert_eq!(LineOutput::new(out).write(b"one\ntwo\n", || false), 2);
    }

    #[test]
    fn pieces_are_whole_lines() {
        for (lines, limit, first) in [
            ("one\ntwo\n", 20, "one\ntwo\n"),
            ("one\ntwo\n", 8, "one\ntwo\n"),
            ("one\ntwo\n", 7, "one\n"),
            ("one\ntwo\n", 4, "one\n"),
            ("longer\ntwo\n", 4, "longer\n"),
        ] {
            assert_eq!(whole_lines(lines.as_bytes(), limit), first.as_bytes(), "{lines:?} {limit}");
        }
    }
}
