//! An HTTP client of one server.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::connection::raw;
use super::until::within;
use super::{Answer, EXECUTIONS, PendingAnswer, as_account, leaks};

/// An error that ends a request or a connection.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A client with a pool of connections to one address. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, http: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http() }
    }

    /// The same client of another address.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self { address, http: self.http.clone() }
    }

    pub(crate) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, target, headers).await
    }

    /// A page of executions, as a caller of a linked account.
    pub(crate) async fn list(&self, linked_account: &str, query: &str) -> Answer {
        self.get(&list_target(query), &as_account(linked_account)).await
    }

    /// [`Client::get`] in a task of its own.
    pub(crate) fn spawn_get(&self, target: &str, headers: &[(&str, &str)]) -> PendingAnswer {
        let (client, request) = (self.clone(), self.request(Method::GET, target, headers, ""));
        PendingAnswer::new(tokio::spawn(async move { client.exchange(request).await.expect("an answer") }))
    }

    /// [`Client::list`] in a task of its own.
    pub(crate) fn spawn_list(&self, linked_account: &str, query: &str) -> PendingAnswer {
        self.spawn_get(&list_target(query), &as_account(linked_account))
    }

    pub(crate) async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_send(method, target, headers).await.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    pub(crate) async fn post(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = self.request(Method::POST, target, headers, body);
        self.exchange(request).await.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        self.exchange(self.request(method, target, headers, "")).await
    }

    /// Sends bytes as they are on a new connection, and reads until it ends.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        raw(self.address, bytes.as_ref()).await
    }

    fn request(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
        let request = Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Full::from(body.to_owned())).expect("a request")
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let target = request.uri().clone();
        within(async {
            let (head, body) = self.http.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            leaks::check(format_args!("the response to {target}"), &format!("{:?}", head.headers));
            leaks::check(format_args!("the response to {target}"), &String::from_utf8_lossy(&body));
            Ok(Answer { status: head.status, headers: head.headers, body })
        })
        .await
    }
}

fn list_target(query: &str) -> String {
    if query.is_empty() { EXECUTIONS.to_owned() } else { format!("{EXECUTIONS}?{query}") }
}
