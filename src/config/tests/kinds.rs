//! Values of another kind than their settings', and what the error says to write.

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
    ("[server]\nworkers = -1", "2:11: -1 is not a whole number from 0 to 65535"),
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
