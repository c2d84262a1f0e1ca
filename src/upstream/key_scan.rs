//! Searches a body, piece by piece, for a tenant's org keys; also inside its content coding.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue};

use crate::log_events;
use crate::offload;
use crate::tenant::Tenant;

/// Most memory that a zstd body can ask for, as a power of two (RFC 9659).
const ZSTD_WINDOW: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// The search in one body.
pub(super) enum KeyScan {
    /// The body has no coding.
    Plain(PlainScan),
    /// The body has one: a copy is decoded into a [`PlainScan`] and then forgotten.
    Coded(Box<dyn Write + Send>),
}

/// The search in plain text.
pub(super) struct PlainScan {
    tenant: Arc<Tenant>,
    /// The last bytes, one less than the longest key: a key may lie across two pieces.
    tail: Vec<u8>,
    /// Bytes that may still come, for a small body that becomes a very large one.
    left: usize,
}

impl KeyScan {
    /// A search in a body with these headers, of at most `limit` bytes without its coding; `None` if the coding can't be
    /// removed, as that of a part of a body.
    #[must_use]
    pub(super) fn new(tenant: Arc<Tenant>, headers: &HeaderMap, limit: usize) -> Option<Self> {
        let plain = PlainScan { tenant, tail: Vec::new(), left: limit };
        let mut codings = headers.get_all(CONTENT_ENCODING).iter().filter(|coding| !is(coding, "identity"));
        let Some(coding) = codings.next() else { return Some(Self::Plain(plain)) };
        if codings.next().is_some() || headers.contains_key(CONTENT_RANGE) {
            return None;
        }
        Some(Self::Coded(match coding {
            _ if is(coding, "gzip") || is(coding, "x-gzip") => Box::new(MultiGzDecoder::new(plain)),
            _ if is(coding, "deflate") => Box::new(ZlibDecoder::new(plain)),
            _ if is(coding, "br") => Box::new(brotli::DecompressorWriter::new(plain, BROTLI_BUFFER)),
            _ if is(coding, "zstd") => {
                let mut decoder = zstd::stream::write::Decoder::new(plain).ok()?;
                decoder.window_log_max(ZSTD_WINDOW).ok()?;
                Box::new(decoder)
            }
            _ => return None,
        }))
    }

    /// Returns true if the search in a piece belongs on a thread of its own. A small piece that is coded may become a large one.
    #[must_use]
    pub(super) fn is_heavy(&self, piece: &[u8]) -> bool {
        match self {
            Self::Plain(_) => offload::is_heavy(piece.len()),
            Self::Coded(_) => true,
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// If it completes an org key, is not in the body's coding, or is too large without it.
    pub(super) fn pass(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(scan) => scan.pass(piece),
            Self::Coded(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        }
    }
}

impl PlainScan {
    fn pass(&mut self, piece: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(piece.len()).ok_or_else(|| io::Error::other("the response is too large"))?;
        let keys = self.tenant.org_keys();
        let overlap = keys.longest().saturating_sub(1);
        // First the place where the pieces meet, then the piece itself, without a copy of it.
        let before = self.tail.len();
        self.tail.extend_from_slice(&piece[..piece.len().min(overlap)]);
        let found = keys.appear_in(&self.tail) || keys.appear_in(piece);
        if piece.len() >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&piece[piece.len() - overlap..]);
        } else {
            let excess = (before + piece.len()).saturating_sub(overlap);
            self.tail.drain(..excess);
        }
        if found {
            tracing::error!(message = log_events::UPSTREAM_RESPONSE_CONTAINS_ORG_KEY);
            return Err(io::Error::other("the response contains an org key"));
        }
        Ok(())
    }
}

/// Decoders write into the search.
impl Write for PlainScan {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.pass(piece).map(|()| piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for KeyScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyScan").finish_non_exhaustive()
    }
}

fn is(coding: &HeaderValue, name: &str) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes())
}
