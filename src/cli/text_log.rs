//! The log as text for a person at a terminal. Every line is written as JSON first, so that both forms have the same content;
//! this turns each into `12:00:00.123 INFO  listening address=127.0.0.1:8080`.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Colours of a text log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// The colours of the terminal's own palette.
    Ansi,
    /// None.
    Off,
}

/// Turns lines of JSON into lines of text. Lines that are no JSON objects stay unchanged.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextLog {
    colours: Colours,
}

impl TextLog {
    pub(super) fn new(colours: Colours) -> Self {
        Self { colours }
    }

    /// Returns whole lines as text, each as one line.
    pub(super) fn text(self, lines: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.len() * 2);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            // Writing to memory does not fail.
            let _ = self.write_line(&mut text, line.strip_suffix(b"\n").unwrap_or(line));
        }
        text
    }

    fn write_line(self, text: &mut Vec<u8>, line: &[u8]) -> io::Result<()> {
        let Some(Fields(fields)) = serde_json::from_slice(line).ok() else {
            text.extend_from_slice(line);
            return writeln!(text);
        };
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| plain(value.get()));
        let time = field("timestamp").unwrap_or_default();
        // The date and the time zone are the same on every line that a person looks at.
        let time = time.split_once('T').map_or(time, |(_, time)| time.get(..12).unwrap_or(time));
        let level = field("level").unwrap_or_default();
        let (dim, bold) = (self.style("\u{1b}[2m"), self.style("\u{1b}[1m"));
        let (coloured, end) = (self.style(colour_of(level)), self.style("\u{1b}[0m"));
        write!(text, "{dim}{time}{end} {coloured}{level:<5}{end} {bold}{}{end}", field("message").unwrap_or_default())?;
        for (name, value) in &fields {
            if !["timestamp", "level", "message", "target"].contains(&&**name) {
                let value = plain(value.get());
                let coloured = if name == "status" { self.style(colour_of_status(value)) } else { "" };
                let end = if coloured.is_empty() { "" } else { end };
                write!(text, " {dim}{}={}{coloured}{value}{end}", name.escape_debug(), self.style("\u{1b}[0m"))?;
            }
        }
        writeln!(text)
    }

    fn style(self, sequence: &'static str) -> &'static str {
        if self.colours == Colours::Ansi { sequence } else { "" }
    }
}

/// A string without its quotes if these are not needed to see where it ends; other values as they are. Escapes stay, so no text
/// of a peer can act on the terminal.
fn plain(json: &str) -> &str {
    let needs_quotes = |text: &str| text.is_empty() || text.contains([' ', '\\', '=']);
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) if !needs_quotes(text) => text,
        _ => json,
    }
}

fn colour_of(level: &str) -> &'static str {
    match level {
        "ERROR" => "\u{1b}[31m",
        "WARN" => "\u{1b}[33m",
        "INFO" => "\u{1b}[32m",
        _ => "\u{1b}[34m",
    }
}

fn colour_of_status(status: &str) -> &'static str {
    match status.as_bytes().first() {
        Some(b'5') => "\u{1b}[31m",
        Some(b'4') => "\u{1b}[33m",
        _ => "",
    }
}

/// The members of an object in their order, with their values as they are written.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(colours: Colours, lines: &str) -> String {
        String::from_utf8(TextLog::new(colours).text(lines.as_bytes())).expect("UTF-8")
    }

    const LISTENING: &str = r#"{"timestamp":"2026-03-14T12:00:00.123456Z","level":"INFO","message":"listening","address":"127.0.0.1:1","target":"postern::cli"}"#;

    #[test]
    fn a_line_of_json_becomes_one_of_text() {
        let plain = "12:00:00.123 INFO  listening address=127.0.0.1:1\n";
        assert_eq!(text(Colours::Off, &format!("{LISTENING}\n")), plain);
        let several = format!("{LISTENING}\nno JSON\n{LISTENING}\n");
        assert_eq!(text(Colours::Off, &several), format!("{plain}no JSON\n{plain}"));
        let request = r#"{"timestamp":"2026-03-14T12:00:00.1Z","level":"INFO","message":"request","status":503,"cause":"a b","n":null}"#;
        let shown = text(Colours::Off, &format!("{request}\n"));
        assert_eq!(shown, "12:00:00.1Z INFO  request status=503 cause=\"a b\" n=null\n");
        assert!(text(Colours::Ansi, &format!("{request}\n")).contains("\u{1b}[31m503\u{1b}[0m"));
    }

    #[test]
    fn escapes_of_control_characters_stay_escapes() {
        let line = r#"{"timestamp":"","level":"WARN","message":"x","name":"\u001b[31m\nINFO","\u001b":1}"#;
        let shown = text(Colours::Off, &format!("{line}\n"));
        assert!(shown.contains(r#"name="\u001b[31m\nINFO""#) && shown.lines().count() == 1, "{shown}");
    }
}
