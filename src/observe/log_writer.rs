//! Log lines on their way to standard error: whoever has one puts it into a buffer and goes on, a thread of its own writes.
//!
//! Nobody ever waits for a reader that is slow: what does not fit into the buffers is dropped and counted. Each thread has a
//! buffer to itself (up to [`BUFFERS`] threads), so the lock that the writer takes to fetch it is free when a line comes. A
//! line is put in whole, so lines never run into each other; those of different threads may change places within
//! [`GATHER`].

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::Thread;
use std::time::Duration;

use super::stripe::stripe;

const BUFFERS: usize = 16;
/// Most that may wait in one buffer, in bytes.
const MOST: usize = 2 << 20;
/// How long lines gather before they are written together: waking a thread costs more than many lines do, and takes the
/// processor from those who answer.
const GATHER: Duration = Duration::from_millis(16);
/// How long the end of the process waits for its last lines to be taken.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where lines are put. Cheap to clone; clones are the same one.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    buffers: [Mutex<Vec<u8>>; BUFFERS],
    dropped: AtomicU64,
    writer: OnceLock<Thread>,
    /// The writer has found nothing to write and wants to be woken.
    asleep: AtomicBool,
    closing: AtomicBool,
}

/// Writes what is left when it goes.
#[derive(Debug)]
#[must_use = "lines are written as long as this is there"]
pub struct Writing {
    lines: LogWriter,
    ended: mpsc::Receiver<()>,
}

impl LogWriter {
    /// LogWriter that are written to `out` as long as [`Writing`] is there.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, Writing)> {
        let lines = Self(Arc::new(Shared {
            buffers: std::array::from_fn(|_| Mutex::default()),
            dropped: AtomicU64::new(0),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }));
        let (end, ended) = mpsc::channel();
        let shared = Arc::clone(&lines.0);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            shared.write(out);
            // Nobody may be left to hear it.
            let _ = end.send(());
        })?;
        let _ = lines.0.writer.set(thread.thread().clone());
        Ok((lines.clone(), Writing { lines, ended }))
    }

    /// Puts in a line, with its line feed: what `write` appends. Part of the hit path.
    pub fn put(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &self.0;
        let full = {
            let mut buffer = shared.buffer(stripe(BUFFERS));
            let before = buffer.len();
            write(&mut buffer);
            let full = buffer.len() > MOST;
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

    /// LogWriter that were dropped since the buffer was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn buffer(&self, index: usize) -> MutexGuard<'_, Vec<u8>> {
        // Bytes are appended and taken: sound whatever came in between.
        self.buffers[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// The writer's thread.
    fn write(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            if self.write_all(&mut out, &mut taken) {
                if !closing {
                    std::thread::park_timeout(GATHER);
                }
                continue;
            }
            if closing {
                return;
            }
            // Whoever puts a line in after the look below sees this and wakes us; whoever did before is seen.
            self.asleep.store(true, Ordering::Release);
            let empty = (0..BUFFERS).all(|index| self.buffer(index).is_empty());
            if empty && !self.closing.load(Ordering::Acquire) {
                std::thread::park();
                // One line seldom comes alone.
                std::thread::park_timeout(GATHER);
            }
            self.asleep.store(false, Ordering::Release);
        }
    }

    /// Writes what is there; whether anything was.
    fn write_all(&self, out: &mut impl Write, taken: &mut Vec<u8>) -> bool {
        let mut any = false;
        for index in 0..BUFFERS {
            {
                let mut buffer = self.buffer(index);
                if buffer.is_empty() {
                    continue;
                }
                // They change places: what was written before is filled next, large enough and still in the processor's
                // cache.
                std::mem::swap(&mut *buffer, taken);
            }
            any = true;
            // Nobody can be told that standard error is gone.
            let _ = out.write_all(taken);
            taken.clear();
        }
        any
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.lines.0.closing.store(true, Ordering::Release);
        self.lines.0.wake();
        // A reader that has stopped reading does not keep the process from its end.
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// For whoever writes whole lines at once, as the subscriber of `tracing` does.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(|out| out.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what is written, when it is let.
    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_many_threads_are_written_whole_and_all_of_them() {
        let out = Out::default();
        let (lines, writing) = LogWriter::to(out.clone()).expect("a thread");
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let lines = lines.clone();
                scope.spawn(move || {
                    for number in 0..500 {
                        lines.put(|out| out.extend_from_slice(format!("{thread} {number}\n").as_bytes()));
                    }
                });
            }
        });
        drop(writing);
        let written = String::from_utf8(out.0.lock().expect("no panic").clone()).expect("UTF-8");
        let mut found: Vec<&str> = written.lines().collect();
        found.sort_unstable();
        let mut expected: Vec<String> =
            (0..20).flat_map(|thread| (0..500).map(move |number| format!("{thread} {number}"))).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_nobody_time() {
        let out = Out::default();
        let held = out.0.lock().expect("no panic");
        let (lines, writing) = LogWriter::to(out.clone()).expect("a thread");
        let line = [b'x'; 1023];
        let put = 3 * MOST / line.len();
        for _ in 0..put {
            lines.put(|out| out.extend_from_slice(&line));
        }
        let dropped = usize::try_from(lines.dropped()).expect("it fits");
        // One buffer may have been taken already, and is being written.
        assert!((put / 4..put).contains(&dropped), "{dropped}");
        drop(held);
        drop(writing);
        let written = out.0.lock().expect("no panic").len() / line.len();
        assert_eq!(written + dropped, put);
    }
}
