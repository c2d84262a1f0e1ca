//! The environment variables of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// Environment variables, read once. They are passed in, so that a test needs none of the process's own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of variables whose value, or name, is not UTF-8.
    unreadable: BTreeSet<String>,
}

/// Shows names only: the values are secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// The reason for which a variable that is not UTF-8 can't be used.
pub(super) const NOT_UTF8: &str = "the value is not UTF-8";

impl Environment {
    /// The variables of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process's environment")]
    pub fn from_process() -> Self {
        Self::of(std::env::vars_os())
    }

    /// Takes variables as the operating system has them, of any bytes.
    fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(environment.variables.insert(name, value)),
                (Ok(name), Err(_)) => drop(environment.unreadable.insert(name)),
                (Err(name), _) => drop(environment.unreadable.insert(name.to_string_lossy().into_owned())),
            }
        }
        environment
    }

    /// The configuration file that the environment names, as far as it can be shown.
    #[must_use]
    pub fn config_file(&self) -> Option<String> {
        const NAME: &str = "POSTERN_CONFIG";
        let unreadable = || self.unreadable.contains(NAME).then(|| "a path that is not UTF-8".to_owned());
        self.get(NAME).filter(|path| !path.is_empty()).map(|path| format!("{path:?}")).or_else(unreadable)
    }

    /// The value of a variable; `None` if it is not set.
    ///
    /// # Errors
    /// If the value is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, &'static str> {
        if self.unreadable.contains(name) { Err(NOT_UTF8) } else { Ok(self.get(name)) }
    }

    /// Sets a variable.
    pub fn insert(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variables whose names begin with a prefix: whole name and value, sorted by name.
    pub(super) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let from = self.variables.range(prefix.to_owned()..);
        from.take_while(move |(name, _)| name.starts_with(prefix)).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names that begin with a prefix, of variables that are not UTF-8.
    pub(super) fn unreadable_with_prefix(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn variables_that_are_not_utf8_are_known_by_name() {
        let variable = |name: &[u8], value: &[u8]| (OsString::from_vec(name.into()), OsString::from_vec(value.into()));
        let variables = [variable(b"A", b"1"), variable(b"P_B", b"\xff"), variable(b"P_\xff", b"1")];
        let environment = Environment::of(variables.into_iter());
        assert_eq!((environment.text("A"), environment.text("C")), (Ok(Some("1")), Ok(None)));
        assert_eq!(environment.text("P_B"), Err(NOT_UTF8));
        let unreadable: Vec<&str> = environment.unreadable_with_prefix("P_").collect();
        assert_eq!(unreadable, ["P_B", "P_\u{fffd}"]);
    }
}
