//! The gateway as a process whose log a test reads.

use std::net::SocketAddr;

use serde_json::Value;

use super::connection::{get, once_as, raw};
use super::{Configuration, EXECUTIONS, Process, ScriptedRefold};

/// A program in front of an upstream that answers every request with a page.
pub(crate) struct Program(pub(crate) Process);

impl Program {
    pub(crate) async fn start(change: impl FnOnce(Configuration) -> Configuration, directives: Option<&str>) -> Self {
        Self::start_before(ScriptedRefold::start().await.address(), change, directives).await
    }

    pub(crate) async fn start_before(
        upstream: SocketAddr,
        change: impl FnOnce(Configuration) -> Configuration,
        directives: Option<&str>,
    ) -> Self {
        let environment: Vec<_> = directives.map(|directives| ("POSTERN_LOG", directives)).into_iter().collect();
        Self(Process::serve_configuration(&change(Configuration::new().upstream(upstream)), &environment).await)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Sends a `GET` with these header lines on a connection of its own.
    pub(crate) async fn ask(&self, target: &str, lines: &str) -> String {
        raw(self.address(), get(target, &format!("Connection: close\r\n{lines}")).as_bytes()).await
    }

    pub(crate) async fn list(&self, account: &str, query: &str) -> String {
        raw(self.address(), get(&format!("{EXECUTIONS}{query}"), &once_as(account)).as_bytes()).await
    }

    /// The address of the admin listener.
    pub(crate) async fn admin_address(&mut self) -> SocketAddr {
        self.0.admin_address().await
    }

    /// Ends the program and returns its access log. Lines of two workers may come in any order.
    pub(crate) async fn end(self) -> Vec<Value> {
        self.events().await.into_iter().filter(|line| line["message"] == "request").collect()
    }

    /// Ends the program and returns all lines of its log.
    pub(crate) async fn events(self) -> Vec<Value> {
        let ended = self.0.terminate().await;
        assert!(ended.status.success());
        let lines = ended.log.iter();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}
