//! Bodies that come compressed, expanded within the same bound as those that do not: a small answer must not fill the
//! memory.

use std::io::{Read, Result};

use bytes::Bytes;

use super::TransportError;

/// What a body with a `Content-Encoding` is without it; at most `limit` bytes.
pub(super) fn expand(coding: &[u8], body: &Bytes, limit: usize) -> std::result::Result<Bytes, TransportError> {
    let read = &body[..];
    let expanded = if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
        bounded(flate2::read::MultiGzDecoder::new(read), limit)
    } else if coding.eq_ignore_ascii_case(b"br") {
        bounded(brotli::Decompressor::new(read, 4096), limit)
    } else if coding.eq_ignore_ascii_case(b"zstd") {
        zstd::Decoder::new(read).and_then(|decoder| bounded(decoder, limit))
    } else {
        return Err(TransportError::Broken);
    };
    match expanded {
        Ok(bytes) if bytes.len() > limit => Err(TransportError::TooLarge { limit }),
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(TransportError::Broken),
    }
}

/// Reads to the end, or one byte beyond the bound.
fn bounded(reader: impl Read, limit: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_expands_up_to_the_bound_and_no_further() {
        let plain = vec![b' '; 100_000];
        let small: Bytes = zstd::bulk::compress(&plain, 3).expect("it compresses").into();
        assert!(small.len() < 1000);
        assert_eq!(expand(b"zstd", &small, 100_000), Ok(plain.into()));
        assert_eq!(expand(b"ZSTD", &small, 99_999), Err(TransportError::TooLarge { limit: 99_999 }));
        for coding in ["gzip", "br", "deflate", "gzip, zstd", ""] {
            assert_eq!(expand(coding.as_bytes(), &small, 1000), Err(TransportError::Broken), "{coding}");
        }
    }
}
