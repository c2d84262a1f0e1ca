//! Spellings of settings and commands that have changed (the "Breaking" entries of the change log, and the history of
//! `config/postern.toml`): the answer to each names the new one.

use std::process::Output;

use crate::support::{Configuration, Folder, Issuer, postern, run_to_end};

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Settings and variables with the old spelling, and a part of the answer.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("[cache]\nderive = true", "", "`true` is now written \"verified\""),
    ("[cache]\nderive = false", "", "`false` is now written \"off\""),
    ("[cache]\nderive = \"true\"", "", "`true` is now written \"verified\""),
    ("", "POSTERN_CACHE_DERIVE=true", "POSTERN_CACHE_DERIVE: `true` is now written \"verified\""),
    ("", "POSTERN_CACHE_DERIVE=false", "POSTERN_CACHE_DERIVE: `false` is now written \"off\""),
    ("[server]\nmax_header_size = 0", "", "the size has to be larger than 0"),
    (
        "[[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/linked-account\"",
        "",
        "GET /api/v2/public/linked-account is not forwarded without `scope = \"org\"`",
    ),
];

#[test]
fn check_names_the_new_spelling_of_a_setting() {
    let folder = Folder::new();
    for (fragment, variable, expected) in SETTINGS {
        let config = Configuration::new().without("server").toml(fragment).issuer(Issuer::with_secret());
        let mut check = postern();
        check.arg("check").arg(folder.write("postern.toml", config.to_toml())).envs(variable.split_once('='));
        let shown = text(&run_to_end(&mut check));
        assert!(shown.contains(expected), "{fragment}: {shown}");
    }
}

#[test]
fn the_program_names_the_new_spelling_of_a_command() {
    let folder = Folder::new();
    let file = folder.write("postern.toml", Configuration::new().to_toml()).display().to_string();
    for (arguments, variables, expected) in [
        (["--listen", "127.0.0.1:0"].as_slice(), ("PATH", "/bin"), "`postern demo --listen ADDRESS`"),
        (&["--admin", "127.0.0.1:0"], ("PATH", "/bin"), "`postern demo --listen ADDRESS`"),
        (&["--listen", "127.0.0.1:0", "serve", "--config", &file], ("PATH", "/bin"), "`postern demo --listen ADDRESS`"),
        (&[], ("POSTERN_CONFIG", &file), "`postern serve` runs the gateway with it, `postern demo` a demonstration"),
        (&[], ("PATH", "/bin"), "  postern demo "),
        (
            &["serve", "--config", &file],
            ("POSTERN_LOG", "hyper=debug"),
            "nor a module of Postern with one, like `postern::server=debug`",
        ),
    ] {
        let shown = text(&run_to_end(postern().args(arguments).env(variables.0, variables.1)));
        assert!(shown.contains(expected), "{arguments:?}: {shown}");
    }
}
