//! The commands of the program, their output and their exit status.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use postern::digest::{Hex, sha256};

use crate::support::{ClientKey, Configuration, EXECUTIONS, Folder, Listener, Process, Tenant, postern, run_to_end};

/// Runs the program to its end.
fn run(arguments: &[&str]) -> Output {
    run_to_end(postern().args(arguments))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the program with a configuration file as its last argument.
fn run_with(arguments: &[&str], configuration: &str) -> (Output, String) {
    let folder = Folder::new();
    let file = folder.write("postern.toml", configuration).display().to_string();
    (run(&[arguments, &["--config", &file]].concat()), file)
}

#[test]
fn explain_without_a_configuration_shows_both_dialects() {
    let output =
        run(&["explain", &format!("{EXECUTIONS}?status=errored&execution_source=api-call"), "--tenant", "acme"]);
    assert!(output.status.success());
    let out = text(&output.stdout);
    assert!(
        out.contains(
            "documented  GET /api/v2/public/execution?page=1&limit=10&status=ERRORED&execution_source=API%20Call\n"
        ),
        "{out}"
    );
    assert!(
        out.contains(
            "v3          GET /api/v2/public/execution?page=1&limit=10&status=ERRORED&execution_source=API_CALL\n"
        ),
        "{out}"
    );
    assert!(out.contains("cache key   acme | "), "{out}");
    let wrong = run(&["explain", "stats=ERRORED"]);
    assert!(!wrong.status.success());
    assert!(text(&wrong.stderr).contains("did you mean `status`?"), "{}", text(&wrong.stderr));
}

#[test]
fn explain_shows_the_target_in_the_dialect_of_the_configuration() {
    for (dialect, source) in [("documented", "API%20Call"), ("v3", "API_CALL")] {
        let config = Configuration::new().set("upstream.dialect", dialect);
        let (output, _) = run_with(&["explain", "execution_source=api-call"], &config.to_toml());
        let out = text(&output.stdout);
        let labels: Vec<&str> = out.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(labels, ["route", "canonical", "upstream", "cache"], "{out}");
        assert!(
            out.contains(&format!("upstream    GET {EXECUTIONS}?page=1&limit=10&execution_source={source}\n")),
            "{out}"
        );
    }
}

/// A configuration with three pass-through routes.
fn with_pass_through() -> Configuration {
    Configuration::new().toml(
        "[[pass_through]]\nmethods = [\"GET\", \"POST\"]\npath = \"/api/v2/public/workflow/**\"\n\
         [[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/linked-account\"\nscope = \"org\"\n\
         [[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/unheard-of\"\n",
    )
}

#[test]
fn explain_names_the_route_before_the_query() {
    let config = with_pass_through();
    let batches = "/api/v2/public/execution/abc/nodes/n1/batches";
    for (target, method, lines) in [
        (
            format!("{batches}?limit=5&page=2"),
            "GET",
            vec![
                "route       batches, GET /api/v2/public/execution/{execution_id}/nodes/{node_id}/batches".to_owned(),
                format!("canonical   {batches}?page=2&limit=5"),
                format!("cache key   TENANT | LINKED_ACCOUNT | {batches}?page=2&limit=5"),
            ],
        ),
        (
            "https://gateway.example/api/v2/public/execution/abc".to_owned(),
            "get",
            vec!["route       document, ".to_owned()],
        ),
        ("?status=errored".to_owned(), "GET", vec!["route       list, GET ".to_owned()]),
        (
            "/api/v2/public/execution/abc/stop".to_owned(),
            "POST",
            vec!["credential  needs write access".to_owned(), "cache       never; a stop drops".to_owned()],
        ),
        (
            "/api/v2/public/linked-account?page=1".to_owned(),
            "GET",
            vec![
                "route       pass_through, by [[pass_through]] /api/v2/public/linked-account".to_owned(),
                "scope       org: needs a client key".to_owned(),
                "upstream    GET /api/v2/public/linked-account?page=1".to_owned(),
            ],
        ),
        ("/hooks/refold/t".to_owned(), "POST", vec!["webhooks    refused: there is no tenant".to_owned()]),
        ("/api/v2/public/execution".to_owned(), "OPTIONS", vec!["methods     GET, HEAD".to_owned()]),
    ] {
        let (output, _) = run_with(&["explain", "--method", method, &target], &config.to_toml());
        let out = text(&output.stdout);
        assert!(output.status.success(), "{target}: {}", text(&output.stderr));
        assert!(lines.iter().all(|line| out.contains(line.as_str())), "{target}: {out}");
    }
}

#[test]
fn explain_says_why_a_request_is_refused() {
    let config = with_pass_through();
    for (target, method, why) in [
        (
            "/api/v2/public/executions?page=1",
            "GET",
            "404 NOT_FOUND: there is no such resource here; did you mean /api/v2/public/execution?",
        ),
        (
            "/api/v2/public/nothing",
            "GET",
            "404 NOT_FOUND: there is no such resource here; no [[pass_through]] covers the path",
        ),
        ("/api/v2/public/unheard-of", "GET", "it needs `scope = \"org\"`"),
        ("/api/v2/public/execution/abc/stop", "GET", "405 METHOD_NOT_ALLOWED: "),
        ("/api/v2/public/execution/a%2Fb", "GET", "the gateway answers 400 "),
        ("/api/v2/public/execution?limit=1000", "GET", "the gateway answers 400 "),
        ("limit=1 0", "GET", "is no target of a request: "),
    ] {
        let (output, _) = run_with(&["explain", "--method", method, target], &config.to_toml());
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(why), "{target}: {error}");
    }
}

#[test]
fn keygen_prints_settings_that_check_accepts() {
    let lines = text(&run(&["keygen", "--name", "a \"quoted\" name", "--linked-account", "acme-*", "--write"]).stdout);
    let again = text(&run(&["keygen"]).stdout);
    assert_ne!(lines, again);
    let key = lines.split_whitespace().find(|word| word.starts_with("pst_")).expect("a key").to_owned();
    let settings: String =
        lines.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |all, line| all + line + "\n");
    let digest = Hex(&sha256(key.as_bytes())).to_string();
    assert!(settings.contains(&digest), "{settings}");
    let tenant = "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = { env = \"ORG_KEY\" }\n";
    let (check, _) = run_with(&["check"], &format!("{tenant}{settings}"));
    assert!(check.status.success(), "{}", text(&check.stderr));
    assert!(text(&check.stdout).contains("tenants 1, client keys 1"));
    // The digest of the documentation's example.
    let example = settings.replace(&digest, &"0".repeat(64));
    let (check, _) = run_with(&["check"], &format!("{tenant}{example}"));
    assert!(!check.status.success());
    assert!(text(&check.stderr).contains("this is the hash of the examples"), "{}", text(&check.stderr));
    let (serve, _) = run_with(&["serve"], &format!("{tenant}{example}"));
    assert!(!serve.status.success() && text(&serve.stderr).contains("this is the hash of the examples"));
}

#[test]
fn keygen_prints_a_raw_key_and_refuses_patterns_that_match_nothing() {
    let key = text(&run(&["keygen", "--raw"]).stdout);
    assert!(key.starts_with("pst_") && key.trim_end().len() == 52 && key.lines().count() == 1, "{key}");
    for arguments in [
        ["--linked-account", "a*b"].as_slice(),
        &["--linked-account", ""],
        &["--linked-account", "*-prod"],
        &["--name", ""],
        &["--raw", "--write"],
    ] {
        let output = run(&[&["keygen"], arguments].concat());
        assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn check_reads_standard_input_and_reports_as_json() {
    let check = |arguments: &[&str], input: &str| {
        let mut command = postern();
        command.arg("check").args(arguments).env_remove("ORG_KEY").run_with_input(input)
    };
    let tenant = Tenant::new("acme").client_keys([ClientKey::new("old", "pst_old").expires("2020-01-01")]);
    let good = Configuration::bare().tenants([tenant]).to_toml();
    let output = check(&["--without-secrets", "-"], &good);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("warning: standard input:") && shown.contains("standard input: valid; listeners 1"),
        "{shown}"
    );
    assert!(!check(&["-"], &good).status.success(), "the secret is not set");
    let json = |input: &str| {
        let output = check(&["--without-secrets", "--format", "json", "-"], input);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), json["findings"].as_array().expect("a list").clone())
    };
    let (status, findings) = json(&good);
    assert_eq!((status, findings.len(), &findings[0]["severity"]), (Some(0), 1, &"warning".into()));
    let (status, findings) = json(&format!("{good}\n[query]\nmax_limits = 1\nmax_limit = \"x\"\n"));
    assert_eq!((status, findings.len(), &findings[0]["column"]), (Some(1), 2, &1.into()));
    assert_eq!((&findings[1]["severity"], &findings[1]["file"]), (&"error".into(), &"standard input".into()));
    assert_eq!(json("[server").1.len(), 1);
}

#[tokio::test]
async fn serve_logs_the_warnings_of_check() {
    let tenant = Tenant::new("acme").client_keys([ClientKey::new("old", "pst_old").expires("2020-01-01")]);
    let process =
        Process::serve_configuration(&Configuration::bare().listeners([Listener::new()]).tenants([tenant]), &[]).await;
    let logged = process.logged("\"config_warning\"");
    assert!(logged.len() == 1 && logged[0].contains("the client key `old` has expired"), "{logged:?}");
}

#[test]
fn the_webhook_registration_survives_a_shell() {
    let config = Configuration::bare()
        .tenants([Tenant::new("acme").client_key(ClientKey::new("k", "pst_k")).set("webhooks", true)]);
    let config = config.set("upstream.base_url", "https://api.example.com/it's");
    let register =
        |url: &str, event: &str| run_with(&["webhook", "--public-url", url, "--event", event], &config.to_toml()).0;
    for event in ["it's", "$(id)", "a\"b", "execution.completed"] {
        let output = text(&register("https://hooks.example.com/", event).stdout);
        let script = format!("curl() {{ printf '%s\\n' \"$@\"; }}\n{output}");
        let shell = std::process::Command::new("sh").args(["-c", &script]).output().expect("there is a shell");
        let words = text(&shell.stdout);
        let body: serde_json::Value = serde_json::from_str(words.lines().last().expect("a word")).expect("JSON");
        assert_eq!(body["webhook_events"][0], event);
        assert_eq!(body["webhook_url"], "https://hooks.example.com/hooks/refold/acme");
        assert!(words.contains("https://api.example.com/it's/api/v2/public/webhook\n"), "{words}");
    }
    for url in ["hooks.example.com", "https://a/?x", "https://u:p@a", "http://:80", "ftp://a"] {
        let output = register(url, "e");
        assert_eq!(output.status.code(), Some(2), "{url}: {}", text(&output.stderr));
    }
}

#[test]
fn check_and_serve_name_the_place_of_an_error() {
    for command in ["check", "serve"] {
        let (output, file) = run_with(&[command], "[server]\nworkerz = 1\n");
        assert!(!output.status.success());
        let expected = format!("{file}:2:1: unknown key `workerz`; did you mean `workers`?");
        assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
    }
}

#[test]
fn serve_refuses_invalid_log_directives() {
    let folder = Folder::new();
    for directives in ["postern=loud", "nonsense", "debgu", "info,hyper=debug", "postern::nowhere=debug"] {
        let mut command = postern();
        command.args(["serve", "--config"]).arg(folder.write("postern.toml", ""));
        let output = run_to_end(command.env("POSTERN_LOG", directives));
        assert!(!output.status.success());
        assert!(text(&output.stderr).starts_with("postern: POSTERN_LOG: "), "{}", text(&output.stderr));
        let mut check = postern();
        check.arg("check").arg(folder.write("good.toml", Configuration::new().to_toml()));
        let output = run_to_end(check.env("POSTERN_LOG", directives));
        assert!(text(&output.stderr).starts_with("postern: POSTERN_LOG: "), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn spaces_around_log_directives_have_no_effect() {
    for directives in [" info ", "warn , postern::cli=info"] {
        let mut process = Process::serve_configuration(&Configuration::new(), &[("POSTERN_LOG", directives)]).await;
        process.until_logged("\"listening\"", 1).await;
    }
}

#[test]
fn variables_that_are_not_utf8_or_have_line_breaks_are_refused() {
    let folder = Folder::new();
    let file = folder.write("postern.toml", Configuration::new().to_toml());
    let check = |name: &str, value: &[u8]| {
        let mut command = postern();
        command.args(["check", "--config"]).arg(&file).env(name, OsStr::from_bytes(value));
        let output = run_to_end(&mut command);
        assert!(!output.status.success(), "{name}");
        text(&output.stderr)
    };
    for (name, value) in [
        ("POSTERN_SERVER_WORKERS", b"\xff".as_slice()),
        ("POSTERN_UPSTREAM_BASE_URL", b"http://a.example/\xc3("),
        ("POSTERN_LISTENRES", b"\xfe\xff"),
    ] {
        let error = check(name, value);
        assert!(error.contains(&format!("environment variable {name}: the value is not UTF-8")), "{error}");
    }
    for (name, value) in [
        ("POSTERN_SERVER_WORKERS", b"2\n".as_slice()),
        ("POSTERN_SERVER_WORKERS", b"1\nmax_header_size = 1"),
        ("POSTERN_TRACES_SERVICE_NAME", b"a\r\nb"),
        ("POSTERN_CORS_ORIGINS", b"[\n\"https://a.example\"]"),
    ] {
        let error = check(name, value);
        assert!(error.contains(&format!("environment variable {name}: the value has a line break")), "{error}");
    }
    for value in [b"\xff".as_slice(), b"tk_\xc3("] {
        for name in ["ORG_KEY", "HTTPS_PROXY", "all_proxy"] {
            let error = check(name, value);
            assert!(error.contains(&format!("the environment variable {name} is not UTF-8")), "{error}");
        }
    }
    let mut serve = postern();
    serve.args(["serve", "--config"]).arg(&file).env("POSTERN_LOG", OsStr::from_bytes(b"\xffinfo"));
    let output = run_to_end(&mut serve);
    assert_eq!(text(&output.stderr), "postern: POSTERN_LOG: the value is not UTF-8\n");
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let folder = Folder::new();
    let file = folder.write("postern.toml", Configuration::new().to_toml()).display().to_string();
    for arguments in [
        vec!["keygen"],
        vec![],
        vec!["--help"],
        vec!["serve", "--help"],
        vec!["--version"],
        vec!["version"],
        vec!["schema"],
        vec!["man"],
        vec!["completions", "bash"],
        vec!["explain", "page=1"],
        vec!["check", "--config", &file],
        vec!["whoami", "--config", &file],
        vec!["simulate", "--listen", "127.0.0.1:0"],
        vec!["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut command = postern();
        let output = run_to_end(command.args(&arguments).stdout(full));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = text(&output.stderr);
        assert!(error.contains("can't write to standard output: No space left"), "{arguments:?}: {error}");
    }
}

#[test]
fn without_a_command_a_short_help_begins_with_the_demo() {
    let output = run(&[]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    let first = help.lines().find(|line| line.starts_with("  postern")).expect("a command");
    assert!(first.starts_with("  postern demo ") && help.lines().count() < 10, "{help}");
    for file in ["postern.toml", "/etc/postern/postern.toml"] {
        let output = run_to_end(postern().env("POSTERN_CONFIG", file));
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(output.stdout.is_empty() && error.contains(file) && error.contains("`postern serve` runs"), "{error}");
    }
    assert!(run_to_end(postern().env("POSTERN_CONFIG", "")).status.success());
}

#[test]
fn options_before_a_command_are_refused() {
    for arguments in [
        ["--listen", "127.0.0.1:0", "serve"].as_slice(),
        &["--listen", "127.0.0.1:0"],
        &["--admin=127.0.0.1:0", "check"],
        &["--config", "postern.toml", "serve"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let names_the_new_place = text(&output.stderr).contains("`postern demo --listen ADDRESS`");
        assert_eq!(names_the_new_place, arguments[0] != "--config", "{}", text(&output.stderr));
    }
    assert!(!text(&run(&["serve", "--listen", "127.0.0.1:0"]).stderr).contains("postern demo"));
}

#[test]
fn the_version_is_a_command_and_an_option() {
    let expected = format!("postern {}\n", env!("CARGO_PKG_VERSION"));
    for argument in ["version", "--version", "-V"] {
        assert_eq!(text(&run(&[argument]).stdout), expected);
    }
}

#[tokio::test]
async fn serve_ends_with_status_0_after_sigterm() {
    let folder = Folder::new();
    let listeners = [Listener::unix(&folder.join("postern.sock"))];
    let tenant = Tenant::new("a").client_key(ClientKey::new("k", "pst_k"));
    let config = Configuration::bare().listeners(listeners).tenants([tenant]);
    let ended = Process::serve_configuration(&config, &[]).await.terminate().await;
    assert!(ended.log.iter().any(|line| line.contains("stopped")), "{:?}", ended.log);
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn completions_and_manual_pages_cover_every_command() {
    let help = text(&run(&["--help"]).stdout);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"serve") && commands.contains(&"man"), "{help}");
    let folder = Folder::new();
    let written = run(&["man", "--directory", folder.path().to_str().expect("UTF-8")]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let page = text(&run(&["man"]).stdout);
    let scripts = ["bash", "zsh", "fish"].map(|shell| text(&run(&["completions", shell]).stdout));
    for command in commands {
        assert!(page.contains(&format!("postern\\-{command}(1)")), "{command}: {page}");
        let own = std::fs::read_to_string(folder.join(&format!("postern-{command}.1"))).expect("a page of its own");
        assert!(own.starts_with(".ie") && own.contains(".SH SYNOPSIS"), "{own}");
        for script in &scripts {
            assert!(script.contains(command), "{command}: {script}");
        }
    }
    assert!(!run(&["completions", "cmd.exe"]).status.success());
}

#[tokio::test]
async fn variables_of_kubernetes_services_are_ignored_and_misspelt_ones_refused() {
    let services = [
        ("POSTERN_SERVICE_HOST", "10.0.0.11"),
        ("POSTERN_SERVICE_PORT", "8080"),
        ("POSTERN_PORT", "tcp://10.0.0.11:8080"),
        ("POSTERN_PORT_8080_TCP_ADDR", "10.0.0.11"),
        ("POSTERN_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
        ("POSTERN_SERVER_PORT_53_UDP", "udp://10.0.0.12:53"),
        ("POSTERN_ADMIN_SERVICE_PORT_HTTP", "9180"),
        ("POSTERN_ADMIN_SERVICE_HOST", "10.0.0.13"),
    ];
    let environment = [services.as_slice(), &[("POSTERN_LOG", "debug"), ("POSTERN_SERVER_WORKERS", "1")]].concat();
    let process = Process::serve_configuration(&Configuration::new(), &environment).await;
    let ignored = process.logged("\"service_variable_ignored\"");
    for (name, _) in services {
        assert!(ignored.iter().any(|line| line.contains(&format!("\"variable\":\"{name}\""))), "{name}: {ignored:#?}");
    }
    assert_eq!(ignored.len(), services.len());
    let folder = Folder::new();
    let file = folder.write("postern.toml", Configuration::new().to_toml());
    for (name, value) in [
        ("POSTERN_PORT", "8080"),
        ("POSTERN_SERVER_SERVICE_PORT", "8080"),
        ("POSTERN_SERVER_WORKER", "tcp://10.0.0.11:8080"),
    ] {
        for command in ["check", "serve"] {
            let mut postern = postern();
            postern.args([command, "--config"]).arg(&file).envs(services).env(name, value);
            let output = run_to_end(&mut postern);
            let expected = format!("environment variable {name}: there is no such setting");
            assert!(!output.status.success() && text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
        }
    }
}
