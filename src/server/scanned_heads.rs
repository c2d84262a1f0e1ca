//! The heads of a connection that were read and whose requests have not begun, in order.

use std::sync::atomic::{AtomicU64, Ordering};

use super::request_scan::ContentLength;

/// Bits of the number of heads.
const COUNT_BITS: u32 = 6;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// The number that stands for more heads than there is room for.
const TOO_MANY: u64 = COUNT;
/// Most heads that there is room for: a bit each.
const MOST: u64 = (u64::BITS - COUNT_BITS) as u64;

/// Remembers of each head whether it has a `Content-Length`. Written and read by one thread.
///
/// The lowest bits are the number of heads, the others have a bit for each of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct ScannedHeads(AtomicU64);

impl ScannedHeads {
    /// Adds a head. Once there are too many at a time, nothing is known of any later head of the connection.
    pub(super) fn push(&self, length: ContentLength) {
        let word = self.0.load(Ordering::Relaxed);
        let count = word & COUNT;
        let added = if count >= MOST {
            TOO_MANY
        } else {
            let bit = u64::from(length == ContentLength::Present) << (u64::from(COUNT_BITS) + count);
            (word + 1) | bit
        };
        self.0.store(added, Ordering::Relaxed);
    }

    /// Removes the oldest head.
    pub(super) fn pop(&self) -> ContentLength {
        let word = self.0.load(Ordering::Relaxed);
        let (count, lengths) = (word & COUNT, word >> COUNT_BITS);
        if count == 0 || count == TOO_MANY {
            return ContentLength::Unknown;
        }
        self.0.store(((lengths >> 1) << COUNT_BITS) | (count - 1), Ordering::Relaxed);
        if lengths & 1 == 1 { ContentLength::Present } else { ContentLength::Absent }
    }

    /// Returns true if there is no head.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Forgets all heads.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::ContentLength::{Absent, Present, Unknown};
    use super::*;

    #[test]
    fn heads_are_removed_in_the_order_of_their_arrival() {
        let heads = ScannedHeads::default();
        assert_eq!(heads.pop(), Unknown);
        let lengths: Vec<_> = (0..MOST).map(|head| if head % 3 == 0 { Present } else { Absent }).collect();
        for length in &lengths {
            heads.push(*length);
        }
        for length in &lengths {
            assert!(!heads.is_empty());
            assert_eq!(heads.pop(), *length);
            heads.push(Absent);
        }
        for _ in &lengths {
            assert_eq!(heads.pop(), Absent);
        }
        assert!(heads.is_empty());
        for length in [Present, Absent] {
            heads.push(length);
            assert_eq!(heads.pop(), length);
        }
    }

    #[test]
    fn nothing_is_known_after_too_many_heads() {
        let heads = ScannedHeads::default();
        (0..=MOST).for_each(|_| heads.push(Present));
        assert_eq!(heads.pop(), Unknown);
        heads.push(Absent);
        assert_eq!(heads.pop(), Unknown);
        heads.clear();
        assert!(heads.is_empty());
    }
}
