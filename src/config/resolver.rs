//! Resolves the references in a configuration: the sources of secrets, and paths relative to the configuration file.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use zeroize::Zeroizing;

use super::connection::{CaFile, Proxy};
use super::environment::Environment;
use super::files::{FileDigests, FileReader};
use super::mask;
use super::secret::{Secret, SecretSource};
use super::setting_path::{InvalidSetting, SettingPath};
use super::url::parse_server_url;
use crate::digest::sha256;
use crate::tls;

/// The surroundings of a configuration: the environment and the file system.
pub(super) struct Resolver<'a> {
    environment: &'a Environment,
    reader: &'a FileReader,
    secrets: SecretValues,
    /// Number of stand-ins for secrets, which are all different.
    stand_ins: Cell<u32>,
}

/// The use of secrets' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretValues {
    /// Each is read, and has to be usable.
    Required,
    /// None is read: the configuration is checked on a machine that does not have them, and can't be served.
    Ignored,
}

impl<'a> Resolver<'a> {
    /// A resolver with these surroundings.
    pub(super) fn new(environment: &'a Environment, reader: &'a FileReader, secrets: SecretValues) -> Self {
        Self { environment, reader, secrets, stand_ins: Cell::new(0) }
    }

    /// The environment.
    pub(super) fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// The digests of all files that were read.
    pub(super) fn digests(&self) -> FileDigests {
        self.reader.digests()
    }

    /// Makes a path absolute.
    pub(super) fn path(&self, path: &mut PathBuf) {
        *path = self.reader.absolute(&path);
    }

    /// Reads a file, so that its changes are noticed.
    pub(super) fn read(&self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        self.reader.read(path)
    }

    /// Makes the path of a CA file absolute, checks its content and takes its digest.
    pub(super) fn ca_file(&self, file: &mut Option<CaFile>, at: &SettingPath) -> Result<(), InvalidSetting> {
        let Some(file) = file else { return Ok(()) };
        self.path(&mut file.path);
        let refused = |reason: String| at.refuse(format!("ca_file {}: {reason}", mask::path(&file.path)));
        let content = self.read(&file.path).map_err(|error| refused(error.to_string()))?;
        tls::authorities(&content).map_err(refused)?;
        file.digest = Some(sha256(&content));
        Ok(())
    }

    /// The proxy that the environment names for a server: `HTTPS_PROXY`, or else `ALL_PROXY`, for https URLs, unless `NO_PROXY`
    /// has the host. Names are tried in upper and lower case, and mean the same as to curl.
    pub(super) fn proxy(&self, server: &Uri, at: &SettingPath) -> Result<Option<Proxy>, InvalidSetting> {
        if server.scheme_str() != Some("https") {
            return Ok(None);
        }
        let find = |names: &[&'static str]| {
            for name in names {
                let not_text = |_| at.refuse(format!("the environment variable {name} is not UTF-8"));
                let value = self.environment.text(name).map_err(not_text)?;
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    return Ok(Some((*name, value)));
                }
            }
            Ok(None)
        };
        let Some((name, value)) = find(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])? else {
            return Ok(None);
        };
        let exceptions = find(&["NO_PROXY", "no_proxy"])?.map_or("", |(_, value)| value);
        let matcher = |no: &str| Matcher::builder().https(value).no(no).build();
        let unusable = || at.refuse(format!("the environment variable {name} is no URL of an HTTP proxy"));
        let proxy = matcher("").intercept(server).ok_or_else(unusable)?;
        parse_server_url(&proxy.uri().to_string()).map_err(|_| unusable())?;
        let proxy = Proxy { url: proxy.uri().clone(), authorization: proxy.basic_auth().cloned() };
        Ok(matcher(exceptions).intercept(server).map(|_| proxy))
    }

    /// Gives a secret its value.
    pub(super) fn secret(&self, secret: &mut Secret, at: &SettingPath) -> Result<(), InvalidSetting> {
        if self.secrets == SecretValues::Ignored {
            let number = self.stand_ins.replace(self.stand_ins.get() + 1);
            // Long enough for a secret of HS256.
            *secret = Secret::new(format!("stand-in-for-a-secret-{number:010}"), secret.source().clone());
            return Ok(());
        }
        let (value, source) = match secret.source() {
            SecretSource::Env(name) => {
                let refuse =
                    |reason: &str| at.refuse(format!("the environment variable {} {reason}", mask::line(name)));
                let value = self.environment.text(name).map_err(|_| refuse("is not UTF-8"))?;
                let value = value.ok_or_else(|| refuse("is not set"))?.to_owned();
                (Zeroizing::new(value), SecretSource::Env(name.clone()))
            }
            SecretSource::File(path) => {
                let path = self.reader.absolute(path);
                let value = self
                    .reader
                    .read_secret(&path)
                    .map_err(|error| at.refuse(format!("the secret file {} can't be read: {error}", path.display())))?;
                (value, SecretSource::File(path))
            }
        };
        let value = value.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return Err(at.refuse("the secret is empty"));
        }
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(at.refuse("the secret has characters that a header can't have (a space or a line break?)"));
        }
        *secret = Secret::new(value.to_owned(), source);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, KeyOrigin};

    const FILE: &str = r#"
[traces]
endpoint = "https://otlp.example"
[[issuers]]
issuer = "i"
audience = ["p"]
tenant = "a"
keys = { url = "https://login.example/jwks" }
[[tenants]]
id = "a"
mode = "validate"
org_key = { env = "ORG_KEY" }
"#;

    /// Returns the proxies of Refold, the issuer and the collector.
    fn proxies(upstream: &str, variables: &[(&str, &str)]) -> Result<[Option<String>; 3], String> {
        let mut environment = Environment::default();
        for (name, value) in variables.iter().chain(&[("ORG_KEY", "tk_org")]) {
            environment.insert(name, value);
        }
        let text = format!("[upstream]\n{upstream}\n{FILE}");
        let config =
            Config::parse(&text, Path::new("postern.toml"), &environment).map_err(|error| error.to_string())?;
        let KeyOrigin::Remote(jwks) = config.issuers[0].keys.origin() else { panic!("there is a URL") };
        let collector = config.traces.export().expect("there is an endpoint").connection.clone();
        Ok([config.upstream.connection(), jwks.connection, collector].map(|connection| {
            let proxy = connection.proxy?;
            let authorization = proxy.authorization.map_or(String::new(), |value| {
                assert!(value.is_sensitive());
                value.to_str().expect("ASCII").to_owned()
            });
            Some(format!("{}{authorization}", proxy.url))
        }))
    }

    #[test]
    fn the_environment_names_the_proxy_of_https_servers() {
        let proxy = Some("http://proxy:3128/".to_owned());
        let all = [proxy.clone(), proxy.clone(), proxy.clone()];
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
            assert_eq!(proxies("", &[(name, "http://proxy:3128")]).as_ref(), Ok(&all), "{name}");
        }
        assert_eq!(proxies("", &[("HTTPS_PROXY", "proxy:3128")]).as_ref(), Ok(&all), "curl needs no scheme either");
        assert_eq!(proxies("", &[("HTTP_PROXY", "http://proxy:3128")]), Ok([None, None, None]));
        assert_eq!(proxies("", &[("HTTPS_PROXY", "")]), Ok([None, None, None]));
        for (no_proxy, expected) in [
            ("api.gocobalt.io", [None, proxy.clone(), proxy.clone()]),
            (".example", [proxy.clone(), None, None]),
            ("a.b, login.example", [proxy.clone(), None, proxy.clone()]),
            ("*", [None, None, None]),
        ] {
            let variables = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", no_proxy)];
            assert_eq!(proxies("", &variables), Ok(expected), "{no_proxy}");
        }
        let with_password = proxies("", &[("HTTPS_PROXY", "http://u:p@proxy:3128")]).expect("it is good");
        assert_eq!(with_password[0].as_deref(), Some("http://proxy:3128/Basic dTpw"));
    }

    #[test]
    fn the_setting_is_for_refold_alone_and_comes_first() {
        let variables = [("HTTPS_PROXY", "http://proxy:3128")];
        let proxy = || Some("http://proxy:3128/".to_owned());
        assert_eq!(proxies("proxy = \"off\"", &variables), Ok([None, proxy(), proxy()]));
        let other = Some("https://other/".to_owned());
        assert_eq!(proxies("proxy = \"https://other\"", &variables), Ok([other, proxy(), proxy()]));
        assert_eq!(proxies("base_url = \"http://refold\"", &variables), Ok([None, proxy(), proxy()]));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused() {
        for value in ["socks5://proxy:1080", "http://proxy:99999", "ftp://proxy", "http://"] {
            let error = proxies("", &[("HTTPS_PROXY", value)]).expect_err(value);
            assert!(error.contains("HTTPS_PROXY is no URL of an HTTP proxy"), "{error}");
        }
        for value in ["on", "http://proxy/path", "http://u:p@proxy", "http://proxy:0"] {
            assert!(proxies(&format!("proxy = \"{value}\""), &[]).is_err(), "{value}");
        }
    }
}
