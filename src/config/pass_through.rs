//! `[[pass_through]]`: requests of the rest of the API that are forwarded.

use std::fmt;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::operations::{self, OPERATIONS, Scope};
use super::schema_as::schema_as;
use super::text::{parse_string, string_setting};
use super::units::{ByteSize, PositiveDuration, PositiveSize};
use crate::executions::COLLECTION;

/// Credentials, which the gateway writes itself.
const CREDENTIALS: [&str; 5] = ["authorization", "cookie", "x-api-key", "linked_account_id", "linked-account-id"];
/// Headers that say where a message goes and how it is framed, which the gateway writes itself.
const FRAMING: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE];
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Requests of the rest of the API that are forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassThrough {
    /// GET, HEAD, POST, PUT, PATCH, DELETE; all but GET and HEAD need a credential with write access.
    #[serde(with = "Methods")]
    pub methods: Vec<Method>,
    /// The path: `*` is one segment, `**` all that follow.
    pub path: PathPattern,
    /// `account`: only operations that Refold confines to the caller's linked account. `org`: all, for client keys and
    /// certificates with `["*"]` and for the org key.
    #[serde(default)]
    pub scope: Scope,
    /// Request headers that go upstream beside Accept and Content-Type.
    #[serde(default, with = "HeaderNames")]
    pub request_headers: Vec<HeaderName>,
    /// Largest body, in either direction.
    #[serde(default = "max_body", with = "PositiveSize")]
    pub max_body: ByteSize,
    /// Time limit for the response head, after the last part of the request was sent.
    #[serde(default = "first_byte_timeout", with = "PositiveDuration")]
    pub first_byte_timeout: Duration,
    /// Longest pause in a streamed body: of the caller or Refold in sending, and of the caller in reading.
    #[serde(default = "idle_timeout", with = "PositiveDuration")]
    pub idle_timeout: Duration,
    /// Time limit for the whole exchange.
    #[serde(default = "total_timeout", with = "PositiveDuration")]
    pub total_timeout: Duration,
}

impl PassThrough {
    /// Returns true if a request with this method is forwarded. The segments of its path, which fits the pattern, are decoded.
    #[must_use]
    pub fn permits<'a>(&self, method: &Method, segments: &(impl Iterator<Item = &'a str> + Clone)) -> bool {
        self.methods.contains(method) && (self.scope == Scope::Org || operations::is_of_account(method, segments))
    }

    /// The operations that this entry names or covers and does not forward, as they need `scope = "org"`.
    #[must_use]
    pub fn operations_that_need_org(&self) -> Vec<String> {
        if self.scope == Scope::Org {
            return Vec::new();
        }
        let covered = |method: &Method| {
            let known = OPERATIONS.iter().filter(|(name, path, _)| *method == *name && self.path.covers(path));
            known.map(|(_, path, scope)| (*path, *scope)).collect::<Vec<_>>()
        };
        let mut need = Vec::new();
        for method in &self.methods {
            let get = if *method == Method::HEAD { &Method::GET } else { method };
            let known = covered(get);
            if known.is_empty() {
                need.push(format!("{method} {}", self.path));
            }
            let of_org = known.iter().filter(|(_, scope)| *scope == Scope::Org);
            need.extend(of_org.map(|(path, _)| format!("{method} {path}")));
        }
        need
    }
}

fn max_body() -> ByteSize {
    ByteSize::from_bytes(16 << 20)
}

fn first_byte_timeout() -> Duration {
    Duration::from_secs(30)
}

fn idle_timeout() -> Duration {
    Duration::from_secs(30)
}

fn total_timeout() -> Duration {
    Duration::from_hours(1)
}

/// A pattern of paths, segment by segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<PathSegment>);

/// One segment of a [`PathPattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum PathSegment {
    /// This text.
    Given(Box<str>),
    /// `*`: any one segment.
    Any,
    /// `**`: one or more segments, to the end.
    Rest,
}

impl PathPattern {
    /// Returns true if the pattern covers a path, which begins with `/`. Segments are compared byte by byte.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        for pattern in &self.0 {
            match (pattern, segments.next()) {
                (PathSegment::Rest, Some(_)) => return true,
                (PathSegment::Any, Some(_)) => {}
                (PathSegment::Given(given), Some(segment)) if **given == *segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }

    /// Returns true if the pattern covers a path of this template, whose parameters are in braces.
    fn covers(&self, template: &str) -> bool {
        let mut parts = template.split('/').skip(1);
        for pattern in &self.0 {
            match (pattern, parts.next()) {
                (PathSegment::Rest, Some(_)) => return true,
                (PathSegment::Any, Some(_)) => {}
                (PathSegment::Given(given), Some(part)) if part.starts_with('{') || **given == *part => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    fn parse(path: &str) -> Result<Self, String> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err("a path begins with `/`".to_owned());
        };
        if path == COLLECTION {
            return Err(format!("{COLLECTION} is answered by the gateway itself"));
        }
        let mut segments = Vec::new();
        for segment in rest.split('/') {
            let segment = match segment {
                _ if segments.last() == Some(&PathSegment::Rest) => {
                    return Err("`**` is only allowed at the end".to_owned());
                }
                "*" => PathSegment::Any,
                "**" => PathSegment::Rest,
                "" | "." | ".." => return Err(format!("`{segment}` is no segment of a path")),
                text if text.contains(['*', '%', '?', '#', '\\']) => {
                    return Err(format!("`{text}`: a segment is plain text, or `*`, or `**` at the end"));
                }
                text => PathSegment::Given(text.into()),
            };
            segments.push(segment);
        }
        if !matches!(segments.first(), Some(PathSegment::Given(_))) {
            return Err("the first segment has to be plain text, or every path would be forwarded".to_owned());
        }
        Ok(Self(segments))
    }
}

/// Writes the pattern as it is written in the file.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            PathSegment::Given(given) => write!(f, "/{given}"),
            PathSegment::Any => f.write_str("/*"),
            PathSegment::Rest => f.write_str("/**"),
        })
    }
}

string_setting!(PathPattern, "^/");

/// A list of methods that is not empty.
struct Methods;

impl Methods {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Method>, D::Error> {
        let methods: Vec<Forwarded<Method>> = Vec::deserialize(deserializer)?;
        if methods.is_empty() {
            return Err(de::Error::custom("an empty list allows no method; name one"));
        }
        Ok(methods.into_iter().map(|method| method.0).collect())
    }

    fn serialize<S: Serializer>(methods: &[Method], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(methods.iter().map(Method::as_str))
    }
}

/// A list of request headers that the gateway does not write itself.
struct HeaderNames;

impl HeaderNames {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderName>, D::Error> {
        let headers: Vec<Forwarded<HeaderName>> = Vec::deserialize(deserializer)?;
        Ok(headers.into_iter().map(|header| header.0).collect())
    }

    fn serialize<S: Serializer>(headers: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(headers.iter().map(HeaderName::as_str))
    }
}

/// A method or header that can be forwarded.
struct Forwarded<T>(T);

impl<'de> Deserialize<'de> for Forwarded<Method> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer, |name| {
            METHODS.iter().find(|method| method.as_str() == name).cloned().map(Self).ok_or_else(|| {
                let known = METHODS.each_ref().map(Method::as_str).join(", ");
                format!("`{name}` is no method that can be forwarded (accepted: {known})")
            })
        })
    }
}

impl<'de> Deserialize<'de> for Forwarded<HeaderName> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer, |name| {
            let header: HeaderName = name.parse().map_err(|_| format!("`{name}` can't be the name of a header"))?;
            if FRAMING.contains(&header) || CREDENTIALS.contains(&header.as_str()) {
                return Err(format!("`{name}` can't be forwarded: the gateway writes this header itself"));
            }
            Ok(Self(header))
        })
    }
}

schema_as!(Methods, { "type": "array", "items": { "type": "string" } });
schema_as!(HeaderNames, { "type": "array", "items": { "type": "string" } });
