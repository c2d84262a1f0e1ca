//! Files that the configuration refuses.

use super::{HASH, tenant, with_key};

fn bad_key(lines: &str) -> String {
    tenant(&format!("[[tenants.client_keys]]\nname = \"k\"\n{lines}"))
}

fn second_tenant() -> String {
    format!("{}\n{}", with_key(""), with_key(""))
}

fn same_hash() -> String {
    format!("{}\n{}", with_key(""), with_key("").replace("id = \"a\"", "id = \"b\""))
}

fn validate(id: &str) -> String {
    format!("[[tenants]]\nid = \"{id}\"\nmode = \"validate\"\norg_key = {{ env = \"REFOLD_ORG_KEY\" }}\n")
}

fn issuer(lines: &str) -> String {
    format!("[[issuers]]\nissuer = \"i\"\naudience = [\"p\"]\ntenant = \"a\"\n{lines}\n")
}

/// Files that are refused, each with the first line of its error.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn bad_files() -> Vec<(String, &'static str)> {
    // data table
    vec![
        (String::new(), "postern.toml: there is no [[tenants]] table; at least one is needed"),
        ("x".into(), "postern.toml:1:2: key with no value, expected `=`"),
        ("[server\n".into(), "postern.toml:1:8: unclosed table, expected `]`"),
        (
            "lissteners = []".into(),
            "postern.toml:1:1: unknown key `lissteners`; did you mean `listeners`? (accepted: listeners, admin, server, upstream, query, cache, limits, tenants, issuers, cors, pass_through, log, traces, fleet)",
        ),
        (
            "[servr]".into(),
            "postern.toml:1:2: unknown key `servr`; did you mean `server`? (accepted: listeners, admin, server, upstream, query, cache, limits, tenants, issuers, cors, pass_through, log, traces, fleet)",
        ),
        (
            "[cache.freshness]\nliv = \"1s\"".into(),
            "postern.toml:2:1: unknown key `liv`; did you mean `live`? (accepted: live, recent, closed)",
        ),
        ("[server]\nworkers = \"two\"".into(), "postern.toml:2:11: this is a whole number, not a text"),
        (
            "[server]\n\n  header_timeout = \"10\"".into(),
            "postern.toml:3:20: a duration has a unit; write `\"10s\"`, or ms, m or h",
        ),
        ("[server]\nbody_timeout = \"0s\"".into(), "postern.toml:2:16: the duration has to be longer than 0"),
        (
            "[cache]\ncapacity = \"16MB\"".into(),
            "postern.toml:2:12: `16MB` is no size; write a whole number and KiB, MiB or GiB, like \"16MiB\"",
        ),
        (
            "[cache]\nderive = true".into(),
            "postern.toml:2:10: `true` is now written \"verified\" (answers are derived where they have agreed with Refold's own) or \"trusted\" (always, as before)",
        ),
        ("[cache]\nderive = false".into(), "postern.toml:2:10: `false` is now written \"off\""),
        (
            "[cache]\nderive = \"trust\"".into(),
            "postern.toml:2:10: unknown value `trust`; did you mean `trusted`? (accepted: verified, trusted, off)",
        ),
        ("[cache]\nderive = 1".into(), "postern.toml:2:10: this is one of \"verified\", \"trusted\", \"off\""),
        ("[cache]\ncapacity = -1".into(), "postern.toml:2:12: a size can't be negative"),
        (
            format!("[admin]\naddress = \"0.0.0.0:9180\"\n{}", with_key("")),
            "postern.toml:2:11: on an address that other hosts can reach, the admin listener needs a `token = { env = \"VARIABLE\" }`",
        ),
        (
            "[admin]\naddress = \"on\"".into(),
            "postern.toml:2:11: `on` is no address; write an IP address and a port like \"127.0.0.1:8080\", or \"unix:/path\"",
        ),
        (
            "[admin]\ntoken = \"s3cret\"".into(),
            "postern.toml:2:9: secrets are not written in the file; use { env = \"VARIABLE\" } or { file = \"/path\" }",
        ),
        ("[limits.client]\nburst = 0".into(), "postern.toml:2:9: 0 is not a whole number from 1 to 4294967295"),
        (
            "[upstream]\ndialect = \"v2\"".into(),
            "postern.toml:2:11: unknown value `v2`; did you mean `v3`? (accepted: documented, v3)",
        ),
        (
            "[upstream]\nbase_url = \"api.gocobalt.io\"".into(),
            "postern.toml:2:12: the URL has to begin with http:// or https://; write scheme and host, like \"https://api.gocobalt.io\"",
        ),
        (
            "[upstream]\nbase_url = \"https://a.example/api?x\"".into(),
            "postern.toml:2:12: the URL must not have a query; write scheme and host, like \"https://api.gocobalt.io\"",
        ),
        (
            "[upstream]\nbase_url = \"https://u:p@a.example\"".into(),
            "postern.toml:2:12: the URL must not hold a user name or password; write scheme and host, like \"https://api.gocobalt.io\"",
        ),
        (
            "[[listeners]]\naddress = \"localhost:8080\"".into(),
            "postern.toml:2:11: `localhost:8080` is no address; write an IP address and a port like \"127.0.0.1:8080\", or \"unix:/path\"",
        ),
        (
            format!(
                "[[listeners]]\naddress = \"127.0.0.1:1\"\n[[listeners]]\naddress = \"0.0.0.0:1\"\n{}",
                with_key("")
            ),
            "postern.toml:4:11: this address overlaps 127.0.0.1:1, the address of another listener; each connection needs exactly one",
        ),
        (
            format!("[[listeners]]\naddress = \"[::]:9180\"\n{}", with_key("")),
            "postern.toml:2:11: this address overlaps 127.0.0.1:9180, the address of the admin listener; each connection needs exactly one",
        ),
        (
            format!("[admin]\naddress = \"[::ffff:127.0.0.1]:8080\"\n{}", with_key("")),
            "postern.toml:2:11: this address overlaps 127.0.0.1:8080, the address of a listener; each connection needs exactly one",
        ),
        (
            format!("[[listeners]]\naddress = \"127.0.0.1:1\"\nipv6_only = true\n{}", with_key("")),
            "postern.toml:3:13: only the address `[::]` can accept IPv4 connections as well",
        ),
        (
            format!("listeners = []\n{}", with_key("")),
            "postern.toml:1:13: the list of listeners is empty; at least one is needed",
        ),
        (
            format!("[[listeners]]\naddress = \"127.0.0.1:1\"\nsession_tokens = \"A\"\n{}", with_key("")),
            "postern.toml:3:18: there is no tenant `A`; did you mean `a`?",
        ),
        (
            "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = \"tk_literal\"".into(),
            "postern.toml:4:11: secrets are not written in the file; use { env = \"VARIABLE\" } or { file = \"/path\" }",
        ),
        (
            "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = { env = \"NOPE\" }".into(),
            "postern.toml:4:11: the environment variable NOPE is not set",
        ),
        (
            "[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = { vault = \"x\" }".into(),
            "postern.toml:4:13: unknown key `vault` (accepted: env, file)",
        ),
        (
            "[[tenants]]\nid = \"a\"\nmode = \"injekt\"".into(),
            "postern.toml:3:8: unknown value `injekt`; did you mean `inject`? (accepted: inject, validate)",
        ),
        (
            "[[tenants]]\nid = \"a b\"\nmode = \"inject\"\norg_key = { env = \"REFOLD_ORG_KEY\" }".into(),
            "postern.toml:2:6: a tenant's id has 1 to 64 letters, digits, `-`, `_` or `.`",
        ),
        (
            tenant(""),
            "postern.toml:2:6: this tenant has no callers: it has no [[tenants.client_keys]], and no listener and no issuer is for it",
        ),
        (second_tenant(), "postern.toml:11:6: there is a tenant `a` already"),
        (
            same_hash(),
            "postern.toml:16:10: the client key `k` of tenant `a` has the same hash; every key needs its own",
        ),
        (
            bad_key("sha256 = \"pst_oops\"\nlinked_accounts = [\"*\"]"),
            "postern.toml:7:10: a SHA-256 has 64 hexadecimal digits; `postern keygen` prints one",
        ),
        (
            bad_key(&format!("sha256 = \"{HASH}\"\nlinked_accounts = []")),
            "postern.toml:8:19: an empty list allows no linked account; name one, or write [\"*\"] for all",
        ),
        (
            bad_key(&format!("sha256 = \"{HASH}\"\nlinked_accounts = [\"a*b\"]")),
            "postern.toml:8:20: a `*` is only allowed at the end of a pattern",
        ),
        (with_key("access = \"write\""), "postern.toml:9:10: unknown value `write` (accepted: read, read+write)"),
        (
            with_key("expires = \"soon\""),
            "postern.toml:9:11: `soon` is no moment; write a date or a date-time with offset, like 2027-01-01T00:00:00Z",
        ),
        (
            format!("[log]\nsample = 2\n{}", with_key("")),
            "postern.toml:2:10: 2 is no share; write a number from 0 to 1, like 0.1",
        ),
        (
            format!("[log]\nrequests = \"error\"\n{}", with_key("")),
            "postern.toml:2:12: unknown value `error`; did you mean `errors`? (accepted: all, errors, none)",
        ),
        (
            format!("[traces]\nendpoint = \"collector:4318\"\n{}", with_key("")),
            "postern.toml:2:12: the URL has to begin with http:// or https://; write a URL like \"http://collector:4318\"",
        ),
        (
            format!(
                "[traces]\nendpoint = \"http://c:4318\"\nheaders = {{ authorization = \"tk_literal\" }}\n{}",
                with_key("")
            ),
            "postern.toml:3:29: secrets are not written in the file; use { env = \"VARIABLE\" } or { file = \"/path\" }",
        ),
        (
            format!(
                "[traces]\nendpoint = \"http://c:4318\"\nheaders = {{ \"x y\" = {{ env = \"REFOLD_ORG_KEY\" }} }}\n{}",
                with_key("")
            ),
            "postern.toml:3:13: `x y` can't be the name of a header",
        ),
        (
            format!(
                "[traces]\nendpoint = \"http://c:4318\"\nheaders = {{ authorization = {{ env = \"NOPE\" }} }}\n{}",
                with_key("")
            ),
            "postern.toml:3:29: the environment variable NOPE is not set",
        ),
        (
            format!("{}[[pass_through]]\nmethods = [\"GET\", \"TRACE\"]\npath = \"/x\"", with_key("")),
            "postern.toml:10:19: `TRACE` is no method that can be forwarded (accepted: GET, HEAD, POST, PUT, PATCH, DELETE)",
        ),
        (
            format!("{}{}", with_key(""), issuer("algorithms = [\"HS256\"]\nkeys = { url = \"https://a.example\" }")),
            "postern.toml:13:14: `HS256` is no algorithm for public keys (accepted: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA)",
        ),
        (
            format!("{}{}", with_key(""), issuer("keys = { url = \"http://a.example/jwks\" }")),
            "postern.toml:13:16: keys are fetched by https from another host; write a URL like \"https://host/path\"",
        ),
        (
            format!("{}{}", with_key(""), issuer("keys = { refresh = \"1m\" }")),
            "postern.toml:13:8: exactly one of `url`, `file` and `secret` is the source of the keys",
        ),
        (with_key("burst = 5"), "postern.toml:9:9: `per_second` and `burst` go together"),
        (
            format!("{}{}", validate("a"), validate("b")),
            "postern.toml:8:11: another tenant of mode `validate` has the same org key, so callers could not be told apart",
        ),
        (
            with_key("").replace("inject", "validate"),
            "postern.toml:6:8: a tenant of mode `validate` has no client keys: its callers present the org key itself",
        ),
        (
            format!("[fleet]\nurl = \"redis://u:p@redis\"\n{}", with_key("")),
            "postern.toml:2:7: credentials belong in `username` and `password`, not in the URL; write a URL like \"redis://redis:6379\", \"rediss://redis\", \"unix:/run/redis.sock\" or \"redis+sentinel://sentinel1,sentinel2/mymaster\"",
        ),
        (
            format!(
                "[fleet]\nurl = \"redis://redis\"\nsecret = {{ env = \"REFOLD_ORG_KEY\" }}\nreplicas = 65\n{}",
                with_key("")
            ),
            "postern.toml:4:12: a fleet has at most 64 replicas",
        ),
        (
            format!(
                "[fleet]\nurl = \"redis://redis\"\nsecret = {{ env = \"REFOLD_ORG_KEY\" }}\nreplicas = 2\n{}",
                with_key("")
            ),
            "postern.toml:3:10: the secret of a fleet has at least 32 characters",
        ),
        (
            format!(
                "[fleet]\nurl = \"redis://redis\"\nsecret = {{ env = \"REFOLD_ORG_KEY\" }}\nreplicas = 2\ncommand_timeout = \"1s\"\n{}",
                with_key("")
            ),
            "postern.toml:5:19: a command may take at most 150ms",
        ),
    ]
}
