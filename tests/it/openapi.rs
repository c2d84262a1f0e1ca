//! `docs/openapi.yaml` lists the routes, the methods, the parameters and the error codes of the program.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use postern::request::route::Resource;

use crate::support::{EXECUTIONS, World, as_account};

const DOCUMENT: &str = include_str!("../../docs/openapi.yaml");
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE];

/// The lines of the document, each with its indentation, from a line on until a line with at most as much indentation.
fn below(start: &str) -> std::vec::IntoIter<(usize, &'static str)> {
    let indented = |line: &'static str| (line.len() - line.trim_start().len(), line.trim());
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != start).map(indented);
    let (top, _) = lines.next().unwrap_or_else(|| panic!("{start} is there"));
    lines.take_while(|(indent, _)| *indent > top).collect::<Vec<_>>().into_iter()
}

/// The path templates and their methods.
fn operations() -> Vec<(&'static str, Vec<Method>)> {
    let mut found: Vec<(&str, Vec<Method>)> = Vec::new();
    for (indent, line) in below("paths:") {
        match (indent, line.strip_suffix(':')) {
            (2, Some(path)) => found.push((path, Vec::new())),
            (4, Some(method)) => {
                let method = method.to_ascii_uppercase().parse().expect("a method");
                found.last_mut().expect("a path").1.push(method);
            }
            _ => {}
        }
    }
    found
}

/// The error codes of the program with their statuses, from the table in its source and the two errors that Refold documents.
fn codes_of_the_program() -> BTreeSet<(u16, String)> {
    let status = |name: &str| {
        (400..600).filter_map(|code| StatusCode::from_u16(code).ok()).find(|status| {
            let reason = status.canonical_reason().unwrap_or_default();
            reason.to_ascii_uppercase().replace([' ', '-'], "_") == name
        })
    };
    let table = include_str!("../../src/error.rs").lines().filter_map(|line| {
        let (name, code) = line.split_once("=> (StatusCode::")?.1.split_once(", \"")?;
        let status = status(name).unwrap_or_else(|| panic!("{name} is a status"));
        Some((status.as_u16(), code.split_once('"')?.0.to_owned()))
    });
    table.chain([(400, "BAD_REQUEST".to_owned()), (401, "SERVER_ERROR".to_owned())]).collect()
}

#[tokio::test]
async fn the_document_lists_every_route_and_its_methods() {
    let world = World::start().await;
    let documented = operations();
    let paths: BTreeSet<&str> = documented.iter().map(|(path, _)| *path).collect();
    let routes: BTreeSet<&str> = Resource::ALL.into_iter().filter_map(Resource::route).collect();
    assert_eq!(paths, routes);
    for (path, methods) in documented {
        let target = path.replace(['{', '}'], "");
        for method in METHODS {
            let answer = world.gateway.send(method.clone(), &target, &[]).await;
            let is_served = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_served, methods.contains(&method), "{method} {path}: {}", answer.status);
            if !is_served {
                let allowed: BTreeSet<_> = answer.header("allow").split(", ").map(str::to_owned).collect();
                assert_eq!(allowed, methods.iter().map(Method::to_string).collect(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_lists_the_parameters_of_each_resource() {
    let world = World::start().await;
    for (path, target) in [
        (format!("  {EXECUTIONS}:"), EXECUTIONS.to_owned()),
        (
            format!("  {EXECUTIONS}/{{execution_id}}/nodes/{{node_id}}/batches:"),
            format!("{EXECUTIONS}/1/nodes/2/batches"),
        ),
    ] {
        let references = below(&path).filter_map(|(_, line)| line.split_once("'#/components/parameters/"));
        let mut documented = BTreeSet::new();
        for name in references.map(|(_, name)| name.trim_end_matches('\'')) {
            let mut fields = below(&format!("    {name}:")).filter_map(|(_, line)| line.split_once(": "));
            let (_, spelling) = fields.next().expect("the name");
            if fields.next() == Some(("in", "query")) {
                documented.insert(spelling);
            }
        }
        assert!(documented.len() >= 3, "{documented:?}");
        let unknown = world.gateway.get(&format!("{target}?unknown_parameter=1"), &as_account("acme-1")).await;
        let message = unknown.json()["message"].as_str().expect("a message").to_owned();
        let (_, known) = message.split_once("; it has ").unwrap_or_else(|| panic!("{message}"));
        let known: BTreeSet<&str> = known.split([',', ' ']).filter(|name| !matches!(*name, "" | "and")).collect();
        assert_eq!(documented, known, "{path}");
    }
}

#[test]
fn the_document_lists_every_error_code_with_its_status() {
    let mut documented = BTreeSet::new();
    let mut status = None;
    let responses = below("paths:").filter_map(|(_, line)| {
        status = line.strip_prefix('\'').and_then(|line| line.split_once('\'')).map(|(status, _)| status).or(status);
        let (_, name) = line.split_once("'#/components/responses/")?;
        Some((status?, name.trim_end_matches('\'')))
    });
    for (status, name) in responses.collect::<BTreeSet<_>>() {
        let codes = below(&format!("    {name}:")).find_map(|(_, line)| line.strip_prefix("x-error-codes: "));
        for code in codes.into_iter().flat_map(|codes| codes.trim_matches(['[', ']']).split(", ")) {
            documented.insert((status.parse::<u16>().expect("a status"), code.to_owned()));
        }
    }
    assert_eq!(documented, codes_of_the_program());
    assert!(documented.len() >= 31, "{documented:?}");
}
