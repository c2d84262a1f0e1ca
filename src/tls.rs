//! Inbound TLS from files: a certificate chain, its key and, for mutual TLS, the authorities of client certificates. Changed
//! files are reread, so a certificate is rotated without a restart or a refused connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::digest::sha256;

/// The files of a TLS listener, and its policy for client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM: the certificate's private key.
    pub key: PathBuf,
    /// PEM: the authorities of client certificates; `None` requests no client certificate.
    pub client_ca: Option<PathBuf>,
    /// Refuses a client without a certificate at the handshake.
    pub client_certificate_required: bool,
}

/// A TLS file can't be read or used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

/// TLS for a listener, reloaded when its files change.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    loaded: ArcSwap<LoadedTls>,
    /// Digest of the contents that were loaded or refused last, or of the error in reading them.
    seen: Mutex<[u8; 32]>,
}

#[derive(Debug)]
struct LoadedTls {
    config: Arc<ServerConfig>,
    /// Verifies client certificates; `None` if none is requested.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// If one of them can't be read or used.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = FileContents::read(&files)?;
        let loaded = contents.load(&files)?;
        let seen = Mutex::new(contents.digest());
        Ok(Self { files, loaded: ArcSwap::from_pointee(loaded), seen })
    }

    /// Returns the configuration for the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.load().config)
    }

    /// Returns the paths and the policy that this was loaded with.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Returns the URI and DNS subject alternative names of a client's certificate, a SPIFFE ID among the former. `chain` has
    /// the client's own certificate first. Returns no names if the present authorities do not vouch for it.
    #[must_use]
    pub fn verified_names(&self, chain: &[CertificateDer<'_>]) -> Vec<String> {
        let Some((own, intermediates)) = chain.split_first() else { return Vec::new() };
        let loaded = self.loaded.load();
        let valid = loaded
            .verifier
            .as_ref()
            .is_some_and(|verifier| verifier.verify_client_cert(own, intermediates, UnixTime::now()).is_ok());
        let Some(certificate) = valid.then(|| webpki::EndEntityCert::try_from(own).ok()).flatten() else {
            return Vec::new();
        };
        certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(str::to_owned).collect()
    }

    /// Rereads the files if they have changed; returns true if new contents are in use.
    ///
    /// # Errors
    /// If changed files can't be read or used; the previous contents stay in use. The next call does not repeat the error.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let contents = FileContents::read(&self.files);
        let digest = match &contents {
            Ok(contents) => contents.digest(),
            Err(error) => sha256(error.to_string().as_bytes()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == digest {
            return Ok(false);
        }
        // Refused contents are remembered too, so that they are an error once and not at each check.
        *seen = digest;
        self.loaded.store(Arc::new(contents?.load(&self.files)?));
        Ok(true)
    }
}

struct FileContents {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl FileContents {
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

    fn load(&self, files: &TlsFiles) -> Result<LoadedTls, TlsError> {
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
                let verifier =
                    if files.client_certificate_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| refused(path, error.to_string()))?;
                (builder.with_client_cert_verifier(Arc::clone(&verifier)), Some(verifier))
            }
            _ => (builder.with_no_client_auth(), None),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| refused(&files.certificate, format!("it does not go with the key: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(LoadedTls { config: Arc::new(config), verifier })
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
    fn unusable_files_are_refused_once_and_the_previous_ones_stay() {
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
            client_certificate_required: false,
        };
        let tls = Tls::new(files).expect("they are good");
        let original = tls.config();
        for broken in [None, Some("no certificate")] {
            match broken {
                None => std::fs::remove_file(&certificate).expect("it is there"),
                Some(text) => std::fs::write(&certificate, text).expect("a temporary file"),
            }
            assert!(tls.refresh().is_err());
            assert!(matches!(tls.refresh(), Ok(false)), "the error comes once");
            assert!(Arc::ptr_eq(&tls.config(), &original));
        }
        install();
        assert!(matches!(tls.refresh(), Ok(true)));
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
