//! What a caller is told whose request is still in flight when the drain time is over: better than a connection that breaks.

use std::time::Duration;

use http::Response;
use tokio::sync::watch;

use crate::body::Body;
use crate::error::{ClientError, Reason};
use crate::respond::{self, CacheResult, Facts, RequestId};

/// The answer, or that it was given up when `over` turns true before it is there.
pub(super) async fn or_given_up(
    answer: impl Future<Output = Response<Body>>,
    mut over: watch::Receiver<bool>,
    head: bool,
) -> Response<Body> {
    tokio::select! {
        biased;
        response = answer => response,
        // If the sender is gone so is the worker, and nothing is polled any more.
        _ = over.wait_for(|over| *over) => shutting_down(head),
    }
}

fn shutting_down(head: bool) -> Response<Body> {
    let mut facts = Facts {
        request_id: RequestId::new(),
        head,
        budget: None,
        cache: CacheResult::NotAsked,
        coding: None,
        is_conditional: false,
        cors: None,
    };
    let error = ClientError::new(Reason::ShuttingDown, "this gateway is shutting down; try again")
        .retry_after(Duration::from_secs(1));
    respond::error(&mut facts, &error)
}
