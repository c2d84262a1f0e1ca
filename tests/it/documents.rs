//! README.md and `docs/`: what they show works as it is shown, and their links lead somewhere.
//!
//! The commands of a page run in one shell, in a folder of their own, with the program under test. Programs that would change the
//! machine (`docker`, `kubectl`, `cargo` …) are replaced by scripts that check their arguments; `postern serve` becomes
//! `postern check`. In the output that a page shows, `…` stands for any text.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postern::clock::Clock;
use postern::config::{Config, Environment};
use postern::digest::{Hex, sha256};
use serde_json::Value;

use crate::support::{
    ClientKey, Configuration, FLEET_SECRET, Folder, KEY, Listener, ORG_KEY, Process, ScriptedRefold, Tenant, World,
    run_script,
};

/// Runs the program under test; what would run for ever is only checked. The commands for a running gateway ask the one whose
/// admin listener has the address `ADMIN`; Refold has the address `REFOLD`.
const POSTERN: &str = r#"#!/bin/sh
case "$1 ${2-}" in
  "serve "*) shift; set -- check "$@" ;;
  "demo "* | "simulate "* | "health https://"*) set -- "$1" --help ;;
  "keys "* | "purge "*) set -- "$@" --admin "$ADMIN" ;;
  "health --admin") shift 3; set -- health --admin "$ADMIN" "$@" ;;
  "check --online") export POSTERN_UPSTREAM_BASE_URL="http://$REFOLD" ;;
esac
exec "$POSTERN" "$@"
"#;

/// Stands in for a program that would change the machine: the files, programs and profiles in its arguments have to exist.
const OTHER: &str = r#"#!/bin/sh
set -eu
for argument; do
  case "$previous" in
    -f | -k) [ -e "$argument" ] ;;
    --profile) grep -qF "[profile.$argument]" "$ROOT/Cargo.toml" ;;
    --bench) grep -qF "name = \"$argument\"" "$ROOT/Cargo.toml" ;;
    --) exec postern "$argument" --help ;;
  esac
  previous=$argument
done
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages, by their paths in the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![PathBuf::from("README.md")];
    let docs = std::fs::read_dir(root().join("docs")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.extend(pages.map(|path| path.strip_prefix(root()).expect("a page of the repository").to_owned()));
    assert!(paths.len() > 6, "{paths:?}");
    let read = |path: PathBuf| (std::fs::read_to_string(root().join(&path)).expect("the page is readable"), path);
    paths.into_iter().map(read).map(|(text, path)| (path, text)).collect()
}

pub(crate) fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("the page is readable")
}

/// The fenced blocks of a page: language and content.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fences: Vec<&str> = page.split("\n```").skip(1).collect();
    assert_eq!(fences.len() % 2, 0, "every fence is closed");
    fences.iter().step_by(2).map(|block| block.split_once('\n').expect("a line with the language")).collect()
}

pub(crate) fn blocks_in<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    blocks(page).into_iter().filter(|(found, _)| *found == language).map(|(_, text)| text).collect()
}

/// A configuration that a page shows, with the hash of [`KEY`] in the place of the ellipsis.
fn completed(configuration: &str) -> String {
    configuration.replace("sha256 = \"…\"", &format!("sha256 = \"{}\"", Hex(&sha256(KEY.as_bytes()))))
}

/// A folder as a reader of the pages has it: a checkout, and the README's configuration.
fn checkout() -> Folder {
    let folder = Folder::new();
    for name in [".ci", "benches", "config", "deploy", "docs"] {
        symlink(root().join(name), folder.join(name)).expect("the folder is writable");
    }
    folder.write("postern.toml", completed(blocks_in(&page("README.md"), "toml")[0]));
    let programs = folder.join("bin");
    std::fs::create_dir(&programs).expect("the folder is writable");
    for name in ["postern", "cargo", "docker", "just", "kubectl", "sudo", "systemctl"] {
        let path = programs.join(name);
        let script = if name == "postern" { POSTERN } else { OTHER };
        std::fs::write(&path, script).expect("the folder is writable");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
    }
    folder
}

/// Runs a script in a shell, in a checkout, beside a gateway whose admin listener has the address `admin`, and a Refold.
fn run(script: &str, admin: &str, refold: &str) -> Output {
    let folder = checkout();
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").expect("a path"));
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", script]).current_dir(folder.path()).env("PATH", path).env("KEY", KEY);
    shell
        .env("REFOLD_ORG_KEY", ORG_KEY)
        .env("POSTERN", env!("CARGO_BIN_EXE_postern"))
        .env("ROOT", root())
        .env("ADMIN", admin)
        .env("REFOLD", refold);
    shell.env("previous", "").env_remove("POSTERN_CONFIG").env_remove("POSTERN_LOG");
    run_script(&mut shell)
}

/// Compares a text with what a page shows, in which `…` stands for any text.
fn matches(text: &str, shown: &str) -> bool {
    let mut rest = text;
    let parts: Vec<&str> = shown.trim_end().split('…').collect();
    for (number, part) in parts.iter().enumerate() {
        let Some(position) = rest.find(part) else { return false };
        if number == 0 && position != 0 {
            return false;
        }
        rest = &rest[position + part.len()..];
    }
    parts.last().is_some_and(|last| last.is_empty()) || rest.trim_end().is_empty()
}

/// The commands of a page as a script, and the output that it shows of some of them. The output of each command that begins with
/// `$` follows a line with its number.
fn script(page: &str) -> (String, Vec<String>) {
    let (mut script, mut shown) = (String::new(), Vec::<String>::new());
    for (language, text) in blocks(page) {
        match language {
            // These ask a gateway that runs; `documents_of_incidents` has one.
            "sh" if text.starts_with("curl ") || text.starts_with("jq ") => {}
            "sh" => script.extend(["echo @sh\n", text, "\n"]),
            "console" => {
                for line in text.lines() {
                    if let Some(command) = line.strip_prefix("$ ") {
                        script.extend(["echo @", &shown.len().to_string(), "\n", command, "\n"]);
                        shown.push(String::new());
                    } else {
                        shown.last_mut().expect("a command").extend([line, "\n"]);
                    }
                }
            }
            _ => {}
        }
    }
    (script, shown)
}

#[tokio::test]
async fn every_command_of_the_pages_runs_as_shown() {
    let tenant = Tenant::new("acme").client_key(ClientKey::new("dashboards", KEY));
    let config = Configuration::bare().listeners([Listener::new()]).tenants([tenant]).admin();
    let mut gateway = Process::serve_configuration(&config, &[]).await;
    let admin = gateway.admin_address().await.to_string();
    let refold = ScriptedRefold::start().await;
    let mut commands = 0;
    for (path, text) in pages().into_iter().filter(|(path, _)| !path.ends_with("callers.md")) {
        let (script, shown) = script(&text);
        commands += script.lines().count();
        let (admin, server) = (admin.clone(), refold.address().to_string());
        let output = tokio::task::spawn_blocking(move || run(&script, &admin, &server)).await.expect("no panic");
        let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {out}{errors}", path.display());
        for (number, expected) in shown.iter().enumerate() {
            let (_, after) = out.split_once(&format!("@{number}\n")).expect("the command has run");
            let printed = after.split("\n@").next().expect("a first part");
            assert!(matches(printed, expected), "{}: shown {expected}printed {printed}", path.display());
        }
    }
    assert!(commands > 20, "{commands}");
    assert!(refold.requests() > 0, "Refold was asked about the org key");
}

#[test]
fn what_the_pages_show_of_an_output_is_compared() {
    assert!(
        matches("a 1\nb 2\n", "a 1\nb 2\n") && matches("a 1\nb 2\n", "a …\nb 2") && matches("a 1\nb 2\n", "a 1\n…\n")
    );
    assert!(!matches("a 1\nb 2\n", "a 1\n") && !matches("a 1\n", "1\n") && !matches("a 1\n", "a …2\n"));
    let run = |script| run(script, "", "");
    let failing = run("postern check --config missing.toml\n");
    assert!(!failing.status.success());
    assert!(
        !run("kubectl apply -f missing.yaml").status.success() && !run("cargo build --profile none").status.success()
    );
    assert!(!run("cargo run -- none").status.success() && run("cargo build --profile dist").status.success());
}

#[test]
fn every_configuration_of_the_pages_is_valid() {
    let mut environment = Environment::default();
    environment.insert("REFOLD_ORG_KEY", ORG_KEY);
    environment.insert("FLEET_SECRET", FLEET_SECRET);
    let mut found = 0;
    for (path, text) in pages() {
        for block in blocks_in(&text, "toml") {
            let config = Config::parse(&completed(block), &path, &environment);
            found += config.unwrap_or_else(|error| panic!("{}: {error}", path.display())).tenants.len();
        }
        for block in blocks_in(&text, "json") {
            block.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect("a line of JSON")));
        }
    }
    assert!(found > 0);
}

/// The anchor of a heading, as GitHub makes it.
pub(crate) fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let mut all = pages();
    for name in ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"] {
        all.push((name.into(), page(name)));
    }
    let mut followed = 0;
    for (path, text) in &all {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            let target = root().join(target);
            assert!(target.exists(), "{}: {link}", path.display());
            if !fragment.is_empty() {
                let text = std::fs::read_to_string(&target).expect("a page");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == fragment);
                assert!(found, "{}: {link}", path.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed}");
}

#[test]
fn the_readme_is_read_in_a_minute() {
    assert!(page("README.md").len() <= 9_000);
    let picture = std::fs::metadata(root().join("docs/status-page.png")).expect("the README's picture").len();
    assert!(picture <= 150 * 1024, "{picture}");
}

#[test]
fn the_changelog_has_each_heading_once() {
    let text = page("CHANGELOG.md");
    let releases: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert!(!releases.is_empty());
    for release in releases {
        let headings: Vec<&str> = release.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let mut expected = vec!["Breaking", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
        expected.retain(|heading| headings.contains(heading));
        assert_eq!(headings, expected, "{}", release.lines().next().unwrap_or_default());
    }
}

#[test]
fn the_table_of_errors_has_every_error_code() {
    let rows = |text: &str| -> BTreeSet<(String, String)> {
        let rows = text.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
        let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        cells
            .flat_map(|cells| {
                let codes = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
                codes.into_iter().map(move |code| (cells[1].to_owned(), code))
            })
            .collect()
    };
    let documented: BTreeSet<String> = rows(&page("docs/callers.md")).into_iter().map(|(_, code)| code).collect();
    let lines = include_str!("../../src/error.rs").lines().filter(|line| line.contains(" => (StatusCode::"));
    let declared: BTreeSet<String> = lines.map(|line| line.split('"').nth(1).expect("a code").to_owned()).collect();
    assert!(declared.len() > 20);
    assert_eq!(documented, declared);
}

/// Runs a snippet of the page for callers and returns its output.
async fn snippet(program: &'static str, arguments: &'static [&'static str], text: String) -> String {
    let run = move || run_script(Command::new(program).args(arguments).arg(text).env("KEY", KEY));
    let output = tokio::task::spawn_blocking(run).await.expect("no panic");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
#[ignore = "needs curl, Node.js and Python"]
async fn the_snippets_for_callers_work_and_wait_for_their_turn() {
    // One request a second: all but the first snippet get a 429 and try again.
    let world = World::builder().config(|config| config.client_limit(1, 1)).clock(Clock::system()).start().await;
    let page = page("docs/callers.md").replace("http://127.0.0.1:8080", &format!("http://{}", world.gateway.address));
    let curl = snippet("bash", &["-ec"], blocks_in(&page, "sh")[0].to_owned()).await;
    let shown: Value = serde_json::from_str(&curl).expect("JSON");
    let count = shown["totalDocs"].as_u64().expect("a number");
    let expected = format!("{count} 10\n");
    assert!(count > 10, "{curl}");
    let javascript = blocks_in(&page, "javascript");
    let plain = snippet("node", &["--input-type=module", "-e"], javascript[0].to_owned()).await;
    assert_eq!(plain, expected);
    let text = [javascript[0], javascript[2], "console.log(isStale, seconds < 60);"].concat();
    assert_eq!(snippet("node", &["--input-type=module", "-e"], text).await, format!("{expected}false true\n"));
    let python = snippet("python3", &["-c"], blocks_in(&page, "python")[0].to_owned()).await;
    assert_eq!(python, expected);
    // The vendor's SDK, as far as the test of the browser has it.
    let html = include_str!("../data/page.html");
    let class = html.split_once("  class Executions").and_then(|(_, rest)| rest.split_once("  (async"));
    let token = world.refold.session_token("acme-1");
    let text = format!(
        "class Refold {}\nconst token = {token:?};\n{}\nconsole.log(page.totalDocs, page.docs.length);",
        class.expect("the class").0,
        javascript[1]
    );
    assert_eq!(snippet("node", &["--input-type=module", "-e"], text).await, format!("{count} 5\n"));
}
