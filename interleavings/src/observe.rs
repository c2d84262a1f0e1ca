//! Models of the log writer, `../src/observe/log_writer.rs` with `log_output.rs`.

#[path = "../../src/observe/log_output.rs"]
#[allow(dead_code, reason = "the models need a part of it")]
mod log_output;
#[path = "../../src/observe/log_writer.rs"]
#[allow(dead_code, reason = "the models need a part of it")]
mod log_writer;

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log_writer::LogWriter;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use crate::Model;

/// Replaces `../src/observe/log_text.rs`.
mod log_text {
    pub(super) fn push_escaped(line: &mut Vec<u8>, text: &str) {
        line.extend_from_slice(text.as_bytes());
    }
}

/// Replaces `../src/observe/stripe.rs`: some threads have a buffer in common, some have not.
mod stripe {
    pub(super) fn stripe_of_thread(_count: usize) -> usize {
        usize::from(shuttle::thread::current().id()) % 2
    }
}

pub(crate) const MODELS: &[Model] = &[
    ("a line is written though no other follows", no_line_is_left),
    ("each line of before the end is written once and whole", written_at_the_end),
    ("each line is written whole or counted as dropped", written_or_dropped),
    (LARGE, dropped_when_full),
];

/// The model with megabytes of lines, for fewer schedules than the others have.
pub(crate) const LARGE: &str = "a line that finds its buffer full is counted as dropped";

/// Receives what is written.
#[derive(Clone, Default)]
struct Output {
    written: Arc<(Mutex<Vec<u8>>, Condvar)>,
    /// Writes can be short, and fail.
    fails: bool,
}

impl Output {
    fn lines(&self) -> Vec<String> {
        let written = String::from_utf8(self.written.0.lock().expect("no panic").clone()).expect("UTF-8");
        assert!(written.is_empty() || written.ends_with('\n'), "a torn line at the end: {written:?}");
        written.lines().map(str::to_owned).collect()
    }

    /// Waits until so many lines were written.
    fn wait_for(&self, lines: usize) {
        let (written, changed) = &*self.written;
        let mut bytes = written.lock().expect("no panic");
        while bytes.iter().filter(|byte| **byte == b'\n').count() < lines {
            bytes = changed.wait(bytes).expect("no panic");
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match thread_rng().gen_range(0..6) {
            0 if self.fails => return Err(ErrorKind::WouldBlock.into()),
            1 if self.fails => return Err(ErrorKind::StorageFull.into()),
            2 | 3 if self.fails => thread_rng().gen_range(0..bytes.len()) + 1,
            _ => bytes.len(),
        };
        self.written.0.lock().expect("no panic").extend_from_slice(&bytes[..taken]);
        self.written.1.notify_all();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts a thread that puts lines of so many bytes; returns them.
fn put(log: &LogWriter, name: &'static str, lines: usize, length: usize) -> thread::JoinHandle<Vec<String>> {
    let log = log.clone();
    thread::spawn(move || {
        let lines = (0..lines).map(|line| format!("{name}{line}{}", ".".repeat(length)));
        lines.inspect(|line| log.put(|out| out.extend_from_slice(format!("{line}\n").as_bytes()))).collect()
    })
}

/// Waits for threads that put lines; returns the lines in order.
fn all_put<const N: usize>(running: [thread::JoinHandle<Vec<String>>; N]) -> Vec<String> {
    let mut lines = running.map(|running| running.join().expect("no panic")).concat();
    lines.sort_unstable();
    lines
}

/// The writer thread sleeps and is woken while lines come.
fn no_line_is_left() {
    let out = Output::default();
    let (log, guard) = LogWriter::to(out.clone()).expect("a thread");
    let running = [put(&log, "a", 1, 3), put(&log, "b", 2, 3)];
    // If the writer thread sleeps through a line, this waits for ever.
    out.wait_for(3);
    let lines = all_put(running);
    // One after the other: the writer sleeps again in between.
    let last = put(&log, "c", 1, 3);
    out.wait_for(4);
    drop(guard);
    let mut written = out.lines();
    written.sort_unstable();
    assert_eq!(written, [lines, all_put([last])].concat());
}

fn written_at_the_end() {
    let out = Output::default();
    let (log, guard) = LogWriter::to(out.clone()).expect("a thread");
    let lines = all_put([put(&log, "a", 2, 3), put(&log, "b", 2, 3), put(&log, "c", 1, 3)]);
    drop(guard);
    let written = out.lines();
    let position = |line: &str| written.iter().position(|written| written == line);
    assert!(
        position("a0...") < position("a1...") && position("b0...") < position("b1..."),
        "out of order: {written:?}"
    );
    let mut sorted = written.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, lines);
    assert_eq!(log.dropped(), 0);
}

fn written_or_dropped() {
    let out = Output { fails: true, ..Output::default() };
    let (log, guard) = LogWriter::to(out.clone()).expect("a thread");
    let lines = all_put([put(&log, "a", 2, 3), put(&log, "b", 2, 3), put(&log, "c", 1, 3)]);
    drop(guard);
    let written = String::from_utf8(out.written.0.lock().expect("no panic").clone()).expect("UTF-8");
    // The output may have failed for good in the middle of the last line.
    let (whole, torn) = written.rsplit_once('\n').unwrap_or(("", &written));
    let whole: Vec<&str> = whole.lines().collect();
    assert!(whole.iter().all(|line| lines.iter().any(|put| put == line)), "a torn line: {written:?}");
    assert!(lines.iter().any(|put| put.starts_with(torn)), "a torn line: {written:?}");
    let distinct: std::collections::BTreeSet<_> = whole.iter().collect();
    assert_eq!(distinct.len(), whole.len(), "a line is written twice: {written:?}");
    let unfinished = usize::from(!torn.is_empty());
    assert_eq!(whole.len() + unfinished + usize::try_from(log.dropped()).expect("it fits"), lines.len(), "{written:?}");
}

/// Counts lines and bytes.
#[derive(Clone, Default)]
struct Count(Arc<(AtomicUsize, AtomicUsize)>);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.fetch_add(memchr::memchr_iter(b'\n', bytes).count(), Ordering::SeqCst);
        self.0.1.fetch_add(bytes.len(), Ordering::SeqCst);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dropped_when_full() {
    /// Two lines fill a buffer.
    const LENGTH: usize = 900 << 10;
    let out = Count::default();
    let (log, guard) = LogWriter::to(out.clone()).expect("a thread");
    let running = [3, 1, 2].map(|lines| {
        let log = log.clone();
        thread::spawn(move || {
            for _ in 0..lines {
                log.put(|out| {
                    out.resize(out.len() + LENGTH - 1, b'.');
                    out.push(b'\n');
                });
            }
        })
    });
    running.into_iter().for_each(|running| running.join().expect("no panic"));
    drop(guard);
    let (lines, bytes) = (out.0.0.load(Ordering::SeqCst), out.0.1.load(Ordering::SeqCst));
    assert_eq!(bytes, lines * LENGTH, "a torn line");
    assert_eq!(lines + usize::try_from(log.dropped()).expect("it fits"), 6);
}
