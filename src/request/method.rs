//! The names of request methods, for logs, spans and metrics.

use http::Method;

/// The name of every method that is not a common one, as in OpenTelemetry's semantic conventions for HTTP.
pub const OTHER_METHOD: &str = "_OTHER";

/// Returns the name of a method from a bounded set: those of RFC 9110 and RFC 5789, and [`OTHER_METHOD`]. A method may be any
/// token of any length, which a peer chooses. Part of the hit path.
#[must_use]
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => OTHER_METHOD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_common_methods_are_named() {
        for name in ["GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE"] {
            assert_eq!(method_name(&Method::from_bytes(name.as_bytes()).expect("a token")), name);
        }
        for name in ["get", "PURGE", "_OTHER", "GETS", &"A".repeat(3000)] {
            assert_eq!(method_name(&Method::from_bytes(name.as_bytes()).expect("a token")), "_OTHER", "{name}");
        }
    }
}
