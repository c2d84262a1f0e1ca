"""The rules. Each yields findings: (path, line, message)."""

import collections
import os
import pathlib
import re

from . import circles, rust

MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 60
MOST_PARAMETERS = 5
RUST_FOLDERS = ("src", "tests", "benches", "fuzz", "interleavings")

# A function may be longer if this comment is in it and its body is one `match` or one list.
TABLE_MARK = "// data table"

_WORDS = re.compile(
    r"\b(?:whoever|somebody|nobody|who{gap}asks|what{gap}is{gap}told|is{gap}told{gap}of)\b".replace("{gap}", r"[\s/!#*]+"),
    re.IGNORECASE,
)
_BEGINNING = re.compile(r"(?:Who|Whose|Whoever|Whatever|What|How|Whether|Where|Those|It)\b")

# Lines that may have a forbidden word: (path, what the line contains). Only for the Unix user `nobody`.
ALLOWED_WORDS = []

# Sleeps that a test needs: (path, what the line contains, reason).
ALLOWED_SLEEPS = []

TEXT_FOLDERS = ("config", "deploy", "docs", ".ci")
TEXT_ENDINGS = {".rs", ".md", ".toml", ".yaml", ".yml", ".json", ".service", ".socket", ".html", ".js", ".css", ".svg", ""}
# Those of others, and the inputs of the fuzz targets.
SKIPPED_FOLDERS = {"target", ".git", "node_modules", "__pycache__", "seeds"}
# This script names the words.
EXEMPT = (".ci/house-rules", ".ci/house_rules/")


class Files:
    """The repository's files; each is read and tokenized once."""

    def __init__(self, top):
        self.top = top
        self.paths = []
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
            self.paths += [(pathlib.Path(folder) / name).relative_to(top).as_posix() for name in sorted(names)]
        self._texts, self._tokens = {}, {}

    def rust(self):
        return [path for path in self.paths if path.endswith(".rs") and path.startswith(tuple(f"{name}/" for name in RUST_FOLDERS))]

    def text(self, path):
        if path not in self._texts:
            self._texts[path] = (self.top / path).read_text()
        return self._texts[path]

    def tokens(self, path):
        if path not in self._tokens:
            self._tokens[path] = rust.tokenize(self.text(path))
        return self._tokens[path]


def circles_between_files(edges):
    """Finds circles of dependencies between files, the shortest first, each with one item for every step."""
    graph = collections.defaultdict(set)
    for a, b in edges:
        graph[a].add(b)
        graph[b]
    found = []
    for component in circles.components(graph):
        for circle in circles.covering(graph, component):
            found.append((len(circle), sorted(component), circle))
    for length, component, circle in sorted(found):
        steps = [edges[step] for step in zip(circle, circle[1:] + circle[:1])]
        way = "".join(f" -> {file} ({step.item})" for file, step in zip(circle[1:] + circle[:1], steps))
        group = f"; one of the circles among {len(component)} files" if len(component) > length else ""
        yield circle[0], steps[0].line, f"circle of {length} files: {circle[0]}{way}{group}"


def order_of_modules(edges, files, order):
    """Finds dependencies on a module that is higher in the list, and modules that the list lacks."""
    rank = {name: position for position, name in enumerate(order)}
    for path in files.paths:
        if path.startswith("src/") and path.endswith(".rs") and _module(path) not in rank:
            yield path, 1, f"module {_module(path)} has no place in the order of modules (.ci/house-rules)"
    for (a, b), edge in edges.items():
        lower, upper = _module(a), _module(b)
        if lower in rank and upper in rank and rank[lower] > rank[upper]:
            yield a, edge.line, f"{lower} depends on {upper}, which is above it: {edge.item} of {b}"


def _module(path):
    return path.split("/")[1].removesuffix(".rs")


def length_of_files(files):
    for path in files.rust():
        lines = files.text(path).count("\n")
        if lines > MOST_LINES_OF_A_FILE:
            yield path, 1, f"file of {lines} lines; a file has at most {MOST_LINES_OF_A_FILE}"


def length_of_functions(files):
    for path in files.rust():
        marks = [token.line for token in files.tokens(path) if token.kind == "comment" and token.text.startswith(TABLE_MARK)]
        tokens = rust.without_comments(files.tokens(path))
        for function in rust.functions(tokens):
            if function.lines <= MOST_LINES_OF_A_FUNCTION:
                continue
            is_marked = any(function.first_line <= line <= function.last_line for line in marks)
            if is_marked and rust.is_table(tokens, function.body):
                continue
            hint = f"; `{TABLE_MARK}` is for one `match` or one list" if is_marked else ""
            message = f"fn {function.name} has {function.lines} lines; a function has at most {MOST_LINES_OF_A_FUNCTION}{hint}"
            yield path, function.first_line, message


def parameters_of_functions(files):
    for path in files.rust():
        for function in rust.functions(rust.without_comments(files.tokens(path))):
            if function.parameters > MOST_PARAMETERS:
                message = f"fn {function.name} takes {function.parameters} parameters; at most {MOST_PARAMETERS} besides self"
                yield path, function.first_line, message


def words(files):
    """Finds forbidden words in comments, texts and documents, and doc comments that begin with a question word."""
    for path in files.paths:
        if path.startswith(EXEMPT) or not _is_prose_checked(path):
            continue
        text = _prose(files, path) if path.endswith(".rs") else files.text(path)
        for match in _WORDS.finditer(text):
            line = files.text(path).count("\n", 0, match.start()) + 1
            words = " ".join(re.split(r"[\s/!#*]+", match.group().lower()))
            if not _is_allowed(files, path, line, ALLOWED_WORDS):
                yield path, line, f'"{words}": name the subject instead'
    for path in files.rust():
        yield from _beginnings(files, path)


def _is_prose_checked(path):
    folder, ending = path.split("/")[0], pathlib.PurePosixPath(path).suffix
    if path.endswith(".md"):
        return True
    return folder in RUST_FOLDERS + TEXT_FOLDERS and ending in TEXT_ENDINGS or "/" not in path and folder in ("Dockerfile", "justfile")


def _prose(files, path):
    """The comments and strings of a Rust file, each in its place; all else is blank."""
    pieces, position = [], 0
    for token in files.tokens(path):
        if token.kind in ("comment", "string"):
            pieces.append(_blank(files.text(path)[position : token.start]))
            pieces.append(files.text(path)[token.start : token.end])
            position = token.end
    return "".join(pieces)


def _blank(code):
    # Code between two comments parts their sentences; white space does not.
    return re.sub(r"[^\s]", "\0", code)


def _beginnings(files, path):
    previous = None
    for token in files.tokens(path):
        is_doc = token.kind == "comment" and token.text.startswith(("///", "//!", "/**", "/*!")) and not token.text.startswith("////")
        continues = previous and token.line == previous.line + 1 and token.text[:3] == previous.text[:3]
        if is_doc and not continues:
            first = _BEGINNING.match(token.text[3:].lstrip(" *\n"))
            if first:
                yield path, token.line, f'doc comment begins with "{first.group()}"; say what the item is or does'
        previous = token if is_doc else None


def sleeps_in_tests(files):
    for path in files.rust():
        if not path.startswith("tests/it/") or path.startswith("tests/it/support/"):
            continue
        tokens = rust.without_comments(files.tokens(path))
        for before, token in zip(tokens, tokens[1:]):
            if token.text == "sleep" and token.kind == "ident" and before.text not in (".", "fn"):
                if not _is_allowed(files, path, token.line, ALLOWED_SLEEPS):
                    yield path, token.line, "a test sleeps; wait for a condition instead (tests/it/support)"


def _is_allowed(files, path, line, allowed):
    text = files.text(path).splitlines()[line - 1]
    return any(path == where and part in text for where, part, *_ in allowed)
