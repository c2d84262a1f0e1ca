//! Paths of settings, for errors that are found only after the whole file has been read.

use std::borrow::Cow;

/// The path of a setting from the root of the file: `tenants`, 0, `org_key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SettingPath(Vec<PathStep>);

/// One step of the path to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    /// Into a table.
    Key(Cow<'static, str>),
    /// Into an array.
    Index(usize),
}

/// A setting that has the right form and still cannot be used. Its line and column are found by its path.
#[derive(Debug)]
pub(super) struct InvalidSetting {
    pub(super) at: SettingPath,
    pub(super) message: String,
    /// Something is missing, perhaps only because it is wrong and was reported already.
    pub(super) is_absence: bool,
}

/// Collects the settings that can't be used, so that all are reported at once.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<InvalidSetting>);

impl Findings {
    /// Adds the error of a check, if it has one.
    pub(super) fn note(&mut self, checked: Result<(), InvalidSetting>) {
        self.0.extend(checked.err());
    }
}

impl SettingPath {
    /// The path of the setting with this name in the table at `self`.
    pub(super) fn key(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.then(PathStep::Key(name.into()))
    }

    /// The path of the item with this index in the array at `self`.
    pub(super) fn index(&self, index: usize) -> Self {
        self.then(PathStep::Index(index))
    }

    fn then(&self, step: PathStep) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The steps from the root.
    pub(super) fn steps(&self) -> &[PathStep] {
        &self.0
    }

    /// The error that the setting here cannot be used.
    pub(super) fn refuse(&self, message: impl Into<String>) -> InvalidSetting {
        InvalidSetting { at: self.clone(), message: message.into(), is_absence: false }
    }

    /// The error that something which the setting here needs is missing.
    pub(super) fn miss(&self, message: impl Into<String>) -> InvalidSetting {
        InvalidSetting { is_absence: true, ..self.refuse(message) }
    }
}
