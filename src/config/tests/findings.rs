//! All that is wrong or doubtful in a file, found at once and with its places.

use std::path::Path;

use super::super::{Config, SecretValues};
use super::{HASH, environment, parse, with_key};

#[test]
fn all_errors_are_reported_at_once() {
    let text = format!(
        "[server]\nworkerz = 1\nidle_timeout = \"10\"\nmax_uri_length = 0\n[[listeners]]\naddress = \"127.0.0.1:1\"\nipv6_only = true\nsession_tokens = \"b\"\n{}expires = \"soon\"\n[[tenants]]\nid = \"a\"\nmode = \"other\"\norg_key = {{ env = \"NOPE\" }}\n",
        with_key("")
    );
    let message = parse(&text).expect_err("many errors");
    let places: Vec<&str> = message.lines().filter(|line| line.starts_with("postern.toml:")).collect();
    for place in [
        "2:1: unknown key",
        "3:16: a duration has a unit",
        "4:18: the size",
        "7:13: only the address",
        "17:11: `soon`",
        "20:8: unknown value `other`",
    ] {
        assert!(places.iter().any(|line| line.starts_with(&format!("postern.toml:{place}"))), "{place}: {message}");
    }
    // The tenant without a mode is taken out, and nothing is reported because of that.
    assert_eq!(places.len(), 6, "{message}");
    let checks = format!(
        "[query]\nmax_limit = 0\n[cors]\norigins = [\"https://a.example/\"]\n{}",
        with_key("").replace("REFOLD_ORG_KEY", "NOPE")
    );
    let message = parse(&checks).expect_err("three errors");
    for place in ["2:13: a limit", "4:12: an origin", "8:11: the environment variable NOPE"] {
        assert!(message.contains(&format!("postern.toml:{place}")), "{place}: {message}");
    }
}

#[test]
fn a_repeated_error_of_common_settings_is_reported_once() {
    for common in ["[cache.freshness]\nlive = \"x\"", "[limits.client]\nburst = 0", "[cache.stale]\nif_eror = \"1s\""] {
        let message = parse(&format!("{common}\n{}", with_key(""))).expect_err(common);
        assert_eq!(message.matches("postern.toml:").count(), 1, "{message}");
    }
}

#[test]
fn files_and_folders_that_cannot_be_used_have_positions() {
    let folder = std::env::temp_dir().join(format!("postern-unusable-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let junk = folder.join("junk.pem");
    std::fs::write(&junk, "no certificate\n").expect("a temporary file");
    let (junk, missing) = (junk.display().to_string(), folder.join("missing.pem").display().to_string());
    let issuer = "[[issuers]]\nissuer = \"i\"\naudience = [\"p\"]\ntenant = \"a\"\n";
    let none = "there is no certificate in PEM in it";
    let long = format!("/tmp/{}", "x".repeat(110));
    for (text, expected) in [
        (format!("[upstream]\nca_file = \"{missing}\""), format!("2:11: ca_file {missing}: ")),
        (format!("[upstream]\nca_file = \"{junk}\""), format!("2:11: ca_file {junk}: {none}")),
        (
            format!("{issuer}keys = {{ url = \"https://a.example\", ca_file = \"{junk}\" }}"),
            format!("5:47: ca_file {junk}: {none}"),
        ),
        (format!("[traces]\nendpoint = \"https://c\"\nca_file = \"{missing}\""), format!("3:11: ca_file {missing}: ")),
        (
            "[[listeners]]\naddress = \"unix:/nowhere/at/all.sock\"".to_owned(),
            "2:11: there is no folder /nowhere/at for this socket".to_owned(),
        ),
        (format!("[admin]\naddress = \"unix:{junk}/admin.sock\""), "2:11: there is no folder".to_owned()),
        (
            format!("[admin]\naddress = \"unix:{junk}\""),
            "2:11: there is a file at this path that is no socket".to_owned(),
        ),
        (
            format!("[[listeners]]\naddress = \"unix:{long}\""),
            "2:11: the path of a Unix socket has at most 107 bytes".to_owned(),
        ),
    ] {
        let message = parse(&format!("{text}\n{}", with_key(""))).expect_err(&text);
        assert!(message.starts_with(&format!("postern.toml:{expected}")), "{message}");
    }
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn limits_that_nothing_can_meet_are_refused() {
    for (table, setting) in [
        ("server", "max_header_size"),
        ("server", "max_uri_length"),
        ("server", "max_request_body"),
        ("upstream", "max_response_body"),
    ] {
        for value in ["0", "\"0\"", "\"0MiB\""] {
            let message = parse(&format!("[{table}]\n{setting} = {value}\n{}", with_key(""))).expect_err(setting);
            let expected = format!("postern.toml:2:{}: the size has to be larger than 0", setting.len() + 4);
            assert!(message.starts_with(&expected), "{message}");
        }
    }
    for workers in ["65535", "513"] {
        let message = parse(&format!("[server]\nworkers = {workers}\n{}", with_key(""))).expect_err(workers);
        assert!(message.starts_with("postern.toml:2:11: more than 512 workers"), "{message}");
    }
    assert!(parse(&format!("[server]\nworkers = 512\n{}", with_key(""))).is_ok());
    for url in ["http://:80", "https://", "http://:"] {
        let message = parse(&format!("[upstream]\nbase_url = \"{url}\"\n{}", with_key(""))).expect_err(url);
        assert!(message.starts_with("postern.toml:2:12: "), "{message}");
    }
    for digits in ["+f".repeat(32), " f".repeat(32), "-0".repeat(32), "0".repeat(64)] {
        let message = parse(&with_key("").replace(HASH, &digits)).expect_err(&digits);
        assert!(message.starts_with("postern.toml:7:10: "), "{message}");
    }
}

#[test]
fn a_list_is_suggested_where_one_is_needed() {
    for (text, expected) in [
        (
            with_key("").replacen("[[tenants]]", "[tenants]", 1).replace("[[tenants.client_keys]]", "[tenants.x]"),
            "write `[[tenants]]`",
        ),
        (with_key("").replace("[[tenants.client_keys]]", "[tenants.client_keys]"), "write `[[tenants.client_keys]]`"),
        (with_key("").replace("[\"*\"]", "\"acme-*\""), "write `[\"acme-*\"]`"),
        (format!("[listeners]\naddress = \"127.0.0.1:1\"\n{}", with_key("")), "write `[[listeners]]`"),
        (format!("[query]\nignored_parameters = \"_\"\n{}", with_key("")), "write `[\"_\"]`"),
    ] {
        let message = parse(&text).expect_err(&text);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn doubtful_settings_give_warnings_with_positions() {
    let now: jiff::Timestamp = "2026-03-14T00:00:00Z".parse().expect("a time");
    let warnings = |text: &str| -> Vec<String> {
        let config = Config::parse(text, Path::new("postern.toml"), &environment()).expect("it is valid");
        config.warnings(now).map(ToString::to_string).collect()
    };
    assert_eq!(warnings(&with_key("")), Vec::<String>::new());
    for (text, expected) in [
        (with_key("expires = 2026-03-13"), "9:11: the client key `k` has expired at 2026-03-13"),
        (format!("[[listeners]]\naddress = \"0.0.0.0:80\"\n{}", with_key("")), "2:11: plain HTTP on an address"),
        (format!("[[listeners]]\naddress = \"10.0.0.1:80\"\n{}", with_key("")), "2:11: plain HTTP on an address"),
        (with_key("").replace("[[tenants.c", "webhooks = true\n[[tenants.c"), "5:12: every listener is on a loopback"),
        (
            format!("{}[[pass_through]]\nmethods = [\"GET\"]\npath = \"/x\"", with_key("")),
            "11:8: GET /x is not forwarded",
        ),
    ] {
        let found = warnings(&text);
        assert!(found.len() == 1 && found[0].starts_with(&format!("postern.toml:{expected}")), "{found:?}");
    }
    assert!(warnings(&with_key("expires = 2026-03-15")).is_empty());
}

#[test]
fn a_file_can_be_checked_without_its_secrets() {
    let issuer = "[[issuers]]\nissuer = \"i\"\naudience = [\"p\"]\ntenant = \"a\"\nkeys = { secret = { file = \"/nowhere\" } }\n";
    let text = format!("{}{issuer}", with_key("").replace("REFOLD_ORG_KEY", "NOPE"));
    let check = |secrets| Config::parse_with(&text, Path::new("postern.toml"), &environment(), secrets);
    assert_eq!(check(SecretValues::Required).expect_err("two secrets").findings().len(), 2);
    let config = check(SecretValues::Ignored).expect("the rest is valid");
    assert_ne!(config.tenants[0].org_key.expose(), "");
}

#[test]
fn comments_mask_no_word_of_a_message() {
    let without_callers =
        "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = { env = \"REFOLD_ORG_KEY\" }\n".to_owned();
    for (text, expected) in [
        (without_callers, "it has no [[tenants.client_keys]], and no listener and no issuer is for it"),
        (with_key("expires = 2026-13-01"), "invalid date, expected month"),
        (with_key("").replace(HASH, "pst_oops"), "a SHA-256 has 64 hexadecimal digits; `postern keygen` prints one"),
        (
            with_key("linked_account = \"a\""),
            "did you mean `linked_accounts`? (accepted: name, sha256, linked_accounts, access",
        ),
        (format!("[cache]\nfreshness.live = \"2 weeks\"\n{}", with_key("")), "no duration"),
    ] {
        let plain = parse(&text).expect_err(&text);
        assert!(plain.contains(expected), "{plain}");
        // Every word of the message, and names of settings, in comments.
        let message = plain.lines().next().unwrap_or_default();
        for comment in [message, "The [[tenants.client_keys]] table follows, see tenants.client_keys.linked_accounts."]
        {
            let commented = parse(&format!("{text}\n# {comment}\n")).expect_err(comment);
            assert_eq!(commented, plain);
        }
    }
}

#[test]
fn a_secret_in_the_comment_of_a_shown_line_is_masked() {
    for secret in ["hunter_2_is_secret", "tk_live_client_keys", "Zm9vYmFyYmF6cXV4Zm9v"] {
        let message =
            parse(&with_key(&format!("expires = 1 # see tenants.client_keys, not {secret}"))).expect_err(secret);
        let shown = format!("expires = 1 # see tenants.client_keys, not {}\n", "*".repeat(secret.len()));
        assert!(message.contains(&shown), "{message}");
    }
}

#[test]
fn what_looks_like_a_comment_in_a_string_is_masked() {
    let secret = "hunter_2_is_secret";
    for text in [format!("log = \"\"\"\n# {secret}\"\"\""), format!("log = '''\n# {secret}'''")] {
        let message = parse(&text).expect_err("no table");
        assert!(!message.contains(secret), "{message}");
    }
}
