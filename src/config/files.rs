//! The files that a configuration is made from, with digests of their contents. The digests show every change: a file that is
//! written in place, one that is renamed over it, or a symbolic link on the way that is replaced (as Kubernetes does).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::digest::sha256;

/// SHA-256 of a file's content; `None` for a file that can't be read.
type Digest = Option<[u8; 32]>;

/// Digests of files, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileDigests(BTreeMap<PathBuf, Digest>);

impl FileDigests {
    /// The digests of the same files now.
    #[must_use]
    pub(super) fn at_present(&self) -> Self {
        let digest = |path: &Path, earlier: &Digest| match std::fs::metadata(path) {
            // Reading a pipe would block, and its content is gone after the first reading.
            Ok(found) if !found.is_file() => *earlier,
            _ => std::fs::read(path).ok().map(|content| sha256(&Zeroizing::new(content))),
        };
        Self(self.0.iter().map(|(path, earlier)| (path.clone(), digest(path, earlier))).collect())
    }

    /// The digests of all files except one.
    pub(super) fn without(mut self, path: &Path) -> Self {
        self.0.remove(path);
        self
    }

    /// The files that are in both and have another content.
    pub(super) fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a Path> {
        let changed =
            |(path, digest): &(&PathBuf, &Digest)| older.0.get(*path).is_some_and(|earlier| earlier != *digest);
        self.0.iter().filter(changed).map(|(path, _)| path.as_path())
    }
}

/// Reads the files that a configuration names, and records their digests. Relative paths start at the folder of the
/// configuration file.
#[derive(Debug)]
pub(super) struct FileReader {
    folder: PathBuf,
    /// The gateway serves already, so reading must not block.
    is_reload: bool,
    digests: RefCell<FileDigests>,
}

impl FileReader {
    /// A reader for the configuration file at a path.
    pub(super) fn new(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { folder, is_reload: false, digests: RefCell::default() }
    }

    /// A reader for the same file while an earlier configuration is in effect: it refuses pipes.
    pub(super) fn for_reload(path: &Path) -> Self {
        Self { is_reload: true, ..Self::new(path) }
    }

    /// The path of a file that the configuration names.
    pub(super) fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let is_pipe = || std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        let content = if self.is_reload && is_pipe() {
            // Reading blocks until another process writes, and signals are not handled meanwhile.
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file, so it can't be read a second time"))
        } else {
            std::fs::read(path)
        };
        let digest = content.as_ref().ok().map(|content| sha256(content));
        self.digests.borrow_mut().0.insert(path.to_owned(), digest);
        content
    }

    /// Reads a file that has to be UTF-8.
    pub(super) fn read_text(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// The digests of all files that were read.
    pub(super) fn digests(&self) -> FileDigests {
        self.digests.borrow().clone()
    }
}
