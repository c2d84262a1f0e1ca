//! The HTTP/1.1 server of the simulated Refold: accepts connections, applies faults and dispatches requests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::api::{Api, LINKED_ACCOUNTS_PATH, WEBHOOKS_PATH, below_executions};
use super::disruption::Disruption;
use super::fault::{ConnectionReset, Fault, SimulatedBody, plain};
use super::habit::Habit;
use super::state::SimulatorState;

/// Prefix of the control routes: `POST /simulate/status=503` makes the following requests fail, `/simulate/none` ends that.
/// They are for demonstrations behind a gateway, which does not forward `x-simulate`. `GET /simulate/arrivals` lists the latest
/// requests.
const CONTROL_PREFIX: &str = "/simulate/";

/// The behaviours that the control routes take.
const USAGE: &str = "use none, latency=250ms, status=503, variant=404, html=502, empty=500, garbage, truncate, hang, reset, redirect, bom, encoded-304, action=204, retry-date=30s, contrary=all or one of its ways, bad-ids=500, unknown-tokens=500,429, connections=black-hole, connections=reset or connections=timeout\n";

/// The answer to a control route with a query.
const NO_QUERY: &str = "a behaviour has no query: it is for the requests of all linked accounts\n";

/// Accepts connections and serves each in a task of its own.
pub(super) async fn accept(state: &Arc<SimulatorState>, listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let state = Arc::clone(state);
        let number = state.connections.open();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let state = Arc::clone(&state);
                async move { respond_on(number, &state, request).await }
            });
            // An error means that the client closed the connection, or that a fault did; neither concerns other connections.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Responds on the connection `number`, unless it is disrupted before the response is sent.
async fn respond_on(
    number: u64,
    state: &SimulatorState,
    request: Request<Incoming>,
) -> Result<Response<SimulatedBody>, ConnectionReset> {
    // A request on a disrupted connection never reaches Refold, and so does not count.
    if let Err(end) = state.connections.pass(number).await {
        return end;
    }
    if let Some(behaviour) = request.uri().path().strip_prefix(CONTROL_PREFIX) {
        return Ok(match behaviour {
            _ if request.uri().query().is_some() => plain(400, NO_QUERY),
            "arrivals" => SimulatedBody::whole(Response::new(state.arrivals.to_text(state.clock.now()).into())),
            behaviour => switch(state, behaviour),
        });
    }
    let response = respond(state, request).await;
    match state.connections.pass(number).await {
        Ok(()) => response,
        Err(end) => end,
    }
}

async fn respond(
    state: &SimulatorState,
    request: Request<Incoming>,
) -> Result<Response<SimulatedBody>, ConnectionReset> {
    let path = request.uri().path();
    if path == WEBHOOKS_PATH && request.method() == Method::POST {
        return Ok(register_webhook(state, request).await);
    }
    if below_executions(path).is_some() {
        state.requests.fetch_add(1, Ordering::SeqCst);
    }
    let fault = requested_fault(request.headers()).or_else(|| state.fault());
    let mut api = Api::new(state);
    let variation = match fault {
        Some(Fault::Variation(variation)) => Some(variation),
        Some(Fault::Contrary(contrary)) => {
            api = api.contrary(contrary);
            None
        }
        Some(Fault::Latency(latency)) => {
            state.clock.sleep_until(state.clock.now() + latency).await;
            None
        }
        Some(fault) => return fault.respond(state.request_id()).await,
        None => None,
    };
    let response = if path == LINKED_ACCOUNTS_PATH && request.method() == Method::GET {
        api.linked_accounts(request.headers())
    } else {
        api.respond(&request)
    };
    Ok(SimulatedBody::whole(match variation {
        Some(variation) => variation.apply(request.method(), response, state.clock.wall()),
        None => response,
    }))
}

/// Reads the fault of a single request from its `x-simulate` header.
fn requested_fault(headers: &HeaderMap) -> Option<Fault> {
    headers.get("x-simulate")?.to_str().ok()?.parse().ok()
}

fn switch(state: &SimulatorState, behaviour: &str) -> Response<SimulatedBody> {
    if behaviour == "none" {
        state.behave();
    } else if let Ok(disruption) = behaviour.parse::<Disruption>() {
        state.connections.disrupt(disruption);
    } else if let Ok(habit) = behaviour.parse::<Habit>() {
        state.set_habit(habit);
    } else if let Ok(fault) = behaviour.parse::<Fault>() {
        state.set_fault(Some(fault));
    } else {
        return plain(400, USAGE);
    }
    plain(200, "done\n")
}

async fn register_webhook(state: &SimulatorState, request: Request<Incoming>) -> Response<SimulatedBody> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    SimulatedBody::whole(Api::new(state).register_webhook(&head.headers, &body))
}
