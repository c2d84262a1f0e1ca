//! Header values that are written here: those that end with a small number are made once for the process, the others are
//! written on the stack and copied once. Part of the hit path.

use std::sync::OnceLock;

use bytes::BufMut;
use http::HeaderValue;

/// Longest value that is written here, in bytes.
const LONGEST: usize = 64;
/// Numbers for which values are made beforehand: seconds up to more than the longest lifetime that answers have by
/// default.
const READY: u64 = 1024;

/// Values that are a text and a number behind it. To be a `static`: those that are made beforehand are never given back.
#[derive(Debug)]
pub(crate) struct Numbered {
    text: &'static str,
    ready: OnceLock<Vec<HeaderValue>>,
}

impl Numbered {
    /// Values that begin with this text, which has to be visible ASCII.
    #[must_use]
    pub(crate) const fn behind(text: &'static str) -> Self {
        Self { text, ready: OnceLock::new() }
    }

    /// The one with this number.
    #[must_use]
    pub(crate) fn with(&self, number: u64) -> HeaderValue {
        let ready = self.ready.get_or_init(|| all_behind(self.text));
        match usize::try_from(number).ok().and_then(|index| ready.get(index)) {
            Some(ready) => ready.clone(),
            None => written(|out| {
                out.put_slice(self.text.as_bytes());
                put_integer(out, number);
            }),
        }
    }
}

/// All of them stand in one text, so that they can be cloned without being counted.
fn all_behind(text: &str) -> Vec<HeaderValue> {
    let mut all = String::new();
    let mut lengths = Vec::new();
    for number in 0..READY {
        let before = all.len();
        all.push_str(text);
        all.push_str(itoa::Buffer::new().format(number));
        lengths.push(all.len() - before);
    }
    let mut rest: &'static str = all.leak();
    let mut next = |length| {
        let (value, others) = rest.split_at(length);
        rest = others;
        HeaderValue::from_static(value)
    };
    lengths.into_iter().map(&mut next).collect()
}

/// A value of at most [`LONGEST`] bytes, all of them visible ASCII.
#[expect(clippy::mut_mut, reason = "a slice that gets shorter as it is written to")]
pub(crate) fn written(write: impl FnOnce(&mut &mut [u8])) -> HeaderValue {
    let mut text = [0; LONGEST];
    let mut rest = &mut text[..];
    write(&mut rest);
    let length = LONGEST - rest.len();
    HeaderValue::from_bytes(&text[..length]).unwrap_or(HeaderValue::from_static(""))
}

/// Writes a number's digits.
#[expect(clippy::mut_mut, reason = "as above")]
pub(crate) fn put_integer(out: &mut &mut [u8], number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_alike_whether_or_not_they_were_ready() {
        static NUMBERED: Numbered = Numbered::behind("ttl=");
        for number in [0, 1, 9, 10, 99, 100, 1023, 1024, 1025, u64::MAX] {
            assert_eq!(NUMBERED.with(number), format!("ttl={number}"));
        }
    }
}
