//! The configuration as a tree of TOML values that know where they come from: a place in the file, or an environment
//! variable. Overrides and inherited settings are merged into the tree, and every error finds its origin through it.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::setting_path::{PathStep, SettingPath};

/// A parsed file with its overrides.
pub(super) struct Tree<'t> {
    /// The top-level table.
    root: Spanned<DeValue<'t>>,
    text_length: usize,
    overrides: Vec<Override<'t>>,
}

/// A setting that an environment variable overrides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Override<'t> {
    /// The name of the variable.
    pub(super) variable: &'t str,
    /// The value of the variable.
    pub(super) text: &'t str,
}

/// The origin of a value.
#[derive(Debug)]
pub(super) enum SettingOrigin<'t> {
    /// The file, at no place in particular.
    File,
    /// A part of the file's text.
    Text(Range<usize>),
    /// An environment variable.
    Variable(Override<'t>),
}

impl<'t> Tree<'t> {
    /// Parses a file.
    pub(super) fn parse(text: &'t str) -> Result<Self, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        Ok(Self { root, text_length: text.len(), overrides: Vec::new() })
    }

    /// Reads the tree as a Rust type. An error's span is one for [`Tree::origin`].
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, toml::de::Error> {
        T::deserialize(ValueDeserializer::from(self.root.clone()))
    }

    /// The top-level table.
    pub(super) fn root(&self) -> &DeValue<'t> {
        self.root.get_ref()
    }

    /// Sets the value at a path, which is not empty; tables that are missing on the way are added. Sets nothing if a value
    /// on the path is not a table; [`Tree::read`] reports that error.
    pub(super) fn set(&mut self, path: &[String], value: DeValue<'t>, from: Override<'t>) {
        // Spans past the end of the text stand for variables.
        let position = self.text_length + 1 + self.overrides.len();
        let span = position..position;
        self.overrides.push(from);
        let Some((name, parents)) = path.split_last() else { return };
        let mut value_on_path = self.root.get_mut();
        for parent in parents {
            let DeValue::Table(table) = value_on_path else { return };
            let key = Spanned::new(span.clone(), parent.clone().into());
            let new = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
            value_on_path = table.entry(key).or_insert_with(new).get_mut();
        }
        if let DeValue::Table(table) = value_on_path {
            table.insert(Spanned::new(span.clone(), name.clone().into()), with_span(value, &span));
        }
    }

    /// Completes the table `own` in every table of an array: adds the settings that it lacks from the table at the path
    /// `common`.
    pub(super) fn inherit(&mut self, array: &str, own: &'static str, common: &[&str]) {
        let common = common.iter().try_fold(&self.root, |table, name| table.get_ref().get(*name)).cloned();
        let (Some(common), DeValue::Table(root)) = (common, self.root.get_mut()) else { return };
        let Some(DeValue::Array(tables)) = root.get_mut(array).map(Spanned::get_mut) else { return };
        for table in tables.iter_mut() {
            if let DeValue::Table(table) = table.get_mut() {
                fill(table, Spanned::new(common.span(), own.into()), &common);
            }
        }
    }

    /// Removes all values whose own span, or whose name's, is this; returns the names that are removed, each with the span of its
    /// table.
    pub(super) fn remove(&mut self, span: &Range<usize>) -> Vec<(Range<usize>, String)> {
        let mut removed = Vec::new();
        remove_from(&mut self.root, span, &mut removed);
        removed
    }

    /// The origin of a span in an error of [`Tree::read`].
    pub(super) fn origin(&self, span: Option<Range<usize>>) -> SettingOrigin<'t> {
        let Some(span) = span else { return SettingOrigin::File };
        let overrides = span.start.checked_sub(self.text_length + 1);
        overrides
            .and_then(|index| self.overrides.get(index))
            .map_or(SettingOrigin::Text(span), |from| SettingOrigin::Variable(*from))
    }

    /// The origin of the setting at a path; if it is left out, that of the table that lacks it.
    pub(super) fn origin_of(&self, at: &SettingPath) -> SettingOrigin<'t> {
        let mut found = None;
        for step in at.steps() {
            let table = found.unwrap_or(&self.root).get_ref();
            let inner = match step {
                PathStep::Key(name) => table.get(&**name),
                PathStep::Index(index) => table.get(*index),
            };
            if inner.is_none() {
                break;
            }
            found = inner;
        }
        self.origin(found.map(Spanned::span))
    }
}

fn remove_from(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>, removed: &mut Vec<(Range<usize>, String)>) {
    let own = value.span();
    match value.get_mut() {
        DeValue::Table(table) => {
            let is_meant = |(key, value): &(&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                key.span() == *span || value.span() == *span
            };
            let names: Vec<String> =
                table.iter().filter(is_meant).map(|(key, _)| key.get_ref().clone().into_owned()).collect();
            for name in names {
                table.remove(name.as_str());
                removed.push((own.clone(), name));
            }
            table.iter_mut().for_each(|(_, value)| remove_from(value, span, removed));
        }
        DeValue::Array(items) => {
            let before = items.len();
            *items = items.iter().filter(|item| item.span() != *span).cloned().collect();
            removed.extend((items.len() < before).then(|| (own, String::new())));
            items.iter_mut().for_each(|item| remove_from(item, span, removed));
        }
        _ => {}
    }
}

/// The names on the way to the value with a span, the last one first.
/// Sets `key` to `common` if the table lacks it. If both values are tables, sets their missing settings in the same way.
fn fill<'t>(table: &mut DeTable<'t>, key: Spanned<Cow<'t, str>>, common: &Spanned<DeValue<'t>>) {
    match table.get_mut(&key) {
        None => drop(table.insert(key, common.clone())),
        Some(own) => {
            if let (DeValue::Table(own), DeValue::Table(common)) = (own.get_mut(), common.get_ref()) {
                common.iter().for_each(|(key, value)| fill(own, key.clone(), value));
            }
        }
    }
}

/// A value with this span for itself and all values in it.
fn with_span<'t>(value: DeValue<'t>, span: &Range<usize>) -> Spanned<DeValue<'t>> {
    let value = match value {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| with_span(item.into_inner(), span)).collect())
        }
        DeValue::Table(entries) => {
            let entry = |(key, value): (Spanned<_>, Spanned<_>)| {
                (Spanned::new(span.clone(), key.into_inner()), with_span(value.into_inner(), span))
            };
            DeValue::Table(entries.into_iter().map(entry).collect())
        }
        scalar => scalar,
    };
    Spanned::new(span.clone(), value)
}
