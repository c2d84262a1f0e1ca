//! `[[listeners]]`: sockets for callers.

use std::net::Ipv6Addr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::account_pattern::{Access, AccountPattern, AccountPatterns};
use super::address::ListenAddress;
use super::endpoint::Endpoint;
use super::host_name::HostName;
use super::resolver::Resolver;
use super::setting_path::{Findings, InvalidSetting, SettingPath};
use super::socket_file::SocketFile;
use super::tenant::TenantConfig;
use super::tenant_ref::TenantRef;
use crate::tls::{ClientCertificates, Tls, TlsFiles};

/// A socket for callers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// An IP address and a port, or `unix:` and a path.
    pub address: ListenAddress,
    /// `[::]` accepts IPv6 connections only, so that another listener can have the port's IPv4 addresses.
    #[serde(default)]
    pub ipv6_only: bool,
    /// Accept Refold session tokens (Authorization: Bearer) here, on behalf of this tenant.
    pub session_tokens: Option<TenantRef>,
    /// Treat every connection as this tenant's caller, with no credential: for an app in the same pod. Only on loopback
    /// addresses and Unix sockets.
    pub trusted: Option<Trusted>,
    /// TLS 1.2 and 1.3. The files are read again within a second of a change.
    pub tls: Option<TlsFiles>,
    /// Mode and owner of a Unix socket. If omitted, they are the process's defaults.
    #[serde(default)]
    #[schemars(!default, with = "Option<SocketFile>")]
    pub socket: SocketFile,
}

/// Access for every connection to a listener, which is its own credential.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// The tenant of these callers.
    pub tenant: TenantRef,
    /// Linked accounts that they have access to: exact ids, or a prefix and one `*`.
    #[serde(default = "AccountPattern::every", with = "AccountPatterns")]
    pub linked_accounts: Vec<AccountPattern>,
    /// Permission to stop and rerun executions, or only to read them.
    #[serde(default)]
    pub access: Access,
    /// Hosts that requests over TCP may name beside loopback ones: names or IP addresses without a port. A web page can point a
    /// name of its own at a loopback address (DNS rebinding), so others are refused.
    #[serde(default)]
    pub hosts: Arc<[HostName]>,
}

impl ListenerConfig {
    /// A listener with no other setting than its address.
    #[must_use]
    pub fn at(address: ListenAddress) -> Self {
        Self {
            address,
            ipv6_only: false,
            session_tokens: None,
            trusted: None,
            tls: None,
            socket: SocketFile::default(),
        }
    }

    /// The listeners if the file has none.
    pub(super) fn defaults() -> Vec<Self> {
        vec![Self::at(ListenAddress::Tcp(([127, 0, 0, 1], 8080).into()))]
    }

    /// The address, and the connections that it leaves out.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.address.clone(), ipv6_only: self.ipv6_only }
    }

    /// Returns true if connections are asked for a client certificate.
    pub(super) fn has_client_ca(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    pub(super) fn check(
        &mut self,
        at: &SettingPath,
        tenants: &[Arc<TenantConfig>],
        resolver: &Resolver<'_>,
        findings: &mut Findings,
    ) {
        if let Some(tenant) = &mut self.session_tokens {
            findings.note(tenant.resolve(tenants, &at.key("session_tokens")));
        }
        if let Some(trusted) = &mut self.trusted {
            let at = at.key("trusted");
            if !self.address.is_local() {
                let message =
                    "a trusted listener is its own credential, so it has to be on a loopback address or a Unix socket";
                findings.note(Err(at.refuse(message)));
            }
            findings.note(trusted.tenant.resolve(tenants, &at.key("tenant")));
        }
        if let Some(tls) = &mut self.tls {
            findings.note(check_tls(tls, &at.key("tls"), resolver));
        }
        findings.note(self.address.check(&at.key("address")));
        findings.note(self.check_socket(at));
    }

    fn check_socket(&self, at: &SettingPath) -> Result<(), InvalidSetting> {
        let is_ipv6_wildcard =
            matches!(&self.address, ListenAddress::Tcp(address) if address.ip() == Ipv6Addr::UNSPECIFIED);
        if self.ipv6_only && !is_ipv6_wildcard {
            return Err(at.key("ipv6_only").refuse("only the address `[::]` can accept IPv4 connections as well"));
        }
        if matches!(self.address, ListenAddress::Tcp(_)) && self.socket != SocketFile::default() {
            return Err(at.key("socket").refuse("only a Unix socket has a mode and an owner"));
        }
        Ok(())
    }
}

/// Checks that the files can be served, so that `postern check` finds what `postern serve` would.
fn check_tls(tls: &mut TlsFiles, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
    [&mut tls.certificate, &mut tls.key].into_iter().chain(&mut tls.client_ca).for_each(|path| resolver.path(path));
    if tls.client_certificate == ClientCertificates::Required && tls.client_ca.is_none() {
        let message = "client certificates are required, and `client_ca` does not say from which authority";
        return Err(at.refuse(message));
    }
    if Tls::new(tls.clone()).is_err() {
        // Reading them records their digests, so that a repair is noticed. The second attempt is for files that were
        // repaired between the first and the reading.
        for path in [&tls.certificate, &tls.key].into_iter().chain(&tls.client_ca) {
            let _ = resolver.read(path);
        }
        Tls::new(tls.clone()).map_err(|error| at.refuse(error.to_string()))?;
    }
    Ok(())
}
