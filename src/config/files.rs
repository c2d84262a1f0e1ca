//! The files that a configuration was made from, by the digest of what was in them: so that a change of any of them is
//! seen, whether it is written in place, renamed over, or a symlink on the way to it is replaced (as Kubernetes does).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::digest::sha256;

/// SHA-256 of a file; `None` for one that can't be read.
type Digest = Option<[u8; 32]>;

/// Files as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Digest>);

impl Files {
    /// The same files as they are now.
    #[must_use]
    pub fn at_present(&self) -> Self {
        let digest = |path: &Path, was: &Digest| match std::fs::metadata(path) {
            // A pipe would have to be waited for, and is not what it was when it is read again.
            Ok(found) if !found.is_file() => *was,
            _ => std::fs::read(path).ok().map(|content| sha256(&Zeroizing::new(content))),
        };
        Self(self.0.iter().map(|(path, was)| (path.clone(), digest(path, was))).collect())
    }

    /// All but one.
    pub(super) fn without(mut self, path: &Path) -> Self {
        self.0.remove(path);
        self
    }

    /// Those that were there before with another content.
    pub(super) fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a Path> {
        let changed = |(path, digest): &(&PathBuf, &Digest)| older.0.get(*path).is_some_and(|was| was != *digest);
        self.0.iter().filter(changed).map(|(path, _)| path.as_path())
    }
}

/// Reads what a configuration file names, and notes what it has read. Relative paths begin at the file's folder.
#[derive(Debug)]
pub(super) struct Reader {
    folder: PathBuf,
    /// Something is served already, which must not wait.
    again: bool,
    files: RefCell<Files>,
}

impl Reader {
    /// A reader for the configuration file at a path.
    pub(super) fn new(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { folder, again: false, files: RefCell::default() }
    }

    /// The same for a file that is read while the one before is served.
    pub(super) fn again(path: &Path) -> Self {
        Self { again: true, ..Self::new(path) }
    }

    /// A path as the configuration means it.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let is_pipe = || std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        let content = if self.again && is_pipe() {
            // Nobody may ever write to it, and whoever waits for that hears no signal.
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file, so it can't be read a second time"))
        } else {
            std::fs::read(path)
        };
        let digest = content.as_ref().ok().map(|content| sha256(content));
        self.files.borrow_mut().0.insert(path.to_owned(), digest);
        content
    }

    /// Reads a file that has to be UTF-8.
    pub(super) fn read_text(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// What was read.
    pub(super) fn files(&self) -> Files {
        self.files.borrow().clone()
    }
}
