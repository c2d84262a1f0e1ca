"""Tests of the house rules: each case is a small repository in a temporary folder and the findings expected in it."""

import pathlib
import tempfile

_LONG = "fn long() {\n" + "    step();\n" * 60 + "}\n"
_TABLE = "fn table(key: u8) -> u8 {\n    // data table\n    match key {\n" + "        0 => 1,\n" * 60 + "    }\n}\n"

# (name, rule, {path: text}, a part of each finding)
_CASES = [
    (
        "a circle through a re-export is found",
        "circles",
        {
            "src/lib.rs": "pub mod cache;\npub mod gateway;\n",
            "src/cache/mod.rs": "mod entry;\npub use self::entry::Entry;\n",
            "src/cache/entry.rs": "use crate::gateway::Gateway;\npub struct Entry(Box<Gateway>);\n",
            "src/gateway.rs": "use crate::cache::Entry;\npub struct Gateway(Entry);\n",
        },
        ["src/cache/entry.rs:1: circle of 2 files: src/cache/entry.rs -> src/gateway.rs (Gateway) -> src/cache/entry.rs (Entry)"],
    ),
    (
        "a re-export alone is no dependency",
        "circles",
        {
            "src/lib.rs": "mod cache;\npub fn go() {}\n",
            "src/cache/mod.rs": "mod entry;\npub use self::entry::*;\npub const SIZE: u8 = 1;\n",
            "src/cache/entry.rs": "pub const TWICE: u8 = 2 * super::SIZE;\n",
        },
        [],
    ),
    (
        "a re-exported name that the parent uses is a dependency",
        "circles",
        {
            "src/lib.rs": "mod cache;\n",
            "src/cache/mod.rs": "mod entry;\npub use self::entry::*;\npub fn make(size: u8) -> Entry { Entry(size) }\n",
            "src/cache/entry.rs": "pub struct Entry(pub u8);\nfn again() { super::make(1); }\n",
        },
        ["src/cache/entry.rs:2: circle of 2 files"],
    ),
    (
        "a circle through super is found, also in a nested tree",
        "circles",
        {
            "src/lib.rs": "mod limit;\n",
            "src/limit.rs": "mod queue;\nuse self::{queue::{Queue as Line, PATIENCE}};\npub struct Budget(Line);\n",
            "src/limit/queue.rs": "pub struct Queue;\npub const PATIENCE: u8 = 1;\nfn of(budget: &super::Budget) {}\n",
        },
        ["src/limit.rs:2: circle of 2 files: src/limit.rs -> src/limit/queue.rs (Queue) -> src/limit.rs (Budget)"],
    ),
    (
        "a path through an imported module leads to the file that defines the item",
        "circles",
        {
            "src/lib.rs": "mod a;\nmod respond;\n",
            "src/a.rs": "use crate::respond;\npub fn go() { respond::error() }\n",
            "src/respond/mod.rs": "mod error;\npub(crate) use error::error;\npub fn use_a() { crate::a::go() }\n",
            "src/respond/error.rs": "pub fn error() {}\n",
        },
        [],
    ),
    (
        "a function that shares its module's name is found behind an imported module",
        "circles",
        {
            "src/lib.rs": "mod a;\nmod respond;\n",
            "src/a.rs": "use crate::respond;\npub fn go() { respond::error() }\n",
            "src/respond/mod.rs": "mod error;\npub(crate) use error::error;\n",
            "src/respond/error.rs": "pub fn error() { crate::a::go() }\n",
        },
        ["src/a.rs:2: circle of 2 files: src/a.rs -> src/respond/error.rs (error) -> src/a.rs (go)"],
    ),
    (
        "a circle of three through globs, enum variants and a serde path is found",
        "circles",
        {
            "src/lib.rs": "mod a;\nmod b;\nmod c;\n",
            "src/a.rs": "use crate::b::*;\npub fn first(kind: Kind) { match kind { Kind::One => () } }\n",
            "src/b.rs": "pub enum Kind { One }\nfn f() {\n    use crate::c::C;\n    C.call();\n}\n",
            "src/c.rs": "#[serde(with = \"crate::a::first\")]\npub struct C;\n",
        },
        ["src/a.rs:2: circle of 3 files: src/a.rs -> src/b.rs (Kind) -> src/c.rs (C) -> src/a.rs (first)"],
    ),
    (
        "a circle that only tests have is ignored",
        "circles",
        {
            "src/lib.rs": "mod a;\nmod b;\n",
            "src/a.rs": "use crate::b::B;\npub struct A(B);\n#[cfg(test)]\nmod tests;\n",
            "src/a/tests.rs": "use crate::b::B;\n",
            "src/b.rs": "pub struct B;\n#[cfg(test)]\nuse crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"
            "impl B {\n    #[cfg(test)]\n    fn a(&self) -> crate::a::A { todo!() }\n}\n",
        },
        [],
    ),
    (
        "comments and strings name nothing",
        "circles",
        {
            "src/lib.rs": "mod a;\nmod b;\n",
            "src/a.rs": "use crate::b::B;\npub struct A(B);\n",
            "src/b.rs": "//! See [`crate::a::A`].\n/* crate::a::A /* nested */ crate::a::A */\npub struct B;\nconst X: &str = r#\"crate::a::A\"#;\n",
        },
        [],
    ),
    (
        "a dependency on a higher module is found, and an unknown module",
        "order",
        {
            "src/lib.rs": "mod cache;\nmod gateway;\nmod attic;\n",
            "src/cache.rs": "use crate::gateway::Gateway;\n",
            "src/gateway.rs": "pub struct Gateway;\n",
            "src/attic.rs": "",
        },
        ["src/attic.rs:1: module attic has no place", "src/cache.rs:1: cache depends on gateway"],
    ),
    (
        "long files and functions are found, tables are not",
        "length",
        {
            "src/lib.rs": _LONG + _TABLE,
            "tests/it/main.rs": "\n" * 501,
            "benches/b.rs": _LONG.replace("{\n", "{\n    // data table\n", 1) + _LONG.replace("    step();\n", "", 2),
        },
        ["benches/b.rs:1: fn long has 63 lines", "src/lib.rs:1: fn long has 62 lines", "tests/it/main.rs:1: file of 501 lines"],
    ),
    (
        "six parameters are found, five beside self are not",
        "params",
        {
            "src/lib.rs": "fn six<F: Fn(u8) -> u8>(a: u8, b: (u8, u8), c: Vec<(u8, u8)>, d: HashMap<u8, u8>, e: F, f: [u8; 2]) {}\n"
            "trait T { fn five(&mut self, a: u8, b: fn(u8, u8), c: u8, d: u8, e: u8,); }\n",
        },
        ["src/lib.rs:1: fn six takes 6 parameters"],
    ),
    (
        "forbidden words are found in prose, not in code",
        "words",
        {
            "src/lib.rs": "/// What it is.\n/// Whatever follows.\nfn nobody() {}\n// The caller who\n// asks.\nfn f() -> &'static str { \"Somebody\" }\n",
            "README.md": "It is told\nof the change.\n",
            "deploy/unit.service": "# whoever\n",
        },
        [
            'README.md:1: "is told of"',
            'deploy/unit.service:1: "whoever"',
            'src/lib.rs:1: doc comment begins with "What"',
            'src/lib.rs:4: "who asks"',
            'src/lib.rs:6: "somebody"',
        ],
    ),
    (
        "a sleep is found in a test, not in its support",
        "sleeps",
        {
            "src/lib.rs": "",
            "tests/it/drain.rs": "fn t() { std::thread::sleep(D); clock.sleep(D); }\n",
            "tests/it/support/wait.rs": "fn t() { std::thread::sleep(D); }\n",
        },
        ["tests/it/drain.rs:1: a test sleeps"],
    ),
]


def run(findings):
    """Runs all cases; the result is the process's exit code."""
    failed = 0
    for name, rule, files, expected in _CASES:
        with tempfile.TemporaryDirectory() as folder:
            top = pathlib.Path(folder)
            for path, text in files.items():
                (top / path).parent.mkdir(parents=True, exist_ok=True)
                (top / path).write_text(text)
            found = [f"{path}:{line}: {message}" for path, line, message in findings(top, {rule})]
        if len(found) != len(expected) or not all(line.startswith(part) for line, part in zip(found, expected)):
            print(f"FAILED: {name}\n  found:    {found}\n  expected: {expected}")
            failed += 1
    print(f"house rules: {len(_CASES) - failed} of {len(_CASES)} cases as expected")
    return 1 if failed else 0
