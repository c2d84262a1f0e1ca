//! Inbound TLS from files: a certificate chain, its key and, for mutual TLS, the authorities of client certificates. Changed
//! files are reread, so a certificate is rotated without a restart or a refused connection.
//!
//! Clients resume their sessions by tickets (RFC 8446, 2.2; RFC 5077), however many they are and also after a certificate has
//! changed. The key of the tickets is random, is replaced every six hours, and is never shared between listeners.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use crate::digest::sha256;
use crate::named_file::{self, FileStamp, MAX_FILE, MAX_SECRET};

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
    seen: Mutex<SeenFiles>,
}

/// The files at the last check.
#[derive(Debug)]
struct SeenFiles {
    /// Digest of the contents that were loaded or refused last, or of the error in reading them.
    digest: [u8; 32],
    /// The stamps before the contents were read.
    stamps: Vec<Option<FileStamp>>,
    /// False if the files are read once more at the next check, since the times in the stamps are coarse.
    are_settled: bool,
}

/// The end of the certificates in a file of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The file of the certificate and its chain, or of the authorities of client certificates.
    pub file: PathBuf,
    /// The earliest end of the certificates in it.
    pub expires: Timestamp,
}

/// A client's certificate that the authorities of a listener vouch for.
#[derive(Debug)]
pub struct VerifiedCertificate {
    /// Its URI and DNS subject alternative names, a SPIFFE ID among the former.
    pub names: Vec<String>,
    /// The last second in which it and its intermediate certificates are valid.
    pub valid_until: Timestamp,
}

#[derive(Debug)]
struct LoadedTls {
    config: Arc<ServerConfig>,
    /// The earliest end of the certificates of the chain, if it can be read.
    expires: Option<Timestamp>,
    /// The earliest end of the authorities of client certificates, if there are any.
    authority_expires: Option<Timestamp>,
    /// Verifies client certificates; `None` if none is requested.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    sessions: Sessions,
}

/// The sessions that clients can resume. A client that resumes one shows no certificate again, so sessions are kept only while
/// the demands on client certificates are the same.
#[derive(Clone, Debug)]
struct Sessions {
    /// Encrypts sessions into tickets, which the clients keep.
    tickets: Arc<dyn ProducesTickets>,
    /// The sessions of TLS 1.2 clients that take no tickets.
    stored: Arc<dyn StoresServerSessions>,
    /// Digest of the authorities of client certificates, and the demand for one.
    demand: (Option<[u8; 32]>, ClientCertificates),
}

/// Sessions that are stored for TLS 1.2 clients that take no tickets.
const STORED_SESSIONS: usize = 256;

impl TlsFiles {
    fn stamps(&self) -> Vec<Option<FileStamp>> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(|path| FileStamp::of(path)).collect()
    }
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// If one of them can't be read or used.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        Self::load(files, None)
    }

    /// Loads the files that replace those of a listener. Its sessions are kept if the demands on client certificates are the
    /// same.
    ///
    /// # Errors
    /// If one of them can't be read or used.
    pub fn replacing(previous: &Self, files: TlsFiles) -> Result<Self, TlsError> {
        Self::load(files, Some(&previous.loaded.load().sessions))
    }

    fn load(files: TlsFiles, previous: Option<&Sessions>) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let contents = FileContents::read(&files)?;
        let loaded = contents.load(&files, previous)?;
        let seen = Mutex::new(SeenFiles { digest: contents.digest(), stamps, are_settled: false });
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

    /// Returns the ends of the certificate in use and of the authorities of client certificates, for the operator; without those
    /// that can't be read.
    #[must_use]
    pub fn expiries(&self) -> Vec<CertificateExpiry> {
        let loaded = self.loaded.load();
        let of_file =
            |file: Option<&PathBuf>, expires| Some(CertificateExpiry { file: file?.clone(), expires: expires? });
        let own = of_file(Some(&self.files.certificate), loaded.expires);
        own.into_iter().chain(of_file(self.files.client_ca.as_ref(), loaded.authority_expires)).collect()
    }

    /// Verifies a client's certificate. `chain` has the client's own certificate first. Returns `None` if the present authorities
    /// do not vouch for it at `now`.
    #[must_use]
    pub fn verify_client(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<VerifiedCertificate> {
        let (own, intermediates) = chain.split_first()?;
        let loaded = self.loaded.load();
        let verifier = loaded.verifier.as_ref()?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).ok()?));
        verifier.verify_client_cert(own, intermediates, now).ok()?;
        let valid_until = end_of_validity(&**verifier, own, intermediates)?;
        let certificate = webpki::EndEntityCert::try_from(own).ok()?;
        let names = certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(str::to_owned).collect();
        Some(VerifiedCertificate { names, valid_until })
    }

    /// Returns whether a resumed session meets the listener's demand for a client certificate: `chain` was verified when the
    /// session began, and may have expired since.
    #[must_use]
    pub fn admits_resumed(&self, chain: &[CertificateDer<'_>]) -> bool {
        if self.files.client_certificate == ClientCertificates::Optional {
            return true;
        }
        let (Some((own, intermediates)), Some(verifier)) = (chain.split_first(), &self.loaded.load().verifier) else {
            return false;
        };
        verifier.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
    }

    /// Rereads the files if they have changed; returns true if new contents are in use.
    ///
    /// # Errors
    /// If changed files can't be read or used; the previous contents stay in use. The next call does not repeat the error.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        let are_same = stamps == seen.stamps;
        if are_same && seen.are_settled {
            return Ok(false);
        }
        (seen.stamps, seen.are_settled) = (stamps, are_same);
        let contents = FileContents::read(&self.files);
        let digest = match &contents {
            Ok(contents) => contents.digest(),
            Err(error) => sha256(error.to_string().as_bytes()),
        };
        if seen.digest == digest {
            return Ok(false);
        }
        // Refused contents are remembered too, so that they are an error once and not at each check.
        seen.digest = digest;
        let loaded = contents?.load(&self.files, Some(&self.loaded.load().sessions))?;
        self.loaded.store(Arc::new(loaded));
        Ok(true)
    }
}

/// The last second in which a chain is valid, by asking the verifier: an expired certificate's error names its end. So no
/// second parser of certificates has to agree with the first.
fn end_of_validity(
    verifier: &dyn ClientCertVerifier,
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<Timestamp> {
    let mut at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(Timestamp::MAX.as_second()).ok()?));
    // Each turn meets the end of another certificate of the chain.
    for _ in 0..=intermediates.len() + 1 {
        match verifier.verify_client_cert(own, intermediates, at) {
            Ok(_) => return Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok(),
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) if not_after < at => {
                at = not_after;
            }
            Err(_) => return None,
        }
    }
    None
}

/// The end of a certificate. Only operators see it: a handshake's own verification decides what is valid.
fn end_of(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok()
}

struct FileContents {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Zeroizing<Vec<u8>>>,
}

impl FileContents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path, limit| {
            let refused = |error: std::io::Error| TlsError { path: path.to_owned(), reason: error.to_string() };
            named_file::read(path, limit).map_err(refused)
        };
        Ok(Self {
            certificate: read(&files.certificate, MAX_FILE)?,
            key: read(&files.key, MAX_SECRET)?,
            client_ca: files.client_ca.as_deref().map(|path| read(path, MAX_FILE)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let client_ca: &[u8] = self.client_ca.as_ref().map_or(&[], |content| content);
        let parts = [&self.certificate[..], &self.key[..], client_ca];
        sha256(&parts.map(sha256).concat())
    }

    fn load(&self, files: &TlsFiles, previous: Option<&Sessions>) -> Result<LoadedTls, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let refused = |path: &Path, reason: String| TlsError { path: path.to_owned(), reason };
        let chain = certificates(&self.certificate).map_err(|reason| refused(&files.certificate, reason))?;
        let expires = chain.iter().filter_map(end_of).min();
        let authorities = self.client_ca.as_ref().and_then(|content| certificates(content).ok()).unwrap_or_default();
        let authority_expires = authorities.iter().filter_map(end_of).min();
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| refused(&files.key, "there is no private key in PEM in it".to_owned()))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&files.certificate, error.to_string()))?;
        let (builder, verifier) = match (&self.client_ca, &files.client_ca) {
            (Some(authorities), Some(path)) => {
                let roots = self::authorities(authorities).map_err(|reason| refused(path, reason))?;
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
        // The strongest cipher that the client has, whatever it lists first.
        config.ignore_client_order = true;
        let sessions =
            self.sessions(files, previous).map_err(|error| refused(&files.certificate, error.to_string()))?;
        config.ticketer = Arc::clone(&sessions.tickets);
        config.session_storage = Arc::clone(&sessions.stored);
        Ok(LoadedTls { config: Arc::new(config), expires, authority_expires, verifier, sessions })
    }

    /// Returns the previous sessions if their clients have met the same demands, and else none.
    fn sessions(&self, files: &TlsFiles, previous: Option<&Sessions>) -> Result<Sessions, rustls::Error> {
        let demand = (self.client_ca.as_deref().map(|authorities| sha256(authorities)), files.client_certificate);
        match previous.filter(|previous| previous.demand == demand) {
            Some(previous) => Ok(previous.clone()),
            None => Ok(Sessions {
                tickets: aws_lc_rs::Ticketer::new()?,
                stored: ServerSessionMemoryCache::new(STORED_SESSIONS),
                demand,
            }),
        }
    }
}

/// Reads the certificate authorities of a PEM file.
///
/// # Errors
/// If there is none in it, or one that can't be used.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
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
            client_certificate: ClientCertificates::Optional,
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
