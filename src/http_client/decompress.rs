//! Decompression of response bodies, with the same bound on size as for plain ones: a small response must not fill the memory.

use std::io::{self, Read};

use bytes::Bytes;

use super::error::{TransportError, TransportErrorKind};

/// Removes one `Content-Encoding` from a body. The decoded body has at most `limit` bytes.
///
/// # Errors
/// If the coding is not supported, the body is not in this coding, or it is larger than `limit` without it.
pub(super) fn decompress(coding: &[u8], body: &Bytes, limit: usize) -> Result<Bytes, TransportError> {
    let compressed = &body[..];
    if coding.eq_ignore_ascii_case(b"identity") {
        return Ok(body.clone());
    }
    let plain = if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
        read_bounded(flate2::read::MultiGzDecoder::new(compressed), limit)
    } else if coding.eq_ignore_ascii_case(b"br") {
        read_bounded(brotli::Decompressor::new(compressed, 4096), limit)
    } else if coding.eq_ignore_ascii_case(b"zstd") {
        zstd::Decoder::new(compressed).and_then(|decoder| read_bounded(decoder, limit))
    } else {
        let coding = format!("unsupported content-encoding \"{}\"", coding.escape_ascii());
        return Err(TransportError::caused_by(TransportErrorKind::InvalidResponse, &io::Error::other(coding)));
    };
    match plain {
        Ok(bytes) if bytes.len() > limit => Err(TransportErrorKind::TooLarge { limit }.into()),
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(TransportError::caused_by(TransportErrorKind::InvalidResponse, &error)),
    }
}

/// Reads to the end, or one byte beyond the limit.
fn read_bounded(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_decompressed_up_to_the_limit_and_no_further() {
        let plain = vec![b' '; 100_000];
        let small: Bytes = zstd::bulk::compress(&plain, 3).expect("it compresses").into();
        assert!(small.len() < 1000);
        let result = |coding: &[u8], limit| decompress(coding, &small, limit).map_err(|error| error.kind());
        assert_eq!(result(b"zstd", 100_000), Ok(plain.into()));
        assert_eq!(result(b"Identity", 100_000), Ok(small.clone()));
        assert_eq!(result(b"ZSTD", 99_999), Err(TransportErrorKind::TooLarge { limit: 99_999 }));
        for coding in ["gzip", "br", "deflate", "gzip, zstd", ""] {
            assert_eq!(result(coding.as_bytes(), 1000), Err(TransportErrorKind::InvalidResponse), "{coding}");
        }
    }
}
