//! A log writer that never blocks: threads append lines to buffers, and a thread of its own writes the buffers out.
//!
//! A slow reader of the log delays no request: a line that does not fit into its buffer is dropped and counted, as is a line that
//! can't be written. Each thread
//! has its own buffer (up to [`BUFFERS`] threads), so its lock is contended only while the writer takes the buffer's content.
//! Lines are appended whole and never interleave; lines of different threads may change order within [`FLUSH_INTERVAL`].

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::log_output::LineOutput;
use super::log_text::push_escaped;
use super::stripe::stripe_of_thread;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, MutexGuard, PoisonError, mpsc};

const BUFFERS: usize = 16;
/// Largest content of one buffer, in bytes.
const BUFFER_CAPACITY: usize = 2 << 20;
/// Time between two writes. To wake a thread costs more than to append many lines, and takes the processor from the workers.
const FLUSH_INTERVAL: Duration = Duration::from_millis(16);
/// Longest wait at the end of the process for the last lines to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two attempts to write to a full output that does not block.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Accepts log lines for a thread that writes them. Cheap to clone; all clones share the buffers and the thread.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<LogBuffers>);

#[derive(Debug)]
struct LogBuffers {
    buffers: [Mutex<Vec<u8>>; BUFFERS],
    dropped: AtomicU64,
    writer: OnceLock<Thread>,
    /// The writer thread found all buffers empty and waits to be woken.
    asleep: AtomicBool,
    closing: AtomicBool,
    /// The guard has waited for the last lines for long enough.
    abandoned: AtomicBool,
}

/// Keeps the writer thread running. Dropping it writes the remaining lines and ends the thread.
#[derive(Debug)]
#[must_use = "the writer thread ends when this is dropped"]
pub struct LogWriterGuard {
    log: LogWriter,
    ended: mpsc::Receiver<()>,
}

impl LogWriter {
    /// Starts a thread that writes to `out` until the guard is dropped.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, LogWriterGuard)> {
        Self::start(LineOutput::new(out))
    }

    /// Starts a thread as [`LogWriter::to`] does, which turns whole lines into the same number of lines of another form.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn formatted(
        out: impl Write + Send + 'static,
        format: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> io::Result<(Self, LogWriterGuard)> {
        Self::start(LineOutput::formatted(out, format))
    }

    fn start(out: LineOutput<impl Write + Send + 'static>) -> io::Result<(Self, LogWriterGuard)> {
        let log = Self(Arc::new(LogBuffers {
            buffers: std::array::from_fn(|_| Mutex::default()),
            dropped: AtomicU64::new(0),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }));
        let (end, ended) = mpsc::channel();
        let shared = Arc::clone(&log.0);
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || {
            shared.run(out);
            // The guard no longer listens after its timeout.
            let _ = end.send(());
        })?;
        let _ = log.0.writer.set(thread.thread().clone());
        Ok((log.clone(), LogWriterGuard { log, ended }))
    }

    /// Adds one line: the bytes that `write` appends, with their line feed. Part of the hit path.
    pub fn put(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &self.0;
        let full = {
            let mut buffer = shared.buffer(stripe_of_thread(BUFFERS));
            let before = buffer.len();
            write(&mut buffer);
            let full = buffer.len() > BUFFER_CAPACITY;
            if full {
                buffer.truncate(before);
            }
            full
        };
        if full {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if shared.asleep.load(Ordering::Acquire) && shared.asleep.swap(false, Ordering::AcqRel) {
            shared.wake();
        }
    }

    /// Number of lines that were lost because their buffer was full or the output failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl LogBuffers {
    fn buffer(&self, index: usize) -> MutexGuard<'_, Vec<u8>> {
        // Bytes are only appended and taken, so a panic in between leaves a sound buffer.
        self.buffers[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Runs the writer thread.
    fn run(&self, mut out: LineOutput<impl Write>) {
        let mut taken = Vec::new();
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            if self.write_all(&mut out, &mut taken) {
                if !closing {
                    thread::park_timeout(FLUSH_INTERVAL);
                }
                continue;
            }
            if closing {
                return;
            }
            // A thread that adds a line after the check below sees this flag and wakes the writer. A line that was added before
            // is found by the check.
            self.asleep.store(true, Ordering::Release);
            let empty = (0..BUFFERS).all(|index| self.buffer(index).is_empty());
            if empty && !self.closing.load(Ordering::Acquire) {
                thread::park();
                // More lines usually follow the first one.
                thread::park_timeout(FLUSH_INTERVAL);
            }
            self.asleep.store(false, Ordering::Release);
        }
    }

    /// Waits for the reader of a full output. Returns false if the process ends: the guard waits no longer than
    /// [`CLOSE_TIMEOUT`], so neither does this.
    fn wait_for_reader(&self) -> bool {
        thread::park_timeout(RETRY_INTERVAL);
        !self.abandoned.load(Ordering::Acquire)
    }

    /// Writes the content of all buffers. Returns false if all were empty.
    fn write_all(&self, out: &mut LineOutput<impl Write>, taken: &mut Vec<u8>) -> bool {
        let mut any = false;
        for index in 0..BUFFERS {
            {
                let mut buffer = self.buffer(index);
                if buffer.is_empty() {
                    continue;
                }
                // The buffer that was written last is filled next: it is already large, and still in the processor's cache.
                std::mem::swap(&mut *buffer, taken);
            }
            any = true;
            let lost = out.write(taken, || self.wait_for_reader());
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            taken.clear();
        }
        any
    }
}

impl Drop for LogWriterGuard {
    fn drop(&mut self) {
        self.log.0.closing.store(true, Ordering::Release);
        self.log.0.wake();
        // A reader that has stopped reading does not keep the process alive.
        let _ = self.ended.recv_timeout(CLOSE_TIMEOUT);
        self.log.0.abandoned.store(true, Ordering::Release);
    }
}

/// Takes one whole line of JSON per call of `write`, as the subscriber of `tracing` sends them. Escapes control characters and
/// others that change how a terminal shows the line.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) if line.iter().any(|byte| *byte >= 0x7f) => self.put(|out| push_escaped(out, text)),
            _ => self.put(|out| out.extend_from_slice(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects the bytes written, and blocks the writer while the test holds the lock.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_of_many_threads_are_written_whole() {
        let out = Output::default();
        let (log, guard) = LogWriter::to(out.clone()).expect("a thread");
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..500 {
                        log.put(|out| out.extend_from_slice(format!("{thread} {number}\n").as_bytes()));
                    }
                });
            }
        });
        drop(guard);
        let written = String::from_utf8(out.0.lock().expect("no panic").clone()).expect("UTF-8");
        let mut found: Vec<&str> = written.lines().collect();
        found.sort_unstable();
        let mut expected: Vec<String> =
            (0..20).flat_map(|thread| (0..500).map(move |number| format!("{thread} {number}"))).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_reader_that_stalls_loses_lines_and_blocks_no_thread() {
        let out = Output::default();
        let held = out.0.lock().expect("no panic");
        let (log, guard) = LogWriter::to(out.clone()).expect("a thread");
        let line = [b'x'; 1023];
        let put = 3 * BUFFER_CAPACITY / line.len();
        for _ in 0..put {
            log.put(|out| out.extend_from_slice(&line));
        }
        let dropped = usize::try_from(log.dropped()).expect("it fits");
        // The writer may have taken one full buffer before it stalled.
        assert!((put / 4..put).contains(&dropped), "{dropped}");
        drop(held);
        drop(guard);
        let written = out.0.lock().expect("no panic").len() / line.len();
        assert_eq!(written + dropped, put);
    }
}
