//! Resolves the references in a configuration: the sources of secrets, and paths relative to the configuration file.

use std::io;
use std::path::{Path, PathBuf};

use super::connection::CaFile;
use super::environment::Environment;
use super::files::FileReader;
use super::mask;
use super::secret::{Secret, SecretSource};
use super::setting_path::{InvalidSetting, SettingPath};
use crate::digest::sha256;

/// The surroundings of a configuration: the environment and the file system.
pub(super) struct Resolver<'a> {
    environment: &'a Environment,
    reader: &'a FileReader,
}

impl<'a> Resolver<'a> {
    /// A resolver with these surroundings.
    pub(super) fn new(environment: &'a Environment, reader: &'a FileReader) -> Self {
        Self { environment, reader }
    }

    /// Makes a path absolute.
    pub(super) fn path(&self, path: &mut PathBuf) {
        *path = self.reader.absolute(&path);
    }

    /// Reads a file, so that its changes are noticed.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.reader.read(path)
    }

    /// Makes the path of a CA file absolute and takes its digest. The HTTP client checks the content.
    pub(super) fn ca_file(&self, file: &mut Option<CaFile>) {
        if let Some(file) = file {
            self.path(&mut file.path);
            file.digest = self.read(&file.path).ok().map(|content| sha256(&content));
        }
    }

    /// Gives a secret its value.
    pub(super) fn secret(&self, secret: &mut Secret, at: &SettingPath) -> Result<(), InvalidSetting> {
        let (value, source) = match secret.source() {
            SecretSource::Env(name) => {
                let unset = || at.refuse(format!("the environment variable {} is not set", mask::line(name)));
                (self.environment.get(name).ok_or_else(unset)?.to_owned(), SecretSource::Env(name.clone()))
            }
            SecretSource::File(path) => {
                let path = self.reader.absolute(path);
                let value = self
                    .reader
                    .read_text(&path)
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
