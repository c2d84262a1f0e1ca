//! Content codings (RFC 9110, 8.4 and 12.5.3): chosen by `Accept-Encoding`, applied once per entry and never on the hit
//! path.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, HeaderMap};

use super::footprint::allocated;

/// Size in bytes from which bodies are encoded; smaller ones fit into a packet or two anyway.
const MIN_BODY: usize = 1024;
/// Measured on a page of 65 KB: 3 makes 6.2 KB of it in 0.33 ms, 5 makes 5.5 KB in 1.7 ms, 1 makes 15 KB in 0.28 ms.
const BROTLI_QUALITY: i32 = 3;
/// Factor by which an encoded body has to be smaller than the plain one to be stored: all three codings together then take
/// no more memory than the plain body.
const MIN_SHRINK_FACTOR: usize = 3;

/// A content coding. The order of the variants is the preference among codings with equal weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878
    Zstd,
    /// RFC 7932
    Brotli,
    /// RFC 1952
    Gzip,
}

impl Coding {
    const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// The registered name, as used in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding with the greatest weight in `Accept-Encoding`, unless `identity` has a greater one.
    #[must_use]
    pub fn preferred(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(ACCEPT_ENCODING).iter();
        let first = values.next()?;
        let mut weights = Weights::default();
        for value in std::iter::once(first).chain(values) {
            weights.read(value.to_str().ok()?);
        }
        let weight = |coding: Self| weights.codings[coding as usize].or(weights.any).unwrap_or(0);
        // `max_by_key` returns the last of equal ones, hence the reverse order.
        let best = Self::ALL.into_iter().rev().max_by_key(|coding| weight(*coding))?;
        let plain = weights.identity.or(weights.any.filter(|any| *any == 0)).unwrap_or(1);
        (weight(best) > 0 && weight(best) >= plain).then_some(best)
    }

    fn encode(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(body, 3),
            Self::Brotli => {
                let mut out = Vec::with_capacity(body.len() / 4);
                let parameters = brotli::enc::BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: brotli_window(body.len()),
                    size_hint: body.len(),
                    ..Default::default()
                };
                brotli::BrotliCompress(&mut &body[..], &mut out, &parameters)?;
                Ok(out)
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// The exponent of the smallest window that a body fits into (RFC 7932, 9.1). The encoder allocates twice its window: 8 MiB for
/// the default one, however small the body.
fn brotli_window(body: usize) -> i32 {
    (10..22).find(|exponent| (1 << exponent) - 16 >= body).unwrap_or(22)
}

/// The weights of an `Accept-Encoding`, in thousandths.
#[derive(Debug, Default)]
struct Weights {
    codings: [Option<u16>; 3],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    fn read(&mut self, value: &str) {
        for item in value.split(',') {
            let mut parts = item.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let weight = parts.find_map(|part| weight(part.trim())).unwrap_or(1000);
            let slot = match name {
                "*" => &mut self.any,
                _ if name.eq_ignore_ascii_case("identity") => &mut self.identity,
                _ if name.eq_ignore_ascii_case("x-gzip") => &mut self.codings[Coding::Gzip as usize],
                _ => match Coding::ALL.into_iter().find(|coding| coding.name().eq_ignore_ascii_case(name)) {
                    Some(coding) => &mut self.codings[coding as usize],
                    None => continue,
                },
            };
            *slot = Some(weight);
        }
    }
}

/// Parses `q=0.5` to thousandths; `None` if malformed.
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let value: f32 = value.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    (0.0..=1.0).contains(&value).then_some((value * 1000.0) as u16)
}

/// An encoded body with an entity tag of its own: each coding is a representation of its own (RFC 9110, 8.8.3.3).
#[derive(Debug)]
pub struct EncodedBody {
    /// The encoded bytes.
    pub body: Bytes,
    /// The strong entity tag of this representation.
    pub etag: HeaderValue,
}

/// The encoded bodies of one entry, each made on demand. A coding that does not shrink the body enough is tried once.
#[derive(Debug, Default)]
pub struct EncodedBodies {
    tried: [OnceLock<Option<EncodedBody>>; 3],
    claimed: [AtomicBool; 3],
}

impl EncodedBodies {
    /// True if a body is large enough to be encoded.
    #[must_use]
    pub fn is_worth_encoding(body: &[u8]) -> bool {
        body.len() >= MIN_BODY
    }

    /// The body in a coding, if it is encoded already and small enough. Part of the hit path.
    #[must_use]
    pub fn get(&self, coding: Coding) -> Option<&EncodedBody> {
        self.tried[coding as usize].get()?.as_ref()
    }

    /// True if the coding has been tried, with or without success.
    #[must_use]
    pub fn is_tried(&self, coding: Coding) -> bool {
        self.tried[coding as usize].get().is_some()
    }

    /// Memory of all encoded bodies, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let bodies = self.tried.iter().filter_map(|tried| tried.get()?.as_ref());
        let bodies = bodies.map(|encoded| allocated(encoded.body.len()) + allocated(encoded.etag.len()));
        allocated(size_of::<Self>()) + bodies.sum::<usize>()
    }

    /// Claims the encoding: of many concurrent requests one gets `true` and has to encode.
    #[must_use]
    pub fn claim(&self, coding: Coding) -> bool {
        !self.is_tried(coding) && !self.claimed[coding as usize].swap(true, Ordering::Relaxed)
    }

    /// Encodes the body once; concurrent calls for the same coding block until it is done.
    pub fn encode(&self, coding: Coding, body: &[u8], etag: &HeaderValue) {
        self.tried[coding as usize].get_or_init(|| {
            let encoded = coding.encode(body).ok().filter(|encoded| encoded.len() <= body.len() / MIN_SHRINK_FACTOR)?;
            let plain = etag.to_str().ok()?.trim_end_matches('"');
            let etag = HeaderValue::try_from(format!("{plain}-{}\"", coding.name())).ok()?;
            // A boxed slice has no spare capacity.
            Some(EncodedBody { body: encoded.into_boxed_slice().into(), etag })
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn preferred(value: &'static str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
        Coding::preferred(&headers)
    }

    #[test]
    fn the_greatest_weight_decides_between_codings_and_identity() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Brotli)),
            ("gzip;q=1.0, br;q=0.5", Some(Coding::Gzip)),
            ("GZIP; q=0.8", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Coding::Brotli)),
            ("gzip;q=0.5, identity", None),
            ("identity", None),
            ("gzip;q=0", None),
            ("deflate", None),
            ("", None),
            ("*;q=0", None),
            ("gzip;q=2", Some(Coding::Gzip)),
        ] {
            assert_eq!(preferred(value), expected, "{value}");
        }
        assert_eq!(Coding::preferred(&HeaderMap::new()), None);
    }

    #[test]
    fn an_encoded_body_decodes_to_the_plain_one_with_its_own_etag() {
        let body = "{\"docs\":[]} ".repeat(500);
        let encoded_bodies = EncodedBodies::default();
        let mut tags = vec!["\"tag\"".to_owned()];
        for coding in Coding::ALL {
            assert!(encoded_bodies.get(coding).is_none());
            encoded_bodies.encode(coding, body.as_bytes(), &HeaderValue::from_static("\"tag\""));
            let encoded = encoded_bodies.get(coding).expect("the body shrinks");
            let mut plain = String::new();
            let read = &encoded.body[..];
            match coding {
                Coding::Zstd => zstd::Decoder::new(read).expect("zstd").read_to_string(&mut plain),
                Coding::Brotli => brotli::Decompressor::new(read, 4096).read_to_string(&mut plain),
                Coding::Gzip => flate2::read::GzDecoder::new(read).read_to_string(&mut plain),
            }
            .expect("it decodes");
            assert_eq!(plain, body);
            let tag = encoded.etag.to_str().expect("ASCII").to_owned();
            assert!(!tags.contains(&tag) && tag.starts_with("\"tag-") && tag.ends_with('"'), "{tag}");
            tags.push(tag);
        }
    }

    #[test]
    fn the_brotli_window_is_no_larger_than_the_body_needs() {
        for (body, exponent) in
            [(0, 10), (1008, 10), (1009, 11), (65_520, 16), (65_521, 17), (4 << 20, 22), (1 << 30, 22)]
        {
            assert_eq!(brotli_window(body), exponent, "{body} bytes");
        }
    }

    #[test]
    fn a_body_that_does_not_shrink_stays_plain() {
        let mut random = fastrand::Rng::with_seed(1);
        let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(5000).collect();
        let encoded_bodies = EncodedBodies::default();
        encoded_bodies.encode(Coding::Gzip, &body, &HeaderValue::from_static("\"tag\""));
        assert!(encoded_bodies.is_tried(Coding::Gzip) && encoded_bodies.get(Coding::Gzip).is_none());
    }
}
