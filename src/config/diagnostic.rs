//! Errors in a configuration: what is wrong, where, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::mask::{self, PlainNames, Quoted};
use super::secret::LITERAL_SECRET;
use super::setting_path::InvalidSetting;
use super::tree::SettingOrigin;
use crate::suggest::suggest;

/// A configuration that is refused, with everything that is wrong in it. Its `Display` is for people.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub(super) Vec<Finding>);

impl ConfigError {
    /// Everything that was found; at least one.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

impl From<Finding> for ConfigError {
    fn from(only: Finding) -> Self {
        Self(vec![only])
    }
}

/// Something wrong, or doubtful, in a configuration. Its `Display` is for people: file, line and column, what is wrong, the line
/// itself with a mark below, and what would be accepted. It never shows a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    location: Location,
    message: String,
    excerpt: Option<Excerpt>,
}

#[derive(Clone, Debug, PartialEq)]
enum Location {
    File(PathBuf),
    Position { file: PathBuf, line: usize, column: usize },
    Variable(String),
}

/// The line with the error, and the part of it to mark.
#[derive(Clone, Debug, PartialEq)]
struct Excerpt {
    text: String,
    offset: usize,
    length: usize,
}

/// A configuration file's name and text, and the settings whose values an error may show.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) plain: &'a PlainNames,
}

impl Finding {
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
    pub(super) fn of_parser(source: Source<'_>, origin: SettingOrigin<'_>, error: &toml::de::Error) -> Self {
        let unquoted = match &origin {
            SettingOrigin::Text(span) if error.message() == UNQUOTED => {
                source.text.get(span.start..).and_then(quotes_instead)
            }
            _ => None,
        };
        let message = unquoted.unwrap_or_else(|| in_plain_words(error.message()));
        let refused = Self::of_value(source, origin, &message);
        if error.message() == LITERAL_SECRET { Self { excerpt: None, ..refused } } else { refused }
    }

    /// A setting has the right form and cannot be used. Quoted values are masked.
    pub(super) fn of_check(source: Source<'_>, origin: SettingOrigin<'_>, invalid: &InvalidSetting) -> Self {
        Self::of_value(source, origin, &invalid.message)
    }

    /// A value cannot be used. Values that the message quotes are masked.
    pub(super) fn of_value(source: Source<'_>, origin: SettingOrigin<'_>, message: &str) -> Self {
        let quoted = match &origin {
            SettingOrigin::Variable(from) => Quoted::Variable(from.text),
            SettingOrigin::File | SettingOrigin::Text(_) => Quoted::File(source.text),
        };
        Self::at(source, origin, mask::message(message, quoted, source.plain))
    }

    fn at(source: Source<'_>, origin: SettingOrigin<'_>, message: String) -> Self {
        match origin {
            SettingOrigin::File => Self::without_excerpt(Location::File(source.path.to_owned()), message),
            SettingOrigin::Variable(from) => Self::variable(from.variable, message),
            SettingOrigin::Text(span) => Self::in_text(source, &span, message),
        }
    }

    fn in_text(source: Source<'_>, span: &Range<usize>, message: String) -> Self {
        let Source { path, text, plain } = source;
        let start = span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let offset = text[line_start..start].chars().count();
        let excerpt = Excerpt {
            text: mask::line_of(text, line_start, plain),
            offset,
            length: text[start..span.end.clamp(start, line_end)].chars().count().max(1),
        };
        let line = text[..start].matches('\n').count() + 1;
        let location = Location::Position { file: path.to_owned(), line, column: offset + 1 };
        Self { location, message, excerpt: Some(excerpt) }
    }

    /// File, line and column; `None` without a place in the file's text.
    #[must_use]
    pub fn position(&self) -> Option<(&Path, usize, usize)> {
        match &self.location {
            Location::Position { file, line, column } => Some((file, *line, *column)),
            _ => None,
        }
    }

    /// The environment variable that it is about, if it is about one.
    #[must_use]
    pub fn variable_name(&self) -> Option<&str> {
        if let Location::Variable(name) = &self.location { Some(name) } else { None }
    }

    /// The error or warning, with the values that would be accepted.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same place, with another message.
    pub(super) fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    fn without_excerpt(location: Location, message: impl Into<String>) -> Self {
        Self { location, message: message.into(), excerpt: None }
    }
}

impl fmt::Display for Finding {
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

/// The parser's message for a value that is neither in quotes nor a number, a date or `true`.
const UNQUOTED: &str = "string values must be quoted, expected literal string";

/// The message for an unquoted value, of which the text begins with the value.
fn quotes_instead(text: &str) -> Option<String> {
    let value = text.lines().next().unwrap_or_default().split([',', ']', '}', '#']).next()?.trim();
    Some(match value.to_lowercase().as_str() {
        "" => "there is no value after `=`".to_owned(),
        "true" | "yes" | "on" => "write `true`".to_owned(),
        "false" | "no" | "off" => "write `false`; or, if it is a text, put it in quotes".to_owned(),
        _ if value.contains('"') => return None,
        _ => format!("a text is written in quotes: `\"{value}\"`"),
    })
}

/// Rewords messages of the parser: `unknown field `x`, expected one of `a`, `b``, for which it suggests the nearest name, and some
/// others.
fn in_plain_words(message: &str) -> String {
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("`{name}` is missing in this table");
    }
    let is_of_other_size = |message: &str| message.ends_with("as i128, expected any valid TOML value");
    if ["integer number overflowed", "u64 value was too large"].contains(&message) || is_of_other_size(message) {
        return "this number is too large".to_owned();
    }
    if message == "wanted string or table" {
        return "this is a text in quotes".to_owned();
    }
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
