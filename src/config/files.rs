//! The files that a configuration is made from, with digests of their contents. The digests show every change: a file that is
//! written in place, one that is renamed over it, or a symbolic link on the way that is replaced (as Kubernetes does). A file
//! is read again only if its stamp (times, size, inode) has changed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::digest::sha256;
use crate::named_file::{self, FileStamp, MAX_FILE, MAX_SECRET};

/// SHA-256 of a file's content; `None` for a file that can't be read.
type Digest = Option<[u8; 32]>;

/// A file at the time of a check. Two are equal if their contents are.
#[derive(Clone, Copy, Debug)]
struct FileState {
    digest: Digest,
    stamp: Option<FileStamp>,
    /// False if the file may have changed after the reading without a change of its stamp, since the times in it are coarse: it is
    /// read once more at the next check.
    is_settled: bool,
    /// Largest size that is read.
    limit: u64,
}

impl PartialEq for FileState {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for FileState {}

/// Digests of files, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileDigests(BTreeMap<PathBuf, FileState>);

impl FileDigests {
    /// The digests of the same files now.
    #[must_use]
    pub(super) fn at_present(&self) -> Self {
        self.at_present_by(named_file::read)
    }

    fn at_present_by(&self, read: impl Fn(&Path, u64) -> io::Result<Zeroizing<Vec<u8>>>) -> Self {
        let state = |path: &Path, earlier: &FileState| {
            let stamp = FileStamp::of(path);
            if stamp == earlier.stamp && earlier.is_settled {
                return *earlier;
            }
            let digest = read(path, earlier.limit).ok().map(|content| sha256(&content));
            FileState { digest, stamp, is_settled: stamp == earlier.stamp, limit: earlier.limit }
        };
        Self(self.0.iter().map(|(path, earlier)| (path.clone(), state(path, earlier))).collect())
    }

    /// The digests of all files except one.
    pub(super) fn without(mut self, path: &Path) -> Self {
        self.0.remove(path);
        self
    }

    /// The files that are in both and have another content.
    pub(super) fn changed_since<'a>(&'a self, older: &'a Self) -> impl Iterator<Item = &'a Path> {
        let changed =
            |(path, state): &(&PathBuf, &FileState)| older.0.get(*path).is_some_and(|earlier| earlier != *state);
        self.0.iter().filter(changed).map(|(path, _)| path.as_path())
    }
}

/// Reads the files that a configuration names, and records their digests. Relative paths start at the folder of the
/// configuration file.
#[derive(Debug)]
pub(super) struct FileReader {
    folder: PathBuf,
    digests: RefCell<FileDigests>,
}

impl FileReader {
    /// A reader for the configuration file at a path.
    pub(super) fn new(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { folder, digests: RefCell::default() }
    }

    /// The path of a file that the configuration names.
    pub(super) fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        self.read_within(path, MAX_FILE)
    }

    /// Reads a file that has to be UTF-8.
    pub(super) fn read_text(&self, path: &Path) -> io::Result<Zeroizing<String>> {
        text_of(&self.read(path)?)
    }

    /// Reads the file of a secret.
    pub(super) fn read_secret(&self, path: &Path) -> io::Result<Zeroizing<String>> {
        text_of(&self.read_within(path, MAX_SECRET)?)
    }

    fn read_within(&self, path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        // Before the reading: a change during it is noticed.
        let stamp = FileStamp::of(path);
        let content = named_file::read(path, limit);
        let digest = content.as_ref().ok().map(|content| sha256(content));
        let state = FileState { digest, stamp, is_settled: false, limit };
        self.digests.borrow_mut().0.insert(path.to_owned(), state);
        content
    }

    /// The digests of all files that were read.
    pub(super) fn digests(&self) -> FileDigests {
        self.digests.borrow().clone()
    }
}

fn text_of(content: &[u8]) -> io::Result<Zeroizing<String>> {
    match std::str::from_utf8(content) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn files_that_do_not_change_are_not_read_again() {
        let folder = std::env::temp_dir().join(format!("postern-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = |number: usize| folder.join(format!("key-{number}"));
        let reader = FileReader::new(&folder.join("postern.toml"));
        for number in 0..100 {
            std::fs::write(path(number), format!("tk_{number}")).expect("a temporary file");
            reader.read_secret(&path(number)).expect("it is there");
        }
        let reads = Cell::new(0);
        let check = |digests: &FileDigests| {
            reads.set(0);
            digests.at_present_by(|path, limit| {
                reads.set(reads.get() + 1);
                named_file::read(path, limit)
            })
        };
        let read = reader.digests();
        let mut seen = check(&read);
        assert!(seen == read && reads.get() == 100, "once more, since times are coarse");
        for _ in 0..10 {
            seen = check(&seen);
            assert!(seen == read && reads.get() == 0);
        }
        // Another content of the same size, in place.
        std::fs::write(path(7), "tk_x").expect("a temporary file");
        for expected in [1, 1, 0, 0] {
            seen = check(&seen);
            assert!(seen != read && reads.get() == expected, "{}", reads.get());
        }
        std::fs::remove_file(path(8)).expect("it is ours");
        std::fs::create_dir(path(8)).expect("it is ours");
        seen = check(&seen);
        assert_eq!(seen.changed_since(&read).collect::<Vec<_>>(), [path(7), path(8)]);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
