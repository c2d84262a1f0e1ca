//! Valid and invalid configuration files, as an operator would write them.

mod bad_files;
mod findings;
mod kinds;

use std::path::Path;

use super::*;

const KEY: &str = "tk_very_secret_0123456789";
const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// The documented file, with the hash of a key in place of the example's, which is refused.
fn documented() -> String {
    include_str!("../../config/postern.toml").replace(&"0".repeat(64), HASH)
}

fn environment() -> Environment {
    let mut environment = Environment::default();
    environment.insert("REFOLD_ORG_KEY", KEY);
    environment.insert("PATH", "/bin");
    environment
}

fn tenant(lines: &str) -> String {
    format!("[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = {{ env = \"REFOLD_ORG_KEY\" }}\n{lines}")
}

fn with_key(lines: &str) -> String {
    tenant(&format!("[[tenants.client_keys]]\nname = \"k\"\nsha256 = \"{HASH}\"\nlinked_accounts = [\"*\"]\n{lines}"))
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("postern.toml"), &environment()).map_err(|error| error.to_string())
}

#[test]
fn the_documented_file_states_the_defaults() {
    let written = parse(&documented()).expect("the file is good");
    let minimal = parse(&with_key("")).expect("the file is good");
    assert_eq!(written.listeners, minimal.listeners);
    assert_eq!(written.admin, minimal.admin);
    assert_eq!(written.server, minimal.server);
    assert_eq!(written.upstream, minimal.upstream);
    assert_eq!(written.query, minimal.query);
    assert_eq!(written.cache, minimal.cache);
    assert_eq!((written.log, written.traces), (minimal.log, minimal.traces));
    let (written, minimal) = (&written.tenants[0], &minimal.tenants[0]);
    assert_eq!(written.freshness, minimal.freshness);
    assert_eq!(written.stale, minimal.stale);
    assert_eq!(written.limits, minimal.limits);
}

#[test]
fn an_error_shows_its_place_and_the_remedy() {
    for (text, first_line) in bad_files::bad_files() {
        let message = parse(&text).expect_err(&text);
        assert_eq!(message.lines().next(), Some(first_line), "{text}");
        assert!(!message.contains(KEY) && !message.contains("tk_literal"), "{message}");
    }
}

#[test]
fn an_error_marks_its_place_in_the_line() {
    let message = parse("# é\n[cache]\n  capacitty = 1\n").expect_err("an unknown key");
    assert_eq!(message.lines().skip(1).collect::<Vec<_>>(), ["    capacitty = 1", "    ^^^^^^^^^"]);
}

#[test]
fn an_error_never_shows_a_misplaced_secret() {
    const SECRET: &str = "tk_live_SECRET1";
    let sha256 = |value: &str| tenant(&format!("[[tenants.client_keys]]\nname = \"k\"\nsha256 = {value}\n"));
    for text in [
        format!("[[tenants]]\norg_kye = \"{SECRET}\""),
        format!("[[tenants]]\norg_kye = '{SECRET}'"),
        format!("[[tenants]]\norg_key = \"{SECRET}"),
        format!("[[tenants]]\norg_kye = {SECRET}"),
        format!("[[tenants]]\norg_kye = {SECRET}=="),
        format!("[[tenants]]\norg_kye=\"Bearer {SECRET}\" # was {SECRET}"),
        format!("[[tenants]]\norg_kye = \"\"\"\n{SECRET}\"\"\""),
        format!("[[tenants]]\n{SECRET}"),
        sha256(&format!("\"{SECRET}\"")),
        sha256(&format!("[\"{SECRET}\"]")),
        format!("[server]\nworkers = \"{SECRET}\""),
        format!("[server]\nworkers = \"\"\"\n{SECRET}\"\"\""),
        format!("[server]\nheader_timeout = \"{SECRET}\""),
        format!("[upstream]\ndialect = \"{SECRET}\""),
        format!("[upstream]\nbase_ulr = \"https://u:{SECRET}@a.example\""),
        format!("[[tenants]]\nid = \"a\"\nmode = \"inject\"\norg_key = {{ env = \"{SECRET}\" }}"),
    ] {
        let message = parse(&text).expect_err(&text);
        assert!(!message.contains("SECRET1"), "{message}");
    }
    let mut environment = environment();
    environment.insert("POSTERN_SERVER_WORKERS", SECRET);
    let refused = Config::parse(&with_key(""), Path::new("postern.toml"), &environment).expect_err("not a number");
    assert!(!refused.to_string().contains("SECRET1"), "{refused}");
}

#[test]
fn a_secret_in_any_wrong_place_is_masked() {
    const SECRET: &str = "tk_live_9SECRET1";
    let listener = |lines: &str| format!("[[listeners]]\naddress = \"127.0.0.1:1\"\n{lines}\n{}", with_key(""));
    let traced =
        |headers: &str| format!("[traces]\nendpoint = \"http://c:4318\"\nheaders = {{ {headers} }}\n{}", with_key(""));
    for text in [
        with_key("").replace("{ env = \"REFOLD_ORG_KEY\" }", &format!("{{ file = \"{SECRET}\" }}")),
        with_key("").replace("{ env = \"REFOLD_ORG_KEY\" }", &format!("{{ file = \"/run/secrets/{SECRET}\" }}")),
        format!("[upstream]\nbase_url = \"https://h?key={SECRET}\""),
        format!("[upstream]\nbase_url = \"https://h/#{SECRET}\""),
        format!("[upstream]\nbase_url = \"ftp://h/{SECRET}\""),
        format!("[upstream]\nproxy = \"u:{SECRET}@proxy\""),
        format!("[upstream]\nmax_body = \"x-api-key:{SECRET}\""),
        traced(&format!("\"x {SECRET}\" = {{ env = \"REFOLD_ORG_KEY\" }}")),
        traced(&format!("{SECRET} = {{ env = \"NOPE\" }}")),
        traced(&format!("x = {{ env = \"{SECRET}\" }}")),
        listener(&format!("session_tokens = \"{SECRET}\"")),
        listener(&format!("trusted = {{ tenant = \"{SECRET}\" }}")),
        listener(&format!("tls = {{ certificate = \"{SECRET}\", key = \"k.pem\" }}")),
        listener(&format!("tls = {{ certificate = \"certs/{SECRET}\", key = \"k.pem\" }}")),
        listener(&format!("[listeners.tls]\ncertificate = \"{SECRET}\"\nkey = \"k.pem\"")),
        listener(&format!("socket = {{ owner = \"{SECRET}\" }}")).replace("127.0.0.1:1", "unix:/run/x"),
        format!("[[listeners]]\naddress = \"{SECRET}:80\""),
        format!("[server.{SECRET}]"),
        format!("{SECRET} = 1"),
        format!("{}[[pass_through]]\nmethods = [\"{SECRET}\"]\npath = \"/x\"", with_key("")),
        format!("{}[[pass_through]]\nmethods = [\"GET\"]\npath = \"/x/{SECRET}*\"", with_key("")),
        format!(
            "{}[[issuers]]\nissuer = \"i\"\naudience = [\"p\"]\ntenant = \"a\"\nkeys = {{ file = \"{SECRET}\" }}",
            with_key("")
        ),
        with_key(&format!("expires = \"{SECRET}\"")),
    ] {
        let message = parse(&text).expect_err(&text);
        assert!(!message.contains("SECRET1"), "{message}");
    }
}

#[test]
fn values_that_are_no_secrets_are_shown() {
    let issuer = "[[issuers]]\nissuer = \"i\"\naudience = [\"p\"]\ntenant = \"a\"\n";
    for (text, shown) in [
        (
            with_key("")
                .replace("{ env = \"REFOLD_ORG_KEY\" }", "{ file = \"/run/secrets/refold/org-key-of-production\" }"),
            "/run/secrets/refold/org-key-of-production",
        ),
        (
            format!("{}{issuer}keys = {{ file = \"certificates/issuer-production.pem\" }}", with_key("")),
            "certificates/issuer-production.pem",
        ),
        (
            "[upstream]\nbase_url = \"https://api.eu-west-1.gocobalt.io/v2?x\"".to_owned(),
            "https://api.eu-west-1.gocobalt.io/v2?x",
        ),
        ("[[listeners]]\naddress = \"postern-0.postern.internal:8080\"".to_owned(), "postern-0.postern.internal:8080"),
        (with_key("").replace("REFOLD_ORG_KEY", "REFOLD_ORG_KEY_2026"), "REFOLD_ORG_KEY_2026 is not set"),
        (with_key("linked_account_pattern = 1"), "unknown key `linked_account_pattern`"),
        (
            format!("{0}\n{0}", with_key("").replace("\"k\"", "\"dashboards-production\"")),
            "`dashboards-production` of tenant",
        ),
        (
            format!("{0}\n{0}", with_key("").replace("id = \"a\"", "id = \"acme_production_eu_1\"")),
            "`acme_production_eu_1` already",
        ),
        (with_key("access = \"administrators\""), "unknown value `administrators`"),
        (
            with_key("burst = 1 # authentication isn't limited otherwise"),
            "burst = 1 # authentication isn't limited otherwise",
        ),
        (with_key("").replace("[\"*\"]", "[\n\"customer-000123\",\n\"customer-00*124\"]"), "\"customer-00*124\""),
    ] {
        let message = parse(&text).expect_err(&text);
        assert!(message.contains(shown), "{message}");
    }
}

#[test]
fn generated_values_are_masked_in_every_setting() {
    for secret in [
        "3f2a9c0d41b8e6775a1c9d20f4b3e8a6c5d7091e2b4f8a60",
        "550e8400-e29b-41d4-a716-446655440000",
        "Zk3vQp9LmT2x",
        "pst_only_letters_here",
        "abcdefghijklmnopqrstuvwxyz",
    ] {
        let twice = format!("{0}\n{0}", with_key("").replace("\"k\"", &format!("\"{secret}\"")));
        let message = parse(&twice).expect_err("two tenants of one name");
        assert!(message.contains("already") && !message.contains(secret), "{message}");
        for line in [format!("id = 1 # {secret}"), format!("linked_accounts = [\n\"{secret}\",\n5]")] {
            let message = parse(&format!("[[tenants]]\n[[tenants.client_keys]]\n{line}")).expect_err("a number");
            assert!(!message.contains(secret), "{message}");
        }
    }
}

#[test]
fn masking_keeps_plain_values_and_columns() {
    let shown = |line: &str| {
        let message = parse(&format!("[server]\n{line}")).expect_err(line);
        message.lines().skip(1).map(|line| line[2..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        shown("secret_key_of_the_tenant = \"tk_live_SECRET1\""),
        ["secret_key_of_the_tenant = \"***************\"", "^^^^^^^^^^^^^^^^^^^^^^^^"]
    );
    assert_eq!(shown("workers = [\"tk_live_SECRET1\", 1], x = 2")[0], "workers = [\"***************\", 1], x = 2");
    for line in [
        "upstream_url = \"https://api.example.com/v2\"",
        "where_it_is = \"/etc/postern/certificates\"",
        "where_it_is = \"./certificates/own\"",
        "how_long_it_takes = \"100000000000ms\"",
        "other_key = { env = \"REFOLD_ORG_KEY\" }",
        "expires_then = 2027-01-01T00:00:00Z",
    ] {
        assert_eq!(shown(line)[0], line);
    }
}

#[test]
fn secrets_are_read_from_files_and_not_shown() {
    let folder = std::env::temp_dir().join(format!("postern-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    std::fs::write(folder.join("key"), "tk_from_file\r\n").expect("a temporary file");
    let text = with_key("").replace("{ env = \"REFOLD_ORG_KEY\" }", "{ file = \"key\" }");
    let config = Config::parse(&text, &folder.join("postern.toml"), &environment()).expect("the file is good");
    assert_eq!(config.tenants[0].org_key.expose(), "tk_from_file");
    assert!(!format!("{config:?}").contains("tk_from_file"));
    std::fs::write(folder.join("key"), "\n").expect("a temporary file");
    let error = Config::parse(&text, &folder.join("postern.toml"), &environment()).expect_err("an empty secret");
    assert!(error.to_string().contains("the secret is empty"), "{error}");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[test]
fn the_environment_overrides_single_settings() {
    let mut environment = environment();
    environment.insert("POSTERN_UPSTREAM_BASE_URL", "http://127.0.0.1:9090");
    environment.insert("POSTERN_SERVER_WORKERS", "3");
    environment.insert("POSTERN_CACHE_FRESHNESS_LIVE", "1s");
    environment.insert("POSTERN_LOG", "debug");
    let parse = |environment: &Environment| {
        Config::parse(&with_key(""), Path::new("postern.toml"), environment).map_err(|error| error.to_string())
    };
    let config = parse(&environment).expect("the overrides are good");
    assert_eq!(config.upstream.base_url.to_string(), "http://127.0.0.1:9090/");
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.tenants[0].freshness.live, std::time::Duration::from_secs(1));
    environment.insert("POSTERN_SERVER_WORKERS", "many");
    let error = parse(&environment).expect_err("not a number");
    assert_eq!(error, "environment variable POSTERN_SERVER_WORKERS: this is a whole number, not a text");
    environment.insert("POSTERN_SERVER_WORKERS", "1");
    environment.insert("POSTERN_SERVER_WORKER", "1");
    let error = parse(&environment).expect_err("no such setting");
    let expected =
        "environment variable POSTERN_SERVER_WORKER: there is no such setting; did you mean POSTERN_SERVER_WORKERS?";
    assert_eq!(error, expected);
}

#[test]
fn a_collector_has_a_path_and_secret_headers() {
    let lines = "[traces]\nendpoint = \"https://otlp.example.com/otlp/\"\nsample = 1\nheaders = { authorization = { env = \"POSTERN_OTLP_TOKEN\" } }\n";
    let mut environment = environment();
    environment.insert("POSTERN_OTLP_TOKEN", "tk_of_the_collector");
    let text = format!("{lines}{}", with_key(""));
    let config = Config::parse(&text, Path::new("postern.toml"), &environment).expect("the file is good");
    let traces = &config.traces;
    let collector = traces.export().expect("there is an endpoint");
    assert_eq!(collector.connection.base_url.to_string(), "https://otlp.example.com/");
    assert_eq!(collector.target.as_str(), "/otlp/v1/traces");
    let mut headers = http::HeaderMap::new();
    collector.add_headers(&mut headers);
    assert_eq!(headers["authorization"], "tk_of_the_collector");
    let shown = config.redacted();
    assert_eq!(shown["traces"]["endpoint"], "https://otlp.example.com/otlp");
    assert_eq!(shown["traces"]["headers"], serde_json::json!({ "authorization": { "env": "POSTERN_OTLP_TOKEN" } }));
    assert!(!format!("{config:?}{shown}").contains("tk_of_the_collector"));
    environment.insert("POSTERN_TRACES_ENDPOINT", "http://127.0.0.1:4318");
    environment.insert("POSTERN_LOG_SAMPLE", "0.5");
    environment.insert("OTEL_EXPORTER_OTLP_HEADERS", "x-team=a%20b , authorization=other,x y=1,nothing,x-break=%0a");
    let config = Config::parse(&text, Path::new("postern.toml"), &environment).expect("the overrides are good");
    headers.clear();
    config.traces.export().expect("there is an endpoint").add_headers(&mut headers);
    assert!(!format!("{config:?}{:?}{headers:?}", config.redacted()).contains("a b"));
    assert_eq!((headers.len(), &headers["x-team"]), (2, &http::HeaderValue::from_static("a b")));
    assert_eq!(headers["authorization"], "tk_of_the_collector", "the file comes first");
    assert_eq!(config.traces.export().expect("there is an endpoint").target.as_str(), "/v1/traces");
    assert!((config.log.sample - 0.5).abs() < f64::EPSILON);
}

#[test]
fn the_commented_examples_are_valid() {
    let text = &documented();
    let from = text.find("# Issuers whose JWTs").expect("the examples are there");
    let (settings, examples) = text.split_at(from);
    let uncommented: String = examples
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
        .fold(String::new(), |all, line| all + line + "\n");
    let config = parse(&format!("{settings}{uncommented}")).expect("the examples are good");
    assert_eq!((config.issuers.len(), config.pass_through.len()), (1, 1));
    assert!(config.cors.is_some());
}

#[test]
fn the_admin_listener_needs_a_token_unless_local() {
    let mut environment = environment();
    let parse = |environment: &Environment, lines: &str| {
        let text = format!("[admin]\n{lines}\n{}", with_key(""));
        Config::parse(&text, Path::new("postern.toml"), environment).expect("the file is good")
    };
    let off = || AdminConfig { address: AdminAddress::Off, token: None };
    assert_eq!(parse(&environment, "address = \"off\"").admin, off());
    for local in ["127.0.0.1:0", "[::1]:9180", "unix:/run/admin.sock"] {
        let admin = parse(&environment, &format!("address = \"{local}\"")).admin;
        let address = admin.listen_address().expect("it is on").to_string();
        assert_eq!((address.as_str(), admin.token), (local, None));
    }
    environment.insert("POSTERN_ADMIN_TOKEN", "s3cret-admin-token");
    let lines = "address = \"0.0.0.0:9180\"\ntoken = { env = \"POSTERN_ADMIN_TOKEN\" }";
    let config = parse(&environment, lines);
    assert!(config.admin.listen_address().is_some());
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("s3cret-admin-token"));
    let shown = config.redacted();
    assert_eq!(shown["admin"]["token"], serde_json::json!({ "env": "POSTERN_ADMIN_TOKEN" }));
    assert!(!shown.to_string().contains("s3cret-admin-token"));
    environment.insert("POSTERN_ADMIN_ADDRESS", "off");
    assert_eq!(parse(&environment, lines).admin, off());
}

#[test]
fn the_redacted_configuration_has_every_documented_setting() {
    fn of_toml<'a>(value: &'a toml::Value, found: &mut Vec<&'a str>) {
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(name, value)| {
                found.push(name);
                of_toml(value, found);
            }),
            toml::Value::Array(values) => values.iter().for_each(|value| of_toml(value, found)),
            _ => {}
        }
    }
    fn of_json<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
        match value {
            serde_json::Value::Object(object) => object.iter().for_each(|(name, value)| {
                found.push(name);
                of_json(value, found);
            }),
            serde_json::Value::Array(values) => values.iter().for_each(|value| of_json(value, found)),
            _ => {}
        }
    }
    let text = &documented();
    let shown = parse(text).expect("the file is good").redacted();
    assert!(!shown.to_string().contains(KEY), "{shown}");
    let written: toml::Value = toml::from_str(text).expect("TOML");
    let (mut settings, mut names) = (Vec::new(), Vec::new());
    of_toml(&written, &mut settings);
    of_json(&shown, &mut names);
    for setting in settings {
        assert!(names.contains(&setting), "{setting}: {shown}");
    }
    let tenant = &shown["tenants"][0];
    assert_eq!(tenant["org_key"], serde_json::json!({ "env": "REFOLD_ORG_KEY" }));
    assert_eq!((&tenant["freshness"]["closed"], &shown["cache"]["capacity"]), (&"10m".into(), &"256MiB".into()));
}

#[test]
fn an_override_reaches_every_kind_of_setting() {
    let mut environment = environment();
    for (name, value) in [
        ("POSTERN_TRACES_SERVICE_NAME", "1234"),
        ("POSTERN_QUERY_IGNORED_PARAMETERS", r#"["a", "b"]"#),
        ("POSTERN_QUERY_UNKNOWN_PARAMETERS", "\"drop\""),
        ("POSTERN_CACHE_CAPACITY", "4096"),
        ("POSTERN_CACHE_DERIVE", "off"),
        ("POSTERN_CORS_ORIGINS", r#"["https://app.example.com"]"#),
        ("POSTERN_ADMIN_TOKEN_ENV", "POSTERN_ADMIN_TOKEN"),
        ("POSTERN_ADMIN_TOKEN", "s3cret-admin-token"),
        ("POSTERN_LIMITS_UPSTREAM_MAX_QUEUE", "7"),
    ] {
        environment.insert(name, value);
    }
    // The file's own value is replaced, even if it is invalid.
    let text = format!("[cache]\ncapacity = \"much\"\n{}", with_key(""));
    let config = Config::parse(&text, Path::new("postern.toml"), &environment).expect("the overrides are valid");
    assert_eq!(config.redacted()["traces"]["service_name"], "1234");
    assert_eq!(config.query.ignored, ["a", "b"]);
    assert_eq!(config.query.unknown, crate::executions::UnknownParameters::Drop);
    assert_eq!((config.cache.capacity, config.cache.derive), (ByteSize::from_bytes(4096), super::Derive::Off));
    assert_eq!(config.cors.expect("the table is added").origins, ["https://app.example.com"]);
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("s3cret-admin-token"));
    assert_eq!(config.tenants[0].limits.upstream.max_queue, 7);
}

#[test]
fn an_error_in_an_overridden_setting_names_the_variable() {
    let refused = |name: &str, value: &str| {
        let mut environment = environment();
        environment.insert(name, value);
        let refused = Config::parse(&with_key(""), Path::new("postern.toml"), &environment);
        refused.expect_err("the override is invalid").to_string()
    };
    assert_eq!(
        refused("POSTERN_ADMIN_ADDRESS", "0.0.0.0:9180"),
        "environment variable POSTERN_ADMIN_ADDRESS: on an address that other hosts can reach, the admin listener needs a `token = { env = \"VARIABLE\" }`"
    );
    assert_eq!(
        refused("POSTERN_UPSTREAM_DIALECT", "v2"),
        "environment variable POSTERN_UPSTREAM_DIALECT: unknown value `v2`; did you mean `v3`? (accepted: documented, v3)"
    );
    assert_eq!(
        refused("POSTERN_CORS_ORIGINS", r#"["https://app.example.com/"]"#),
        "environment variable POSTERN_CORS_ORIGINS: an origin is scheme, host and port alone, like \"https://app.example.com\"; or [\"*\"] for all"
    );
    assert_eq!(
        refused("POSTERN_CORS_MAX_AGE", "5m"),
        "environment variable POSTERN_CORS_MAX_AGE: `origins` is missing in this table"
    );
    assert_eq!(refused("POSTERN_CACHE", "off"), "environment variable POSTERN_CACHE: there is no such setting");
}

#[test]
fn a_tenant_inherits_the_common_settings_that_it_leaves_out() {
    let own = "freshness = { live = \"1s\" }\nlimits = { client = { burst = 7 } }\n";
    let common = "[cache.freshness]\nlive = \"3s\"\nrecent = \"4s\"\n[cache.stale]\nif_error = \"5s\"\n[limits.client]\nburst = 8\nper_second = 9\n";
    let config = parse(&format!("{common}{}", with_key("").replace("[[tenants.c", &format!("{own}[[tenants.c"))));
    let tenant = config.expect("the file is valid").tenants[0].clone();
    let seconds = std::time::Duration::from_secs;
    let expected = Freshness { live: seconds(1), recent: seconds(4), closed: seconds(600) };
    assert_eq!((tenant.freshness, tenant.stale.if_error), (expected, seconds(5)));
    let Rate { per_second, burst } = tenant.limits.client.rate();
    assert_eq!((per_second.get(), burst.get()), (9, 7));
}
