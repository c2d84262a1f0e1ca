//! `postern whoami`: what a credential may do under a configuration, and why. The credential comes in by standard input, so
//! that it stands in no shell history and no process list.

use std::io::Read;
use std::path::PathBuf;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::{Failure, print};
use crate::caller::{Caller, Callers, Credential, ListenerIdentity, Unidentified};
use crate::clock::Clock;
use crate::config::{Access, AccountPattern, Config, Environment, ListenAddress};
use crate::digest::{Hex, sha256};
use crate::error::ClientError;
use crate::request::headers::{Fields, LINKED_ACCOUNT_ID, X_API_KEY};

/// Longest credential that is read, in bytes.
const LONGEST: u64 = 16 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: PathBuf,
    /// Where it would come in, as the file has it; the first listener if left out.
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// The linked account that the request would name.
    #[arg(long, value_name = "ID")]
    linked_account: Option<String>,
    /// The credential is a token for `Authorization: Bearer`, not a key for `x-api-key`.
    #[arg(long)]
    bearer: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config, &Environment::from_process())?;
    let mut credential = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut credential)?;
    let credential = credential.trim();
    let named = |address: &ListenAddress| arguments.listener.as_ref().is_none_or(|name| *name == address.to_string());
    let listener =
        config.listeners.iter().find(|listener| named(&listener.address)).ok_or("no listener has this address")?;
    let entrance = ListenerIdentity::of(listener);
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
    print(format_args!("listener        {}", listener.address));
    match identify(&config, &entrance, &headers)? {
        Ok(caller) => explain(&caller, credential),
        Err(refused) => {
            print(format_args!("refused         {} {}", refused.status().as_u16(), refused.error_code()));
            print(format_args!("why             {}", why(&config, &entrance, arguments, credential, &refused)));
        }
    }
    Ok(())
}

/// Asks the same code that a request is met by.
fn identify(
    config: &Config,
    entrance: &ListenerIdentity,
    headers: &HeaderMap,
) -> Result<Result<Caller, ClientError>, Failure> {
    let clock = Clock::system();
    let callers = Callers::new(config, &clock)?;
    let fields = Fields::of(headers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let identified = match callers.identify(&fields, entrance, clock.now()) {
            Err(Unidentified::UnknownKey(issuer)) => {
                callers.ask_issuer(issuer).await;
                callers.identify(&fields, entrance, clock.now())
            }
            known => known,
        };
        identified.map_err(Unidentified::into_error)
    }))
}

fn explain(caller: &Caller, credential: &str) {
    let (kind, accounts) = match caller.credential() {
        Credential::Grant(grant) if credential.is_empty() => ("the listener itself", patterns(grant.linked_accounts())),
        Credential::Grant(grant) => ("a client key, found by its SHA-256", patterns(grant.linked_accounts())),
        Credential::Jwt(identity) => ("a verified JWT of a configured issuer", identity.linked_accounts().join(", ")),
        Credential::OrgKey(_) => ("the org key itself (mode `validate`)", "every one".to_owned()),
        Credential::SessionToken(_) => {
            ("a session token: only Refold can tell whether it is good", "the one that Refold ties it to".to_owned())
        }
    };
    let access = match caller.access() {
        Access::Read => "read",
        Access::ReadWrite => "read, stop and rerun",
    };
    print(format_args!("credential      {kind}"));
    if matches!(caller.credential(), Credential::Grant(_)) && !credential.is_empty() {
        print(format_args!("sha256          {}", Hex(&sha256(credential.as_bytes()))));
    }
    print(format_args!("name            {}", caller.name()));
    print(format_args!("tenant          {}", caller.tenant().config.id));
    print(format_args!("linked accounts {accounts}"));
    print(format_args!("this request    {}", caller.partition().linked_account_id().unwrap_or("the token's own")));
    print(format_args!("access          {access}"));
    let upstream =
        if caller.injects_org_key() { "the org key, put in by the gateway" } else { "the very same credential" };
    print(format_args!("sent to Refold  {upstream}"));
}

fn patterns(patterns: &[AccountPattern]) -> String {
    let text = |pattern: &AccountPattern| match pattern {
        AccountPattern::Exact(id) => id.to_string(),
        AccountPattern::Prefix(prefix) => format!("{prefix}*"),
    };
    patterns.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What the caller is not told, and the operator may know.
fn why(
    config: &Config,
    entrance: &ListenerIdentity,
    arguments: &Arguments,
    credential: &str,
    refused: &ClientError,
) -> String {
    if refused.status() != http::StatusCode::UNAUTHORIZED || refused.error_code() == "EXPIRED_CREDENTIALS" {
        return refused.message().to_owned();
    }
    if arguments.bearer {
        let sessions = if entrance.session_tokens.is_some() { "takes" } else { "does not take" };
        return format!(
            "no issuer vouches for the token ({} are configured: `iss`, `aud`, times, algorithm, key and signature all have to be right), and the listener {sessions} session tokens",
            config.issuers.len()
        );
    }
    if credential.is_empty() {
        return "there is no credential, and the listener is not a trusted one".to_owned();
    }
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    format!(
        "none of the {keys} client keys has the SHA-256 {}, and no tenant of mode `validate` has it as its org key",
        Hex(&sha256(credential.as_bytes()))
    )
}
