//! `postern whoami`: explains what a credential may do under a configuration, and why.
//!
//! The credential is read from standard input, so that it appears neither in the shell's history nor in the process list.

use std::io::Read;
use std::path::PathBuf;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::output::{CommandError, print};
use super::refusal::{self, RefusedRequest, patterns};
use crate::caller::{Caller, Callers, Credential, ListenerIdentity, Unidentified};
use crate::clock::Clock;
use crate::config::{Access, Config, Environment, ListenAddress};
use crate::digest::{Hex, sha256};
use crate::error::ClientError;
use crate::request::headers::{LINKED_ACCOUNT_ID, RequestHeaders, X_API_KEY};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pass show my-app-key | postern whoami --config postern.toml --linked-account acme-1\n  echo \"$TOKEN\" | postern whoami --config postern.toml --bearer"
)]
pub(super) struct WhoamiArguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: PathBuf,
    /// Address of the listener that receives the request, as in the file; the first listener by default.
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// Linked account that the request names.
    #[arg(long, value_name = "ID")]
    linked_account: Option<String>,
    /// Send the credential as a token (`Authorization: Bearer`) instead of a key (`x-api-key`).
    #[arg(long)]
    bearer: bool,
}

pub(super) fn run(arguments: &WhoamiArguments) -> Result<(), CommandError> {
    let config = Config::load(&arguments.config, &Environment::from_process())?;
    // The header section of a request is bounded, and so is each credential in it.
    let longest = config.server.max_header_size.bytes();
    let mut credential = Zeroizing::new(String::new());
    std::io::stdin().take(longest + 1).read_to_string(&mut credential)?;
    let credential = credential.trim();
    if credential.len() as u64 > longest {
        return Err(format!("the credential is longer than max_header_size, {longest} bytes").into());
    }
    let is_chosen =
        |address: &ListenAddress| arguments.listener.as_ref().is_none_or(|chosen| *chosen == address.to_string());
    let listener =
        config.listeners.iter().find(|listener| is_chosen(&listener.address)).ok_or("no listener has this address")?;
    let identity = ListenerIdentity::of(listener);
    let headers = request_headers(arguments, credential)?;
    print(format_args!("listener        {}", listener.address))?;
    match identify(&config, &identity, &headers)? {
        Ok(caller) => explain_caller(&caller, credential)?,
        Err(error) => {
            print(format_args!("refused         {} {}", error.status().as_u16(), error.operator_code()))?;
            let why = error.cause().map_or_else(|| error.message().to_owned(), ToString::to_string);
            print(format_args!("why             {why}"))?;
            let request = RefusedRequest {
                config: &config,
                credential,
                is_bearer: arguments.bearer,
                linked_account: arguments.linked_account.as_deref(),
                now: Clock::system().wall(),
            };
            for (name, text) in refusal::details(request, &error) {
                print(format_args!("{name:<15} {text}"))?;
            }
            return Err("the gateway would refuse this request".into());
        }
    }
    Ok(())
}

/// Returns the headers of a request with the credential.
fn request_headers(arguments: &WhoamiArguments, credential: &str) -> Result<HeaderMap, CommandError> {
    let mut headers = HeaderMap::new();
    if !credential.is_empty() {
        let (name, value) = if arguments.bearer {
            (AUTHORIZATION, HeaderValue::try_from(format!("Bearer {credential}")))
        } else {
            (X_API_KEY, HeaderValue::try_from(credential))
        };
        headers.insert(name, value.map_err(|_| "the credential has characters that a header can't have")?);
    }
    if let Some(id) = &arguments.linked_account {
        headers.insert(LINKED_ACCOUNT_ID, HeaderValue::try_from(id)?);
    }
    Ok(headers)
}

/// Identifies the caller with the code that the gateway uses for requests.
fn identify(
    config: &Config,
    listener: &ListenerIdentity,
    headers: &HeaderMap,
) -> Result<Result<Caller, ClientError>, CommandError> {
    let clock = Clock::system();
    let callers = Callers::new(config, &clock, None)?;
    let fields = RequestHeaders::of(headers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let identified = match callers.identify(&fields, listener, clock.now()) {
            Err(Unidentified::UnknownKey(issuer)) => match callers.ask_issuer(issuer).await {
                Ok(()) => callers.identify(&fields, listener, clock.now()),
                Err(error) => Err(error.into()),
            },
            identified => identified,
        };
        identified.map_err(Unidentified::into_error)
    }))
}

/// Prints the properties and rights of a caller.
fn explain_caller(caller: &Caller, credential: &str) -> Result<(), CommandError> {
    let (kind, accounts) = match caller.credential() {
        Credential::Grant(grant) if credential.is_empty() => ("the listener itself", patterns(grant.linked_accounts())),
        Credential::Grant(grant) => ("a client key, found by its SHA-256", patterns(grant.linked_accounts())),
        Credential::Jwt(identity) => ("a verified JWT of a configured issuer", identity.linked_accounts().join(", ")),
        Credential::OrgKey(_) => ("the org key itself (mode `validate`)", "all".to_owned()),
        Credential::SessionToken(_) => {
            ("a session token, which only Refold can verify", "the one that Refold assigns to the token".to_owned())
        }
    };
    let access = match caller.access() {
        Access::Read => "read",
        Access::ReadWrite => "read, stop and rerun",
    };
    print(format_args!("credential      {kind}"))?;
    if matches!(caller.credential(), Credential::Grant(_)) && !credential.is_empty() {
        print(format_args!("sha256          {}", Hex(&sha256(credential.as_bytes()))))?;
    }
    print(format_args!("name            {}", caller.name()))?;
    print(format_args!("tenant          {}", caller.tenant().config.id))?;
    print(format_args!("linked accounts {accounts}"))?;
    print(format_args!(
        "this request    {}",
        caller.partition().linked_account_id().unwrap_or("the one of the token")
    ))?;
    print(format_args!("access          {access}"))?;
    let upstream = if caller.injects_org_key() { "the org key, added by the gateway" } else { "the same credential" };
    print(format_args!("sent to Refold  {upstream}"))
}
