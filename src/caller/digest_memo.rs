//! A memo of credentials' SHA-256. Part of the hit path: callers present the same few credentials again and again, and the digest
//! of a client key was a tenth of the instructions of a hit, that of a JWT half of them.

use std::hash::BuildHasher;
use std::sync::Mutex;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use foldhash::fast::RandomState;
use zeroize::Zeroizing;

use crate::digest::sha256;

/// Number of slots; the hash of a credential selects one.
const SLOTS: usize = 256;
/// Length of the longest credential that is remembered, in bytes.
const MAX_LENGTH: usize = 2048;

/// Remembers the SHA-256 of credentials that were presented twice. One per worker.
///
/// Credentials are compared in constant time and wiped when another one takes their slot. The lock makes the memo shareable
/// between a worker's connections, whose tasks have to be `Send`. It is not contended, since a worker has one thread; if it were,
/// the digest would be computed.
#[derive(Default)]
pub struct DigestMemo(Mutex<SlotTable>);

#[derive(Default)]
struct SlotTable {
    hasher: RandomState,
    /// Empty until the first credential.
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    /// The hash of the last credential that selected this slot.
    last_hash: u64,
    digest: [u8; 32],
    /// The credential with this digest; empty if none is remembered.
    credential: Zeroizing<Box<[u8]>>,
}

impl DigestMemo {
    /// Returns the SHA-256 of a credential.
    pub(super) fn sha256(&self, credential: &[u8]) -> [u8; 32] {
        match self.0.try_lock() {
            Ok(mut table) => table.sha256(credential),
            Err(_) => sha256(credential),
        }
    }
}

impl SlotTable {
    fn sha256(&mut self, credential: &[u8]) -> [u8; 32] {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
        }
        let hash = self.hasher.hash_one(credential);
        let index = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        let slot = &mut self.slots[index];
        let is_last = std::mem::replace(&mut slot.last_hash, hash) == hash;
        if !credential.is_empty() && verify_slices_are_equal(&slot.credential, credential).is_ok() {
            return slot.digest;
        }
        let digest = sha256(credential);
        // A credential that is presented only once, as made-up ones are, replaces no remembered one.
        if is_last && credential.len() <= MAX_LENGTH {
            slot.digest = digest;
            slot.credential = Zeroizing::new(credential.into());
        }
        digest
    }
}

impl std::fmt::Debug for DigestMemo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembers(memo: &DigestMemo, credential: &str) -> bool {
        let table = memo.0.lock().expect("no panic");
        table.slots.iter().any(|slot| **slot.credential == *credential.as_bytes())
    }

    #[test]
    fn the_digest_is_that_of_the_credential_whatever_was_presented_before() {
        let memo = DigestMemo::default();
        let long = "k".repeat(MAX_LENGTH + 1);
        let mut credentials: Vec<_> = (0..2_000).map(|number| format!("key-{number}")).collect();
        credentials.extend([String::new(), long]);
        for _ in 0..3 {
            for credential in &credentials {
                for _ in 0..2 {
                    assert_eq!(memo.sha256(credential.as_bytes()), sha256(credential.as_bytes()), "{credential}");
                }
            }
        }
    }

    #[test]
    fn a_credential_is_remembered_from_its_second_time_on() {
        let memo = DigestMemo::default();
        memo.sha256(b"key");
        assert!(!remembers(&memo, "key"));
        memo.sha256(b"key");
        assert!(remembers(&memo, "key"));
        for number in 0..10_000 {
            memo.sha256(format!("made up {number}").as_bytes());
        }
        assert!(remembers(&memo, "key"), "no credential was presented twice");
        let long = "k".repeat(MAX_LENGTH + 1);
        memo.sha256(long.as_bytes());
        memo.sha256(long.as_bytes());
        assert!(!remembers(&memo, &long));
    }

    #[test]
    fn the_digest_is_computed_while_the_memo_is_locked_and_nothing_is_printed() {
        let memo = DigestMemo::default();
        memo.sha256(b"key");
        memo.sha256(b"key");
        assert!(!format!("{memo:?}").contains("key"));
        let _locked = memo.0.lock().expect("no panic");
        assert_eq!(memo.sha256(b"key"), sha256(b"key"));
    }
}
