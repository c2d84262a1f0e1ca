//! Values of another kind than their settings', and what the error says to write.

use serde_json::Value;

use super::super::schema::schema_value;
use super::{parse, tenant, with_key};

/// Files with one wrong value, each with the place and the message of its error.
const WRONG_VALUES: &[(&str, &str)] = &[
    ("[tenants]", "1:1: there can be several of these tables; write `[[tenants]]`"),
    ("[listeners]\naddress = \"127.0.0.1:1\"", "1:1: there can be several of these tables; write `[[listeners]]`"),
    ("[pass_through]\npath = \"/x\"", "1:1: there can be several of these tables; write `[[pass_through]]`"),
    ("tenants = 1", "1:11: this is a list of tables; write `[[tenants]]` and the settings below it"),
    ("tenants = [\"acme\"]", "1:12: each item is a table; write `[[tenants]]` and the settings below it"),
    ("[[server]]", "1:1: there is only one of these tables; write `[server]`"),
    ("[[limits]]", "1:1: there is only one of these tables; write `[limits]`"),
    ("server = 1", "1:10: this is a table; write `[server]` and the settings below it"),
    ("[cache]\nfreshness = \"2s\"", "2:13: this is a table; write `[cache.freshness]` and the settings below it"),
    ("[server]\nworkers = \"2\"", "2:11: this is a whole number; write `2`"),
    ("[server]\nworkers = \"two\"", "2:11: this is a whole number, not a text"),
    ("[server]\nworkers = [2]", "2:11: this is a whole number, not a list"),
    ("[server]\nworkers = 2.5", "2:11: this is a whole number"),
    ("[server]\nworkers = -1", "2:11: -1 is not a whole number from 0 to 512"),
    ("[server]\nworkers = 65536", "2:11: 65536 is not a whole number from 0 to 512"),
    ("[server]\nworkers = 1000000000000000000000000000000000000000", "2:11: this is not a whole number from 0 to 512"),
    ("[server]\nworkers = -9223372036854775809", "2:11: -9223372036854775809 is not a whole number from 0 to 512"),
    ("[server]\nmax_header_size = 9223372036854775808", "2:19: this number is too large"),
    ("[server]\nmax_header_size = 9999999999999999999999", "2:19: this number is too large"),
    ("[server]\nmax_header_size = -1", "2:19: a size can't be negative"),
    ("[query]\nmax_limit = -1", "2:13: -1 is not a whole number from 1 to 4294967295"),
    ("[upstream]\npool_idle_per_worker = -1", "2:24: -1 is not a whole number from 0"),
    ("[upstream]\nretries = 256", "2:11: 256 is not a whole number from 0 to 255"),
    ("[limits.client]\nburst = \"10s\"", "2:9: this is a whole number, not a duration"),
    ("query = { max_limit = \"50\" }", "1:23: this is a whole number; write `50`"),
    ("[log]\nsample = \"0.5\"", "2:10: this is a number; write `0.5`"),
    ("[server]\nidle_timeout = 10", "2:16: a duration has a unit; write `\"10s\"`, or ms, m or h"),
    ("[server]\nidle_timeout = \"10\"", "2:16: a duration has a unit; write `\"10s\"`, or ms, m or h"),
    ("[server]\nidle_timeout = [\"10s\"]", "2:16: this is one text, not a list; write `\"10s\"`"),
    ("[server]\nidle_timeout = 10s", "2:16: a text is written in quotes: `\"10s\"`"),
    ("[server]\nworkers =", "2:10: there is no value after `=`"),
    (
        "[server]\nmax_header_size = 1.5",
        "2:19: this is a size; write a whole number and KiB, MiB or GiB, like `\"16MiB\"`",
    ),
    (
        "[server]\nmax_header_size = \"16KB\"",
        "2:19: `16KB` is no size; write a whole number and KiB, MiB or GiB, like \"16KiB\"",
    ),
    ("[server]\ntrusted_proxies = \"10.0.0.0/8\"", "2:19: this is a list; write `[\"10.0.0.0/8\"]`"),
    ("[server]\ntrusted_proxies = 10", "2:19: this is a list; write `[\"10\"]`"),
    ("[upstream]\ndialect = 3", "2:11: this is one of \"documented\", \"v3\""),
    ("[upstream]\ndialect = [\"v3\"]", "2:11: this is one text, not a list; write `\"v3\"`"),
    ("[upstream]\nca_file = 1", "2:11: this is a text; write `\"1\"`"),
    (
        "[admin]\naddress = 9180",
        "2:11: this is a text in quotes (An IP address and a port, `unix:` and a path, or `off`)",
    ),
    ("[cache]\ncollapse = \"true\"", "2:12: write `true`"),
    ("[cache]\ncollapse = 0", "2:12: write `false`"),
    ("[cache]\ncollapse = yes", "2:12: write `true`"),
    ("[cache]\ncollapse = \"maybe\"", "2:12: this is `true` or `false`"),
    ("[cors]\nmax_age = \"5m\"", "1:1: `origins` is missing in this table"),
];

/// More such files, with a tenant.
fn wrong_values_of_tenants() -> Vec<(String, &'static str)> {
    let key = |line: &str| with_key(&format!("{line}\n"));
    vec![
        (
            tenant("[tenants.client_keys]\nname = \"k\""),
            "5:1: there can be several of these tables; write `[[tenants.client_keys]]`",
        ),
        (key("").replace("[\"*\"]", "\"acme-*\""), "8:19: this is a list; write `[\"acme-*\"]`"),
        (key("").replace("[\"*\"]", "[5]"), "8:20: this is a text; write `\"5\"`"),
        (key("access = [\"read\"]"), "9:10: this is one text, not a list; write `\"read\"`"),
        (
            key("expires = 2027"),
            "9:11: this is a text in quotes (Time from which the key is refused: a date or a date-time with offset)",
        ),
    ]
}

#[test]
fn a_value_of_the_wrong_kind_gets_the_right_one() {
    let plain = WRONG_VALUES.iter().map(|(text, expected)| ((*text).to_owned(), *expected));
    for (text, expected) in plain.chain(wrong_values_of_tenants()) {
        let message = parse(&text).expect_err(&text);
        let first = message.lines().find(|line| line.starts_with("postern.toml:")).unwrap_or_default();
        assert_eq!(first, format!("postern.toml:{expected}"), "{text}");
    }
}

#[test]
fn inherited_values_of_the_wrong_kind_are_reported_once() {
    let message = parse(&format!("[limits.client]\nburst = \"5\"\n{}", with_key(""))).expect_err("a text");
    assert_eq!(message.matches("postern.toml:").count(), 1, "{message}");
}

/// A file for each setting that is a whole number or a size, with -1 as its value.
fn negative_numbers(headers: &str, name: &str, schema: &Value, found: &mut Vec<String>) {
    for (key, setting) in schema["properties"].as_object().into_iter().flatten() {
        let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        let (item, header) = match &setting["type"] {
            kind if kind == "array" => (&setting["items"], format!("[[{path}]]")),
            _ => (setting, format!("[{path}]")),
        };
        negative_numbers(&format!("{headers}{header}\n"), &path, item, found);
        let is_number = |kind: &Value| kind == "integer";
        if is_number(&setting["type"]) || setting["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_number)) {
            found.push(format!("{headers}{key} = -1\n"));
        }
    }
}

#[test]
fn a_negative_number_gets_the_range_of_its_setting() {
    let mut files = Vec::new();
    negative_numbers("", "", &schema_value(), &mut files);
    assert!(files.len() > 25, "{files:?}");
    for text in files {
        let message = parse(&text).expect_err(&text);
        let place = format!("postern.toml:{}:", text.lines().count());
        let first = message.lines().find(|line| line.starts_with(&place)).unwrap_or_default();
        let says_the_range = first.contains(": -1 is not a whole number from ");
        assert!(says_the_range || first.ends_with(": a size can't be negative"), "{text}{message}");
    }
}
