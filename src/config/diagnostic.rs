//! What is wrong with a configuration, where, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::mask;
use crate::suggest::suggest;

/// A configuration that is refused. Its `Display` is for people: file, line and column, what is wrong, the line itself
/// with a mark below, and what would be accepted. It never shows a secret.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    place: Place,
    message: String,
    excerpt: Option<Excerpt>,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Position { file: PathBuf, line: usize, column: usize },
    Variable(String),
}

/// The line at fault, and which part of it is.
#[derive(Debug)]
struct Excerpt {
    text: String,
    offset: usize,
    length: usize,
}

/// A part of a text that is refused: the validation's finding, not yet tied to a file.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
    /// The text at that place may be a secret.
    pub(super) confidential: bool,
    /// The message is the parser's, which quotes values.
    of_parser: bool,
}

impl Finding {
    pub(super) fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span: Some(span), message: message.into(), confidential: false, of_parser: false }
    }

    pub(super) fn of_the_whole(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), confidential: false, of_parser: false }
    }

    /// What the parser has found; unknown names get the nearest known one.
    pub(super) fn of_parser(error: &toml::de::Error) -> Self {
        let confidential = error.message() == super::file::LITERAL_SECRET;
        Self { span: error.span(), message: with_suggestion(error.message()), confidential, of_parser: true }
    }
}

impl ConfigError {
    pub(super) fn new(path: &Path, text: &str, finding: Finding) -> Self {
        let message = if finding.of_parser { mask::message(&finding.message, text) } else { finding.message };
        let Some(span) = finding.span else {
            return Self { place: Place::File(path.to_owned()), message, excerpt: None };
        };
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
        let place = Place::Position { file: path.to_owned(), line, column: offset + 1 };
        Self { place, message, excerpt: (!finding.confidential).then_some(excerpt) }
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self { place: Place::File(path.to_owned()), message: format!("can't be read: {error}"), excerpt: None }
    }

    pub(super) fn variable(name: &str, message: impl Into<String>) -> Self {
        Self { place: Place::Variable(name.to_owned()), message: message.into(), excerpt: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(file) => write!(f, "{}: {}", file.display(), self.message)?,
            Place::Position { file, line, column } => {
                write!(f, "{}:{line}:{column}: {}", file.display(), self.message)?;
            }
            Place::Variable(name) => write!(f, "environment variable {name}: {}", self.message)?,
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n  {}\n  {}{}", excerpt.text, " ".repeat(excerpt.offset), "^".repeat(excerpt.length))?;
        }
        Ok(())
    }
}

/// `unknown field `x`, expected one of `a`, `b`` with the nearest of them, in our words.
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
