//! A memo of a credential's SHA-256. Part of the hit path: a client sends the same credential with each request over its
//! connection, and the digest of a client key was a tenth of the instructions of a hit, that of a JWT half of them.

use std::sync::Mutex;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::{Zeroize, Zeroizing};

use crate::digest::sha256;

/// Length of the longest credential that is remembered, in bytes.
const MAX_LENGTH: usize = 2048;

/// Remembers the SHA-256 of the credential that a connection presents, once the connection has presented it twice in a row: a
/// proxy that sends the requests of many callers over one connection costs no copies.
///
/// A clone is empty, so that no two connections share what was presented over one of them. The lock makes the memo shareable
/// between a connection's requests. It is not contended, since a connection has one thread; if it were, the digest would be
/// computed.
#[derive(Debug, Default)]
pub struct DigestMemo(Mutex<Presented>);

impl Clone for DigestMemo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The credential that was presented last.
#[derive(Default)]
struct Presented {
    digest: [u8; 32],
    /// The credential itself, wiped when it is replaced; empty until it was presented twice.
    credential: Zeroizing<Vec<u8>>,
}

impl DigestMemo {
    /// Returns the SHA-256 of a credential.
    pub(super) fn sha256(&self, credential: &[u8]) -> [u8; 32] {
        match self.0.try_lock() {
            Ok(mut presented) => presented.sha256(credential),
            Err(_) => sha256(credential),
        }
    }
}

impl Presented {
    fn sha256(&mut self, credential: &[u8]) -> [u8; 32] {
        if !credential.is_empty() && verify_slices_are_equal(&self.credential, credential).is_ok() {
            return self.digest;
        }
        let digest = sha256(credential);
        let is_repeated = self.digest == digest;
        self.credential.zeroize();
        if is_repeated && credential.len() <= MAX_LENGTH {
            self.credential = Zeroizing::new(credential.to_vec());
        }
        self.digest = digest;
        digest
    }
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_credential_whatever_was_presented_before() {
        let long = "k".repeat(MAX_LENGTH + 1);
        let credentials = [
            "", "key-1", "key-2", "key-1", "key-1", "key-1", "key-10", "key-10", "", "", "key-10", &long, &long, &long,
        ];
        let memo = DigestMemo::default();
        for credential in credentials {
            assert_eq!(memo.sha256(credential.as_bytes()), sha256(credential.as_bytes()), "{credential}");
        }
    }

    #[test]
    fn a_credential_is_remembered_from_its_second_time_on_until_another_comes() {
        let memo = DigestMemo::default();
        let remembered = || memo.0.lock().expect("no panic").credential.to_vec();
        for (credential, expected) in [("a", ""), ("a", "a"), ("a", "a"), ("b", ""), ("a", ""), ("b", ""), ("b", "b")] {
            memo.sha256(credential.as_bytes());
            assert_eq!(remembered(), expected.as_bytes());
        }
        memo.sha256(&vec![b'x'; MAX_LENGTH + 1]);
        memo.sha256(&vec![b'x'; MAX_LENGTH + 1]);
        assert_eq!(remembered(), b"");
    }

    #[test]
    fn a_clone_is_empty_and_nothing_is_printed() {
        let memo = DigestMemo::default();
        memo.sha256(b"key-1");
        memo.sha256(b"key-1");
        assert!(!format!("{memo:?}").contains("key"));
        assert!(memo.clone().0.lock().expect("no panic").credential.is_empty());
    }
}
