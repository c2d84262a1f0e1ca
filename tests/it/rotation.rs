//! Every kind of secret changes under continuous load, one after the other, and no request fails.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use jsonwebtoken::Algorithm;
use tokio::task::JoinHandle;

use crate::support::tls::{TlsClient, folder_with, install};
use crate::support::tokens::{KeyServer, es256_token_of, public};
use crate::support::{ClientKey, NEXT_ORG_KEY, ORG_KEY, ScriptedRefold, World, until};

/// The credentials that the load presents at the moment.
#[derive(Clone)]
struct Credentials {
    client_key: &'static str,
    bearer: String,
}

/// Four callers that send requests without a pause: two with a client key, two with a JWT.
struct Load {
    credentials: Mutex<Credentials>,
    over: AtomicBool,
    answered: AtomicUsize,
    /// The number of callers that have seen both server certificates.
    renewed: AtomicUsize,
}

impl Load {
    fn start(gateway: SocketAddr) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let credentials = Credentials { client_key: "pst_old", bearer: es256_token_of("acme-1", "one") };
        let load = Arc::new(Self {
            credentials: Mutex::new(credentials),
            over: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            renewed: AtomicUsize::new(0),
        });
        let callers = (0..4).map(|number| {
            let load = Arc::clone(&load);
            tokio::spawn(async move { load.call(gateway, number % 2 == 0).await })
        });
        (Arc::clone(&load), callers.collect())
    }

    async fn call(&self, gateway: SocketAddr, with_key: bool) {
        let mut certificates = HashSet::new();
        while !self.over.load(Ordering::SeqCst) {
            let Credentials { client_key, bearer } = self.credentials.lock().expect("no panic").clone();
            let headers: &[(&str, &str)] = if with_key {
                &[("x-api-key", client_key), ("linked_account_id", "acme-1")]
            } else {
                &[("authorization", &bearer)]
            };
            // A client that resumes its session is not shown the new certificate.
            let (status, certificate) = TlsClient::new(gateway, None).ask(headers).await.expect("an answer");
            assert_eq!(status, StatusCode::OK);
            if certificates.insert(certificate) && certificates.len() == 2 {
                self.renewed.fetch_add(1, Ordering::SeqCst);
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
        assert_eq!(certificates.len(), 2, "both certificates were seen");
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

/// Lets the load send some requests while time passes, so that not all of them are hits.
async fn some(load: &Load, callers: &[JoinHandle<()>], world: &World<ScriptedRefold>) {
    for _ in 0..40 {
        let before = load.answered();
        until(|| load.answered() > before || callers.iter().any(JoinHandle::is_finished)).await;
        assert!(!callers.iter().any(JoinHandle::is_finished), "a request has failed");
        world.clock.advance(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn secrets_change_under_load_without_a_failed_request() {
    let refold = ScriptedRefold::start().await;
    refold.accept_only(ORG_KEY);
    let folder = folder_with("server-1");
    let issuer = KeyServer::start(&[public(Algorithm::ES256, "one")]).await;
    let keys = [ClientKey::new("old", "pst_old").expires("2026-03-20T12:01:00Z"), ClientKey::new("new", "pst_new")];
    // With a long `max_wait` no fetch under way gives up when the clock jumps.
    let builder = World::builder().refold(refold).config(|config| config.max_wait("1h").issuer(issuer.issuer()));
    let builder = builder.client_keys(keys).listener(|listener| listener.tls(&folder));
    let world = builder.tenant(|tenant| tenant.org_key_next("NEXT_ORG_KEY")).start().await;
    let (load, callers) = Load::start(world.gateway.address);

    let some = async || some(&load, &callers, &world).await;
    some().await;
    load.credentials.lock().expect("no panic").client_key = "pst_new";
    some().await;
    world.clock.advance(Duration::from_mins(2));
    some().await;
    world.refold.accept_only(NEXT_ORG_KEY);
    some().await;
    issuer.publish(&[public(Algorithm::ES256, "one"), public(Algorithm::ES256, "two")]);
    load.credentials.lock().expect("no panic").bearer = es256_token_of("acme-1", "two");
    some().await;
    issuer.publish(&[public(Algorithm::ES256, "two")]);
    world.clock.advance(Duration::from_mins(6));
    some().await;
    install(&folder, "server-2");
    until(|| load.renewed.load(Ordering::SeqCst) == callers.len() || callers.iter().any(JoinHandle::is_finished)).await;
    some().await;
    load.over.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no request has failed");
    }
}
