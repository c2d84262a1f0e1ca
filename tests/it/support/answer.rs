//! A response, read whole, and one that is still to come.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;

/// A response whose body has been read whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// A header's value; empty if the response does not have it.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible ASCII"))
    }

    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status().starts_with("postern; hit")
    }

    pub(crate) fn error_code(&self) -> String {
        self.json()["error_code"].as_str().expect("an error body").to_owned()
    }

    /// The message of an error.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().expect("an error body").to_owned()
    }

    /// The status and the error code of an error.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.error_code())
    }

    /// The first execution of a page.
    pub(crate) fn first_document(&self) -> Value {
        self.json()["docs"][0].clone()
    }

    /// The id of the first execution of a page.
    pub(crate) fn first_id(&self) -> String {
        self.first_document()["_id"].as_str().expect("an id").to_owned()
    }

    /// The number of executions that a page counts in all.
    pub(crate) fn total(&self) -> u64 {
        self.json()["totalDocs"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// A request under way in a task of its own.
pub(crate) struct PendingAnswer(JoinHandle<Answer>);

impl PendingAnswer {
    pub(crate) fn new(task: JoinHandle<Answer>) -> Self {
        Self(task)
    }

    pub(crate) async fn answer(self) -> Answer {
        self.0.await.expect("the request is not aborted")
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Closes the caller's connection.
    pub(crate) fn abort(&self) {
        self.0.abort();
    }
}
