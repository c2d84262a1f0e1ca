//! The text of a configuration file: it is read or refused with a position, and never causes a panic.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use postern::config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, Path::new("/nonexistent/fuzz.toml"), &postern_fuzz::environment()) {
        Ok(config) => {
            let again = Config::parse(text, Path::new("/nonexistent/fuzz.toml"), &postern_fuzz::environment());
            let changes = again.expect("the same text").changes_since(&config).to_string();
            let shown = format!("{config:?}{changes}");
            for secret in [postern_fuzz::ORG_KEY, postern_fuzz::SECRET] {
                assert!(text.contains(secret) || !shown.contains(secret), "a secret is printed");
            }
        }
        Err(error) => assert!(error.to_string().contains("fuzz.toml"), "{error}"),
    }
});
