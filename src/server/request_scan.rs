//! Finds in the bytes of an HTTP/1.1 connection what hyper does not tell of its requests.
//!
//! hyper removes a `Content-Length` beside a `Transfer-Encoding` (RFC 9112, 6.3), and answers a head that is too large without
//! saying which part of it is. The scan follows every byte that is read, from head to content to the next head, so that it knows
//! pipelined requests apart. hyper refuses whatever is malformed, and the connection ends; so the scan need not be strict. But hyper
//! accepts trailers with a line feed that has no carriage return before it, and reads on to the next empty line, where others
//! see the end of the content. There the scan ends the input.

use memchr::{memchr, memchr2};

/// Follows the bytes of a connection's requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestScan {
    place: Place,
    framing: Framing,
}

/// The place of the next byte in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the request line, where empty lines are skipped (RFC 9112, 2.2).
    #[default]
    Start,
    RequestLine,
    FieldStart,
    /// In a field line that has matched so many bytes of a name.
    Name(Field, usize),
    /// In the value of `Content-Length`.
    Length,
    /// In a field line that is of no interest.
    FieldLine,
    /// In the content, so many bytes before its end.
    Content(u64),
    /// In the size of a chunk, as far as it was read.
    ChunkSize(u64),
    /// In the rest of the line of a chunk's size.
    ChunkExtension(u64),
    /// In the content of a chunk, so many bytes before its end.
    Chunk(u64),
    /// In the line feed after a chunk.
    ChunkEnd,
    /// At the beginning of a trailer line, or of the line that ends the content.
    TrailerStart,
    TrailerLine,
    /// In the line feed of a trailer line.
    TrailerEnd,
    /// In the line feed that ends the content.
    ContentEnd,
    /// The length of the content is not certain, so the places of later requests are not.
    Lost,
    /// Before a byte that hyper could accept and others would read differently. All that follows is left unread.
    Malformed,
}

/// A field that tells how long the content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ContentLength,
    TransferEncoding,
}

impl Field {
    /// The name, with the colon that must follow it directly.
    fn name(self) -> &'static [u8] {
        match self {
            Self::ContentLength => b"content-length:",
            Self::TransferEncoding => b"transfer-encoding:",
        }
    }
}

/// The content that a head announces.
#[derive(Clone, Copy, Debug, Default)]
struct Framing {
    has_content_length: bool,
    length: u64,
    is_chunked: bool,
    is_unclear: bool,
}

/// The presence of a `Content-Length` in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentLength {
    Present,
    Absent,
    /// The head was not found among the bytes.
    Unknown,
}

impl RequestScan {
    /// Reads the next bytes; calls `end_head` at the end of each head. Returns the number of bytes, at the end, that hyper must not
    /// see: the connection ends before them. Part of the hit path.
    #[must_use]
    pub(super) fn read(&mut self, mut bytes: &[u8], mut end_head: impl FnMut(ContentLength)) -> usize {
        while let Some(first) = bytes.first() {
            match self.place {
                Place::RequestLine | Place::FieldLine => {
                    if !self.skip_line(&mut bytes, Place::FieldStart) {
                        return 0;
                    }
                }
                Place::FieldStart if matches!(first, b'\r' | b'\n') => {
                    // The carriage return of a line's end is skipped as a line that is empty but for it.
                    if !self.skip_line(&mut bytes, Place::Start) {
                        return 0;
                    }
                    end_head(self.end_head());
                }
                Place::FieldStart => {
                    self.place = match first {
                        b'c' | b'C' => Place::Name(Field::ContentLength, 0),
                        b't' | b'T' => Place::Name(Field::TransferEncoding, 0),
                        _ => Place::FieldLine,
                    };
                }
                Place::Name(field, matched) => self.read_name((field, matched), &mut bytes),
                Place::Length => {
                    self.read_length(*first);
                    bytes = &bytes[1..];
                }
                Place::Start if matches!(first, b'\r' | b'\n') => bytes = &bytes[1..],
                Place::Start => (self.place, self.framing) = (Place::RequestLine, Framing::default()),
                Place::Lost => return 0,
                Place::Malformed => return bytes.len(),
                _ => self.read_content(*first, &mut bytes),
            }
        }
        0
    }

    /// Returns true if a head has begun and not ended.
    pub(super) fn is_in_head(self) -> bool {
        matches!(
            self.place,
            Place::RequestLine | Place::FieldStart | Place::Name(..) | Place::Length | Place::FieldLine
        )
    }

    /// Returns true if the line of the next request has not ended yet.
    pub(super) fn is_in_request_line(self) -> bool {
        matches!(self.place, Place::Start | Place::RequestLine)
    }

    /// Skips to the end of the line, and goes on at a place; returns false if the line has not ended.
    fn skip_line(&mut self, bytes: &mut &[u8], next: Place) -> bool {
        let end = memchr(b'\n', bytes);
        *bytes = end.map_or(&[], |end| &bytes[end + 1..]);
        if end.is_some() {
            self.place = next;
        }
        end.is_some()
    }

    fn read_name(&mut self, (field, matched): (Field, usize), bytes: &mut &[u8]) {
        let expected = &field.name()[matched..];
        let same = bytes.iter().zip(expected).take_while(|(byte, name)| byte.eq_ignore_ascii_case(name)).count();
        self.place = if same == expected.len() {
            self.begin_value(field)
        } else if same == bytes.len() {
            Place::Name(field, matched + same)
        } else {
            Place::FieldLine
        };
        *bytes = &bytes[same..];
    }

    /// Returns the place of the value of a field.
    fn begin_value(&mut self, field: Field) -> Place {
        match field {
            Field::ContentLength => {
                // hyper accepts several that are the same.
                self.framing.is_unclear |= self.framing.has_content_length;
                (self.framing.has_content_length, self.framing.length) = (true, 0);
                Place::Length
            }
            Field::TransferEncoding => {
                self.framing.is_chunked = true;
                Place::FieldLine
            }
        }
    }

    fn read_length(&mut self, byte: u8) {
        let framing = &mut self.framing;
        match byte {
            b'0'..=b'9' => match append(framing.length, 10, u64::from(byte - b'0')) {
                Some(length) => framing.length = length,
                None => framing.is_unclear = true,
            },
            b'\n' => self.place = Place::FieldStart,
            b' ' | b'\t' | b'\r' => {}
            _ => framing.is_unclear = true,
        }
    }

    fn end_head(&mut self) -> ContentLength {
        let Framing { has_content_length, length, is_chunked, is_unclear } = self.framing;
        self.place = match length {
            // The length is of no meaning beside a transfer encoding (RFC 9112, 6.3).
            _ if is_chunked => Place::ChunkSize(0),
            _ if is_unclear => Place::Lost,
            0 => Place::Start,
            length => Place::Content(length),
        };
        if has_content_length { ContentLength::Present } else { ContentLength::Absent }
    }

    fn read_content(&mut self, first: u8, bytes: &mut &[u8]) {
        match self.place {
            Place::Content(left) => self.skip(left, bytes, (Place::Content, Place::Start)),
            Place::Chunk(left) => self.skip(left, bytes, (Place::Chunk, Place::ChunkEnd)),
            Place::ChunkSize(size) => match char::from(first).to_digit(16) {
                Some(digit) => {
                    self.place = append(size, 16, digit.into()).map_or(Place::Lost, Place::ChunkSize);
                    *bytes = &bytes[1..];
                }
                None => self.place = Place::ChunkExtension(size),
            },
            Place::ChunkExtension(0) => _ = self.skip_line(bytes, Place::TrailerStart),
            Place::ChunkExtension(size) => _ = self.skip_line(bytes, Place::Chunk(size)),
            Place::ChunkEnd => _ = self.skip_line(bytes, Place::ChunkSize(0)),
            place => {
                if place == Place::TrailerLine {
                    *bytes = &bytes[memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len())..];
                }
                let Some((byte, rest)) = bytes.split_first() else { return };
                self.place = match (place, byte) {
                    (Place::TrailerStart, b'\r') => Place::ContentEnd,
                    (Place::TrailerLine, b'\r') => Place::TrailerEnd,
                    (Place::ContentEnd, b'\n') => Place::Start,
                    (Place::TrailerEnd, b'\n') => Place::TrailerStart,
                    (Place::TrailerStart, byte) if *byte != b'\n' => Place::TrailerLine,
                    _ => Place::Malformed,
                };
                if self.place != Place::Malformed {
                    *bytes = rest;
                }
            }
        }
    }

    /// Skips so many bytes, or as many as there are.
    fn skip(&mut self, left: u64, bytes: &mut &[u8], (within, next): (fn(u64) -> Place, Place)) {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        *bytes = &bytes[skipped..];
        let left = left - skipped as u64;
        self.place = if left == 0 { next } else { within(left) };
    }
}

/// Appends a digit to a number; `None` if it is too large.
fn append(number: u64, base: u64, digit: u64) -> Option<u64> {
    number.checked_mul(base)?.checked_add(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The heads of some input, read in parts of a size, and the scan after it.
    fn scanned(input: &str, size: usize) -> (Vec<bool>, RequestScan) {
        let (mut scan, mut heads) = (RequestScan::default(), Vec::new());
        for part in input.as_bytes().chunks(size) {
            let unread = scan.read(part, |length| heads.push(length == ContentLength::Present));
            assert!(unread == 0 || scan.place == Place::Malformed, "{unread} of {input:?}");
        }
        (heads, scan)
    }

    #[test]
    fn a_content_length_is_found_however_the_head_arrives() {
        for (head, found) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\ncOnTeNt-LeNgTh:5\r\n\r\nhello", true),
            ("\r\n\r\nGET / HTTP/1.1\nHost: a\ncontent-length: 5\n\nhello", true),
            ("GET / HTTP/1.1\r\nContent-Type: a\r\nCookie: content-length: 5\r\nContent-Lengths: 5\r\n\r\n", false),
            ("GET /content-length: HTTP/1.1\r\nContent: a\r\n\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n", false),
        ] {
            for size in [1, 2, 7, 16, 1000] {
                let (heads, scan) = scanned(head, size);
                assert_eq!(heads, [found], "{head:?} in parts of {size}");
                assert_eq!(scan.place, Place::Start, "{head:?} in parts of {size}");
            }
        }
    }

    #[test]
    fn each_head_of_a_pipeline_is_its_own() {
        let sized = "POST / HTTP/1.1\r\nContent-Length: 31\r\n\r\nGET / HTTP/1.1\r\nContent-Length:";
        let chunked =
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1F;a=b\r\nGET / HTTP/1.1\r\nContent-Length:\r\n0\r\n";
        let both = "GET / HTTP/1.1\r\nContent-Length: 90\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        for (input, expected) in [
            (format!("{sized}GET / HTTP/1.1\r\n\r\n"), vec![true, false]),
            (format!("{chunked}\r\n{sized}"), vec![false, true]),
            (
                format!("{chunked}Trailer: content-length: 5\r\n\r\n{both}{sized}\r\n{both}"),
                vec![false, true, true, true],
            ),
            (format!("{both}{chunked}\r\n\r\n\r\n{chunked}\r\n"), vec![true, false, false]),
        ] {
            for size in [1, 2, 3, 7, 50, 1000] {
                let (heads, scan) = scanned(&input, size);
                assert_eq!(heads, expected, "{input:?} in parts of {size}");
                assert_eq!(scan.place, Place::Start, "{input:?} in parts of {size}");
            }
        }
    }

    #[test]
    fn no_place_is_claimed_behind_content_of_uncertain_length() {
        for value in ["5, 5", "5\r\nContent-Length: 5", "+5", "99999999999999999999", "5x"] {
            let (heads, scan) = scanned(&format!("GET / HTTP/1.1\r\nContent-Length: {value}\r\n\r\nhelloGET / HT"), 9);
            assert_eq!((heads, scan.place), (vec![true], Place::Lost), "{value}");
        }
    }

    #[test]
    fn nothing_is_read_behind_a_trailer_line_without_its_carriage_return() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let next = "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        for (read, unread) in [
            ("0\r\n", "\nX\r\n\r\n"),
            ("0\r\na: b", "\n\r\n"),
            ("0\r\na: b\r\nc: d\r\n", "\n"),
            ("5;a\r\nhello\r\n0\r\na: b\r", "\rc\n"),
            ("0\r\n\r", "X\n"),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                let input = [head, read, unread, next].concat();
                let (mut scan, mut heads, mut accepted) = (RequestScan::default(), 0, 0);
                for part in input.as_bytes().chunks(size) {
                    accepted += part.len() - scan.read(part, |_| heads += 1);
                }
                assert_eq!((heads, accepted), (1, head.len() + read.len()), "{input:?} in parts of {size}");
            }
        }
    }

    #[test]
    fn a_head_begins_with_its_request_line_and_ends_with_an_empty_line() {
        let mut scan = RequestScan::default();
        for (part, is_in_line, is_in_head) in [
            ("\r\n", true, false),
            ("GET /", true, true),
            (&"a".repeat(1000), true, true),
            (" HTTP/1.1\r", true, true),
            ("\n", false, true),
            ("Content-Length: 2", false, true),
            ("\r\n\r", false, true),
            ("\n", false, false),
            ("{", false, false),
            ("}", true, false),
            ("G", true, true),
        ] {
            assert_eq!(scan.read(part.as_bytes(), |_| {}), 0);
            assert_eq!((scan.is_in_request_line(), scan.is_in_head()), (is_in_line, is_in_head), "{part:?}");
        }
    }
}
