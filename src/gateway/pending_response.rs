//! Requests that wait, for the keys of an issuer or for Refold. Whatever becomes of them is told, also if there is nobody left
//! to be answered.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::upstream_op::UpstreamOp;
use super::{ConnectionContext, Exchange, Gateway, Settled, Unresolved};
use crate::error::{ClientError, Reason};
use crate::observe::AccessError;
use crate::respond::Body;

/// What is told of a request whose caller has left before it was answered, as other gateways name it.
const CLIENT_CLOSED_REQUEST: (u16, &str) = (499, "CLIENT_CLOSED_REQUEST");

/// What a request waits for.
#[expect(clippy::large_enum_variant, reason = "moved once, into the future that waits; most are the large one")]
pub(super) enum Wait {
    /// An issuer's keys, without which it can't be decided on.
    ForIssuer(usize),
    ForUpstream(UpstreamOp),
}

/// A request that has no answer yet.
pub(super) struct Unanswered {
    gateway: Arc<Gateway>,
    exchange: Exchange,
    waits: bool,
}

impl Unanswered {
    pub(super) fn new(gateway: Arc<Gateway>, exchange: Exchange) -> Self {
        Self { gateway, exchange, waits: true }
    }

    /// The answer, or that it was given up since the process ends: better than a connection that breaks.
    pub(super) async fn answer(mut self, scope: ConnectionContext, wait: Wait, body: Incoming) -> Response<Body> {
        let mut over = scope.over.clone();
        let outcome = tokio::select! {
            biased;
            outcome = self.gateway.wait(&scope, wait, &mut self.exchange, body) => outcome,
            Ok(_) = over.wait_for(|over| *over) => Err(shutting_down()),
        };
        self.waits = false;
        match outcome {
            Ok(response) => {
                self.gateway.ended(&mut self.exchange, response.status(), None);
                response
            }
            Err(error) => self.gateway.refuse(&mut self.exchange, &error),
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.waits {
            let (status, code) = CLIENT_CLOSED_REQUEST;
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            self.gateway.ended(&mut self.exchange, status, Some(AccessError { code, label: code, cause: None }));
        }
    }
}

impl Gateway {
    async fn wait(
        self: &Arc<Self>,
        scope: &ConnectionContext,
        wait: Wait,
        exchange: &mut Exchange,
        body: Incoming,
    ) -> Result<Response<Body>, ClientError> {
        let pending = match wait {
            Wait::ForUpstream(pending) => pending,
            Wait::ForIssuer(issuer) => {
                self.callers.ask_issuer(issuer).await;
                let now = self.clock.now();
                let decision = self.decide(scope, exchange, now).map_err(|undecided| match undecided {
                    Unresolved::UnknownKey(_) => ClientError::invalid_credentials(),
                    Unresolved::Refused(error) => error,
                })?;
                match self.settle(scope, exchange, decision, now) {
                    Settled::Now(response) => return Ok(response),
                    Settled::Later(pending) => pending,
                }
            }
        };
        self.go_upstream(&scope.client, pending, exchange, body).await
    }
}

fn shutting_down() -> ClientError {
    ClientError::new(Reason::ShuttingDown, "this gateway is shutting down; try again")
        .retry_after(Duration::from_secs(1))
}
