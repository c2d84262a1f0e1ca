//! The list of the servers that a configuration names.

use std::sync::Arc;

use super::issuer_keys::KeyOrigin;
use super::named_server::ServerRole;
use super::root::Config;
use super::secret::Secret;
use super::setting_path::SettingPath;

/// Lists the servers of a valid configuration by the paths of the settings that name them.
pub(super) fn named_servers(config: &Config) -> Vec<(SettingPath, ServerRole)> {
    let root = SettingPath::default();
    let mut servers = vec![(root.key("upstream").key("base_url"), ServerRole::Refold(config.upstream.connection()))];
    let mut seen: Vec<&Secret> = Vec::new();
    for (index, tenant) in config.tenants.iter().enumerate() {
        let keys = [("org_key", Some(&tenant.org_key)), ("org_key_next", tenant.org_key_next.as_ref())];
        for (setting, key) in keys.into_iter().filter_map(|(setting, key)| Some((setting, key?))) {
            if !seen.iter().any(|other| other.expose() == key.expose()) {
                let role = ServerRole::OrgKey { tenant: Arc::clone(&tenant.id), setting, key: key.clone() };
                servers.push((root.key("tenants").index(index).key(setting), role));
                seen.push(key);
            }
        }
    }
    for (index, issuer) in config.issuers.iter().enumerate() {
        if let KeyOrigin::Remote(jwks) = issuer.keys.origin() {
            let role = ServerRole::Issuer { issuer: Arc::clone(&issuer.issuer), jwks };
            servers.push((root.key("issuers").index(index).key("keys"), role));
        }
    }
    let fleet = config.fleet.as_ref().map(|fleet| ServerRole::Fleet(Arc::clone(fleet)));
    servers.extend(fleet.map(|role| (root.key("fleet").key("url"), role)));
    let collector = config.traces.export().cloned().map(ServerRole::Collector);
    servers.extend(collector.map(|role| (root.key("traces").key("endpoint"), role)));
    servers
}
