//! Counts the HTTP/2 frames of a peer that cost work and carry nothing of a request (RFC 9113, 10.5): WINDOW_UPDATE, PING,
//! SETTINGS, PRIORITY, RST_STREAM, CONTINUATION, empty DATA and unknown types.
//!
//! h2 bounds some of them itself: CONTINUATION, small DATA, and streams that are reset before they are accepted. It handles any
//! number of the others. A connection may send [`BURST`] of them between two checks of the monitor, and more for each response
//! and its data, since a peer answers these with WINDOW_UPDATE, PING and PRIORITY.

/// Frames between two checks of the monitor, beside those that responses allow.
pub(super) const BURST: u32 = 1000;
/// Most frames that responses allow ahead.
pub(super) const MOST: u32 = 100 * BURST;
/// Frames that a response allows.
pub(super) const PER_RESPONSE: u32 = 4;

const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// Bytes of a response body for which a WINDOW_UPDATE is expected. A peer with windows of 255 bytes sends one for each half of them.
const BYTES_PER_UPDATE: usize = 64;

/// Returns the number of frames that `bytes` of a response body allow.
pub(super) fn allowed_by_data(bytes: usize) -> u32 {
    u32::try_from(bytes / BYTES_PER_UPDATE).unwrap_or(MOST).saturating_add(PER_RESPONSE)
}

/// Finds the frames in the bytes of a connection.
#[derive(Debug)]
pub(super) struct FrameCounter {
    /// Bytes of the preface or of a frame's payload that are still to come.
    skip: usize,
    /// The head of the next frame, as far as it was read.
    head: [u8; HEAD],
    filled: usize,
}

impl FrameCounter {
    /// Counts from the first byte of a connection.
    pub(super) fn new() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], filled: 0 }
    }

    /// Returns the number of frames without content that begin in these bytes, the next ones of the connection.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u32 {
        let mut empty = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled < HEAD {
                return empty;
            }
            self.filled = 0;
            let [high, middle, low, kind, flags, ..] = self.head;
            self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
            empty += u32::from(match kind {
                DATA => self.skip == 0 && flags & END_STREAM == 0,
                HEADERS => false,
                _ => true,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
        [&length[1..], &[kind, flags], &[0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn frames_are_counted_wherever_reads_divide_them() {
        let window_update = frame(8, 0, &[0, 0, 0, 1]);
        let cases = [
            (frame(4, 0, &[]), 1),
            (window_update.repeat(3), 3),
            (frame(6, 0, &[0; 8]), 1),
            (frame(2, 0, &[0; 5]), 1),
            (frame(3, 0, &[0; 4]), 1),
            (frame(9, 4, b"header block"), 1),
            (frame(0x10, 0, b"priority update"), 1),
            (frame(HEADERS, 5, b"header block"), 0),
            (frame(DATA, 0, b"content"), 0),
            (frame(DATA, END_STREAM, &[]), 0),
            (frame(DATA, 0, &[]), 1),
            // The content looks like frames.
            (frame(DATA, 0, &window_update.repeat(9)), 0),
        ];
        let bytes = [vec![b'P'; PREFACE], cases.iter().flat_map(|(bytes, _)| bytes.clone()).collect()].concat();
        let expected: u32 = cases.iter().map(|(_, count)| count).sum();
        for size in [1, 2, 7, 9, 13, 64, bytes.len()] {
            let mut frames = FrameCounter::new();
            let counted: u32 = bytes.chunks(size).map(|chunk| frames.count(chunk)).sum();
            assert_eq!(counted, expected, "{size}");
        }
    }
}
