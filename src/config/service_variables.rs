//! Environment variables that Kubernetes sets for the Services of a namespace ("Discovering services" in its documentation).
//!
//! A Service `postern` gives every pod `POSTERN_SERVICE_HOST`, `POSTERN_PORT` and others, which look like overrides of settings
//! that do not exist.

use super::environment::Environment;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Returns true if Kubernetes sets a variable with this name and value for a Service. A lone variable with such a name is not
/// one of them, apart from `*_SERVICE_HOST`, so that it can be reported as a misspelt setting.
pub(super) fn is_service_variable(name: &str, value: &str, environment: &Environment) -> bool {
    name.ends_with("_SERVICE_HOST")
        || is_service_port(name, environment)
        || is_link(name, value)
        || ["_PROTO", "_ADDR", "_PORT"].iter().any(|part| {
            let link = name.strip_suffix(part).filter(|link| is_port_link(link));
            link.is_some_and(|link| environment.get(link).is_some_and(|value| is_link(link, value)))
        })
}

/// `*_SERVICE_PORT` or `*_SERVICE_PORT_<port's name>`, beside the `*_SERVICE_HOST` of the same Service.
fn is_service_port(name: &str, environment: &Environment) -> bool {
    name.match_indices("_SERVICE_PORT").any(|(at, mark)| {
        let rest = &name[at + mark.len()..];
        let has_host = || environment.get(&format!("{}_SERVICE_HOST", &name[..at])).is_some();
        (rest.is_empty() || rest.starts_with('_')) && has_host()
    })
}

/// `*_PORT` or `*_PORT_<number>_<protocol>`, with a URL such as `tcp://10.0.0.11:6379`.
fn is_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    is_url && (name.ends_with("_PORT") || is_port_link(name))
}

/// `*_PORT_<number>_<protocol>`.
fn is_port_link(name: &str) -> bool {
    let mut parts = name.rsplit('_');
    let (protocol, number, port) = (parts.next(), parts.next(), parts.next());
    protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol))
        && number.is_some_and(|number| number.parse::<u16>().is_ok())
        && port == Some("PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables of a Service with one named port.
    fn service(name: &str, protocol: &str) -> Vec<(String, String)> {
        let (lower, url) = (protocol.to_lowercase(), format!("{}://10.0.0.11:6379", protocol.to_lowercase()));
        let link = format!("{name}_PORT_6379_{protocol}");
        [
            (format!("{name}_SERVICE_HOST"), "10.0.0.11"),
            (format!("{name}_SERVICE_PORT"), "6379"),
            (format!("{name}_SERVICE_PORT_HTTP_ALT"), "6379"),
            (format!("{name}_PORT"), &url),
            (link.clone(), &url),
            (format!("{link}_PROTO"), &lower),
            (format!("{link}_PORT"), "6379"),
            (format!("{link}_ADDR"), "10.0.0.11"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    fn environment(variables: &[(String, String)]) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.insert(name, value);
        }
        environment
    }

    #[test]
    fn all_variables_of_a_service_are_known() {
        for (name, protocol) in [
            ("POSTERN", "TCP"),
            ("POSTERN_ADMIN", "UDP"),
            ("POSTERN_SERVICE_PORT_2", "SCTP"),
            ("POSTERN_SERVER_PORT", "TCP"),
        ] {
            let variables = service(name, protocol);
            let environment = environment(&variables);
            for (name, value) in &variables {
                assert!(is_service_variable(name, value, &environment), "{name}={value}");
            }
        }
    }

    #[test]
    fn a_variable_that_merely_looks_like_it_is_none() {
        for (name, value) in [
            ("POSTERN_PORT", "8080"),
            ("POSTERN_SERVER_PORT", "http://a"),
            ("POSTERN_SERVICE_PORT", "8080"),
            ("POSTERN_SERVICE_PORTS", "8080"),
            ("POSTERN_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("POSTERN_PORT_80_TCP", "10.0.0.1"),
            ("POSTERN_PORT_HTTP_TCP", "tcp://10.0.0.1:80"),
            ("POSTERN_PORT_80_QUIC", "tcp://10.0.0.1:80"),
            ("POSTERN_SERVICE_HOSTS", "10.0.0.1"),
            ("POSTERN_SERVER_WORKER", "2"),
        ] {
            let environment = environment(&[(name.to_owned(), value.to_owned())]);
            assert!(!is_service_variable(name, value, &environment), "{name}={value}");
        }
        let with_host = environment(&service("POSTERN", "TCP"));
        assert!(!is_service_variable("POSTERN_SERVICE_PORTS", "8080", &with_host));
    }
}
