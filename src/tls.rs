//! Inbound TLS from files: a certificate chain, its key and, for mutual TLS, the authorities of client certificates. The
//! files are read anew when they change, so a certificate is rotated with no restart and no refused connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::sha256;

/// The files of a TLS listener, and its demand for client certificates; `tls` of a listener in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file of the certificate and the certificates between it and its authority.
    #[schemars(with = "String")]
    pub certificate: PathBuf,
    /// PEM file of the certificate's private key.
    #[schemars(with = "String")]
    pub key: PathBuf,
    /// PEM file of the authorities that client certificates have to come from. If omitted, none are requested.
    #[schemars(with = "Option<String>")]
    pub client_ca: Option<PathBuf>,
    /// Demand for client certificates.
    #[serde(default)]
    pub client_certificate: ClientCertificates,
}

/// The demand of a listener with `client_ca` for client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Clients may present a certificate, where client_ca is set.
    #[default]
    Optional,
    /// Clients without a certificate are refused at the handshake.
    Required,
}

/// Files that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

/// TLS as the files say at present.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    ready: ArcSwap<Ready>,
    /// Digest of the files that `ready` was made from, or that were refused, or of why they can't be read.
    seen: Mutex<[u8; 32]>,
}

#[derive(Debug)]
struct Ready {
    config: Arc<ServerConfig>,
    /// Judges client certificates; `None` if nobody is asked for one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one of them can't be read or used.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let ready = contents.ready(&files)?;
        let seen = Mutex::new(contents.digest());
        Ok(Self { files, ready: ArcSwap::from_pointee(ready), seen })
    }

    /// What the next connection is served with.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.ready.load().config)
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The names in a certificate that a client has shown, with those between it and the root: its DNS and URI subject
    /// alternative names, a SPIFFE id among the latter. None if it is not from the authorities of the present files.
    #[must_use]
    pub fn names(&self, shown: &[CertificateDer<'_>]) -> Vec<String> {
        let Some((own, between)) = shown.split_first() else { return Vec::new() };
        let ready = self.ready.load();
        let good = ready
            .verifier
            .as_ref()
            .is_some_and(|verifier| verifier.verify_client_cert(own, between, UnixTime::now()).is_ok());
        let Some(certificate) = good.then(|| webpki::EndEntityCert::try_from(own).ok()).flatten() else {
            return Vec::new();
        };
        certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(str::to_owned).collect()
    }

    /// Reads the files again if they have changed, and says so in the log; tells whether new ones are used now. If they can't
    /// be used, what was used before is kept.
    pub fn refresh(&self) -> bool {
        match self.reload() {
            Ok(true) => tracing::info!("certificate_reloaded"),
            Ok(false) => return false,
            Err(error) => {
                tracing::error!(%error, "certificate_refused");
                return false;
            }
        }
        true
    }

    fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files);
        let digest = match &contents {
            Ok(contents) => contents.digest(),
            Err(error) => sha256(error.to_string().as_bytes()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == digest {
            return Ok(false);
        }
        // Also if they are refused: that is said once, not at every look.
        *seen = digest;
        self.ready.store(Arc::new(contents?.ready(&self.files)?));
        Ok(true)
    }
}

struct Contents {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| TlsError { path: path.to_owned(), reason: error.to_string() })
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?.into(),
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let parts = [&self.certificate, &*self.key, self.client_ca.as_deref().unwrap_or_default()];
        sha256(&parts.map(sha256).concat())
    }

    fn ready(&self, files: &TlsFiles) -> Result<Ready, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let refused = |path: &Path, reason: String| TlsError { path: path.to_owned(), reason };
        let chain = certificates(&self.certificate).map_err(|reason| refused(&files.certificate, reason))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| refused(&files.key, "there is no private key in PEM in it".to_owned()))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&files.certificate, error.to_string()))?;
        let (builder, verifier) = match (&self.client_ca, &files.client_ca) {
            (Some(authorities), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(authorities).map_err(|reason| refused(path, reason))? {
                    roots.add(certificate).map_err(|error| refused(path, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match files.client_certificate {
                    ClientCertificates::Required => verifier,
                    ClientCertificates::Optional => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build().map_err(|error| refused(path, error.to_string()))?;
                (builder.with_client_cert_verifier(Arc::clone(&verifier)), Some(verifier))
            }
            _ => (builder.with_no_client_auth(), None),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| refused(&files.certificate, format!("it does not go with the key: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Ready { config: Arc::new(config), verifier })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no certificate in PEM in it".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_refused_once_and_the_ones_before_them_kept() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let folder = std::env::temp_dir().join(format!("postern-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let [certificate, key] = ["server.pem", "server.key"].map(|name| folder.join(name));
        let install = || {
            std::fs::copy(data.join("server-1.pem"), &certificate).expect("a temporary file");
            std::fs::copy(data.join("server-1.key"), &key).expect("a temporary file");
        };
        install();
        let files = TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: None,
            client_certificate: ClientCertificates::Optional,
        };
        let tls = Tls::new(files).expect("they are good");
        let good = tls.config();
        for broken in [None, Some("no certificate")] {
            match broken {
                None => std::fs::remove_file(&certificate).expect("it is there"),
                Some(text) => std::fs::write(&certificate, text).expect("a temporary file"),
            }
            assert!(tls.reload().is_err());
            assert!(matches!(tls.reload(), Ok(false)), "it is said once");
            assert!(Arc::ptr_eq(&tls.config(), &good));
        }
        install();
        assert!(matches!(tls.reload(), Ok(true)));
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
