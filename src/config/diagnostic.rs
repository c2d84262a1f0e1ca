//! Errors in a configuration: what is wrong, where, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::mask;
use super::secret::LITERAL_SECRET;
use super::setting_path::InvalidSetting;
use super::tree::SettingOrigin;
use crate::suggest::suggest;

/// A configuration that is refused. Its `Display` is for people: file, line and column, what is wrong, the line itself
/// with a mark below, and what would be accepted. It never shows a secret.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    location: Location,
    message: String,
    excerpt: Option<Excerpt>,
}

#[derive(Debug)]
enum Location {
    File(PathBuf),
    Position { file: PathBuf, line: usize, column: usize },
    Variable(String),
}

/// The line with the error, and the part of it to mark.
#[derive(Debug)]
struct Excerpt {
    text: String,
    offset: usize,
    length: usize,
}

impl ConfigError {
    /// The file cannot be read.
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        Self::without_excerpt(Location::File(file.to_owned()), format!("can't be read: {error}"))
    }

    /// An environment variable cannot be used.
    pub(super) fn variable(name: &str, message: impl Into<String>) -> Self {
        Self::without_excerpt(Location::Variable(name.to_owned()), message)
    }

    /// The file is not TOML, or a value has not the form of its setting. Unknown names get a suggestion, and quoted values
    /// are masked.
    pub(super) fn of_parser(file: &Path, text: &str, origin: SettingOrigin<'_>, error: &toml::de::Error) -> Self {
        let quoted = if let SettingOrigin::Variable(from) = &origin { from.text } else { text };
        let message = mask::message(&with_suggestion(error.message()), quoted);
        let refused = Self::at(file, text, origin, message);
        if error.message() == LITERAL_SECRET { Self { excerpt: None, ..refused } } else { refused }
    }

    /// A setting has the right form and cannot be used. Quoted values are masked.
    pub(super) fn of_check(file: &Path, text: &str, origin: SettingOrigin<'_>, invalid: &InvalidSetting) -> Self {
        let quoted = if let SettingOrigin::Variable(from) = &origin { from.text } else { text };
        Self::at(file, text, origin, mask::message(&invalid.message, quoted))
    }

    fn at(file: &Path, text: &str, origin: SettingOrigin<'_>, message: String) -> Self {
        match origin {
            SettingOrigin::File => Self::without_excerpt(Location::File(file.to_owned()), message),
            SettingOrigin::Variable(from) => Self::variable(from.variable, message),
            SettingOrigin::Text(span) => Self::in_text(file, text, &span, message),
        }
    }

    fn in_text(file: &Path, text: &str, span: &Range<usize>, message: String) -> Self {
        let start = span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let offset = text[line_start..start].chars().count();
        let excerpt = Excerpt {
            text: mask::line(text[line_start..line_end].trim_end()),
            offset,
            length: text[start..span.end.clamp(start, line_end)].chars().count().max(1),
        };
        let line = text[..start].matches('\n').count() + 1;
        let location = Location::Position { file: file.to_owned(), line, column: offset + 1 };
        Self { location, message, excerpt: Some(excerpt) }
    }

    fn without_excerpt(location: Location, message: impl Into<String>) -> Self {
        Self { location, message: message.into(), excerpt: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::File(file) => write!(f, "{}: {}", file.display(), self.message)?,
            Location::Position { file, line, column } => {
                write!(f, "{}:{line}:{column}: {}", file.display(), self.message)?;
            }
            Location::Variable(name) => write!(f, "environment variable {name}: {}", self.message)?,
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n  {}\n  {}{}", excerpt.text, " ".repeat(excerpt.offset), "^".repeat(excerpt.length))?;
        }
        Ok(())
    }
}

/// Rewords the parser's `unknown field `x`, expected one of `a`, `b`` and suggests the nearest name.
fn with_suggestion(message: &str) -> String {
    let (kind, rest) = if let Some(rest) = message.strip_prefix("unknown field `") {
        ("key", rest)
    } else if let Some(rest) = message.strip_prefix("unknown variant `") {
        ("value", rest)
    } else {
        return message.to_owned();
    };
    let Some((name, expected)) = rest.split_once('`') else { return message.to_owned() };
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let suggestion = match suggest(name, known.iter().copied()) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => String::new(),
    };
    let accepted = if known.is_empty() { String::new() } else { format!(" (accepted: {})", known.join(", ")) };
    format!("unknown {kind} `{name}`{suggestion}{accepted}")
}
