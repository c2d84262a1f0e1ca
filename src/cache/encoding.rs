//! Content codings of an entry (RFC 9110, 8.4 and 12.5.3): chosen by `Accept-Encoding`, made once per entry and never on
//! the hit path.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, HeaderMap};

/// Smaller bodies are left alone: they fit into a packet or two anyway; in bytes.
const SMALLEST: usize = 1024;
/// A coded body is kept if it is at most this part of the plain one, so that three of them are counted for by one more.
const WORTH_IT: usize = 3;

/// A content coding; in the order in which they are preferred where a client takes several alike.
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

    /// Its registered name, as it stands in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The one that a client likes best, if it likes one at least as much as the plain body.
    #[must_use]
    pub fn preferred(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(ACCEPT_ENCODING).iter();
        let first = values.next()?;
        let mut weights = Weights::default();
        for value in std::iter::once(first).chain(values) {
            weights.read(value.to_str().ok()?);
        }
        let weight = |coding: Self| weights.codings[coding as usize].or(weights.any).unwrap_or(0);
        // The first of those with the greatest weight.
        let best = Self::ALL.into_iter().rev().max_by_key(|coding| weight(*coding))?;
        let plain = weights.identity.or(weights.any.filter(|any| *any == 0)).unwrap_or(1);
        (weight(best) > 0 && weight(best) >= plain).then_some(best)
    }

    fn encode(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(body, 3),
            Self::Brotli => {
                let mut out = Vec::with_capacity(body.len() / 4);
                let parameters = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
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

/// Weights in thousandths.
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

/// `q=0.5` in thousandths; what is no weight counts as none.
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let value: f32 = value.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    (0.0..=1.0).contains(&value).then_some((value * 1000.0) as u16)
}

/// A body in a coding, with an entity tag of its own: another coding is another representation (RFC 9110, 8.8.3.3).
#[derive(Debug)]
pub struct Coded {
    /// The coded body.
    pub body: Bytes,
    /// Its strong entity tag.
    pub etag: HeaderValue,
}

/// The coded bodies of one entry.
#[derive(Debug, Default)]
pub struct Codings {
    made: [OnceLock<Option<Coded>>; 3],
    claimed: [AtomicBool; 3],
}

impl Codings {
    /// Whether a body is worth coding at all.
    #[must_use]
    pub fn worth_it(body: &[u8]) -> bool {
        body.len() >= SMALLEST
    }

    /// The body in a coding, if it was made and is of use. The hit path.
    #[must_use]
    pub fn get(&self, coding: Coding) -> Option<&Coded> {
        self.made[coding as usize].get()?.as_ref()
    }

    /// Whether it has been tried.
    #[must_use]
    pub fn is_made(&self, coding: Coding) -> bool {
        self.made[coding as usize].get().is_some()
    }

    /// Whether it is for whoever asks this to have it made: of many who come while it is being made, one.
    #[must_use]
    pub fn claim(&self, coding: Coding) -> bool {
        !self.is_made(coding) && !self.claimed[coding as usize].swap(true, Ordering::Relaxed)
    }

    /// Makes it, once; whoever comes at the same time waits.
    pub fn make(&self, coding: Coding, body: &[u8], etag: &HeaderValue) {
        self.made[coding as usize].get_or_init(|| {
            let coded = coding.encode(body).ok().filter(|coded| coded.len() <= body.len() / WORTH_IT)?;
            let plain = etag.to_str().ok()?.trim_end_matches('"');
            let etag = HeaderValue::try_from(format!("{plain}-{}\"", coding.name())).ok()?;
            // Without room for more: it is kept.
            Some(Coded { body: coded.into_boxed_slice().into(), etag })
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
    fn the_heaviest_coding_is_chosen_and_the_plain_body_where_it_is_liked_better() {
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
    fn a_coded_body_expands_to_the_plain_one_and_has_a_tag_of_its_own() {
        let body = "{\"docs\":[]} ".repeat(500);
        let codings = Codings::default();
        let mut tags = vec!["\"tag\"".to_owned()];
        for coding in Coding::ALL {
            assert!(codings.get(coding).is_none());
            codings.make(coding, body.as_bytes(), &HeaderValue::from_static("\"tag\""));
            let coded = codings.get(coding).expect("it is of use");
            let mut plain = String::new();
            let read = &coded.body[..];
            match coding {
                Coding::Zstd => zstd::Decoder::new(read).expect("zstd").read_to_string(&mut plain),
                Coding::Brotli => brotli::Decompressor::new(read, 4096).read_to_string(&mut plain),
                Coding::Gzip => flate2::read::GzDecoder::new(read).read_to_string(&mut plain),
            }
            .expect("it expands");
            assert_eq!(plain, body);
            let tag = coded.etag.to_str().expect("ASCII").to_owned();
            assert!(!tags.contains(&tag) && tag.starts_with("\"tag-") && tag.ends_with('"'), "{tag}");
            tags.push(tag);
        }
    }

    #[test]
    fn what_does_not_shrink_is_given_plainly() {
        let body: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(5000).collect();
        let codings = Codings::default();
        codings.make(Coding::Gzip, &body, &HeaderValue::from_static("\"tag\""));
        assert!(codings.is_made(Coding::Gzip) && codings.get(Coding::Gzip).is_none());
    }
}
