//! Finds in the bytes of an HTTP/1.1 request head what hyper does not tell of it.
//!
//! hyper removes a `Content-Length` beside a `Transfer-Encoding` (RFC 9112, 6.3), and answers a head that is too large without
//! saying which part of it is. The scan follows the bytes that are read until the head ends; the heads of pipelined requests
//! that arrive behind it are not scanned.

use memchr::memchr;

/// The name of the field, with the colon that must follow it directly.
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// Follows the bytes of a request head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    place: Place,
    has_content_length: bool,
}

/// The place of the next byte in a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the request line, where empty lines are skipped (RFC 9112, 2.2).
    #[default]
    Start,
    RequestLine,
    /// In a field line that has matched so many bytes of [`CONTENT_LENGTH`].
    Matching(usize),
    /// In a field line whose name is known.
    FieldLine,
    /// After the empty line that ends the head.
    End,
}

impl HeadScan {
    /// Reads the next bytes of the head. Part of the hit path.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            match self.place {
                Place::Start if matches!(first, b'\r' | b'\n') => bytes = &bytes[1..],
                Place::Start => self.place = Place::RequestLine,
                Place::RequestLine | Place::FieldLine => {
                    let Some(end) = memchr(b'\n', bytes) else { return };
                    bytes = &bytes[end + 1..];
                    self.place = Place::Matching(0);
                }
                Place::Matching(0) if matches!(first, b'\r' | b'\n') => self.place = Place::End,
                Place::Matching(matched) => {
                    let expected = &CONTENT_LENGTH[matched..];
                    let same = bytes.iter().zip(expected).take_while(|(byte, name)| byte.eq_ignore_ascii_case(name));
                    let same = same.count();
                    self.has_content_length |= same == expected.len();
                    let is_open = same == bytes.len() && same < expected.len();
                    self.place = if is_open { Place::Matching(matched + same) } else { Place::FieldLine };
                    bytes = &bytes[same..];
                }
                Place::End => return,
            }
        }
    }

    /// Returns true if the head has a `Content-Length`.
    pub(super) fn has_content_length(self) -> bool {
        self.has_content_length
    }

    /// Returns true if the request line has not ended yet.
    pub(super) fn is_in_request_line(self) -> bool {
        matches!(self.place, Place::Start | Place::RequestLine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_length_is_found_however_the_head_arrives() {
        for (head, found) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\ncOnTeNt-LeNgTh:5\r\n\r\nhello", true),
            ("\r\n\r\nGET / HTTP/1.1\nHost: a\ncontent-length: 5\n\nhello", true),
            ("GET / HTTP/1.1\r\nContent-Type: a\r\nCookie: content-length: 5\r\nContent-Lengths: 5\r\n\r\n", false),
            ("GET /content-length: HTTP/1.1\r\nContent: a\r\n\r\ncontent-length: 5\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", false),
        ] {
            for size in [1, 2, 7, 16, 1000] {
                let mut scan = HeadScan::default();
                head.as_bytes().chunks(size).for_each(|part| scan.read(part));
                assert_eq!(scan.has_content_length(), found, "{head:?} in parts of {size}");
                assert!(!scan.is_in_request_line());
            }
        }
    }

    #[test]
    fn a_request_line_ends_with_its_line_feed() {
        let mut scan = HeadScan::default();
        for part in ["\r\n", "GET /", &"a".repeat(1000), " HTTP/1.1\r"] {
            scan.read(part.as_bytes());
            assert!(scan.is_in_request_line(), "{part:?}");
        }
        scan.read(b"\n");
        assert!(!scan.is_in_request_line());
    }
}
