//! `[[listeners]]`: their TLS files, and who may connect to a Unix socket.

use toml::Spanned;

use super::diagnostic::Finding;
use super::file::{self, ClientCertificates};
use super::files::Reader;
use super::model::{ListenAddress, SocketFile};
use crate::tls::{Tls, TlsFiles};

pub(super) fn tls(written: &Spanned<file::Tls>, reader: &Reader) -> Result<TlsFiles, Finding> {
    let tls = written.get_ref();
    let files = TlsFiles {
        certificate: reader.resolve(&tls.certificate),
        key: reader.resolve(&tls.key),
        client_ca: tls.client_ca.as_ref().map(|path| reader.resolve(path)),
        client_certificate_required: tls.client_certificate == ClientCertificates::Required,
    };
    if files.client_certificate_required && files.client_ca.is_none() {
        let message = "client certificates are required, and `client_ca` does not say from which authority";
        return Err(Finding::at(written.span(), message));
    }
    // So that `check` finds what `serve` would.
    if Tls::new(files.clone()).is_err() {
        // Noted, so that it is seen when they become good; and tried again, for they may have become so just before.
        for path in [&files.certificate, &files.key].into_iter().chain(&files.client_ca) {
            let _ = reader.read(path);
        }
        Tls::new(files.clone()).map_err(|error| Finding::at(written.span(), error.to_string()))?;
    }
    Ok(files)
}

pub(super) fn socket(
    written: Option<&Spanned<file::SocketFile>>,
    address: &ListenAddress,
) -> Result<SocketFile, Finding> {
    let Some(written) = written else { return Ok(SocketFile::default()) };
    let refused = |message: String| Finding::at(written.span(), message);
    if matches!(address, ListenAddress::Tcp(_)) {
        return Err(refused("only a Unix socket has a mode and an owner".to_owned()));
    }
    let socket = written.get_ref();
    let mode = socket.mode.as_ref().map(|text| {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
        bits.ok_or_else(|| refused(format!("`{text}` is no mode; write octal permission bits like \"0660\"")))
    });
    Ok(SocketFile {
        mode: mode.transpose()?,
        owner: socket.owner.as_ref().map(|name| id(name, "/etc/passwd").map_err(refused)).transpose()?,
        group: socket.group.as_ref().map(|name| id(name, "/etc/group").map_err(refused)).transpose()?,
    })
}

/// A user's or group's id: a number, or what the database has for a name (passwd(5), group(5)).
fn id(name: &str, database: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(database).map_err(|error| format!("{database}: {error}"))?;
    let found = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    found
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| format!("there is no `{name}` in {database}; a number is taken as well"))
}
