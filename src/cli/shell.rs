//! Words of a POSIX shell, for commands that an operator copies from the output.

/// Returns a text as one word of a shell, in single quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_a_quoted_text_as_it_was() {
        for text in ["", "a b", "it's", "$HOME `id` \"x\" \\", "a\nb", "'"] {
            let output = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(text))]).output();
            assert_eq!(output.expect("there is a shell").stdout, text.as_bytes(), "{text}");
        }
    }
}
