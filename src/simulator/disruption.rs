//! Ends of connections that a client does not see coming: what a server, or a device on the way to it, may do to connections
//! that it keeps open.

use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};

use super::fault::{ConnectionReset, SimulatedBody, plain};
use super::lock::lock;

/// The end of all connections that are open when it is requested. Connections that are opened later are fine.
///
/// Its text form, which `POST /simulate/…` takes, is `connections=black-hole`, `connections=reset` or `connections=timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// They stay open and nothing comes back on them, as after a fail-over that drops packets.
    BlackHole,
    /// Each is closed when the next request comes in on it, without a response.
    Reset,
    /// Each answers the next request with 408 and is closed, as if the request had crossed an idle time-out.
    Timeout,
}

impl FromStr for Disruption {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "connections=black-hole" => Ok(Self::BlackHole),
            "connections=reset" => Ok(Self::Reset),
            "connections=timeout" => Ok(Self::Timeout),
            _ => Err(()),
        }
    }
}

/// The connections of a simulator, numbered from 1 in the order in which they were opened, and their disruptions.
#[derive(Debug, Default)]
pub(super) struct Connections {
    opened: AtomicU64,
    /// Each with the number of the last connection that was open then, in the order of time.
    disruptions: Mutex<Vec<(u64, Disruption)>>,
}

impl Connections {
    /// Returns the number of a new connection.
    pub(super) fn open(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Disrupts all connections that are open now.
    pub(super) fn disrupt(&self, disruption: Disruption) {
        lock(&self.disruptions).push((self.opened.load(Ordering::Relaxed), disruption));
    }

    /// Returns the first disruption of a connection.
    fn disruption(&self, number: u64) -> Option<Disruption> {
        let disruptions = lock(&self.disruptions);
        disruptions.iter().find(|(last, _)| number <= *last).map(|(_, disruption)| *disruption)
    }

    /// Returns at once if the connection is not disrupted; otherwise gives the end of its present request, if it has one.
    ///
    /// # Errors
    /// With a response to send instead of the regular one, or with the end of the connection.
    pub(super) async fn pass(&self, number: u64) -> Result<(), Result<Response<SimulatedBody>, ConnectionReset>> {
        match self.disruption(number) {
            None => Ok(()),
            Some(Disruption::BlackHole) => std::future::pending().await,
            Some(Disruption::Reset) => Err(Err(ConnectionReset)),
            Some(Disruption::Timeout) => {
                let mut response = plain(StatusCode::REQUEST_TIMEOUT.as_u16(), "");
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                Err(Ok(response))
            }
        }
    }
}
