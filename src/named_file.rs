//! Files that the configuration names. They are regular files of a bounded size, which is looked at before they are read: a device
//! or a file that grows takes no memory, and a pipe that has no writer does not block.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Largest file, in bytes.
pub const MAX_FILE: u64 = 1 << 20;
/// Largest file of a secret, in bytes.
pub const MAX_SECRET: u64 = 64 << 10;

/// Everything about a file that a change of its content changes too, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    device_and_inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at a path; `None` if there is none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device_and_inode: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// If it can't be read, is no regular file, or is larger.
pub fn read(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Before it is opened: opening a device can have an effect.
    require_regular(&std::fs::metadata(path)?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    read_open(&file, limit)
}

fn read_open(file: &File, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let found = file.metadata()?;
    // Again, of the file that is open: the path may lead to another one by now.
    require_regular(&found)?;
    let too_large = || {
        let unit = if limit < 1 << 20 { format!("{} KiB", limit >> 10) } else { format!("{} MiB", limit >> 20) };
        io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {unit}"))
    };
    if found.size() > limit {
        return Err(too_large());
    }
    // In one piece: a vector that grows leaves copies of a secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(found.size()).unwrap_or(0) + 1));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit { Err(too_large()) } else { Ok(content) }
}

fn require_regular(found: &std::fs::Metadata) -> io::Result<()> {
    if found.is_file() {
        Ok(())
    } else if found.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = std::env::temp_dir().join(format!("postern-named-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("file");
        let refused = |path: &Path, limit| read(path, limit).expect_err("it is refused").to_string();
        for (size, limit, is_read) in
            [(0, 10, true), (10, 10, true), (11, 10, false), (MAX_SECRET + 1, MAX_SECRET, false)]
        {
            std::fs::write(&path, vec![b'x'; usize::try_from(size).expect("small")]).expect("a temporary file");
            assert_eq!(read(&path, limit).map(|content| content.len() as u64).ok(), is_read.then_some(size));
        }
        assert_eq!(refused(&path, MAX_SECRET), "it is larger than 64 KiB");
        // A sparse file of 1 GiB.
        File::create(&path).and_then(|file| file.set_len(1 << 30)).expect("a temporary file");
        assert_eq!(refused(&path, MAX_FILE), "it is larger than 1 MiB");
        assert_eq!(refused(&folder, MAX_FILE), "it is a directory");
        let pipe = folder.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        for other in [Path::new("/dev/zero"), Path::new("/dev/null"), &pipe] {
            assert_eq!(refused(other, MAX_FILE), "it is no regular file", "{}", other.display());
        }
        // A file of the kernel's says that it is empty.
        assert!(
            read(Path::new("/proc/self/status"), 10).is_err() && read(Path::new("/proc/self/status"), MAX_FILE).is_ok()
        );
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
