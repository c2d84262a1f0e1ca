//! The callers of the configuration, without a socket.

use std::net::Ipv4Addr;

use http::HeaderMap;
use postern::caller::{Caller, Callers, ListenerIdentity};
use postern::clock::Clock;
use postern::config::Config;
use postern::request::headers::RequestHeaders;
use postern::request::peer::Peer;

/// The callers of the configuration, at a time that stands still.
pub struct Identification {
    /// The configuration.
    pub config: Config,
    callers: Callers,
    clock: Clock,
}

impl Identification {
    /// Reads the configuration.
    #[must_use]
    pub fn new() -> Self {
        let config = crate::configuration("http://127.0.0.1:9");
        let clock = Clock::manual(crate::NOW.parse().expect("a timestamp"));
        let callers = Callers::new(&config, &clock, None).expect("the configuration has no TLS settings");
        Self { config, callers, clock }
    }

    /// Identifies the caller of a request; `None` if it is refused. With `session_tokens` the listener accepts them.
    #[must_use]
    pub fn identify(&self, headers: &HeaderMap, session_tokens: bool) -> Option<Caller> {
        let peer = Peer::at(Ipv4Addr::LOCALHOST.into());
        let identity = ListenerIdentity { peer, ..ListenerIdentity::for_session_tokens(session_tokens.then_some(0)) };
        match self.callers.identify(&RequestHeaders::of(headers), &identity, self.clock.now()) {
            Ok(caller) => Some(caller),
            Err(refusal) => {
                let error = refusal.into_error();
                assert!(error.status().is_client_error(), "{error:?}");
                let body = error.body("id");
                assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|body| body.is_object()));
                None
            }
        }
    }
}

impl Default for Identification {
    fn default() -> Self {
        Self::new()
    }
}
