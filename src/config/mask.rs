//! Masks everything in an error message that could be a credential. A secret under a misspelt name or in the wrong setting
//! is not recognised as a secret, and the error message must not reveal it. Masks rather too much than too little.

use std::ops::Range;

use super::units::parse_duration;

/// Shortest word that could be a credential.
const SHORTEST: usize = 12;

/// A line of TOML with every possible credential replaced by as many stars, so that columns stay right.
pub(super) fn line(line: &str) -> String {
    let mut shown = line.to_owned();
    for word in words(line).into_iter().rev() {
        let stars = "*".repeat(line[word.clone()].chars().count());
        shown.replace_range(word, &stars);
    }
    shown
}

/// A message in which every possible credential that it quotes from a text is replaced by stars.
pub(super) fn message(message: &str, text: &str) -> String {
    let words = text.lines().flat_map(|line| words(line).into_iter().map(move |word| &line[word]));
    words.fold(message.to_owned(), |mut message, word| {
        // A match after a slash is part of an example URL in the message itself. In a quotation from the text, the slash
        // would be part of the word.
        let is_quoted = |at: &usize| !message[..*at].ends_with('/');
        let places: Vec<usize> = message.match_indices(word).map(|(at, _)| at).filter(is_quoted).collect();
        for at in places {
            // As many bytes as before, so the other places stay.
            message.replace_range(at..at + word.len(), &"*".repeat(word.len()));
        }
        message
    })
}

/// The positions of possible credentials in a line, which need not be valid TOML. A line inside a multi-line string is read
/// as if it stood outside.
fn words(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let names_a_table = line.trim_start().starts_with('[');
    let (mut at, mut is_value) = (0, false);
    while let Some(next) = line[at..].chars().next() {
        let rest = &line[at..];
        let mut end = at + next.len_utf8();
        match next {
            '"' | '\'' => {
                let content = end..end + content(&line[end..], next);
                end = content.end;
                found.extend(within(line, content));
                // The closing quote, if there is one.
                end += usize::from(end < line.len());
            }
            '#' => {
                found.extend(within(line, end..line.len()));
                end = line.len();
            }
            '=' => is_value = true,
            ',' | '{' => is_value = false,
            _ if !ends_a_word(next) => {
                end = at + rest.find(ends_a_word).unwrap_or(rest.len());
                let is_name = !is_value && (names_a_table || line[end..].trim_start().starts_with('='));
                if !is_name {
                    // Padding of base64.
                    end += line[end..].len() - line[end..].trim_start_matches('=').len();
                    found.extend(within(line, at..end));
                }
            }
            _ => {}
        }
        at = end;
    }
    found
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
fn within(line: &str, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let separates = |letter: char| letter.is_whitespace() || "\"'`,;()[]{}<>".contains(letter);
    let mut start = part.start;
    line[part].split_inclusive(separates).filter_map(move |piece| {
        let word = piece.trim_end_matches(separates);
        let place = start..start + word.len();
        start += piece.len();
        could_be_a_credential(word).then_some(place)
    })
}

fn ends_a_word(letter: char) -> bool {
    letter.is_whitespace() || "\"'=,[]{}#".contains(letter)
}

fn could_be_a_credential(word: &str) -> bool {
    let is_a_url_with_a_password = word.contains("://") && word.contains('@');
    let is_a_path = word.starts_with('/') || word.starts_with("./");
    let is_a_variable = word.contains('_')
        && word.starts_with(|letter: char| letter.is_ascii_uppercase())
        && word.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
    let is_plain = is_a_path || is_a_variable || parse_duration(word).is_some();
    let has_the_letters = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.+/=~-".contains(letter));
    is_a_url_with_a_password || word.len() >= SHORTEST && has_the_letters && !is_plain
}
