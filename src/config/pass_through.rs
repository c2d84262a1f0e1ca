//! `[[pass_through]]`: what of the rest of the API may pass.

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method};

use super::diagnostic::Finding;
use super::file::PassThrough as Written;
use super::model::{PassThrough, PathPattern, PathSegment};
use crate::executions::COLLECTION;

/// What says who asks or how a message is framed is the gateway's to write.
const OWN: [&str; 4] = ["x-api-key", "linked_account_id", "linked-account-id", "te"];
const FRAMING: [HeaderName; 7] = [AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE];
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

pub(super) fn read(written: &Written) -> Result<PassThrough, Finding> {
    let path = written.path.get_ref();
    let refused = |message: String| Finding::at(written.path.span(), message);
    let Some(rest) = path.strip_prefix('/') else {
        return Err(refused("a path begins with `/`".to_owned()));
    };
    if path == COLLECTION {
        return Err(refused(format!("{COLLECTION} is answered by the gateway itself")));
    }
    let mut segments = Vec::new();
    for segment in rest.split('/') {
        let segment = match segment {
            _ if segments.last() == Some(&PathSegment::Rest) => {
                return Err(refused("`**` can stand at the end alone".to_owned()));
            }
            "*" => PathSegment::Any,
            "**" => PathSegment::Rest,
            "" | "." | ".." => return Err(refused(format!("`{segment}` is no segment of a path"))),
            text if text.contains(['*', '%', '?', '#', '\\']) => {
                return Err(refused(format!("`{text}`: a segment is given plainly, or `*`, or `**` at the end")));
            }
            text => PathSegment::Given(text.into()),
        };
        segments.push(segment);
    }
    if !matches!(segments.first(), Some(PathSegment::Given(_))) {
        return Err(refused("the first segment has to be given, or everything would pass".to_owned()));
    }
    let method = |name: &String| {
        METHODS.iter().find(|method| method.as_str() == name).cloned().ok_or_else(|| {
            let known: Vec<&str> = METHODS.iter().map(Method::as_str).collect();
            Finding::at(
                written.methods.span(),
                format!("`{name}` is no method that can pass; there are {}", known.join(", ")),
            )
        })
    };
    let header = |name: &String| {
        let parsed: Option<HeaderName> = name.parse().ok();
        parsed.filter(|name| !FRAMING.contains(name) && !OWN.contains(&name.as_str())).ok_or_else(|| {
            Finding::at(
                written.request_headers.span(),
                format!("`{name}` can't be passed on: it is the gateway's to write"),
            )
        })
    };
    if written.methods.get_ref().is_empty() {
        return Err(Finding::at(written.methods.span(), "no method may pass; name one"));
    }
    Ok(PassThrough {
        methods: written.methods.get_ref().iter().map(method).collect::<Result<_, _>>()?,
        path: PathPattern(segments),
        request_headers: written.request_headers.get_ref().iter().map(header).collect::<Result<_, _>>()?,
        max_body: usize::try_from(written.max_body.0).unwrap_or(usize::MAX),
    })
}
