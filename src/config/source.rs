//! A configuration file that is served: read at the start, and again when it or a file that it names has changed.

use std::path::{Path, PathBuf};

use super::diagnostic::ConfigError;
use super::environment::Environment;
use super::files::{Files, Reader};
use super::model::Config;

/// Where the configuration comes from.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    environment: Environment,
    /// As of the last reading, also one that was refused.
    read: Files,
    /// As of the last look.
    seen: Files,
}

impl Source {
    /// A file that was not read yet.
    #[must_use]
    pub fn new(path: &Path, environment: Environment) -> Self {
        Self { path: path.to_owned(), environment, read: Files::default(), seen: Files::default() }
    }

    /// Reads it, and what it names.
    ///
    /// # Errors
    /// If it can't be read, or for the first thing in it that can't be used.
    pub fn load(&mut self) -> Result<Config, ConfigError> {
        let first = self.read == Files::default();
        let reader = if first { Reader::new(&self.path) } else { Reader::again(&self.path) };
        let loaded = Config::read(&self.path, &self.environment, &reader);
        self.read = reader.files();
        self.seen = self.read.clone();
        loaded
    }

    /// Looks whether something has changed since it was read. Only what is the same at two looks counts: a file that is
    /// being written may be good TOML already and lack its second half.
    pub fn has_changed(&mut self) -> bool {
        let now = self.read.at_present();
        let settled = now == self.seen;
        self.seen = now;
        settled && self.seen != self.read
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
    fn a_change_counts_once_it_is_the_same_at_two_looks_and_until_it_is_read() {
        let folder = Folder::new("settled");
        folder.write("org-key", "tk_one");
        folder.write("postern.toml", &text(1));
        let mut source = Source::new(&folder.0.join("postern.toml"), Environment::default());
        source.load().expect("it is good");
        assert!(!source.has_changed() && !source.has_changed());
        folder.write("postern.toml", &text(1)[..40]);
        assert!(!source.has_changed());
        folder.write("postern.toml", &text(2));
        assert!(!source.has_changed(), "half of it was seen before");
        assert!(source.has_changed() && source.has_changed());
        let config = source.load().expect("it is good");
        assert_eq!(config.tenants[0].client_budget.burst.get(), 2);
        assert!(!source.has_changed() && !source.has_changed());
    }

    #[test]
    fn a_secret_file_counts_also_one_that_was_missed() {
        let folder = Folder::new("secrets");
        folder.write("org-key", "tk_one");
        folder.write("postern.toml", &text(1));
        let mut source = Source::new(&folder.0.join("postern.toml"), Environment::default());
        source.load().expect("it is good");
        std::fs::remove_file(folder.0.join("org-key")).expect("it is ours");
        assert!(!source.has_changed() && source.has_changed());
        let refused = source.load().expect_err("a secret is missing").to_string();
        assert!(refused.contains("postern.toml:6:11: the secret file"), "{refused}");
        assert!(!source.has_changed() && !source.has_changed());
        folder.write("org-key", "tk_two");
        assert!(!source.has_changed() && source.has_changed());
        assert_eq!(source.load().expect("it is good").tenants[0].org_key.expose(), "tk_two");
    }

    #[test]
    fn a_symlink_that_is_replaced_on_the_way_counts() {
        let folder = Folder::new("symlinks");
        folder.write("..1/postern.toml", &text(1));
        folder.write("..2/postern.toml", &text(2));
        folder.write("org-key", "tk_one");
        folder.point("..data", "..1");
        folder.point("postern.toml", "..data/postern.toml");
        let mut source = Source::new(&folder.0.join("postern.toml"), Environment::default());
        source.load().expect("it is good");
        folder.point("..data", "..2");
        assert!(!source.has_changed() && source.has_changed());
        assert_eq!(source.load().expect("it is good").tenants[0].client_budget.burst.get(), 2);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread of the test")]
    fn a_pipe_is_read_once_and_never_waited_for_again() {
        let folder = Folder::new("pipe");
        let pipe = folder.0.join("org-key");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        folder.write(
            "postern.toml",
            &format!(
                "[[tenants]]\nid = \"t\"\nmode = \"inject\"\norg_key = {{ file = \"org-key\" }}\n[[tenants.client_keys]]\nname = \"k\"\nsha256 = \"{HASH}\"\nlinked_accounts = [\"*\"]\n"
            ),
        );
        let writing = std::thread::spawn(move || std::fs::write(pipe, "tk_once"));
        let mut source = Source::new(&folder.0.join("postern.toml"), Environment::default());
        source.load().expect("it is good");
        writing.join().expect("it has not died").expect("it was read");
        let refused = source.load().expect_err("nobody writes to it").to_string();
        assert!(refused.contains("no regular file"), "{refused}");
    }
}
