//! A configuration file that is watched: read at the start, and again when it or a file that it names has changed.

use std::path::{Path, PathBuf};

use super::diagnostic::ConfigError;
use super::environment::Environment;
use super::files::{FileDigests, FileReader};
use super::load::read;
use super::root::Config;

/// A configuration file, with the digests of everything that was read for it.
#[derive(Debug)]
pub struct WatchedConfig {
    path: PathBuf,
    environment: Environment,
    /// Digests at the last reading, also of one that was refused.
    read: FileDigests,
    /// Digests at the last check for changes.
    seen: FileDigests,
}

impl WatchedConfig {
    /// A file that has not been read yet.
    #[must_use]
    pub fn new(path: &Path, environment: Environment) -> Self {
        Self { path: path.to_owned(), environment, read: FileDigests::default(), seen: FileDigests::default() }
    }

    /// Reads the file, and the files that it names.
    ///
    /// # Errors
    /// If it can't be read, or for the first setting that can't be used.
    pub fn load(&mut self) -> Result<Config, ConfigError> {
        let reader = FileReader::new(&self.path);
        let loaded = read(&self.path, &self.environment, &reader);
        self.read = reader.digests();
        self.seen = self.read.clone();
        loaded
    }

    /// Checks whether a file has changed since it was read. A change counts once two checks in a row see the same contents:
    /// a file that is still being written may already be valid TOML and lack its second half.
    pub fn has_changed(&mut self) -> bool {
        let now = self.seen.at_present();
        let is_settled = now == self.seen;
        self.seen = now;
        is_settled && self.seen != self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("postern-source-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a temporary folder");
            Self(path)
        }

        fn write(&self, name: &str, content: &str) {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a temporary folder");
            std::fs::write(path, content).expect("a temporary file");
        }

        fn point(&self, link: &str, to: &str) {
            let fresh = self.0.join("fresh-link");
            std::os::unix::fs::symlink(to, &fresh).expect("a symlink");
            std::fs::rename(fresh, self.0.join(link)).expect("it is replaced");
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn text(burst: u32) -> String {
        format!(
            "[limits.client]\nburst = {burst}\n[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = {{ file = \"org-key\" }}\n[[tenants.client_keys]]\nname = \"k\"\nsha256 = \"{HASH}\"\nlinked_accounts = [\"*\"]\n"
        )
    }

    #[test]
    fn a_change_counts_once_two_checks_agree() {
        let folder = Folder::new("settled");
        folder.write("org-key", "tk_one");
        folder.write("postern.toml", &text(1));
        let mut watched = WatchedConfig::new(&folder.0.join("postern.toml"), Environment::default());
        watched.load().expect("it is good");
        assert!(!watched.has_changed() && !watched.has_changed());
        folder.write("postern.toml", &text(1)[..40]);
        assert!(!watched.has_changed());
        folder.write("postern.toml", &text(2));
        assert!(!watched.has_changed(), "the last check saw half of it");
        assert!(watched.has_changed() && watched.has_changed());
        let config = watched.load().expect("it is good");
        assert_eq!(config.tenants[0].limits.client.burst.get(), 2);
        assert!(!watched.has_changed() && !watched.has_changed());
    }

    #[test]
    fn a_missing_secret_file_is_watched_too() {
        let folder = Folder::new("secrets");
        folder.write("org-key", "tk_one");
        folder.write("postern.toml", &text(1));
        let mut watched = WatchedConfig::new(&folder.0.join("postern.toml"), Environment::default());
        watched.load().expect("it is good");
        std::fs::remove_file(folder.0.join("org-key")).expect("it is ours");
        assert!(!watched.has_changed() && watched.has_changed());
        let refused = watched.load().expect_err("a secret is missing").to_string();
        assert!(refused.contains("postern.toml:6:11: the secret file"), "{refused}");
        assert!(!watched.has_changed() && !watched.has_changed());
        folder.write("org-key", "tk_two");
        assert!(!watched.has_changed() && watched.has_changed());
        assert_eq!(watched.load().expect("it is good").tenants[0].org_key.expose(), "tk_two");
    }

    #[test]
    fn a_replaced_symbolic_link_counts_as_a_change() {
        let folder = Folder::new("symlinks");
        folder.write("..1/postern.toml", &text(1));
        folder.write("..2/postern.toml", &text(2));
        folder.write("org-key", "tk_one");
        folder.point("..data", "..1");
        folder.point("postern.toml", "..data/postern.toml");
        let mut watched = WatchedConfig::new(&folder.0.join("postern.toml"), Environment::default());
        watched.load().expect("it is good");
        folder.point("..data", "..2");
        assert!(!watched.has_changed() && watched.has_changed());
        assert_eq!(watched.load().expect("it is good").tenants[0].limits.client.burst.get(), 2);
    }

    #[test]
    fn a_file_that_becomes_a_directory_counts_as_a_change() {
        for name in ["postern.toml", "org-key"] {
            let folder = Folder::new(&format!("directory-{name}"));
            folder.write("org-key", "tk_one");
            folder.write("postern.toml", &text(1));
            let mut watched = WatchedConfig::new(&folder.0.join("postern.toml"), Environment::default());
            watched.load().expect("it is good");
            std::fs::remove_file(folder.0.join(name)).expect("it is ours");
            std::fs::create_dir(folder.0.join(name)).expect("it is ours");
            assert!(!watched.has_changed() && watched.has_changed(), "{name}");
            let refused = watched.load().expect_err("a directory").to_string();
            assert!(refused.contains("it is a directory"), "{refused}");
            assert!(!watched.has_changed() && !watched.has_changed(), "it is refused once");
            std::fs::remove_dir(folder.0.join(name)).expect("it is ours");
            let again = if name == "org-key" { "tk_two".to_owned() } else { text(2) };
            folder.write(name, &again);
            assert!(!watched.has_changed() && watched.has_changed(), "{name}");
            watched.load().expect("it is good");
        }
    }

    #[test]
    fn a_secret_that_grows_is_refused_and_can_shrink_again() {
        let folder = Folder::new("grows");
        folder.write("org-key", "tk_one");
        folder.write("postern.toml", &text(1));
        let mut watched = WatchedConfig::new(&folder.0.join("postern.toml"), Environment::default());
        watched.load().expect("it is good");
        std::fs::File::create(folder.0.join("org-key")).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
        assert!(!watched.has_changed() && watched.has_changed());
        let refused = watched.load().expect_err("too large").to_string();
        assert!(refused.contains("it is larger than 64 KiB"), "{refused}");
        folder.write("org-key", "tk_two");
        assert!(!watched.has_changed() && watched.has_changed());
        assert_eq!(watched.load().expect("it is good").tenants[0].org_key.expose(), "tk_two");
    }

    #[test]
    fn pipes_and_devices_are_refused() {
        let folder = Folder::new("pipe");
        folder.write("postern.toml", &text(1));
        let pipe = folder.0.join("org-key");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let refused =
            |path: &Path| WatchedConfig::new(path, Environment::default()).load().expect_err("no file").to_string();
        // No process ever writes to the pipe.
        assert!(refused(&folder.0.join("postern.toml")).contains("it is no regular file"));
        assert!(refused(&pipe).contains("it is no regular file"));
        folder.write("postern.toml", &text(1).replace("\"org-key\"", "\"/dev/zero\""));
        assert!(refused(&folder.0.join("postern.toml")).contains("it is no regular file"));
    }
}
