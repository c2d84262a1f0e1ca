//! Settings that are valid and probably not what is meant; `postern check` and the log show them as warnings.

use jiff::Timestamp;

use super::environment::Environment;
use super::listener::ListenerConfig;
use super::root::Config;
use super::setting_path::{InvalidSetting, SettingPath};

/// Finds them. A remark with a time holds from then on.
pub(super) fn remarks(config: &Config, environment: &Environment) -> Vec<(Option<Timestamp>, InvalidSetting)> {
    let root = SettingPath::default();
    let mut found = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        if !listener.address.is_local() && listener.tls.is_none() {
            let message = "plain HTTP on an address that other hosts can reach: credentials cross the network as they are, \
                           unless a proxy or mesh in front encrypts; `tls` does";
            found.push((None, root.key("listeners").index(index).key("address").refuse(message)));
        }
    }
    let is_local = |listener: &ListenerConfig| listener.address.is_local();
    for (index, tenant) in config.tenants.iter().enumerate() {
        let at = root.key("tenants").index(index);
        if tenant.webhooks && config.listeners.iter().all(is_local) {
            let message = "every listener is on a loopback address or a Unix socket: webhooks arrive only if a proxy on \
                           this host forwards them";
            found.push((None, at.key("webhooks").refuse(message)));
        }
        for (index, key) in tenant.client_keys.iter().enumerate() {
            let expired = |at_time: Timestamp| format!("the client key `{}` has expired at {at_time}", key.name);
            let at = at.key("client_keys").index(index).key("expires");
            found.extend(key.expires.map(|expires| (Some(expires), at.refuse(expired(expires)))));
        }
    }
    for (index, allowed) in config.pass_through.iter().enumerate() {
        let at = root.key("pass_through").index(index).key("path");
        for operation in allowed.operations_that_need_org() {
            found.push((None, at.refuse(format!("{operation} is not forwarded without `scope = \"org\"`"))));
        }
    }
    let of_traces = config.traces.remarks(&root.key("traces"), environment);
    found.extend(of_traces.into_iter().map(|remark| (None, remark)));
    found
}
