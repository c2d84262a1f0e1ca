//! Masks everything in an error message that could be a credential. A secret under a misspelt name or in the wrong setting
//! is not recognised as a secret, and the error message must not reveal it. Masks rather too much than too little.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::Value as Json;

use super::units::parse_duration;

/// Shortest word that could be a credential.
const SHORTEST: usize = 12;

/// Length of a part without a separator that no name has.
const LONG_PART: usize = 24;
/// Changes between letters and digits that no name has.
const OFTEN: usize = 4;

/// Endings of files that a configuration names.
const FILE_ENDINGS: [&str; 8] = [".pem", ".key", ".crt", ".cer", ".json", ".toml", ".txt", ".sock"];

/// A path in which each component that looks like a credential is replaced by stars: a secret where a path belongs.
pub(crate) fn path(path: &Path) -> String {
    let masked = |name: &str| if looks_random(name) { "*".repeat(name.chars().count()) } else { name.to_owned() };
    path.to_string_lossy().split('/').map(masked).collect::<Vec<_>>().join("/")
}

/// The names of settings. Of the values of those that hold no secret only what looks generated is masked.
#[derive(Debug, Default)]
pub(super) struct PlainNames {
    /// Names of settings that hold no secret.
    plain: BTreeSet<String>,
    secret: BTreeSet<String>,
}

impl PlainNames {
    /// Collects them from the JSON Schema, which marks secrets and all below them as `writeOnly`.
    pub(super) fn of_schema(schema: &Json) -> Self {
        fn collect(schema: &Json, is_secret: bool, plain: &mut BTreeSet<String>, secret: &mut BTreeSet<String>) {
            let is_secret = is_secret || schema["writeOnly"] == true;
            for (name, below) in schema["properties"].as_object().into_iter().flatten() {
                let of_secrets = is_secret || below["writeOnly"] == true;
                if of_secrets { &mut *secret } else { &mut *plain }.insert(name.clone());
                collect(below, is_secret, plain, secret);
            }
            if schema["items"].is_object() {
                collect(&schema["items"], is_secret, plain, secret);
            }
        }
        let (mut plain, mut secret) = (BTreeSet::new(), BTreeSet::new());
        collect(schema, false, &mut plain, &mut secret);
        let plain = plain.difference(&secret).cloned().collect();
        Self { plain, secret }
    }

    /// The words to mask in values of the setting with this name.
    fn suspects(&self, setting: &str) -> Suspects {
        if self.plain.contains(setting) { Suspects::Generated } else { Suspects::All }
    }

    /// True for the name of a setting, as `tenants.client_keys`.
    fn is_name(&self, word: &str) -> bool {
        word.split('.').all(|part| self.plain.contains(part) || self.secret.contains(part))
    }
}

/// The words that are masked, of those that could be credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspects {
    /// All words, for secrets and for settings that do not exist.
    All,
    /// Words that look like the output of a generator.
    Generated,
    /// Words that no prose has, for comments.
    NoProse,
}

impl Suspects {
    fn include(self, word: &str) -> bool {
        match self {
            Self::All => true,
            Self::Generated => word.contains('@') || looks_generated(word),
            Self::NoProse => {
                word.contains(|letter: char| letter.is_ascii_digit() || "@_=+~".contains(letter))
                    || looks_generated(word)
            }
        }
    }
}

/// A line of TOML with every possible credential replaced by as many stars, so that columns stay right.
pub(super) fn line(line: &str) -> String {
    masked(line, words(line, &PlainNames::default(), &mut Suspects::All).places)
}

/// The line of a file's text that begins at this byte, masked like [`line()`]. Values of settings that hold no secret are shown.
pub(super) fn line_of(text: &str, start: usize, plain: &PlainNames) -> String {
    let mut suspects = Suspects::All;
    // A table's line leaves all words suspected: what is above it does not matter.
    let above: Vec<&str> = text[..start].lines().rev().take_while(|line| !begins_table(line)).collect();
    above.into_iter().rev().for_each(|line| drop(words(line, plain, &mut suspects)));
    let line = text[start..].lines().next().unwrap_or_default().trim_end();
    masked(line, words(line, plain, &mut suspects).places)
}

fn masked(line: &str, words: Vec<Range<usize>>) -> String {
    let mut shown = line.to_owned();
    for word in words.into_iter().rev() {
        let stars = "*".repeat(line[word.clone()].chars().count());
        shown.replace_range(word, &stars);
    }
    shown
}

/// The text that a message quotes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Quoted<'a> {
    /// The text of a file.
    File(&'a str),
    /// The value of an environment variable, which has no comments.
    Variable(&'a str),
}

/// A message in which every possible credential that it quotes is replaced by stars. Names of settings and values of settings that
/// hold no secret are shown.
pub(super) fn message(message: &str, quoted: Quoted<'_>, plain: &PlainNames) -> String {
    let (text, has_comments) = match quoted {
        // What looks like a comment can be a part of a multi-line string.
        Quoted::File(text) => (text, !text.contains("\"\"\"") && !text.contains("'''")),
        Quoted::Variable(text) => (text, false),
    };
    let mut suspects = Suspects::All;
    let words = text.lines().flat_map(|line| {
        let Words { places, comment } = words(line, plain, &mut suspects);
        // No message quotes a comment, but its own words can be those of one.
        let quotable = places.into_iter().filter(move |place| !has_comments || place.start < comment);
        quotable.map(move |place| &line[place]).collect::<Vec<_>>()
    });
    words.fold(message.to_owned(), |mut message, word| {
        // A match after two slashes is the host of an example URL in the message itself. One slash can end the folder that a
        // relative path was completed with.
        let is_quoted = |at: &usize| !message[..*at].ends_with("//");
        let places: Vec<usize> = message.match_indices(word).map(|(at, _)| at).filter(is_quoted).collect();
        for at in places {
            // As many bytes as before, so the other places stay.
            message.replace_range(at..at + word.len(), &"*".repeat(word.len()));
        }
        message
    })
}

/// The possible credentials in a line.
struct Words {
    places: Vec<Range<usize>>,
    /// The start of the comment; the end of the line if it has none.
    comment: usize,
}

/// True for a line that names a table, as `[[tenants]]`.
fn begins_table(line: &str) -> bool {
    line.trim_start().starts_with('[') && line.trim_end().ends_with(']')
}

/// Finds the possible credentials in a line, which need not be valid TOML. Names of settings are none. A line inside a multi-line
/// string is read as if it stood outside. `suspects` are those of the value that the line before left open, and then of this line's last value.
fn words(line: &str, plain: &PlainNames, suspects: &mut Suspects) -> Words {
    let (mut found, mut comment) = (Vec::new(), line.len());
    let names_a_table = line.trim_start().starts_with('[');
    if begins_table(line) {
        *suspects = Suspects::All;
    }
    let (mut at, mut is_value) = (0, false);
    while let Some(next) = line[at..].chars().next() {
        let rest = &line[at..];
        let mut end = at + next.len_utf8();
        match next {
            '"' | '\'' => {
                let content = end..end + content(&line[end..], next);
                end = content.end;
                found.extend(within(line, content, *suspects));
                // The closing quote, if there is one.
                end += usize::from(end < line.len());
            }
            '#' => {
                comment = at;
                found.extend(within(line, end..line.len(), Suspects::NoProse));
                end = line.len();
            }
            '=' => is_value = true,
            ',' | '{' => is_value = false,
            _ if !ends_a_word(next) => {
                end = at + rest.find(ends_a_word).unwrap_or(rest.len());
                let is_name = !is_value && (names_a_table || line[end..].trim_start().starts_with('='));
                if is_name {
                    if !names_a_table {
                        *suspects = plain.suspects(line[at..end].rsplit('.').next().unwrap_or_default());
                    }
                    let mut start = at;
                    for part in line[at..end].split('.') {
                        found.extend(looks_random(part).then_some(start..start + part.len()));
                        start += part.len() + 1;
                    }
                } else {
                    // Padding of base64.
                    end += line[end..].len() - line[end..].trim_start_matches('=').len();
                    found.extend(within(line, at..end, *suspects));
                }
            }
            _ => {}
        }
        at = end;
    }
    found.retain(|place: &Range<usize>| !plain.is_name(&line[place.clone()]));
    Words { places: found, comment }
}

/// The length of a string's content up to its closing quote, or of the whole text if there is none.
fn content(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.find(|letter| {
        let is_the_end = letter == quote && !escaped;
        escaped = letter == '\\' && quote == '"' && !escaped;
        is_the_end
    });
    end.unwrap_or(text.len())
}

/// The positions of possible credentials in a part of a line.
fn within(line: &str, part: Range<usize>, suspects: Suspects) -> impl Iterator<Item = Range<usize>> {
    let separates = |letter: char| letter.is_whitespace() || "\"'`,;()[]{}<>".contains(letter);
    let mut start = part.start;
    line[part].split_inclusive(separates).flat_map(move |piece| {
        let word = piece.trim_end_matches(separates);
        let at = start;
        start += piece.len();
        let included = credentials_in(word).into_iter().filter(move |place| suspects.include(&word[place.clone()]));
        included.map(move |place| at + place.start..at + place.end)
    })
}

/// The positions of possible credentials in a word: the whole word, or parts of a URL, an address or a `name:value`.
fn credentials_in(word: &str) -> Vec<Range<usize>> {
    const DELIMITERS: [char; 7] = [':', '?', '&', '@', '#', '|', '*'];
    if word.parse::<Timestamp>().is_ok() || word.parse::<DateTime>().is_ok() {
        return Vec::new();
    }
    let is_a_url = word.contains("://");
    let is_a_url_with_a_password = is_a_url && word.contains('@');
    let is_a_path = is_a_path(word);
    if is_a_url_with_a_password || !is_a_path && !word.contains(DELIMITERS) {
        let is_one = is_a_url_with_a_password || could_be_a_credential(word);
        return is_one.then_some(0..word.len()).into_iter().collect();
    }
    let is_a_host_and_a_port = word
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.bytes().all(|byte| byte.is_ascii_digit()) && !host.contains(':'));
    let query = word.find(['?', '#']).unwrap_or(word.len());
    let mut found = Vec::new();
    let mut start = 0;
    let delimits = |letter| DELIMITERS.contains(&letter) || (is_a_url || is_a_path) && "/=".contains(letter);
    for piece in word.split_inclusive(delimits) {
        let part = piece.trim_end_matches(delimits);
        // Scheme, host and path are plain words, and so are the names of a query and the start of a pattern.
        let is_named = is_a_url && (start < query || piece.ends_with('='));
        let is_plain = is_a_host_and_a_port || is_a_path || is_named || piece.ends_with('*');
        if could_be_a_credential(part) && (!is_plain || looks_random(part)) {
            found.push(start..start + part.len());
        }
        start += piece.len();
    }
    found
}

/// Returns whether a word looks like one that a generator has made: it mixes digits with upper case or underscores, or is long
/// and mixes cases. Names of settings, hosts and headers do not.
fn looks_random(word: &str) -> bool {
    let has = |is_one: fn(&char) -> bool| word.chars().any(|letter| is_one(&letter));
    let (has_digit, has_upper) = (has(char::is_ascii_digit), has(char::is_ascii_uppercase));
    could_be_a_credential(word)
        && (has_digit && (has_upper || word.contains('_'))
            || has_upper && has(char::is_ascii_lowercase) && word.len() >= 20)
}

/// Returns whether a word looks like the output of a generator, which names of tenants, accounts, hosts and callers do not: it has
/// the prefix of a key, changes often between letters and digits, mixes digits with both cases, or has a long part without a
/// separator.
fn looks_generated(word: &str) -> bool {
    const KEY_PREFIXES: [&str; 4] = ["tk_", "pk_", "sk_", "pst_"];
    let has = |is_one: fn(&char) -> bool| word.chars().any(|letter| is_one(&letter));
    let is_mixed = has(char::is_ascii_digit) && has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase);
    let is_long = word.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|part| part.len() >= LONG_PART);
    let letters: Vec<bool> =
        word.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.is_ascii_digit()).collect();
    let changes = letters.windows(2).filter(|pair| pair[0] != pair[1]).count();
    KEY_PREFIXES.iter().any(|prefix| word.contains(prefix)) || is_mixed || is_long || changes >= OFTEN
}

fn ends_a_word(letter: char) -> bool {
    letter.is_whitespace() || "\"'=,[]{}#".contains(letter)
}

fn is_a_path(word: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| word.starts_with(start))
}

fn could_be_a_credential(word: &str) -> bool {
    let is_a_file = FILE_ENDINGS.iter().any(|ending| word.ends_with(ending));
    let is_a_variable = word.contains('_')
        && word.starts_with(|letter: char| letter.is_ascii_uppercase())
        && word.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
    let is_plain = is_a_path(word) || is_a_file || is_a_variable || parse_duration(word).is_some();
    let has_the_letters = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.+/=~-".contains(letter));
    word.len() >= SHORTEST && has_the_letters && !is_plain
}
